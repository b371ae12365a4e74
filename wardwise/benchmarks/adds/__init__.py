"""Benchmarks of the dispensing machine, one file for each kind of work."""
