"""The real parts fit the engine's protocols."""

from __future__ import annotations

import dataclasses
import inspect

import run
from data.batches.datasets import EvalData, TrainData
from data.text.tokenizer import CharTokenizer
from engine import protocols
from models.wav2vec2.model import Wav2Vec2ForCTC


def public_methods(protocol):
    return {name for name, value in vars(protocol).items() if inspect.isfunction(value) and not name.startswith("_")}


def test_data_models_and_tokenizer_have_the_methods_the_engine_calls():
    for protocol, real in (
        (protocols.TrainData, TrainData),
        (protocols.EvalData, EvalData),
        (protocols.Tokenizer, CharTokenizer),
        (protocols.AcousticModel, Wav2Vec2ForCTC),
    ):
        assert public_methods(protocol), protocol
        for name in public_methods(protocol):
            wanted = list(inspect.signature(getattr(protocol, name)).parameters)
            assert list(inspect.signature(getattr(real, name)).parameters) == wanted, (real, name)


def test_run_fills_in_every_part():
    source = inspect.getsource(run._build_parts)
    for field in dataclasses.fields(protocols.Components):
        assert f"{field.name}=" in source
