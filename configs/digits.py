"""Real spoken digits (the free-spoken-digit-dataset recordings, 8 kHz): four speakers train, a fifth is never heard.

    python run.py --config=configs/digits.py:FOLDER --workdir=runs/digits
    python run.py --config=configs/digits.py:FOLDER --workdir=runs/digits-fine-tuned --config.model.init=runs/quickstart

FOLDER holds manifest.jsonl and its recordings. The first command starts from random weights, the second from the
quickstart's model. Digits of one speaker are joined into rows of up to six, anew in each epoch.
"""

from ml_collections import ConfigDict

from configs import base

HELD_OUT_SPEAKER = "yweweler"


def get_config(corpus: str = "datasets/fsdd") -> ConfigDict:
    """Returns the config; `corpus` is the folder of the recordings."""
    manifest = f"{corpus}/manifest.jsonl"
    config = base.get_small_config()
    config.model.init_head = True
    config.model.hidden_dropout = 0.1
    config.model.attention_dropout = 0.1
    config.model.activation_dropout = 0.1
    config.model.mask_time_prob = 0.15
    config.model.mask_feature_prob = 0.2

    config.data.train.format = "jsonl"
    config.data.train.input = manifest
    config.data.train.exclude_speakers = (HELD_OUT_SPEAKER,)
    config.data.concat_max_utterances = 6
    config.data.concat_gap_secs = 0.1
    config.data.speed_factors = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2)
    unseen = {"format": "jsonl", "input": manifest, "speakers": (HELD_OUT_SPEAKER,)}
    # Rows of one to five digits; and each recording by itself.
    config.data.eval["joined"] = base.get_eval_set(**unseen, concat_max_utterances=5, concat_gap_secs=0.1)
    config.data.eval["single"] = base.get_eval_set(**unseen)

    config.train.num_updates = 1_500
    config.train.learning_rate = 1e-3
    config.train.warmup_updates = 100
    config.train.hold_updates = 300
    config.eval.every_updates = 250
    config.eval.best_metric_set = "joined"
    return config
