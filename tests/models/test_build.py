"""The choice between the native model and a SavedModel."""

from __future__ import annotations

import pytest

from models.build import build_model
from models.wav2vec2.model import Wav2Vec2ForCTC

NARROW = {"conv_dim": (8,) * 3, "hidden_size": 16, "num_heads": 2, "num_layers": 1, "pos_conv_groups": 4}


def test_the_native_model_takes_the_configs_fields():
    model = build_model(
        source="native", preset="tiny", hub_handle="", vocab_size=9, final_dropout=0.3, layer_drop=0.2, **NARROW
    )
    assert isinstance(model, Wav2Vec2ForCTC)
    assert (model.config.vocab_size, model.config.final_dropout, model.config.layer_drop) == (9, 0.3, 0.2)
    assert (model.max_training_samples, model.pretrained_variables) == (0, [])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "huggingface"}, "model.source must be one of native, hub, got 'huggingface'"),
        ({"source": "hub", "precision": "half"}, "train.precision must be one of float32"),
        ({"source": "native", "precision": "half"}, "train.precision must be one of float32"),
        ({"source": "hub"}, "no saved_model.pb there"),
        ({"source": "native", "preset": "enormous"}, "unknown model preset 'enormous'"),
    ],
)
def test_a_wrong_choice_is_one_line(fields, message):
    with pytest.raises(ValueError, match=message):
        build_model(**{"preset": "tiny", "hub_handle": "", "vocab_size": 9, **fields})
