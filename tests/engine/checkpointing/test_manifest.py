"""Every way in which a checkpoint's files can be wrong is found, and what is no checkpoint is swept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from engine.checkpointing import manifest as integrity


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of 40 kB without a manifest."""
    weight = tf.Variable(np.random.default_rng(0).normal(size=10_000).astype(np.float32))
    return tf.train.Checkpoint(weight=weight).write(str(tmp_path / "ckpt-7"))


def data_file(checkpoint):
    return next(Path(path) for path in integrity.files_of(checkpoint) if not path.endswith(".index"))


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_manifest_tells_sums_and_what_else_it_was_given(saved):
    integrity.write_manifest(saved, {"step": 7})
    manifest = integrity.read_manifest(saved)
    assert manifest["step"] == 7
    assert sorted(manifest["files"]) == ["ckpt-7.data-00000-of-00001", "ckpt-7.index"]
    assert manifest["files"]["ckpt-7.data-00000-of-00001"]["bytes"] == data_file(saved).stat().st_size
    assert integrity.find_damage(saved) is None


@pytest.mark.parametrize("with_manifest", [True, False])
@pytest.mark.parametrize("what", ["cut", "empty", "missing", "one bit of data", "one bit of index", "index of zeros"])
def test_damage_is_found_with_and_without_a_manifest(saved, with_manifest, what):
    if with_manifest:
        integrity.write_manifest(saved, {})
    data, index = data_file(saved), Path(integrity.files_of(saved)[-1])
    assert index.suffix == ".index"
    assert integrity.find_damage(saved) is None
    if what == "cut":
        os.truncate(data, data.stat().st_size - 1)
    elif what == "empty":
        os.truncate(data, 0)
    elif what == "missing":
        data.unlink()
    elif what == "one bit of data":
        flip(data, 20_000)
    elif what == "one bit of index":
        flip(index, 30)
    else:
        index.write_bytes(b"\0" * index.stat().st_size)
    assert integrity.find_damage(saved)
    assert "\n" not in integrity.find_damage(saved)


def test_a_manifest_names_the_file_and_what_is_wrong_with_it(saved):
    integrity.write_manifest(saved, {})
    size = data_file(saved).stat().st_size
    flip(data_file(saved), 5)
    assert integrity.find_damage(saved) == "ckpt-7.data-00000-of-00001 does not match its SHA-256 sum"
    os.truncate(data_file(saved), 3)
    assert integrity.find_damage(saved) == f"ckpt-7.data-00000-of-00001 has 3 bytes instead of {size}"


def test_an_unreadable_manifest_is_no_damage(saved, tmp_path):
    (tmp_path / "ckpt-7.manifest.json").write_text("{")
    assert integrity.read_manifest(saved) is None
    assert integrity.find_damage(saved) is None
    (tmp_path / "ckpt-7.manifest.json").write_text(json.dumps({"files": 3}))
    assert integrity.read_manifest(saved) is None


def test_checkpoints_are_listed_by_number_without_tensorflows_list(tmp_path):
    for name in ("ckpt-9.index", "ckpt-10.index", "ckpt-10.data-00000-of-00001", "weights.index", "ckpt-x.index"):
        (tmp_path / name).touch()
    assert integrity.list_checkpoints(tmp_path) == [str(tmp_path / "ckpt-9"), str(tmp_path / "ckpt-10")]
    assert integrity.list_checkpoints(tmp_path / "nowhere") == []


def test_a_checkpoint_set_aside_is_whole_and_no_longer_listed(saved, tmp_path):
    integrity.write_manifest(saved, {})
    folder = integrity.set_aside(saved)
    assert folder == str(tmp_path / "damaged")
    assert sorted(os.listdir(folder)) == ["ckpt-7.data-00000-of-00001", "ckpt-7.index", "ckpt-7.manifest.json"]
    assert integrity.list_checkpoints(tmp_path) == []


def test_litter_of_killed_processes_is_swept_and_nothing_else(saved, tmp_path):
    integrity.write_manifest(saved, {})
    (tmp_path / "ckpt-8_temp").mkdir()
    (tmp_path / "ckpt-8_temp/part-00000-of-00001.data-00000-of-00001").touch()
    for name in (
        "ckpt-8.data-00000-of-00001", "ckpt-6.manifest.json", ".best.json.12.34.tmp", "ckpt-9.index.tempstate123",
        "best.json", "notes.txt", "checkpoint",
    ):  # fmt: skip
        (tmp_path / name).touch()
    integrity.sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [
        "best.json", "checkpoint", "ckpt-7.data-00000-of-00001", "ckpt-7.index", "ckpt-7.manifest.json", "notes.txt",
    ]  # fmt: skip
    integrity.sweep(tmp_path / "nowhere")
