"""What becomes of each tensor, and the list of what does not fit."""

from __future__ import annotations

import pytest

from models.hugging_face import names
from models.hugging_face.matching import canonical_names, match
from models.wav2vec2.config import preset

CONFIG = preset(
    "base", conv_dim=(8,) * 7, hidden_size=16, num_heads=2, num_layers=2, intermediate_size=24, pos_conv_groups=4
)


def whole():
    """Name as in a file with a head -> shape."""
    return {
        names.full_name(name, model_type="wav2vec2"): entry.their_shape
        for entry in names.name_table(CONFIG)
        for name in entry.theirs
    }


def run(shapes, **options):
    return match(config=CONFIG, names=canonical_names(list(shapes)), shapes=shapes, **options)


def test_a_whole_model_is_loaded_whole():
    report = run(whole())
    assert len(report.loaded) == len(whole())
    assert sum(report.loaded.values()) == names.num_parameters(CONFIG)
    assert not report.fresh and not report.dropped


def test_pretraining_leftovers_are_dropped_and_counted():
    left = {"quantizer.codevectors": (1, 640, 128), "project_q.bias": (256,), "project_hid.weight": (256, 768)}
    report = run(whole() | left)
    assert report.dropped == {"quantizer.codevectors": 81_920, "project_q.bias": 256, "project_hid.weight": 196_608}
    assert "dropped: 3 tensors, 278,784 parameters (quantizer.codevectors," in "\n".join(report.lines())


def test_a_fresh_head_replaces_that_of_the_file_whatever_its_shape():
    shapes = whole() | {"lm_head.weight": (99, 16), "lm_head.bias": (99,)}
    report = run(shapes, fresh_head=True)
    assert report.fresh == {"lm_head.weight": 512, "lm_head.bias": 32}
    assert report.dropped == {"lm_head.weight": 99 * 16, "lm_head.bias": 99}
    with pytest.raises(ValueError, match=r"of another shape .*: lm_head.weight \[99, 16\] instead of \[32, 16\]"):
        run(shapes)


def test_the_mask_embedding_may_be_absent():
    shapes = whole()
    del shapes["wav2vec2.masked_spec_embed"]
    assert run(shapes).fresh == {"masked_spec_embed": 16}


def test_all_that_does_not_fit_is_listed_and_can_be_allowed_by_name():
    shapes = whole()
    del shapes["wav2vec2.encoder.layers.1.layer_norm.bias"]
    shapes["wav2vec2.encoder.layers.2.layer_norm.bias"] = (16,)
    shapes["pooler.weight"] = (2, 16)
    with pytest.raises(ValueError) as caught:
        run(shapes)
    message = str(caught.value)
    assert "missing (--allow_missing=NAME,... gives them random values): encoder.layers.1.layer_norm.bias" in message
    assert "2 unexpected" in message and "pooler.weight" in message
    assert "\n" not in message
    allowed = {"allow_unexpected": ["pooler.*", "wav2vec2.encoder.layers.2.layer_norm.bias"]}
    with pytest.raises(ValueError, match="1 missing"):
        run(shapes, **allowed)
    report = run(shapes, allow_missing=["encoder.layers.1.layer_norm.bias"], **allowed)
    assert report.fresh == {"encoder.layers.1.layer_norm.bias": 16}
    assert report.dropped == {"encoder.layers.2.layer_norm.bias": 16, "pooler.weight": 32}


def test_a_part_of_a_fused_variable_cannot_be_fresh():
    shapes = whole()
    parts = [f"wav2vec2.encoder.layers.0.attention.{part}_proj.bias" for part in "qkv"]
    del shapes[parts[1]]
    with pytest.raises(ValueError, match="1 missing.*k_proj.bias"):
        run(shapes, allow_missing=parts)
    del shapes[parts[0]], shapes[parts[2]]
    assert len(run(shapes, allow_missing=parts).fresh) == 3


def test_a_transposed_tensor_is_of_another_shape():
    shapes = whole() | {"wav2vec2.encoder.layers.0.feed_forward.output_dense.weight": (24, 16)}
    with pytest.raises(ValueError, match=r"1 of another shape .*\[24, 16\] instead of \[16, 24\]"):
        run(shapes)


def test_the_same_tensor_under_two_names_is_refused():
    with pytest.raises(ValueError, match="the same tensor twice"):
        canonical_names(["wav2vec2.masked_spec_embed", "masked_spec_embed"])


def test_long_lists_are_cut():
    with pytest.raises(ValueError, match=r"\d+ missing .* and \d+ more"):
        run({})
