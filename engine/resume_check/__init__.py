"""Interrupts runs and compares them, for `--mode=verify_resume`."""
