"""A folder with a model: what is written comes back exactly, and everything else is one line."""

from __future__ import annotations

import json
from operator import attrgetter

import numpy as np
import pytest
import tensorflow as tf

from engine.checkpointing.restore import restore_model
from models.wav2vec2 import pretrained
from models.wav2vec2.config import preset
from models.wav2vec2.model import Wav2Vec2ForCTC

NARROW = {"conv_dim": (8,) * 7, "hidden_size": 16, "num_heads": 2, "num_layers": 2, "intermediate_size": 24}


def narrow_model(**overrides):
    return Wav2Vec2ForCTC(config=preset("base", **{"pos_conv_groups": 4, **NARROW, **overrides}))


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def saved(tmp_path):
    model = narrow_model()
    model.save_pretrained(tmp_path / "model")
    return model, tmp_path / "model"


def test_what_was_saved_comes_back(saved):
    model, folder = saved
    assert files_in(folder) == ["config.json", "weights.data-00000-of-00001", "weights.index"]
    again = Wav2Vec2ForCTC.from_pretrained(folder, precision="mixed_bfloat16", freeze_feature_encoder=True)
    assert again.config == model.config
    assert not again.backbone.feature_encoder.trainable
    assert len(again.variables) == len(model.variables)
    values = {variable.name: variable.numpy() for variable in model.variables}
    for variable in again.variables:
        np.testing.assert_array_equal(variable.numpy(), values[variable.name])


def test_a_distributed_model_gets_its_weights_in_scope(saved):
    model, folder = saved
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        again = Wav2Vec2ForCTC.from_pretrained(folder)
    for replica in again.head.kernel.values:
        np.testing.assert_array_equal(replica.numpy(), model.head.kernel.numpy())


def test_a_training_run_starts_from_the_folder_with_the_head_or_without(saved):
    model, folder = saved
    whole, other_head = narrow_model(), narrow_model(vocab_size=5)
    restore_model(whole, folder)
    restore_model(other_head, folder, leave_out=["head"])
    for name in ("backbone.mask_embedding", "head.kernel"):
        np.testing.assert_array_equal(attrgetter(name)(whole).numpy(), attrgetter(name)(model).numpy())
    np.testing.assert_array_equal(other_head.backbone.mask_embedding.numpy(), model.backbone.mask_embedding.numpy())
    assert other_head.head.kernel.shape == (16, 5)


def test_saving_over_an_older_model_leaves_nothing_of_it(saved, tmp_path):
    _, folder = saved
    (tmp_path / "vocab.json").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    wide = narrow_model(hidden_size=32)
    wide.save_pretrained(folder, vocab=tmp_path / "vocab.json")
    assert "vocab.json" in files_in(folder)
    narrow_model().save_pretrained(folder)
    assert files_in(folder) == ["config.json", "notes.txt", "weights.data-00000-of-00001", "weights.index"]
    assert Wav2Vec2ForCTC.from_pretrained(folder).config.hidden_size == 16


def test_a_save_that_fails_leaves_the_old_model(saved, tmp_path):
    model, folder = saved
    with pytest.raises(FileNotFoundError):
        narrow_model().save_pretrained(folder, vocab=tmp_path / "absent.json")
    again = Wav2Vec2ForCTC.from_pretrained(folder)
    np.testing.assert_array_equal(again.head.kernel.numpy(), model.head.kernel.numpy())
    assert not [name for name in files_in(folder) if name.startswith(".")]


def write_run(folder, model, **fields):
    """A workdir with the weights of `model` in best/ and zeros in checkpoints/, an optimizer beside them."""
    names = ("conv_dim", "hidden_size", "num_heads", "num_layers", "intermediate_size", "pos_conv_groups")
    architecture = {name: getattr(model.config, name) for name in names}
    run = {"source": "native", "preset": "auto", "layer_drop": 0.25, "architecture": architecture, **fields}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model": run}))
    (folder / "vocab.json").write_text(json.dumps({f"<{i}>": i for i in range(model.config.vocab_size)}))
    other = narrow_model()
    for variable in other.variables:
        variable.assign(tf.zeros_like(variable))
    for name, saved in (("best", model), ("checkpoints", other)):
        checkpoint = tf.train.Checkpoint(model=saved, optimizer=tf.train.Checkpoint(rate=tf.Variable(1.0)))
        tf.train.CheckpointManager(checkpoint, str(folder / name), max_to_keep=1).save(checkpoint_number=7)
    return folder


def test_the_workdir_of_a_run_is_a_folder_with_a_model_too(saved, tmp_path):
    model, _ = saved
    run = write_run(tmp_path / "run", model)
    again = Wav2Vec2ForCTC.from_pretrained(run)
    assert again.config == preset("base", pos_conv_groups=4, **NARROW, layer_drop=0.25)
    np.testing.assert_array_equal(again.head.kernel.numpy(), model.head.kernel.numpy())
    pretrained.restore(again, run, checkpoint=run / "checkpoints")
    assert not again.head.kernel.numpy().any()
    pretrained.restore(again, run, checkpoint=run / "best" / "ckpt-7")
    np.testing.assert_array_equal(again.head.kernel.numpy(), model.head.kernel.numpy())
    with pytest.raises(FileNotFoundError, match="no checkpoint; give WORKDIR/best or WORKDIR/checkpoints"):
        pretrained.restore(again, run, checkpoint=tmp_path)
    assert pretrained.saved_model_of_run(run) is None


@pytest.mark.parametrize("content", [None, "nonsense", 'model_checkpoint_path: "ckpt-3"\n'])
def test_the_weights_of_a_run_are_found_without_tensorflows_list(saved, tmp_path, content):
    run = write_run(tmp_path / "run", saved[0])
    for name in ("best", "checkpoints"):
        (run / name / "checkpoint").unlink()
        if content is not None:
            (run / name / "checkpoint").write_text(content)
    assert pretrained.find_run_checkpoint(run) == str(run / "best/ckpt-7")
    assert pretrained.find_run_checkpoint(run, run / "checkpoints") == str(run / "checkpoints/ckpt-7")


def test_the_best_weights_of_another_run_are_passed_over(saved, tmp_path):
    run = write_run(tmp_path / "run", saved[0])
    (run / "run.json").write_text('{"run_id": "mine"}')
    (run / "best/ckpt-7.manifest.json").write_text('{"files": {}, "run_id": "theirs"}')
    assert pretrained.find_run_checkpoint(run) == str(run / "checkpoints/ckpt-7")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "hub", "hub_handle": "X"}, "the network of this run is the SavedModel X, not one of ours"),
        ({"architecture": {"hidden_size": 32, "num_heads": 2}}, "damaged, or of another model"),
        ({"preset": "auto", "architecture": {}}, "unknown model preset 'auto'"),
        ({"architecture": {"width": 3}}, "unknown model config field"),
    ],
)
def test_a_run_that_cannot_be_read_is_one_line(saved, tmp_path, fields, message):
    refused(write_run(tmp_path / "run", saved[0], **fields), message)


def test_a_run_without_checkpoints_is_one_line(saved, tmp_path):
    run = write_run(tmp_path / "run", saved[0])
    for name in ("best", "checkpoints"):
        (run / name).rename(tmp_path / name)
    refused(run, "no such file; give a folder written by", FileNotFoundError)


def refused(folder, message, error=ValueError):
    with pytest.raises(error, match=message) as caught:
        Wav2Vec2ForCTC.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_absent_files_are_named(saved, tmp_path):
    _, folder = saved
    refused(tmp_path / "absent", "config.json: no such file", FileNotFoundError)
    (folder / "weights.index").unlink()
    refused(folder, "weights.index: no such file", FileNotFoundError)


@pytest.mark.parametrize("name", ["weights.index", "weights.data-00000-of-00001"])
def test_a_cut_file_is_damaged(saved, name):
    _, folder = saved
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    refused(folder, "damaged")


@pytest.mark.parametrize("change", [{"hidden_size": 32}, {"num_layers": 1}, {"num_layers": 3}])
def test_weights_of_another_architecture_are_refused(saved, change):
    _, folder = saved
    fields = {**json.loads((folder / "config.json").read_text()), **change}
    (folder / "config.json").write_text(json.dumps(fields))
    refused(folder, "of another model")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"hidden_size": -1}', "hidden_size must be from 1 to"),
        ('{"num_layers": 1000000000}', "num_layers must be from 1 to 1000"),
        ('{"normalize_waveform": 1}', "normalize_waveform must be true or false"),
        ("[]", "not a JSON object; convert the model again"),
        ('{"model_type": "wav2vec2"}', "belongs to a Hugging Face model; run python -m models.convert"),
        ('{"width": 3}', "unknown model config field"),
        ('{"num_heads": "two"}', "config.json"),
        ('{"conv_dim": 3}', "config.json"),
    ],
)
def test_a_config_that_is_not_ours_is_refused(saved, text, message):
    _, folder = saved
    (folder / "config.json").write_text(text)
    refused(folder, message)
    with pytest.raises(ValueError):
        pretrained.read_config(folder)
