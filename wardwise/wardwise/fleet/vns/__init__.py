"""Variable neighbourhood search over days with batteries, several trips and promises."""
