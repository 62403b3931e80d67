"""docs/scaling.md says what the arithmetic says, and the arithmetic counts what the model has."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks import scaling
from models.wav2vec2.config import preset
from models.wav2vec2.model import build_model


def test_the_page_has_the_table_that_the_formulas_give():
    page = (Path(scaling.__file__).parents[1] / "docs/scaling.md").read_text(encoding="utf-8")
    assert scaling.markdown() in page


@pytest.mark.parametrize("overrides", [{}, {"feature_norm": "group", "conv_bias": False}])
def test_parameters_are_those_of_the_model(overrides):
    small = {"hidden_size": 32, "num_heads": 2, "num_layers": 2, "intermediate_size": 64, "pos_conv_groups": 4}
    model = build_model(preset="tiny", vocab_size=32, freeze_feature_encoder=True, **small, **overrides)
    counted = scaling.count_parameters(preset("tiny", vocab_size=32, **small, **overrides))
    assert counted["trained"] == sum(math.prod(v.shape) for v in model.trainable_variables)
    assert sum(counted.values()) == sum(math.prod(v.shape) for v in model.variables)


def test_the_published_sizes():
    assert sum(scaling.count_parameters(preset("base")).values()) == pytest.approx(94.4e6, rel=1e-3)
    assert sum(scaling.count_parameters(preset("large")).values()) == pytest.approx(315.5e6, rel=1e-3)
    assert scaling.num_frames(preset("base"), 1.0) == 49
