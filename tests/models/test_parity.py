"""Parity with Hugging Face transformers: every layer, logits, loss and gradients of small models, from golden files."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.models_parity import (
    SMALL_MODELS,
    build_through_the_table,
    check_parity,
    compute,
    load_golden,
)


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_small_models_equal_the_reference(name):
    golden = load_golden(name)
    largest = check_parity(compute(build_through_the_table(golden), golden), golden)
    assert max(largest.values()) > 0.0  # not compared with itself


@pytest.mark.parametrize(
    ("variable", "change"),
    [
        ("encoder/layers/0/attention/qkv/kernel", lambda x: np.roll(x, x.shape[1] // 3, axis=1)),
        ("encoder/pos_conv/kernel_v", lambda x: x[::-1]),
        ("encoder/pos_conv/kernel_g", lambda x: x[::-1]),
        ("feature_encoder/1/kernel", lambda x: x[::-1]),
    ],
)
def test_the_comparison_sees_what_shapes_do_not(variable, change):
    golden = load_golden("base_shaped")
    model = build_through_the_table(golden)
    found = {v.name.removesuffix(":0"): v for v in model.variables}[variable]
    found.assign(change(found.numpy()))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_parity(compute(model, golden), golden)
