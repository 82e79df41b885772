"""Benchmarks against peers, run by `make bench`; docs/explanation/performance.md shows them."""
