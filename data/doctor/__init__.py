"""Checks a corpus and reports its findings, for `--mode=doctor` and before training."""
