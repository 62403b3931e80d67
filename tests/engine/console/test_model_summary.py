"""The table of what was loaded, is fresh and is frozen."""

from __future__ import annotations

import types

import tensorflow as tf

from engine.console.model_summary import model_report
from models.wav2vec2.config import preset
from models.wav2vec2.model import Wav2Vec2ForCTC
from tests.helpers.engine_toys import ToyModel


def test_native_model_with_frozen_convolutions_and_a_fresh_head():
    config = preset("tiny", conv_dim=(8,) * 3, hidden_size=16, num_heads=2, num_layers=3, intermediate_size=24)
    model = Wav2Vec2ForCTC(config=config, freeze_feature_encoder=True)
    lines = model_report(model, loaded=model.backbone.variables)
    rows = {line.split("  ")[0]: line.split() for line in lines}
    assert [line.split("  ")[0] for line in lines] == [
        "mask_embedding", "feature_projection", "encoder", "encoder/layers 0-2", "feature_encoder 0-2", "head", "all",
    ]  # fmt: skip
    assert lines[4].endswith("loaded, frozen")
    assert lines[3].endswith("  loaded")
    assert lines[5].split() == ["head", f"{17 * 32:,}", "fresh"]
    # Norms of 2 x 16, attention of 16 x 64 + 64, feed-forward blocks of 16 x 24, both ways, with biases: three times.
    assert rows["encoder/layers 0-2"][-2] == f"{3 * (2 * 32 + 16 * 64 + 64 + 2 * 16 * 24 + 24 + 16):,}"
    total = sum(int(tf.size(variable)) for variable in model.variables)
    trained = sum(int(tf.size(variable)) for variable in model.trainable_variables)
    assert trained < total
    assert lines[6].split() == ["all", f"{total:,}", f"{trained:,}", "trained"]
    assert sum(int(line.split("  ")[-2].strip().replace(",", "")) for line in lines[:-1]) == total


def test_toy_that_continues():
    model = ToyModel()
    assert model_report(model, loaded=model.variables, loaded_word="restored") == [
        "kernel  32  restored",
        "bias     8  restored",
        "head    54  restored",
        "all     94  94 trained",
    ]


def named(name, size=1):
    return tf.Variable(tf.zeros([size]), name=name)


def test_published_names_lose_what_they_share_and_layers_may_differ():
    layers = [named(f"wav2vec2/encoder/layers/{i}/attention/kernel", 1_000) for i in range(4)]
    convolutions = [named(f"wav2vec2/feature_extractor/conv_layers/{i}/kernel") for i in (0, 1)]
    head = [named("head/kernel", 5)]
    model = types.SimpleNamespace(
        variables=[*convolutions, *layers, *head],
        trainable_variables=[layers[0], layers[1], layers[3], *head],
        head_variables=head,
    )
    assert model_report(model, loaded=[*convolutions, *layers[:3]]) == [
        "feature_extractor/conv_layers 0-1      2  loaded, frozen",
        "encoder/layers 0-1                 2,000  loaded",
        "encoder/layers 2                   1,000  loaded, frozen",
        "encoder/layers 3                   1,000  fresh",
        "head                                   5  fresh",
        "all                                4,007  3,005 trained",
    ]
