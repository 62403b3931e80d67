"""Evaluation loops and error rates."""
