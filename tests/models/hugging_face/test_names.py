"""The name table: complete both ways, and bit-exact there and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from models.hugging_face import names
from models.hugging_face.config import from_hf
from models.wav2vec2.config import preset
from models.wav2vec2.model import Wav2Vec2ForCTC
from tests.helpers.models_parity import SMALL_MODELS, load_golden, tensors_of

NARROW = {"conv_dim": (8,) * 7, "hidden_size": 16, "num_heads": 2, "num_layers": 2, "intermediate_size": 24}


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"feature_norm": "layer", "conv_bias": True, "stable_layer_norm": True},
        {"feature_projection_norm": False},
        {"relative_position_buckets": 16},
        {"pos_conv_norm": "layer", "pos_conv_depth": 3},
    ],
)
def test_the_table_has_exactly_the_variables_of_the_model(overrides):
    config = preset("base", pos_conv_groups=4, **NARROW, **overrides)
    model = Wav2Vec2ForCTC(config=config)
    table = {entry.ours: entry.shape for entry in names.name_table(config)}
    assert table == {variable.name.removesuffix(":0"): tuple(variable.shape) for variable in model.variables}
    assert names.num_parameters(config) == sum(int(np.prod(shape)) for shape in table.values())


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_there_and_back_keeps_every_bit_of_every_tensor(name):
    golden = load_golden(name)
    tensors = {names.canonical_name(key): value for key, value in tensors_of(golden).items()}
    back = {}
    for entry in names.name_table(from_hf(json.loads(str(golden["config"])))):
        joined = entry.join([tensors[key] for key in entry.theirs])
        assert joined.shape == entry.shape
        back.update(entry.split(joined))
    assert back.keys() == tensors.keys()
    for key, value in tensors.items():
        assert back[key].flags.c_contiguous
        assert back[key].tobytes() == value.tobytes(), key


def test_query_key_and_value_stand_side_by_side():
    table = {entry.ours: entry for entry in names.name_table(preset("base"))}
    entry = table["encoder/layers/3/attention/qkv/kernel"]
    assert entry.theirs == tuple(f"encoder.layers.3.attention.{part}_proj.weight" for part in "qkv")
    assert entry.their_shape == (768, 768)
    query, key, value = (np.full((768, 768), number, np.float32) for number in (1, 2, 3))
    query[5, 7] = 9.0  # output 5, input 7
    joined = entry.join([query, key, value])
    assert joined[7, 5] == 9.0
    assert (joined[:, 768:1536] == 2).all() and (joined[:, 1536:] == 3).all()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("wav2vec2.encoder.layer_norm.weight", "encoder.layer_norm.weight"),
        ("hubert.encoder.layer_norm.weight", "encoder.layer_norm.weight"),
        ("wavlm.encoder.layer_norm.weight", "encoder.layer_norm.weight"),
        ("unispeech_sat.encoder.layer_norm.weight", "encoder.layer_norm.weight"),
        ("data2vec_audio.encoder.layer_norm.weight", "encoder.layer_norm.weight"),
        ("encoder.layer_norm.weight", "encoder.layer_norm.weight"),
        (
            "wav2vec2.encoder.pos_conv_embed.conv.weight_g",
            "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
        ),
        ("encoder.pos_conv_embed.conv.weight_v", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
        ("lm_head.weight", "lm_head.weight"),
    ],
)
def test_names_of_all_versions_become_one(name, wanted):
    assert names.canonical_name(name) == wanted


def test_full_names_have_the_prefix_but_for_the_head():
    assert names.full_name("lm_head.bias", model_type="hubert") == "lm_head.bias"
    assert names.full_name("masked_spec_embed", model_type="hubert") == "hubert.masked_spec_embed"
