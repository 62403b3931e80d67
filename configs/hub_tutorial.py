"""The recipe of TF-Hub's tutorial on wav2vec 2.0: its SavedModel, a fresh CTC head, Adam at 5e-5, rows of 15.4 s.

    python run.py --config=configs/hub_tutorial.py:HANDLE --workdir=runs/hub_tutorial

HANDLE is a URL of TF-Hub or a folder that `python -m models.hub_export` wrote;
docs/guide/tensorflow_hub.md says what each can do.
Two rows an update, nothing frozen, float32, as the tutorial (https://www.tensorflow.org/hub/tutorials/wav2vec2_saved_model_finetuning).
Its audio is LibriSpeech dev-clean; test-clean tells here how well it went. Other audio:
--config.data.train.input=..., --config.data.eval.test_clean.input=...
"""

from ml_collections import ConfigDict

from configs import base

NUM_SAMPLES = 246_000  # that the published SavedModel takes


def get_config(handle: str = "https://tfhub.dev/vasudevgupta7/wav2vec2/1") -> ConfigDict:
    """Returns the config; `handle` is the SavedModel."""
    config = base.get_config()
    config.model.source = "hub"
    config.model.hub_handle = handle
    config.model.init = ""
    config.model.freeze_feature_encoder = False

    config.data.prepare_command = (
        "python -m data.download --split=dev-clean --output=datasets, for datasets/LibriSpeech; test-clean alike"
    )
    config.data.train.format = "librispeech"
    config.data.train.input = "datasets/LibriSpeech"
    config.data.train.split = "dev-clean"
    config.data.bucket_boundaries_samples = (NUM_SAMPLES,)
    config.data.max_duration_secs = NUM_SAMPLES / 16_000
    config.data.eval = ConfigDict()
    config.data.eval["test_clean"] = base.get_eval_set(
        format="librispeech", input="datasets/LibriSpeech", split="test-clean"
    )

    config.train.global_batch_size = 2
    config.train.microbatch_rows = 2
    config.train.num_updates = 4_000  # three epochs
    config.train.precision = "float32"
    config.train.optimizer = "adam"
    config.train.learning_rate = 5e-5
    config.train.schedule = "constant"
    config.train.warmup_updates = 0
    config.train.hold_updates = 0
    config.train.beta_2 = 0.999
    config.train.epsilon = 1e-7
    config.eval.batch_size = 4
    config.eval.best_metric_set = "test_clean"
    return config
