"""The models of `benchmarks/coverage.py`: a small one of each family, and inputs for it."""
