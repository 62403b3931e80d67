"""Everything once in a minute, to see that a change still runs: tiny model, 64 synthetic utterances, 20 updates.

python -m data.synthetic --output=runs/debug-corpus --num_train=64 --num_eval=16
python run.py --config=configs/debug.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config(corpus: str = "runs/debug-corpus") -> ConfigDict:
    """Returns the config; `corpus` is a folder made by `python -m data.synthetic`."""
    config = base.get_small_config()
    config.data.prepare_command = f"python -m data.synthetic --output={corpus} --num_train=64 --num_eval=16"
    config.data.train.format = "librispeech"
    config.data.train.input = corpus
    config.data.train.split = "train"
    config.data.num_buckets = 2
    config.data.eval["unseen_voices"] = base.get_eval_set(format="librispeech", input=corpus, split="eval")
    config.train.global_batch_size = 8
    config.train.num_updates = 20
    config.train.warmup_updates = 5
    config.train.hold_updates = 5
    config.train.log_every_updates = 5
    config.eval.every_updates = 10
    config.eval.batch_size = 8
    config.eval.best_metric_set = "unseen_voices"
    config.checkpoint.every_updates = 5
    return config
