"""Converted recognizers beside the model they were made of."""

from __future__ import annotations

import builtins
import subprocess

import numpy as np
import pytest
import tensorflow as tf

from data.audio.decoding import normalize_waveform
from engine.inference.export.portable import (
    FILES,
    build_portable,
    check_formats,
    check_sizes,
    convert,
    load_portable,
    save_portable,
)
from models.wav2vec2.model import build_model
from tests.helpers.engine_toys import ToyModel

# Float16 differs from float32 in how its weights are stored, and from dynamic in nothing else.
TOLERANCES = {"tflite_float32": 1e-4, "tflite_dynamic": 0.3, "onnx": 1e-4}


def convert_model(model, name, folder):
    """The file of a model in another format."""
    save_portable(build_portable(model), folder / "plain")
    convert(folder / "plain", name, folder / FILES[name])
    return folder / FILES[name]


@pytest.fixture(scope="module")
def model():
    return build_model(preset="tiny", vocab_size=32, num_layers=1, conv_dim=(32, 32, 32), hidden_size=32, num_heads=2)


@pytest.mark.parametrize("name", list(TOLERANCES))
def test_a_converted_model_says_what_the_live_one_says_of_any_length(model, name, tmp_path):
    path = convert_model(model, name, tmp_path)
    run = load_portable(path, name)
    rng = np.random.default_rng(0)
    for num_samples in (16_000, 4_001, 9_999):
        waveform = rng.uniform(-0.1, 0.3, num_samples).astype(np.float32)
        lengths = tf.constant([num_samples])
        wanted = model(tf.constant(normalize_waveform(waveform)[np.newaxis]), lengths, training=False)[0].numpy()
        found = run(waveform)
        assert found.shape == wanted.shape and found.dtype == np.float32
        assert np.abs(found - wanted).max() < TOLERANCES[name] * np.abs(wanted).max()
        assert np.abs(wanted).max() > 0.1
    assert (path.stat().st_size < 0.5 * sum(variable.numpy().nbytes for variable in model.variables)) == (
        name == "tflite_dynamic"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tflite_float32", "onnx"])
def test_parts_that_some_models_have_convert_as_well(name, tmp_path):
    parts = {
        "relative_position_buckets": 16, "relative_position_max_distance": 30, "pos_conv_norm": "layer",
        "pos_conv_depth": 2, "attention_adapter_size": 4,
    }  # fmt: skip
    narrow = {"num_layers": 1, "conv_dim": (32, 32, 32), "hidden_size": 32, "num_heads": 2, "intermediate_size": 64}
    model = build_model(preset="tiny", vocab_size=32, **narrow, **parts)
    run = load_portable(convert_model(model, name, tmp_path), name)
    waveform = np.random.default_rng(0).uniform(-0.1, 0.3, 9_999).astype(np.float32)
    normalized = tf.constant(normalize_waveform(waveform)[np.newaxis])
    wanted = model(normalized, tf.constant([9_999]), training=False)[0].numpy()
    assert np.abs(run(waveform) - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_half_precision_is_half_the_size(tmp_path):
    class Wide(ToyModel):
        """Weights that count beside the graph."""

        def __init__(self):
            super().__init__()
            self.wide = tf.Variable(tf.random.stateless_normal([64, 512], (1, 2)))

        def call(self, waveform, waveform_lengths, training=False, random=None):
            frames = tf.reshape(waveform, [1, -1, 64])
            return tf.matmul(frames, self.wide)

    wide = Wide()
    sizes = {
        name: convert_model(wide, name, tmp_path / name).stat().st_size for name in ("tflite_float32", "tflite_float16")
    }
    assert sizes["tflite_float16"] < 0.6 * sizes["tflite_float32"]


def test_what_does_not_convert_is_one_line(tmp_path, capfd):
    class Reading(ToyModel):
        """Strings are for TensorFlow alone."""

        def call(self, waveform, waveform_lengths, training=False, random=None):
            numbers = tf.strings.to_number(tf.strings.as_string(waveform))
            return tf.reshape(numbers, [1, -1, 4])

    with pytest.raises(ValueError, match="does not convert to tflite_float32 .*; leave it out of --export_formats"):
        convert_model(Reading(), "tflite_float32", tmp_path)
    # Of the converter's forty lines none is shown; TensorFlow says something of saving.
    assert capfd.readouterr().err.count("\n") <= 2
    assert not (tmp_path / FILES["tflite_float32"]).exists()


def test_a_converter_that_runs_out_of_memory_is_one_line_too(tmp_path, monkeypatch):
    asked = {}
    killed = subprocess.CompletedProcess([], -9, stdout="", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: asked.update(options) or killed)
    with pytest.raises(ValueError, match="to onnx .*ended by SIGKILL: most likely the machine has too little memory"):
        convert(tmp_path, "onnx", tmp_path / "model.onnx")
    assert asked["env"]["CUDA_VISIBLE_DEVICES"] == "-1"  # this process holds their memory


def test_files_that_their_format_cannot_hold_are_refused_before_anything_is_converted():
    check_sizes(list(FILES), num_weights=317_000_000)
    check_sizes(["tflite_dynamic", "tflite_float16"], num_weights=1_000_000_000)
    with pytest.raises(ValueError, match="=onnx: the weights take 4.0 GB, .* 2 GB at most; leave it out"):
        check_sizes(["tflite_dynamic", "onnx"], num_weights=1_000_000_000)


def test_formats_are_checked_before_anything_else(monkeypatch):
    check_formats(list(FILES))
    with pytest.raises(ValueError, match="=tflite: no such format; choose among tflite_float32, "):
        check_formats(["tflite"])
    real = builtins.__import__

    def without(name, *arguments):
        if name == "tf2onnx":
            raise ImportError(name=name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"needs tf2onnx, which is not installed: pip install -e '.\[onnx\]'"):
        check_formats(["onnx"])
