"""One module for each `--mode` of run.py; `train_and_eval` is `train`."""
