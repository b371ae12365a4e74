"""What the benchmarks share: clocks, rows, and the other libraries' ways to do the same work."""
