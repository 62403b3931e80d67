"""The process that converts; what it makes is compared with the live model in test_portable.py."""

from __future__ import annotations

import pytest
import tensorflow as tf

from engine.inference import portable_converter
from engine.inference.portable import build_portable, load_portable, save_portable
from tests.engine_toys import NUM_SAMPLES, ToyModel


def test_it_writes_the_file_or_says_why_in_its_last_line(tmp_path, capsys, monkeypatch):
    model = ToyModel(seed=3)
    save_portable(build_portable(model), tmp_path / "plain")
    arguments = (str(tmp_path / "plain"), "tflite_float32", str(tmp_path / "model.tflite"))
    assert portable_converter.main(*arguments) == 0
    waveform = tf.random.stateless_normal([NUM_SAMPLES], (1, 2))
    centred = waveform - tf.reduce_mean(waveform)
    normalized = centred / tf.math.reduce_std(centred)
    wanted = model(normalized[tf.newaxis], tf.constant([NUM_SAMPLES]))[0].numpy()
    found = load_portable(tmp_path / "model.tflite", "tflite_float32")(waveform.numpy())
    assert found == pytest.approx(wanted, abs=1e-5)

    def fail(folder, name):
        raise RuntimeError("no such kernel\nand forty lines more")

    monkeypatch.setattr(portable_converter, "convert", fail)
    assert portable_converter.main(*arguments[:2], str(tmp_path / "other.tflite")) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "no such kernel"
    assert not (tmp_path / "other.tflite").exists()
