"""Architecture configs: presets, frame arithmetic, refusal of nonsense."""

from __future__ import annotations

import json

import pytest

from models.wav2vec2.config import Wav2Vec2Config, preset


def test_base_makes_50_frames_a_second_with_a_25_ms_window():
    config = preset("base")
    assert config.samples_per_frame == 320
    assert config.num_frames(399) == 0
    assert config.num_frames(400) == 1
    assert config.num_frames(719) == 1
    assert config.num_frames(720) == 2
    assert config.num_frames(246_000) == 768


def test_tiny_has_the_hop_of_the_published_models():
    assert preset("tiny").samples_per_frame == 320


def test_config_survives_json():
    config = preset("tiny", vocab_size=40)
    assert Wav2Vec2Config.from_dict(json.loads(config.to_json())) == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_heads": 7}, "num_heads"),
        ({"pos_conv_groups": 7}, "pos_conv_groups"),
        ({"feature_norm": "batch"}, "feature_norm"),
        ({"conv_dim": (512,)}, "conv_dim"),
        ({"hidden_dropout": 1.0}, "hidden_dropout"),
        ({"mask_time_prob": 1.5}, "mask_time_prob"),
        ({"not_a_field": 1}, "not_a_field"),
        ({"hidden_size": -1}, "hidden_size must be from 1 to"),
        ({"hidden_size": "768"}, 'hidden_size must be a whole number, got "768"'),
        ({"num_heads": True}, "num_heads must be a whole number"),
        ({"conv_kernel": 3}, "conv_kernel must be a list of whole numbers"),
        ({"conv_kernel": (10, 3, 3, 3, 3, 2, 0)}, "conv_kernel must be from 1 to"),
        ({"stable_layer_norm": "yes"}, "stable_layer_norm must be true or false"),
        ({"layer_drop": float("nan")}, "layer_drop must be a finite number"),
    ],
)
def test_nonsense_is_refused_by_name(overrides, message):
    with pytest.raises(ValueError, match=message):
        preset("base", **overrides)


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match="base, tiny"):
        preset("huge")
