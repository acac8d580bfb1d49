"""Networks that fail on purpose, for the tests and for the benchmarks."""
