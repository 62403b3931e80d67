"""The process that converts; what it makes is compared with the live model in test_portable.py."""

from __future__ import annotations

import pytest
import tensorflow as tf

from engine.inference.export import portable_converter
from engine.inference.export.portable import build_portable, load_portable, save_portable
from models.wav2vec2.model import build_model
from tests.helpers.engine_toys import NUM_SAMPLES, ToyModel


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


def test_weights_are_inputs_while_a_graph_becomes_onnx(tmp_path):
    model = build_model(preset="tiny", vocab_size=8, num_layers=1, conv_dim=(16, 16, 16), hidden_size=32, num_heads=2)
    save_portable(build_portable(model), tmp_path / "plain")
    loaded = tf.saved_model.load(str(tmp_path / "plain"))
    (function,) = loaded.logits.concrete_functions
    graph, weights = portable_converter._weights_as_inputs(function, loaded.weights)
    # Each once: the position kernel is read twice. The mask's embedding is for training alone.
    assert len(weights) == len({id(variable) for variable in weights.values()}) == len(model.variables) - 1
    assert sum(variable.shape.num_elements() for variable in weights.values()) > 20_000
    assert not [node.name for node in graph.node if node.op == "ReadVariableOp"]
    assert max(len(node.attr["value"].tensor.tensor_content) for node in graph.node if node.op == "Const") < 100


@pytest.mark.parametrize(("name", "file"), [("tflite_float32", "model.tflite"), ("onnx", "model.onnx")])
def test_a_model_that_makes_a_spectrogram_and_scores_of_distances_is_converted(tmp_path, name, file):
    fields = {"num_layers": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "num_length_adapters": 1}
    model = build_model(preset="w2v_bert_base", vocab_size=8, fused_ops="off", **fields)
    module = build_portable(model, normalize=False)
    save_portable(module, tmp_path / "plain")
    assert portable_converter.main(str(tmp_path / "plain"), name, str(tmp_path / file)) == 0
    load = load_portable(tmp_path / file, name)
    for num_samples in (16_000, 20_160):
        waveform = 0.05 * tf.random.stateless_normal([num_samples], (1, 2))
        wanted = module.logits(waveform[tf.newaxis])["logits"][0].numpy()
        assert load(waveform.numpy()) == pytest.approx(wanted, abs=1e-4)


class Calling(ToyModel):
    """Reads its weights inside of a function that it calls, as a SavedModel from TF-Hub does."""

    def call(self, waveform, waveform_lengths, training=False, random=None):
        return tf.function(super().call, autograph=False)(waveform, waveform_lengths)


def test_a_model_that_reads_its_weights_elsewhere_becomes_onnx_all_the_same(tmp_path):
    model = Calling(seed=3)
    module = build_portable(model)
    save_portable(module, tmp_path / "plain")
    loaded = tf.saved_model.load(str(tmp_path / "plain"))
    assert portable_converter._weights_as_inputs(loaded.logits.concrete_functions[0], loaded.weights) is None
    assert portable_converter.main(str(tmp_path / "plain"), "onnx", str(tmp_path / "model.onnx")) == 0
    waveform = tf.random.stateless_normal([NUM_SAMPLES], (1, 2))
    wanted = module.logits(waveform[tf.newaxis])["logits"][0].numpy()
    assert load_portable(tmp_path / "model.onnx", "onnx")(waveform.numpy()) == pytest.approx(wanted, abs=1e-5)
