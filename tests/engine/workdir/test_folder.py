"""The lock, the config that a workdir was made with, and the record of the environment."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest
import tensorflow as tf

from configs import base
from engine import experiment
from engine.config.recorded_run import LATER_FIELDS
from engine.workdir import folder as workdir
from engine.workdir.folder import WorkdirError, WorkdirLock, compare_config, save_config

_HOLDER = """
import sys, time
from engine.workdir.folder import WorkdirLock
with WorkdirLock(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path."""
    process = subprocess.Popen([sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_second_process_is_refused_until_the_first_is_killed(tmp_path, holder):
    message = rf"{tmp_path}: process {holder.pid} is using this workdir; wait, stop it"
    with pytest.raises(WorkdirError, match=message) as caught, WorkdirLock(tmp_path):
        pass
    assert "\n" not in str(caught.value)
    holder.kill()
    holder.wait()
    with WorkdirLock(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_lock_ends_with_its_context_and_may_be_taken_again(tmp_path):
    lock = WorkdirLock(tmp_path / "new" / "folder")
    for _ in range(2):
        with lock:
            with pytest.raises(WorkdirError), WorkdirLock(tmp_path / "new" / "folder"):
                pass
            # The refused one must not have released ours.
            with pytest.raises(WorkdirError), WorkdirLock(tmp_path / "new" / "folder"):
                pass


CONFIG = {"seed": 1, "train": {"lr": 1e-5, "factors": (0.9, 1.0)}, "data": {"eval": {}}}


def test_same_config_again_is_accepted(tmp_path):
    save_config(tmp_path, CONFIG)
    written = (tmp_path / "config.json").read_bytes()
    save_config(tmp_path, CONFIG)  # Tuples come back as lists.
    assert (tmp_path / "config.json").read_bytes() == written
    assert json.loads(written)["train"] == {"lr": 1e-5, "factors": [0.9, 1.0]}


def test_other_config_is_refused_and_the_fields_named(tmp_path):
    save_config(tmp_path, CONFIG)
    other = {
        "seed": 2,
        "train": {"lr": 1e-5, "factors": (0.9,), "name": "ä"},
        "data": {"eval": {"dev": {"input": "x"}}},
    }
    with pytest.raises(WorkdirError) as caught:
        save_config(tmp_path, other)
    assert str(caught.value) == (
        f"{tmp_path}/config.json: the workdir was made with another config:"
        ' data.eval was {}, is absent; data.eval.dev.input was absent, is "x";'
        " seed was 1, is 2; train.factors was [0.9, 1.0], is [0.9];"
        ' train.name was absent, is "ä"; undo the change or choose another workdir'
    )


def test_allowed_fields_may_differ_and_the_first_values_stay(tmp_path):
    save_config(tmp_path, CONFIG)
    other = {**CONFIG, "seed": 2, "data": {"eval": {"dev": 1}, "evaluation": 3}}
    with pytest.raises(WorkdirError, match="config: data.evaluation was absent, is 3; undo"):
        save_config(tmp_path, other, allowed=["seed", "data.eval"])
    save_config(tmp_path, other, allowed=["seed", "data"])
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1


def test_a_config_of_which_nothing_has_come_gives_way(tmp_path):
    save_config(tmp_path, CONFIG)
    other = {**CONFIG, "seed": 7}
    save_config(tmp_path, other, replace=True)
    with pytest.raises(WorkdirError, match="seed was 7, is 1"):
        save_config(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("saved", "current", "expected"),
    [
        ({"a": 1}, {"a": 1.0}, ["a was 1, is 1.0"]),
        ({"a": "1"}, {"a": 1}, ['a was "1", is 1']),
        ({"a": None}, {}, ["a was null, is absent"]),
        ({"a": True}, {"a": True}, []),
        ({"a": {"b": {"c": 1, "d": 2}}}, {"a": {"b": {"c": 1, "d": 3}}}, ["a.b.d was 2, is 3"]),
    ],
)
def test_differences(saved, current, expected):
    assert compare_config(saved, current) == expected


@pytest.mark.parametrize(
    ("saved", "current", "expected"),
    [
        ({"data": {"z": 1}}, {"data": {"z": 1, "alpha": 1.0, "more": {}}}, []),
        ({"data": {"z": 1}}, {"data": {"z": 1, "alpha": 0.5, "more": {}}}, ["data.alpha was 1.0, is 0.5"]),
        ({"data": {"z": 1, "alpha": 0.5}}, {"data": {"z": 1, "alpha": 1.0}}, ["data.alpha was 0.5, is 1.0"]),
        ({"data": {"z": 1}}, {"data": {"z": 1, "more": {"x": {"a": 1}}}}, ["data.more.x.a was absent, is 1"]),
        ({"data": {"z": 1, "more": {"x": {"a": 1}}}}, {"data": {"z": 1, "more": {}}}, [
            "data.more was absent, is {}", "data.more.x.a was 1, is absent"]),
        ({"data": {"z": 1, "alpha": 1.0}}, {"data": {"z": 1}}, ["data.alpha was 1.0, is absent"]),
    ],
)  # fmt: skip
def test_a_field_that_an_older_version_did_not_record_counts_as_what_that_version_did(saved, current, expected):
    assert compare_config(saved, current, later={"data.alpha": 1.0, "data.more": {}}) == expected


def test_broken_config_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WorkdirError, match=r"config\.json is not valid JSON .*; repair it") as caught:
        save_config(tmp_path, CONFIG)
    assert "\n" not in str(caught.value)


def test_environment_tells_versions_devices_and_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run.py", "--mode=train"])
    environment = workdir.write_environment(tmp_path)
    assert json.loads((tmp_path / "environment.json").read_text()) == environment
    assert environment["command"] == ["run.py", "--mode=train"]
    assert environment["packages"]["tensorflow"].startswith("2.")
    assert environment["packages"]["tf-models-official"].startswith("2.")
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert any(device.startswith("/physical_device:CPU") for device in environment["devices"])
    assert environment["num_cpus"] == os.cpu_count()


def test_error_is_a_value_error():
    assert issubclass(WorkdirError, ValueError)


def test_a_field_that_may_change_is_taken_over(tmp_path):
    old = {"train": {"num_updates": 6, "seed": 1}}
    save_config(tmp_path, old)
    new = {"train": {"num_updates": 9, "seed": 1}}
    seen = []

    def may_change(saved):
        seen.append(saved["train"]["num_updates"])
        return ["train.num_updates"]

    with pytest.raises(WorkdirError, match="train.num_updates was 6, is 9"):
        save_config(tmp_path, new)
    with pytest.raises(WorkdirError, match="train.seed was 1, is 2;"):
        save_config(tmp_path, {"train": {"num_updates": 9, "seed": 2}}, may_change=may_change)
    save_config(tmp_path, new, may_change=may_change)
    assert seen == [6, 6]
    assert json.loads((tmp_path / "config.json").read_text())["train"]["num_updates"] == 9


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_line_with_the_path_and_what_to_do(tmp_path, monkeypatch, number):
    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(workdir.fcntl, "flock", refuse)
    wanted = rf"{tmp_path}/\.lock: the file system has no locks \(.*local disk"
    with pytest.raises(WorkdirError, match=wanted) as caught:
        WorkdirLock(tmp_path).__enter__()
    assert "\n" not in str(caught.value)


def test_an_error_of_the_lock_names_its_file(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(workdir.fcntl, "flock", refuse)
    with pytest.raises(OSError, match=rf"Input/output error: '{tmp_path}/\.lock'"):
        WorkdirLock(tmp_path).__enter__()


def test_a_url_has_no_lock_and_says_so_and_one_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", logger="absl")
    url = f"ram://{tmp_path.name}/run"
    with WorkdirLock(url), WorkdirLock(url):
        pass
    assert f"{url}: a URL has no lock" in caplog.text
    with pytest.raises(OSError, match="cannot use foo://x/run: File system scheme 'foo' not implemented"):
        WorkdirLock("foo://x/run").__enter__()
    with pytest.raises(WorkdirError, match=r"gs:/bucket/run: a URL has two slashes: write gs://bucket/run"):
        WorkdirLock("gs:/bucket/run").__enter__()
    assert list(tmp_path.iterdir()) == []


def test_what_a_service_says_of_a_url_is_one_line():
    error = tf.errors.UnavailableError(None, None, "503 for gs://b/run/checkpoints/ckpt-2\nand more")
    wanted = "gs://b/run: cannot be written: 503 for gs://b/run/checkpoints/ckpt-2; existing"
    with pytest.raises(WorkdirError, match=wanted), workdir.storage_faults("gs://b/run"):
        raise error
    with pytest.raises(tf.errors.UnavailableError), workdir.storage_faults("gs://other/run"):
        raise error


def test_a_workdir_of_a_version_with_one_corpus_goes_on_as_it_was(tmp_path):
    recorded, now = base.get_config().to_dict(), base.get_config().to_dict()
    del recorded["data"]["train"]["weight"], recorded["data"]["more_train"], recorded["data"]["sampling_alpha"]
    del recorded["eval"]["best_metric"]
    save_config(tmp_path, recorded)
    options = {"allowed": experiment.RESUMABLE_FIELDS, "later": LATER_FIELDS}
    save_config(tmp_path, now, **options)
    now["data"]["more_train"] = {"calls": base.get_train_set().to_dict()}
    with pytest.raises(WorkdirError, match=r"data\.more_train\.calls\.format was absent, is"):
        save_config(tmp_path, now, **options)
