"""Headline tiles and config facts: taken from the workdir, unknown if it has none, bounded in length."""

from __future__ import annotations

import pytest

from engine.common import files
from engine.report.facts import UNKNOWN, RunFacts, differing_fields, headline
from tests.engine.report.toys import build, make_predictions

CONFIG = {
    "model": {"preset": "base", "init": ""},
    "data": {"train": {"input": "corpus"}, "max_batch_secs": 0.0},
    "train": {
        "learning_rate": 3e-5, "schedule": "tri_stage", "warmup_updates": 8000, "global_batch_size": 64,
        "num_updates": 80_000, "precision": "float32",
    },
    "eval": {"best_metric_set": "dev"},
    "seed": 0,
}  # fmt: skip
ENVIRONMENT = {
    "command": ["run.py", "--config=configs/base.py", "--config.name=a b"],
    "commit": "c0ffee",
    "num_cpus": 2,
    "devices": ["/physical_device:CPU:0", "/physical_device:GPU:0", "/physical_device:GPU:1"],
    "packages": {"tensorflow": "2.20.0"},
    "num_parameters": 94_396_320,
    "num_trained": 90_000_000,
}
LOOPS = [
    {"step": 10, "split": "train", "audio_secs": 36_000.0, "audio_secs_per_sec": 60.0},
    {"step": 20, "split": "train", "audio_secs": 36_000.0, "audio_secs_per_sec": 120.0},
    {"step": 20, "split": "dev", "audio_secs": 99.0, "audio_secs_per_sec": 1.0},
    {"step": 30, "split": "train", "audio_secs": 99.0, "audio_secs_per_sec": 1.0},  # after the evaluated weights
]


def tiles(facts, lines=LOOPS, sets=None, step=20):
    return {tile.name: (tile.value, tile.detail) for tile in headline(facts, sets or [], lines, step=step)}


def test_the_summary_names_command_commit_learning_rate_and_batch(tmp_path):
    files.write_json_atomic(tmp_path / "config.json", CONFIG)
    files.write_json_atomic(tmp_path / "environment.json", ENVIRONMENT)
    assert RunFacts.read(tmp_path).summary() == {
        "command": "python run.py --config=configs/base.py '--config.name=a b'",
        "commit": "c0ffee",
        "model": "base",
        "started from": "random weights",
        "trained on": "corpus",
        "learning rate": "3e-5, tri_stage, 8,000 warmup updates",
        "batch": "64 rows per update",
        "updates": "80,000",
        "precision": "float32",
        "seed": "0",
        "devices": "1 CPU, 2 GPU (2 cores)",
        "TensorFlow": "2.20.0",
    }
    assert RunFacts.read(tmp_path).fields()["train.learning_rate"] == "3e-05"


def test_tiles_have_the_rates_of_the_main_set_and_what_training_took():
    dev = build(make_predictions([("a b", "a b"), ("a b", "a c")] * 20), name="dev")
    other = build(make_predictions([("a", "b")]), name="other")
    found = tiles(RunFacts(CONFIG, ENVIRONMENT), sets=[other, dev])
    assert found["WER"][0] == "25.00 %" and found["WER"][1].startswith("dev, 95\N{NO-BREAK SPACE}%:")
    assert found["CER"][0] == "16.67 %"
    assert found["Audio"] == ("20 h", "trained on, repeats included")
    assert found["Updates"] == ("20", "of 80,000")
    # Ten hours at 60 s per second and ten at 120.
    assert found["Time"] == ("15 min", "80 s of audio per second, evaluations excluded")
    assert found["Parameters"] == ("94.4 M", "90,000,000 trained")


def test_the_rate_that_decides_is_the_first_tile():
    chinese = make_predictions([("今天天气很好", "今天天气不好")] * 4)
    for predictions, given, first in (
        (chinese, "auto", "CER"),
        (chinese, None, "CER"),  # a run of an older version
        (chinese, "wer", "WER"),
        (make_predictions([("a b", "a c")] * 4), "auto", "WER"),
        (make_predictions([("a b", "a c")] * 4), "cer", "CER"),
    ):
        one = build(predictions, name="dev", metric=given)
        assert [tile.name for tile in headline(RunFacts(CONFIG, {}), [one], [], step=1)][0] == first


def test_every_corpus_that_was_trained_on_is_named():
    more = {"calls": {"input": "calls.jsonl"}, "odd": 3}
    facts = RunFacts({"data": {"train": {"input": "corpus"}, "more_train": more}}, {})
    assert facts.summary()["trained on"] == "corpus, calls.jsonl"


def test_what_is_not_recorded_is_unknown():
    found = tiles(RunFacts({}, {}), lines=[{"step": 1, "split": "train"}])
    assert [found[name][0] for name in ("Audio", "Time", "Parameters")] == [UNKNOWN] * 3
    assert found["Updates"] == ("20", "of unknown") and "WER" not in found


@pytest.mark.parametrize("value", [None, True, "x", [1], {"a": 1}, 1e308, -3, 10**400])
def test_values_of_any_kind_are_shown_or_unknown(value):
    config = {"train": {"learning_rate": value, "global_batch_size": value, "num_updates": value, "schedule": value},
              "data": {"max_batch_secs": value}, "eval": {"best_metric_set": value}, "seed": value}  # fmt: skip
    environment = dict.fromkeys(ENVIRONMENT, value)
    line = {"step": 1, "split": "train", "audio_secs": value, "audio_secs_per_sec": value}
    facts = RunFacts(config, environment)
    shown = [*facts.summary().values(), *facts.fields().values()]
    shown += [text for pair in tiles(facts, lines=[line]).values() for text in pair]
    assert all(isinstance(text, str) and len(text) <= 400 for text in shown)


def test_long_values_and_many_fields_are_cut():
    facts = RunFacts({"data": {str(i): "x" * 1000 for i in range(900)}}, {"commit": "y" * 1000})
    assert len(facts.fields()) == 500 and {len(value) for value in facts.fields().values()} == {300}
    assert len(facts.summary()["commit"]) == 300


def test_fields_that_differ_are_found_even_where_their_beginnings_are_the_same():
    other = {**CONFIG, "train": {**CONFIG["train"], "learning_rate": 1e-4}, "name": "z" * 400}
    third = {**other, "name": "z" * 400 + "!"}
    runs = {name: RunFacts(config, {}) for name, config in (("a", CONFIG), ("b", other), ("c", third))}
    found = dict(differing_fields(runs))
    assert found["train.learning_rate"] == ["3e-05", "0.0001", "0.0001"]
    assert found["name"][0] == "–" and {len(value) for value in found["name"][1:]} == {300}
    assert set(found) == {"train.learning_rate", "name"}
    assert differing_fields({"a": runs["a"], "b": runs["a"]}) == []
