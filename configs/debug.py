"""Everything once in about a minute, to see that a change still runs: a tiny model, 64 synthetic utterances, 20 updates.

    python -m data.synthetic --output=runs/debug-corpus --num_train=64 --num_eval=16
    python run.py --config=configs/debug.py
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config(corpus: str = "runs/debug-corpus") -> ConfigDict:
    """Returns the config; `corpus` is a folder made by `python -m data.synthetic`."""
    config = quickstart.get_config(corpus)
    config.data.num_buckets = 2
    config.train.global_batch_size = 8
    config.train.num_updates = 20
    config.train.warmup_updates = 5
    config.train.hold_updates = 5
    config.train.log_every_updates = 5
    config.eval.every_updates = 10
    config.eval.batch_size = 8
    config.checkpoint.every_updates = 5
    return config
