"""Evaluation loops and the error rates that come out of them."""
