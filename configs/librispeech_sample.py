"""wav2vec 2.0 BASE at full size on a LibriSpeech folder, from random weights: five updates that show what one costs.

    python run.py --config=configs/librispeech_sample.py:FOLDER --mode=train

FOLDER holds LibriSpeech splits, train-clean-5 among them. Two rows of 246,000 samples (15.4 s, as the tutorial) in two
microbatches, bfloat16. On two cores an update takes some ten seconds; nothing can be recognized after five.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(corpus: str = "datasets/LibriSpeech") -> ConfigDict:
    """Returns the config; `corpus` is the folder of the splits."""
    config = base.get_config()
    config.model.init = ""
    config.model.freeze_feature_encoder = False
    config.data.train.format = "librispeech"
    config.data.train.input = corpus
    config.data.train.split = "train-clean-5"
    config.data.bucket_boundaries_samples = (246_000,)
    # Nearly full rows: the losses of five updates can only be compared between rows of like lengths.
    config.data.min_duration_secs = 13.0
    config.data.max_duration_secs = 246_000 / 16_000
    config.data.eval = ConfigDict()
    config.train.global_batch_size = 2
    config.train.microbatch_rows = 1
    config.train.num_updates = 5
    config.train.schedule = "constant"
    config.train.learning_rate = 1e-4
    config.train.warmup_updates = 0
    config.train.hold_updates = 0
    config.train.log_every_updates = 1
    config.checkpoint.every_updates = 5
    config.checkpoint.keep = 1
    return config
