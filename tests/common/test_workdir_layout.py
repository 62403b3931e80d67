"""Which checkpoint of a folder counts, whose it is, and where the files of a run lie; as a path and as a URL."""

from __future__ import annotations

import json

import pytest

from common import storage
from common import workdir_layout as layout
from common.json_files import MalformedFileError


@pytest.fixture(params=["path", "ram"])
def workdir(request, tmp_path):
    url = f"ram://{tmp_path.name}/run"
    folder = str(tmp_path / "run") if request.param == "path" else url
    storage.make_dirs(folder)
    return folder


def put(workdir, name, content=b""):
    path = storage.join(workdir, name)
    storage.make_dirs(storage.parent(path))
    storage.write_bytes(path, content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def put_checkpoint(workdir, name, run_id=""):
    prefix = put(workdir, f"{name}.index").removesuffix(".index")
    put(workdir, f"{name}.manifest.json", {"files": {}, "run_id": run_id} if run_id else {"files": {}})
    return prefix


def test_checkpoints_are_read_off_the_folder_whatever_tensorflows_list_says(workdir):
    paths = [put_checkpoint(workdir, f"checkpoints/ckpt-{step}") for step in (9, 10)]
    put(workdir, "checkpoints/ckpt-11.data-00000-of-00001")  # under way: it has no index yet
    put(workdir, "checkpoints/checkpoint", b'model_checkpoint_path: "ckpt-9"\n')
    folder = storage.join(workdir, "checkpoints")
    assert layout.list_checkpoints(folder) == paths
    assert layout.find_checkpoint(workdir) == layout.find_checkpoint(folder) == paths[1]
    assert layout.find_checkpoint(paths[0]) == layout.find_checkpoint(f"{paths[0]}.index") == paths[0]
    assert layout.find_checkpoint(storage.join(workdir, "nowhere")) is None


def test_the_best_comes_first_or_last_and_a_converted_folder_has_one(workdir):
    newest, best = put_checkpoint(workdir, "checkpoints/ckpt-9"), put_checkpoint(workdir, "best/ckpt-3")
    assert layout.find_checkpoint(workdir) == best
    assert layout.find_checkpoint(workdir, prefer_best=False) == newest
    weights = put(workdir, "weights.index").removesuffix(".index")
    assert layout.find_checkpoint(workdir) == weights


def test_what_another_run_has_written_is_passed_over(workdir, caplog):
    put(workdir, "run.json", {"run_id": "mine"})
    theirs = put_checkpoint(workdir, "best/ckpt-30", "theirs")
    mine = put_checkpoint(workdir, "checkpoints/ckpt-9", "mine")
    assert layout.find_checkpoint(workdir) == mine
    assert "ckpt-30 is ignored: it belongs to run theirs, the workdir to run mine" in caplog.text
    assert layout.find_checkpoint(theirs) == theirs  # asked for by name
    # A version that wrote no ids made it: it belongs to the workdir that it lies in.
    old = put_checkpoint(workdir, "best/ckpt-4")
    assert layout.find_checkpoint(workdir) == old


def test_a_damaged_id_is_one_line_that_says_what_to_do(workdir):
    put_checkpoint(workdir, "best/ckpt-3")
    for content in (b"{", b'{"run_id": 3}', b"[]"):
        path = put(workdir, "run.json", content)
        with pytest.raises(MalformedFileError, match=r"run\.json.*; delete it: the next start") as caught:
            layout.find_checkpoint(workdir)
        assert path in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"files": 3}', b'{"files": {"a": 3}}', b"\xff"])
def test_a_manifest_that_cannot_be_read_is_none(workdir, content):
    put(workdir, "ckpt-1.manifest.json", content)
    assert layout.read_manifest(storage.join(workdir, "ckpt-1")) is None
    assert layout.run_id_of(storage.join(workdir, "ckpt-1")) == ""


def test_the_config_of_a_checkpoint_lies_up_to_two_folders_above_it(workdir):
    path = put(workdir, "config.json", {"seed": 1})
    for name in ("", "best", "best/ckpt-3"):
        assert layout.find_above(storage.join(workdir, name), "config.json") == path
    assert layout.find_above(storage.join(workdir, "a/b/c/d"), "config.json") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not UTF-8"),
        (b'{"a":' * 50 + b"1" + b"}" * 50, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"data": {"train.input": 1}}', "'train.input': field names have no dots"),
        (b'{"data": {"__class__": 1}}', "'__class__' is no field name"),
        (b"[]", "a JSON array, not a JSON object"),
    ],
)
def test_a_config_that_no_run_wrote_is_one_line(workdir, content, message):
    path = put(workdir, "config.json", content)
    with pytest.raises(MalformedFileError, match=message) as caught:
        layout.read_config(path)
    assert path in str(caught.value) and "\n" not in str(caught.value)
