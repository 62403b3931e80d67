"""Real spoken digits (the free-spoken-digit-dataset recordings, 8 kHz): four speakers train, a fifth is never heard.

    python -m data.synthetic --output=runs/digits-corpus --num_train=3600 --sentence_ratio=0
    python run.py --config=configs/digits.py:FOLDER --workdir=runs/digits --config.model.init=runs/quickstart

FOLDER holds manifest.jsonl and its recordings; FOLDER,SPEAKER holds out another speaker than yweweler. Where
runs/digits-corpus exists, a third of the audio of each epoch is synthetic. Without model.init the training starts from
random weights. Each of the ten words is one token. Digits of one speaker are joined into rows of up to three and
altered anew in each epoch, as other rooms, microphones and lines would (docs/results/0175).
"""

import os

from ml_collections import ConfigDict

from configs import base

HELD_OUT_SPEAKER = "yweweler"
SYNTHETIC = "runs/digits-corpus"


def get_config(corpus: str = "datasets/fsdd") -> ConfigDict:
    """Returns the config; `corpus` is FOLDER, or FOLDER,SPEAKER with the speaker to hold out."""
    corpus, _, held_out = corpus.partition(",")
    manifest = f"{corpus}/manifest.jsonl"
    config = base.get_small_config()
    config.model.hidden_dropout = 0.1
    config.model.attention_dropout = 0.1
    config.model.activation_dropout = 0.1

    unseen = {"format": "jsonl", "input": manifest, "speakers": (held_out or HELD_OUT_SPEAKER,)}
    config.data.train.format = "jsonl"
    config.data.train.input = manifest
    config.data.train.exclude_speakers = unseen["speakers"]
    config.data.vocab = "words"
    if os.path.isdir(SYNTHETIC):
        config.data.more_train["synthetic"] = base.get_train_set(
            format="librispeech", input=SYNTHETIC, split="train", weight=0.5
        )
        config.data.sampling_alpha = 0.0
    config.data.concat_max_utterances = 3
    config.data.concat_max_secs = 4.0
    config.data.concat_gap_secs = 0.1
    config.data.speed_factors = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2)
    config.data.augment = base.get_augment(
        silence_prob=0.5,
        room_prob=0.4,
        noise_prob=0.6,
        noise_snr_db=(3.0, 30.0),
        equalizer_prob=0.8,
        low_pass_prob=0.1,
        low_pass_hz=(3000.0, 7000.0),
        telephone_prob=0.2,
        telephone_codecs=("none", "mulaw"),
    )
    # Rows of one to five digits; and each recording by itself.
    config.data.eval["joined"] = base.get_eval_set(**unseen, concat_max_utterances=5, concat_gap_secs=0.1)
    config.data.eval["single"] = base.get_eval_set(**unseen)

    config.train.global_batch_size = 24
    config.train.microbatch_rows = 24
    config.train.num_updates = 4_000
    config.train.learning_rate = 2e-3
    config.train.warmup_updates = 60
    config.train.hold_updates = 1_200
    config.train.ema_decay = 0.998
    config.eval.every_updates = 500
    config.eval.best_metric_set = "single"
    return config
