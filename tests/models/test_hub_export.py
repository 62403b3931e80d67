"""TF-Hub out and in again: a plain KerasLayer elsewhere trains it, and the circle closes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from common.hub_input import hub_normalizes
from models import hub_export
from models.ctc import loss as ctc
from models.hub.model import HubForCTC
from models.wav2vec2.config import preset
from models.wav2vec2.model import Wav2Vec2ForCTC
from tests.helpers.full_disk import small_files_only
from tests.helpers.saved_graphs import functions_to_compile, read_graph

SIZE = 8_000
NARROW = {
    "conv_dim": (8,) * 3, "hidden_size": 16, "num_heads": 2, "num_layers": 1, "intermediate_size": 24,
    "pos_conv_groups": 4, "vocab_size": 7,
}  # fmt: skip

# What a stranger does: TensorFlow Hub's own layer under a Dense head, and a few steps of it.
STRANGER = """
import json, sys
class Absent:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in ("configs", "data", "engine", "models", "run"):
            raise ImportError(f"{name} is of the project")
sys.meta_path.insert(0, Absent())  # it may be installed beside TensorFlow
import numpy as np, tensorflow_hub as hub, tf_keras
layer = hub.KerasLayer(sys.argv[1], trainable=True)
tf_keras.utils.set_random_seed(0)
speech = np.random.default_rng(0).normal(size=[2, 8000]).astype("float32")
states = layer(speech, training=False).numpy()
inputs = tf_keras.Input([8000])
model = tf_keras.Model(inputs, tf_keras.layers.Dense(1)(layer(inputs)))
before = [variable.numpy() for variable in layer.trainable_variables]
model.compile(tf_keras.optimizers.Adam(1e-2), "mse")
history = model.fit(speech, np.full([2, states.shape[1], 1], 3.0), epochs=8, verbose=0)
changed = sum(bool((a != b.numpy()).any()) for a, b in zip(before, layer.trainable_variables))
np.save(sys.argv[2], states)
print(json.dumps({"losses": history.history["loss"], "changed": changed, "trainable": len(before)}))
"""


def narrow_model(**fields):
    return Wav2Vec2ForCTC(config=preset("tiny", **{**NARROW, **fields}))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A converted folder and what the command makes of it."""
    root = tmp_path_factory.mktemp("export")
    narrow_model(mask_time_prob=0.2, layer_drop=0.0, fused_ops="on").save_pretrained(root / "model")
    assert hub_export.main([f"--input={root / 'model'}", f"--output={root / 'hub'}", f"--num_samples={SIZE}"]) == 0
    return root


def test_the_signatures_are_the_published_ones(saved):
    loaded = tf.saved_model.load(str(saved / "hub"))
    found = {str(function.structured_input_signature) for function in loaded.__call__.concrete_functions}
    speech = tf.TensorSpec([None, SIZE], tf.float32, name="speech")
    assert found == {str(((speech, None, training), {})) for training in (True, False)}
    for function in loaded.__call__.concrete_functions:
        assert function.structured_outputs.shape.as_list() == [None, preset("tiny").num_frames(SIZE), 16]
    assert len(loaded.trainable_variables) == len(loaded.variables) == len(narrow_model().backbone.variables)
    assert loaded.output_lengths(tf.constant([SIZE, 100])).numpy().tolist() == [preset("tiny").num_frames(SIZE), 0]


def test_no_compiler_is_needed_where_it_is_loaded(saved):
    graph = read_graph(saved / "hub")
    assert len(graph.library.function) > 3
    assert functions_to_compile(graph) == []


def test_a_plain_keras_layer_in_a_process_without_this_project_trains_it(saved, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", STRANGER, str(saved / "hub"), str(tmp_path / "states.npy")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    model = Wav2Vec2ForCTC.from_pretrained(saved / "model")
    speech = np.random.default_rng(0).normal(size=[2, SIZE]).astype(np.float32)
    expected = model.backbone(tf.constant(speech), tf.constant([SIZE, SIZE]), None)[0][-1]
    np.testing.assert_allclose(np.load(tmp_path / "states.npy"), expected, atol=1e-5)
    assert report["losses"][-1] < 0.7 * report["losses"][0]
    assert report["changed"] == report["trainable"] == len(model.backbone.variables)


def test_training_draws_new_masks_and_dropout_in_each_call(saved):
    loaded = tf.saved_model.load(str(saved / "hub"))
    speech = np.random.default_rng(0).normal(size=[2, SIZE]).astype(np.float32)
    first, second = (loaded(speech, training=True).numpy() for _ in range(2))
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_array_equal(loaded(speech, training=False), loaded(speech, training=False))


def batch():
    rng = np.random.default_rng(1)
    waveform, lengths = rng.normal(size=[4, SIZE]).astype(np.float32), np.array([8_000, 7_000, 6_000, 5_000], np.int32)
    labels = np.array([[1, 2, 3], [4, 5, 6], [2, 4, 1], [3, 6, 5]], np.int32)
    return waveform, lengths, labels, np.full([4], 3, np.int32)


@pytest.mark.parametrize("kind", ["one_device", "mirrored"])
def test_the_circle_closes(kind, saved, tmp_path, two_replicas):
    strategy = two_replicas if kind == "mirrored" else tf.distribute.OneDeviceStrategy("CPU:0")
    with strategy.scope():
        model = HubForCTC(handle=str(saved / "hub"), vocab_size=7)
        optimizer = tf_keras.optimizers.Adam(1e-2)
        optimizer.build(model.trainable_variables)
    waveform, lengths, labels, label_lengths = batch()
    size = 4 // strategy.num_replicas_in_sync

    @tf.function
    def step(update):
        def on_replica():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            rows = tf.range(size) + replica * size
            mine, mine_lengths = tf.gather(waveform, rows), tf.gather(lengths, rows)
            random = model.make_random(seed=0, update=update, row_ids=rows)
            with tf.GradientTape() as tape:
                logits = model(mine, mine_lengths, training=True, random=random)
                found = ctc.ctc_loss(
                    logits, model.output_lengths(mine_lengths), tf.gather(labels, rows), tf.gather(label_lengths, rows)
                )
                loss = tf.reduce_sum(found) / 4
            gradients = tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return loss

        return strategy.reduce("SUM", strategy.run(on_replica), axis=None)

    losses = [float(step(tf.constant(update))) for update in range(12)]
    assert losses[-1] < 0.5 * losses[0]

    checkpoint = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    arguments = [f"--input={saved / 'hub'}", f"--checkpoint={checkpoint}", f"--output={tmp_path / 'again'}"]
    assert hub_export.main(arguments) == 0
    again = HubForCTC(handle=str(tmp_path / "again"), vocab_size=7)
    assert again.signature == model.signature
    trained = {variable.name: variable.numpy() for variable in model.backbone.variables}
    original = tf.saved_model.load(str(saved / "hub"))
    assert len(trained) == len(again.backbone.variables) == len(original.variables)
    for variable in again.backbone.variables:
        np.testing.assert_array_equal(variable.numpy(), trained[variable.name])
    assert any((variable.numpy() != trained[variable.name]).any() for variable in original.variables)
    # The second generation can be trained too: its gradients reach every layer.
    random = again.make_random(seed=0, update=tf.constant(0), row_ids=tf.range(4))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(again(waveform, lengths, training=True, random=random) ** 2)
    assert all(gradient is not None for gradient in tape.gradient(loss, again.trainable_variables))


def test_a_half_precision_export_computes_in_half_precision(saved, tmp_path, capsys):
    arguments = [f"--input={saved / 'model'}", f"--num_samples={SIZE}", "--precision=mixed_bfloat16"]
    assert hub_export.main([*arguments, f"--output={tmp_path / 'half'}"]) == 0
    assert "input speech of 8000 samples; largest difference" in capsys.readouterr().out
    speech = np.random.default_rng(0).normal(size=[1, SIZE]).astype(np.float32)
    half = tf.saved_model.load(str(tmp_path / "half"))(speech, training=False)
    exact = tf.saved_model.load(str(saved / "hub"))(speech, training=False)
    assert half.dtype == tf.float32
    assert 1e-4 < np.abs(half - exact).max() < 0.2


def test_the_workdir_of_a_run_becomes_a_saved_model(saved, tmp_path, capsys):
    run, model = tmp_path / "run", Wav2Vec2ForCTC.from_pretrained(saved / "model")
    model.backbone.mask_embedding.assign(model.backbone.mask_embedding + 1.0)
    run.mkdir()
    fields = {name: value for name, value in NARROW.items() if name != "vocab_size"}
    architecture = dataclasses.asdict(preset("tiny", **fields))
    (run / "config.json").write_text(
        json.dumps({"model": {"source": "native", "preset": "auto", "architecture": architecture}})
    )
    (run / "vocab.json").write_text(json.dumps({f"<{i}>": i for i in range(7)}))
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(model=model), str(run / "checkpoints"), max_to_keep=1)
    manager.save()
    assert hub_export.main([f"--input={run}", f"--num_samples={SIZE}", f"--output={tmp_path / 'hub'}"]) == 0
    assert "input speech of 8000 samples; largest difference" in capsys.readouterr().out
    found = {variable.name: variable for variable in tf.saved_model.load(str(tmp_path / "hub")).variables}
    assert len(found) == len(model.backbone.variables)
    for variable in model.backbone.variables:
        np.testing.assert_array_equal(found[variable.name].numpy(), variable.numpy())

    # A run that trained a SavedModel: the file says which, and the graph stays.
    hub = HubForCTC(handle=str(saved / "hub"), vocab_size=7)
    hub.backbone.variables[0].assign_add(tf.ones_like(hub.backbone.variables[0]))
    (run / "config.json").write_text(json.dumps({"model": {"source": "hub", "hub_handle": str(saved / "hub")}}))
    tf.train.CheckpointManager(tf.train.Checkpoint(model=hub), str(run / "best"), max_to_keep=1).save()
    assert hub_export.main([f"--input={run}", f"--output={tmp_path / 'again'}"]) == 0
    assert f"{len(found)} variables of {run}/best/ckpt-1, the graph of {saved / 'hub'}" in capsys.readouterr().out
    again = {variable.name: variable.numpy() for variable in tf.saved_model.load(str(tmp_path / "again")).variables}
    for variable in hub.backbone.variables:
        np.testing.assert_array_equal(again[variable.name], variable.numpy())
    assert hub_export.main([f"--input={run}", f"--output={tmp_path / 'x'}", "--attention_mask"]) == 2
    assert "is a SavedModel, whose graph cannot change: leave out" in capsys.readouterr().err


def test_a_model_that_hears_recordings_as_they_are_says_so_where_the_saved_model_lies(saved, tmp_path, capsys):
    narrow_model(normalize_waveform=False).save_pretrained(tmp_path / "model")
    flags = [f"--input={tmp_path / 'model'}", f"--num_samples={SIZE}", f"--output={tmp_path / 'raw'}"]
    assert hub_export.main(flags) == 0
    assert "input speech, not normalized, of 8000 samples" in capsys.readouterr().out
    assert hub_normalizes(str(saved / "hub")) and not hub_normalizes(str(tmp_path / "raw"))
    # What is trained from it and written again hears the same.
    hub = HubForCTC(handle=str(tmp_path / "raw"), vocab_size=7)
    tf.train.CheckpointManager(tf.train.Checkpoint(model=hub), str(tmp_path / "best"), max_to_keep=1).save()
    flags = [f"--input={tmp_path / 'raw'}", f"--checkpoint={tmp_path / 'best'}", f"--output={tmp_path / 'again'}"]
    assert hub_export.main(flags) == 0
    assert not hub_normalizes(str(tmp_path / "again"))


def test_wrong_input_is_one_line_and_status_2(saved, tmp_path, capsys):
    for arguments, message in (
        ([f"--input={tmp_path}", f"--output={tmp_path / 'x'}"], "no such file; give a folder written by"),
        ([f"--input={saved / 'model'}", f"--output={saved / 'hub'}"], "is not empty; give --output a new folder"),
        ([f"--input={saved / 'model'}", f"--output={tmp_path / 'x'}", "--num_samples=100"], "makes no frame"),
        ([f"--input={saved / 'hub'}", f"--output={tmp_path / 'x'}"], "--checkpoint is empty"),
        ([f"--input={saved / 'hub'}"], "arguments are required: --output"),
        (
            [f"--input={saved / 'hub'}", f"--output={tmp_path / 'x'}", f"--checkpoint={tmp_path}"],
            "no checkpoint; give WORKDIR/best",
        ),
    ):
        assert hub_export.main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("models.hub_export: ")
        assert message in line
    assert not (tmp_path / "x").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(saved, tmp_path, capsys):
    with small_files_only():
        assert hub_export.main([f"--input={saved / 'model'}", f"--output={tmp_path / 'new'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "make room, or choose another folder" in error
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_differs_from_the_live_model_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_export, "_check", lambda *arguments: float("nan"))
    with pytest.raises(ValueError, match="differ by nan from those of the live model; do not use it"):
        hub_export.export_backbone(narrow_model().backbone, tmp_path / "x", num_samples=SIZE)
