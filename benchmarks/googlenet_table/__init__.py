"""The parts of `benchmarks/l0_googlenet.py`: what its rows are, what came of them, and how that is shown."""
