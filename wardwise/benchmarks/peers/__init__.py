"""Other solvers on our instances, for the benchmarks; needs the dev dependencies."""
