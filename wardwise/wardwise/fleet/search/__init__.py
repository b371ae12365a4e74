"""Search over chains of trips: one compiled insertion, and what is built on it."""
