"""configs/low_resource.py: every recipe is complete, has the published values, and makes a plan of a small corpus."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from configs import base, low_resource
from data.batches.datasets import build_eval_data, build_train_data
from data.text.tokenizer import load_tokenizer
from engine.config import builders, config_file, validation
from engine.config.field_flags import FlagError
from engine.config.flags import default_workdir
from tests.helpers.experiment_toys import make_parts

PARTS = make_parts(build_tokenizer=load_tokenizer, build_train_data=build_train_data, build_eval_data=build_eval_data)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hours")
    lines = []
    for number in range(40):
        samples = np.random.default_rng(number).uniform(-0.1, 0.1, 1_600 * (1 + number % 8))
        soundfile.write(folder / f"{number}.wav", samples, 16_000)
        lines.append({"audio_filepath": f"{number}.wav", "text": "HELLO YOU", "speaker": f"s{number % 10}"})
    (folder / "all.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(folder / "all.jsonl")


@pytest.mark.parametrize("recipe", low_resource.RECIPES)
def test_a_recipe_is_complete_valid_and_has_a_plan(recipe, manifest):
    config = config_file.load_config(f"configs/low_resource.py:{recipe},{manifest}")
    config_file._check_shape("low_resource.py", config, base.get_config(), {config_file.EVAL: base.get_eval_set()})
    validation.check_values(config)
    validation.check_frozen(config)
    data = builders.build_train_data(config, PARTS, load_tokenizer(""))
    # A tenth of the speakers is held out, and so little is one update.
    assert (data.num_utterances, data.num_left_out, len(data.utterance_ids_of(0))) == (36, 0, 36)
    dev = builders.build_eval_set(config, PARTS, load_tokenizer(""), "dev")
    assert len(dev.references) == 4


@pytest.mark.parametrize(
    ("recipe", "updates", "rate", "time", "feature", "layer_drop", "frozen"),
    [
        ("10m", 13_000, 5e-5, 0.65, 0.25, 0.1, 10_000),
        ("1h", 13_000, 5e-5, 0.65, 0.25, 0.1, 10_000),
        ("10h", 20_000, 5e-5, 0.65, 0.5, 0.05, 10_000),
        ("100h", 80_000, 3e-5, 0.65, 0.5, 0.1, 0),
        ("10m-large", 13_000, 1e-4, 0.65, 0.25, 0.1, 10_000),
        ("1h-large", 13_000, 3e-4, 0.75, 0.25, 0.1, 10_000),
        ("10h-large", 20_000, 1e-4, 0.75, 0.25, 0.1, 10_000),
        ("100h-large", 80_000, 3e-5, 0.5, 0.5, 0.1, 10_000),
    ],
)
def test_the_values_are_those_of_fairseq(recipe, updates, rate, time, feature, layer_drop, frozen):
    config = low_resource.get_config(recipe)
    model, train = config.model, config.train
    assert (train.num_updates, train.learning_rate, model.mask_time_prob) == (updates, rate, time)
    assert (model.mask_feature_prob, model.layer_drop, model.freeze_encoder_updates) == (feature, layer_drop, frozen)
    assert (model.mask_time_length, model.mask_feature_length, model.activation_dropout) == (10, 64, 0.1)
    assert (model.hidden_dropout, model.attention_dropout, model.final_dropout) == (0.0, 0.0, 0.0)
    assert (train.optimizer, train.beta_1, train.beta_2, train.epsilon) == ("adam", 0.9, 0.98, 1e-8)
    assert model.init.endswith("large-lv60" if recipe.endswith("large") else "wav2vec2-base")
    schedule = builders.build_learning_rate(config)
    shares = (schedule.warmup_updates, schedule.hold_updates)
    assert shares == (updates // 10, 4 * updates // 10)
    for step, share in ((updates // 10, 1.0), (updates // 2, 1.0), (updates, 0.05)):
        assert float(schedule(step)) == pytest.approx(share * rate, rel=1e-5)


def test_the_manifests_come_behind_the_recipe():
    config = low_resource.get_config("10h, a/train.csv, shards/dev")
    train, dev = config.data.train, config.data.eval["dev"]
    assert (train.format, train.input, train.held_out_ratio) == ("csv", "a/train.csv", 0.0)
    assert (dev.format, dev.input, dev.held_out_ratio) == ("tfrecord", "shards/dev", 0.0)
    assert default_workdir("configs/low_resource.py:10h", config.name) == "runs/low_resource-10h-a-train"


def test_an_unknown_recipe_is_told_which_there_are():
    with pytest.raises(
        FlagError, match=r"no recipe '2h': give one of 10m, 1h, 10h, 100h, 10m-large, .* as in 1h,TRAIN"
    ):
        config_file.load_config("configs/low_resource.py:2h")
