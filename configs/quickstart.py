"""A small recognizer from random weights in minutes on two CPU cores, on synthetic speech.

    make quickstart

speaks the corpus with eSpeak NG (`python -m data.synthetic`), then runs this config and transcribes three unseen files.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(corpus: str = "runs/quickstart-corpus") -> ConfigDict:
    """Returns the config.

    Args:
        corpus: Folder made by `python -m data.synthetic`; given after a colon, `--config=configs/quickstart.py:FOLDER`.
    """
    config = base.get_config()
    config.model.preset = "tiny"
    config.model.init = ""
    config.model.freeze_feature_encoder = False
    config.model.hidden_dropout = 0.05
    config.model.activation_dropout = 0.05
    config.model.layer_drop = 0.0
    config.model.mask_time_prob = 0.1
    config.model.mask_time_length = 5
    config.model.mask_feature_prob = 0.1
    config.model.mask_feature_length = 16

    config.data.train.format = "librispeech"
    config.data.train.input = corpus
    config.data.train.split = "train"
    config.data.eval = ConfigDict()
    config.data.eval["unseen-voices"] = base.get_eval_set(format="librispeech", input=corpus, split="eval")
    config.data.num_buckets = 6

    config.train.global_batch_size = 32
    config.train.accum_steps = 1
    config.train.num_updates = 900
    config.train.precision = "float32"
    config.train.optimizer = "adamw"
    config.train.learning_rate = 1.5e-3
    config.train.schedule = "linear"
    config.train.warmup_updates = 60
    config.train.hold_updates = 240
    config.train.weight_decay = 0.01
    config.train.clip_norm = 1.0
    config.train.log_every_updates = 20

    config.eval.every_updates = 300
    config.eval.batch_size = 32
    config.eval.best_of = "unseen-voices"
    config.checkpoint.every_updates = 100
    return config
