"""The published recipes for ten minutes, one, ten and a hundred hours of transcribed speech.

    python run.py --config=configs/low_resource.py:1h
    python run.py --config=configs/low_resource.py:1h,TRAIN,DEV
    python run.py --config=configs/low_resource.py:10m-large,ALL

The first part is the recipe: 10m, 1h, 10h or 100h for wav2vec 2.0 BASE, and with -large for LARGE (LV-60k). TRAIN, DEV
and ALL are manifests (.jsonl, .csv, .tsv) or folders of `python -m data.prepare`; without DEV the speakers of a tenth
of ALL are held out. The run goes to runs/low_resource-RECIPE-NAME, with NAME made of TRAIN.

Any other weights start it too: --config.model.init=hf://OWNER/NAME, a workdir, or a converted folder; take the -large
recipe for models of 24 layers and more. The texts are English here, in the 32 tokens of the published models. For
another language give --config.model.init=hf://facebook/wav2vec2-xls-r-300m --config.data.vocab=auto
--config.data.text_normalization=auto; ten minutes of text may lack a letter, so make the vocabulary of more text with
python -m data.vocab. docs/guide/recipes.md says what to take, what it costs and what to expect.
"""

from ml_collections import ConfigDict

from configs import base

# Of fairseq, examples/wav2vec/config/finetuning: base_10m.yaml ... base_100h.yaml and vox_10m.yaml ... vox_100h.yaml.
# The paper's table 6 (https://arxiv.org/abs/2006.11477, appendix B) has 12,000 updates for 10 minutes, 50,000 for 100
# hours, and time masks of 0.75 for 10 minutes and 1 hour, 0.65 for 10 hours and 0.5 for 100 hours, for both sizes.
_FIELDS = (
    "num_updates", "learning_rate", "mask_time_prob", "mask_feature_prob", "layer_drop", "freeze_encoder_updates",
    "max_batch_secs", "num_buckets",
)  # fmt: skip
RECIPES = {
    name: dict(zip(_FIELDS, values, strict=True))
    for name, values in {
        "10m": (13_000, 5e-5, 0.65, 0.25, 0.1, 10_000, 1_000.0, 1),
        "1h": (13_000, 5e-5, 0.65, 0.25, 0.1, 10_000, 1_600.0, 1),
        "10h": (20_000, 5e-5, 0.65, 0.5, 0.05, 10_000, 1_600.0, 8),
        "100h": (80_000, 3e-5, 0.65, 0.5, 0.1, 0, 1_600.0, 8),
        "10m-large": (13_000, 1e-4, 0.65, 0.25, 0.1, 10_000, 1_000.0, 1),
        "1h-large": (13_000, 3e-4, 0.75, 0.25, 0.1, 10_000, 1_600.0, 1),
        "10h-large": (20_000, 1e-4, 0.75, 0.25, 0.1, 10_000, 1_600.0, 8),
        "100h-large": (80_000, 3e-5, 0.5, 0.5, 0.1, 10_000, 1_600.0, 8),
    }.items()
}


def get_config(arguments: str = "1h") -> ConfigDict:
    """Returns the config; `arguments` is RECIPE, RECIPE,ALL or RECIPE,TRAIN,DEV."""
    name, _, manifests = (part.strip() for part in arguments.partition(","))
    if name not in RECIPES:
        raise ValueError(
            f"no recipe {name!r}: give one of {', '.join(RECIPES)}, then the manifests, as in 1h,TRAIN,DEV"
        )
    recipe, is_large = RECIPES[name], name.endswith("-large")
    train, _, dev = (part.strip() for part in (manifests or "datasets/low_resource/train.jsonl").partition(","))
    config = base.get_config()
    # Two corpora or recipes, two workdirs.
    config.name = f"low_resource-{name}-{base.name_after(train)}"
    config.model.init = "hf://facebook/wav2vec2-large-lv60" if is_large else "hf://facebook/wav2vec2-base"
    for field in ("mask_time_prob", "mask_feature_prob", "layer_drop", "freeze_encoder_updates"):
        config.model[field] = recipe[field]

    config.data.prepare_command = ""
    config.data.max_duration_secs = 30.0  # of so few utterances none is left out for a long sentence
    # 3.2 million samples x 2 GPUs x 4 for BASE and 1.28 million x 4 x 5 for LARGE: 1,600 s of audio an update. Ten
    # minutes are one update, with padding; more would be rows of weight 0. The rows of an update are of one bucket, so
    # that with several of them a small corpus would have small updates.
    config.data.max_batch_secs = recipe["max_batch_secs"]
    config.data.row_multiple = 8
    config.data.num_buckets = recipe["num_buckets"]
    base.set_corpora(config.data, train, dev)

    config.train.microbatch_secs = 200.0  # of audio at a time, what one of the published recipe's GPUs took
    config.train.num_updates = recipe["num_updates"]
    config.train.learning_rate = recipe["learning_rate"]
    config.train.warmup_updates = config.train.hold_updates = 0
    config.train.warmup_ratio, config.train.hold_ratio = 0.1, 0.4  # phase_ratio: [0.1, 0.4, 0.5]
    config.eval.every_updates = 1_000
    config.eval.best_metric_set = "dev"
    return config
