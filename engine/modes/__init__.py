"""One module for each `--mode` of run.py but training and evaluation, which are `engine.experiment`."""
