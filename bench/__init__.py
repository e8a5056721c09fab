"""Benchmarks whose results are committed: `python -m bench`."""
