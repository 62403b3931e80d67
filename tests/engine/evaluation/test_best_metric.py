"""Which error rate decides about checkpoints."""

from __future__ import annotations

import logging
import types

import pytest

from configs.base import get_config
from engine.config.fields_of_run import choose_best_metric
from engine.evaluation.best_metric import choose_metric, other_metric

CHINESE, ENGLISH = ["今天天气很好"] * 3, ["the cat sat"]


@pytest.mark.parametrize(
    ("given", "references", "metric"),
    [
        ("auto", ENGLISH, "wer"), ("auto", CHINESE, "cer"), ("auto", [], "wer"), ("wer", CHINESE, "wer"),
        ("cer", ENGLISH, "cer"), (None, CHINESE, "cer"), (None, ENGLISH, "wer"),
    ],
)  # fmt: skip
def test_the_texts_decide_unless_the_config_does(given, references, metric):
    assert choose_metric(given, iter(references)) == metric


def test_the_set_of_the_best_checkpoint_decides_and_a_run_of_an_older_version_lacks_the_field(caplog):
    config = get_config()
    data = {"dev": types.SimpleNamespace(references=dict(enumerate(CHINESE))), "other": None}
    config.eval.best_metric_set = "dev"
    with caplog.at_level(logging.INFO, logger="absl"):
        assert choose_best_metric(config, data) == "cer"
    assert "eval.best_metric=auto is cer: the texts of dev have no spaces between words" in caplog.text
    config.eval.best_metric = "wer"
    assert choose_best_metric(config, data) == "wer"
    del config.eval.best_metric
    assert choose_best_metric(config, data) == "cer" and choose_best_metric(config, {}) == "wer"


def test_each_rate_has_the_other_to_decide_between_equals():
    assert [other_metric(name) for name in ("wer", "cer", "loss")] == ["cer", "wer", ""]
