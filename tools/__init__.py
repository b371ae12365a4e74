"""Scripts that look after the repository; no part of either library."""
