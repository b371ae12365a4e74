"""What the studies have in common: runs that are made once, and the rows that they print."""
