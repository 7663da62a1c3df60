"""The numbers of docs/results, run by run: python -m benchmarks.reproduce SUITE."""
