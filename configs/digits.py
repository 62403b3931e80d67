"""Real spoken digits (the free-spoken-digit-dataset recordings, 8 kHz): four speakers train, a fifth is never heard.

    python run.py --config=configs/digits.py:FOLDER
    python run.py --config=configs/digits.py:FOLDER,SPEAKER
    python run.py --config=configs/digits.py:FOLDER,SPEAKER,SYNTHETIC

FOLDER holds manifest.jsonl and its recordings. SPEAKER is the one to hold out; without a name it is yweweler. With
SYNTHETIC a third of the audio of each epoch is synthetic; it is a folder made by

    python -m data.synthetic --output=SYNTHETIC --num_train=3600 --sentence_ratio=0

The training starts from random weights; --config.model.init=runs/quickstart takes those of the quickstart, as
docs/results/0175 did, with SYNTHETIC. Each of the ten words is one token. Digits of one speaker are joined into rows of
up to three and altered anew in each epoch, as other rooms, microphones and lines would.
"""

from ml_collections import ConfigDict

from configs import base

HELD_OUT_SPEAKER = "yweweler"


def get_config(arguments: str = "datasets/fsdd") -> ConfigDict:
    """Returns the config; `arguments` is FOLDER, FOLDER,SPEAKER or FOLDER,SPEAKER,SYNTHETIC."""
    folder, held_out, synthetic, *more = (part.strip() for part in f"{arguments},,".split(","))
    if any(more):
        raise ValueError(f"{arguments!r} has more than three parts: give FOLDER,SPEAKER,SYNTHETIC")
    manifest = f"{folder}/manifest.jsonl"
    config = base.get_small_config()
    config.model.hidden_dropout = 0.1
    config.model.attention_dropout = 0.1
    config.model.activation_dropout = 0.1

    unseen = {"format": "jsonl", "input": manifest, "speakers": (held_out or HELD_OUT_SPEAKER,)}
    config.data.train.format = "jsonl"
    config.data.train.input = manifest
    config.data.train.exclude_speakers = unseen["speakers"]
    config.data.vocab = "words"
    if synthetic:
        config.data.prepare_command = (
            f"python -m data.synthetic --output={synthetic} --num_train=3600 --sentence_ratio=0"
        )
        config.data.more_train["synthetic"] = base.get_train_set(
            format="librispeech", input=synthetic, split="train", weight=0.5
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
