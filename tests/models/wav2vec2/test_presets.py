"""The table of architectures: parameter counts of the published models, one frame hop, valid fields."""

from __future__ import annotations

import pytest

from models.hugging_face.names import num_parameters
from models.wav2vec2.config import preset
from models.wav2vec2.presets import PRESETS


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # Counted with transformers 5.23 in models without a head; base and the 24-layer ones also as reported by users
        # of facebook/wav2vec2-base, hubert-base-ls960, wav2vec2-large-xlsr-53 and hubert-large-ll60k.
        ("base", 94_371_712),
        ("large", 315_428_992),
        ("large_lv60", 315_438_720),
        ("robust", 315_438_720),
        ("xlsr_53", 315_438_720),
        ("xls_r_300m", 315_438_720),
        ("xls_r_1b", 962_497_408),
        ("xls_r_2b", 2_159_259_648),
        ("hubert_base", 94_371_712),
        ("hubert_large", 315_438_720),
        # With what their files have beside parameters: statistics and counters of batch norm, rotary frequencies.
        ("conformer_rel_pos", 618_559_104 + 24 * (2 * 1024 + 1)),
        ("conformer_rope", 593_344_128 + 24 * (2 * 1024 + 1) + 32),
        ("w2v_bert_2", 580_493_120),
    ],
)
def test_published_models_have_their_number_of_parameters(name, published):
    config = preset(name)
    assert num_parameters(config, with_head=False) == published
    assert num_parameters(config) == published + 32 * config.hidden_size + 32


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # The table of omniASR_CTC models in the README of omnilingual-asr; they have no mask embedding.
        ("omniasr_300m", 325_494_996),
        ("omniasr_1b", 975_065_300),
        ("omniasr_3b", 3_080_423_636),
        ("omniasr_7b", 6_504_786_132),
    ],
)
def test_omniasr_models_have_their_number_of_parameters(name, published):
    config = preset(name, vocab_size=9812)
    assert num_parameters(config) == published + config.hidden_size


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_frame_each_20_ms(name):
    assert preset(name).samples_per_frame == 320


def test_large_models_differ_from_base_in_norms_and_biases_too():
    assert (preset("large").feature_norm, preset("large").stable_layer_norm) == ("group", False)
    for name in ("large_lv60", "robust", "xlsr_53", "xls_r_1b", "hubert_large"):
        config = preset(name)
        assert (config.feature_norm, config.conv_bias, config.stable_layer_norm) == ("layer", True, True)
