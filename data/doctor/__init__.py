"""What is wrong with a corpus: checks, findings and the report of `--mode=doctor`."""
