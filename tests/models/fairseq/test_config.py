"""Architectures that a fairseq config or the shapes of a file tell."""

from __future__ import annotations

import dataclasses

import pytest

from models.fairseq.config import read_config, read_shapes
from models.hugging_face.config import from_hf
from models.hugging_face.names import name_table
from models.wav2vec2.config import preset

ARCHITECTURE = (
    "conv_dim", "conv_kernel", "conv_stride", "conv_bias", "feature_norm", "hidden_size", "num_layers", "num_heads",
    "intermediate_size", "pos_conv_kernel", "pos_conv_groups", "stable_layer_norm",
)  # fmt: skip


def shapes_of(config):
    return {name: entry.their_shape for entry in name_table(config) for name in entry.theirs}


@pytest.mark.parametrize(
    "name", ["base", "large", "large_lv60", "xls_r_1b", "xls_r_2b", *(f"omniasr_{size}" for size in ("1b", "3b", "7b"))]
)
def test_the_shapes_of_published_models_tell_their_architecture(name):
    wanted = preset(name)
    fields, normalizes = read_shapes(shapes_of(wanted), is_pre_norm=wanted.stable_layer_norm)
    assert normalizes == (wanted.feature_norm == "layer")
    found = from_hf({**fields, "vocab_size": 32})
    for field in ARCHITECTURE:
        assert getattr(found, field) == getattr(wanted, field), field


def test_widths_and_kernels_of_no_published_model_are_refused():
    base = preset("base")
    for change in ({"hidden_size": 192}, {"conv_kernel": (10, 3, 3, 3, 3, 3, 2)}):
        with pytest.raises(ValueError, match="no published model has hidden_size .*; give --preset"):
            read_shapes(shapes_of(dataclasses.replace(base, **change)))
    for lacks in ("feature_projection.projection.weight", "encoder.layers.0.feed_forward.intermediate_dense.weight"):
        shapes = shapes_of(base)
        del shapes[lacks]
        with pytest.raises(ValueError, match="not those of a wav2vec 2.0 of fairseq or fairseq2"):
            read_shapes(shapes)


def test_a_config_without_fields_is_the_base_model_of_fairseq():
    fields, normalizes = read_config({"model": {"_name": "wav2vec2"}, "task": {}})
    base, found = preset("base"), from_hf(fields)
    assert not normalizes
    assert (found.conv_kernel, found.hidden_size, found.num_layers) == (base.conv_kernel, 768, 12)
    assert (found.feature_norm, found.stable_layer_norm, found.activation_dropout) == ("group", False, 0.0)


def test_data2vec_has_a_position_embedding_of_five_layers():
    model = {"_name": "data2vec_audio", "conv_pos": 95, "pos_conv_depth": 5, "extractor_mode": "layer_norm"}
    fields, _ = read_config({"model": model, "task": {"normalize": True}})
    assert fields["model_type"] == "data2vec-audio"
    assert (fields["num_conv_pos_embeddings"], fields["conv_pos_kernel_size"]) == (5, 19)
