"""A small model learns a handful of utterances by heart: the quickest proof that data, loss and decoding fit together.

    python run.py --config=configs/overfit.py:MANIFEST

MANIFEST is a JSON-lines manifest of at most some dozens of utterances. They are trained on and evaluated; the WER must
reach 0. tests/test_real_speech.py does it with sixteen utterances of LibriSpeech.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(manifest: str = "manifest.jsonl") -> ConfigDict:
    """Returns the config for one manifest."""
    config = base.get_small_config()
    config.model.mask_time_prob = 0.0

    config.data.train.format = "jsonl"
    config.data.train.input = manifest
    config.data.num_buckets = 2
    config.data.allow_train_eval_overlap = True  # the whole point
    config.data.eval["same"] = base.get_eval_set(format="jsonl", input=manifest)

    config.train.global_batch_size = 8
    config.train.num_updates = 500
    config.train.learning_rate = 2e-3
    config.train.warmup_updates = 40
    config.train.hold_updates = 260
    config.train.weight_decay = 0.0
    config.train.log_every_updates = 20
    config.eval.every_updates = 100
    config.eval.batch_size = 8
    config.eval.best_metric_set = "same"
    return config
