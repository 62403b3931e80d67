"""Checkpoints: saving, finding, verifying and restoring them."""
