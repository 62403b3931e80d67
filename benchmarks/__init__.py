"""Benchmarks, each a runnable module; docs/results keeps their results."""
