"""A recognizer for a language of your own, from a multilingual model that was pre-trained on speech alone.

    python run.py --config=configs/new_language.py:TRAIN,DEV
    python run.py --config=configs/new_language.py:ALL

TRAIN, DEV and ALL are manifests (.jsonl, .csv, .tsv, .parquet), folders of `python -m data.prepare` or datasets of the
Hugging Face Hub (hf://datasets/OWNER/NAME); without DEV the speakers of a tenth of ALL are held out. Vocabulary and
normalization are made of the training texts. The run goes to runs/new_language-NAME, with NAME made of TRAIN.

Meant for 1 to 100 hours on one GPU of 16 to 24 GB (docs/guide/own_data.md). That is not measured here: there are no
published weights and no GPU. What is measured, a small model on two cores, stands in docs/results/0162.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(manifests: str = "datasets/new_language/train.jsonl") -> ConfigDict:
    """Returns the config; `manifests` is TRAIN,DEV, or one manifest that is divided by speakers."""
    train, _, dev = (part.strip() for part in manifests.partition(","))
    config = base.get_config()
    # Two languages, two workdirs.
    config.name = f"new_language-{base.name_after(train)}"
    config.model.init = "hf://facebook/wav2vec2-xls-r-300m"
    config.model.layer_drop = 0.0
    config.model.activation_dropout = 0.0
    config.model.attention_dropout = 0.1
    config.model.hidden_dropout = 0.1
    config.model.mask_time_prob = 0.3
    config.model.mask_feature_prob = 0.2

    config.data.prepare_command = ""
    config.data.vocab = "auto"
    config.data.text_normalization = "auto"
    config.data.max_batch_secs = 80.0
    config.data.row_multiple = 4
    base.set_corpora(config.data, train, dev)

    config.train.microbatch_secs = 20.0
    config.train.num_updates = 0
    config.train.num_epochs = 30.0
    config.train.optimizer = "adamw"
    config.train.learning_rate = 1e-4
    config.train.warmup_updates = 0
    config.train.hold_updates = 0
    config.train.warmup_ratio = 0.1
    config.train.hold_ratio = 0.4
    config.train.weight_decay = 0.01
    config.train.clip_norm = 1.0
    config.train.log_every_updates = 10
    config.eval.every_updates = 0
    config.eval.every_epochs = 3.0
    config.eval.best_metric_set = "dev"
    config.checkpoint.every_updates = 0
    config.checkpoint.every_epochs = 1.0
    return config
