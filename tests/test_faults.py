"""What can go wrong around a run, done for real to a run over stand-ins (all faults: docs/results/0134)."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine import experiment
from engine.checkpointing import manifest
from engine.common.signals import StopTraining
from engine.workdir.folder import WorkdirError
from tests.helpers.experiment_toys import ToyTrainData, make_config, make_parts, reproducible_lines


def run(tmp_path, workdir, *, num_updates=6, **options):
    return experiment.run(
        config=make_config(tmp_path, num_updates=num_updates), parts=make_parts(**options.pop("parts", {})),
        workdir=str(workdir), mode="train", strategy_name="one_device", **options,
    )  # fmt: skip


class StopAfterTheFirstLoop:
    """Stands in for a signal that comes during update 2."""

    within_secs, exit_status = 30.0, 0
    calls = 0

    def defer(self):
        pass

    def __call__(self, output=None):
        self.calls += 1
        if self.calls == 2:
            self.exit_status = 143
            raise StopTraining("stopped by SIGTERM")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("no permission to mount a small file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder, num_bytes_left):
    """Writes a file that leaves so much room."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    os.truncate(filler, max(filler.stat().st_size - num_bytes_left, 0))
    return filler


@pytest.mark.parametrize("num_bytes_left", [0, 16 * 1024])
def test_a_full_disk_stops_with_a_line_the_checkpoint_is_intact_and_room_lets_it_go_on(
    tmp_path, small_disk, num_bytes_left
):
    workdir = small_disk / "run"
    assert run(tmp_path, workdir, stop=StopAfterTheFirstLoop()).exit_status == 143
    before = (workdir / "metrics.jsonl").read_text()
    filler = fill(small_disk, num_bytes_left)
    with pytest.raises(
        WorkdirError, match=r"cannot be written.*No space left on device.*; existing checkpoints"
    ) as caught:
        run(tmp_path, workdir)
    assert "\n" not in str(caught.value)
    paths = manifest.list_checkpoints(workdir / "checkpoints")
    # With a little room the next checkpoint may just fit.
    assert paths[0].endswith("ckpt-2") and [manifest.find_damage(path) for path in paths] == [None] * len(paths)
    assert not list((workdir / "checkpoints").glob("*_temp"))
    assert (workdir / "metrics.jsonl").read_text().startswith(before)
    filler.unlink()
    assert run(tmp_path, workdir).exit_status == 0
    run(tmp_path, tmp_path / "straight")
    assert reproducible_lines(workdir) == reproducible_lines(tmp_path / "straight")


def test_a_disk_that_becomes_read_only_stops_with_a_line_and_loses_nothing(tmp_path, small_disk):
    workdir = small_disk / "run"
    assert run(tmp_path, workdir, stop=StopAfterTheFirstLoop()).exit_status == 143
    # Another view of it: the disk itself is busy while this process has files of the first run open.
    view = tmp_path / "view"
    view.mkdir()
    subprocess.run(["mount", "--bind", str(small_disk), str(view)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(view)], check=True)
        with pytest.raises(WorkdirError, match="view/run: cannot be written.*Read-only file system"):
            run(tmp_path, view / "run")
    finally:
        subprocess.run(["umount", "-l", str(view)], check=True)
    assert run(tmp_path, workdir).exit_status == 0


def test_a_workdir_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WorkdirError, match="file/run: cannot be written.*Not a directory"):
        run(tmp_path, tmp_path / "file/run")


def test_other_data_under_the_same_config_are_refused_and_moved_ones_are_not(tmp_path):
    workdir = tmp_path / "run"
    assert run(tmp_path, workdir, stop=StopAfterTheFirstLoop()).exit_status == 143

    class Edited(ToyTrainData):
        fingerprint = {**ToyTrainData.fingerprint, "texts": "another"}

    before = sorted(path.name for path in workdir.rglob("*"))
    with pytest.raises(WorkdirError, match="ckpt-2: the training data have changed .*: transcripts"):
        run(tmp_path, workdir, parts={"build_train_data": Edited})
    assert sorted(path.name for path in workdir.rglob("*") if "tfevents" not in path.name) == [
        name for name in before if "tfevents" not in name
    ]
    moved = tmp_path / "moved"
    moved.mkdir()
    assert run(moved, workdir).exit_status == 0


# The update after the third takes two minutes, and the checkpoints are far apart. Two replicas, loop in the graph.
SLOW_UPDATES = """
import os, sys, time
import tensorflow as tf
from absl import logging
from engine import experiment
from engine.common.signals import StopOnSignal
from tests.helpers.engine_toys import toy_dataset_fn, toy_loss
from tests.helpers.experiment_toys import ToyTrainData, make_config, make_parts

def wait(labels):
    if int(labels[0, 0]) == 5 and sys.argv[2] == "slow":  # row 0 of update 3
        print("waiting", flush=True)
        time.sleep(120.0)
    return labels

def mark(update, rows):
    from tests.helpers.engine_toys import toy_batch
    batch = toy_batch(update, rows)
    batch["labels"][:] = [[5, 2, 3]] if update == 3 else [[1, 2, 3]]
    return batch

class Data(ToyTrainData):
    def __init__(self, **fields):
        self.dataset = toy_dataset_fn(fields["global_batch_size"], make=mark)

def loss(logits, lengths, labels, label_lengths):
    waited = tf.py_function(wait, [labels], tf.int32)
    return toy_loss(logits, lengths, tf.ensure_shape(waited, labels.shape), label_lengths)

logging.set_verbosity(logging.INFO)
config = make_config(sys.argv[1], num_updates=6, log_every_updates=6, ema_decay=0.9)
config.checkpoint.every_updates = 6
config.runtime.update({"num_virtual_devices": 2, "stop_within_secs": 6.0, "loop_in_graph": True})
with StopOnSignal(watch_to_the_end=True) as stop:
    outcome = experiment.run(
        config=config, parts=make_parts(build_train_data=Data, loss_fn=loss), workdir=os.path.join(sys.argv[1], "run"),
        mode="train", strategy_name="mirrored", stop=stop,
    )
sys.exit(outcome.exit_status)
"""


@pytest.mark.slow
def test_a_signal_in_an_update_that_takes_longer_than_there_is_time_loses_that_update_alone(tmp_path):
    def start(speed):
        return subprocess.Popen(
            [sys.executable, "-c", SLOW_UPDATES, str(tmp_path), speed], cwd=Path(__file__).resolve().parents[1],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    process = start("slow")
    while "waiting" not in (line := process.stdout.readline()):
        assert line, process.stderr.read()[-3000:]
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said[-3000:]
    assert "SIGTERM: not done after 3 s, leaving now" in said
    (path,) = manifest.list_checkpoints(tmp_path / "run/checkpoints")
    assert path.endswith("ckpt-3") and manifest.find_damage(path) is None
    process = start("quick")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said[-3000:]
    assert "stopped by SIGTERM (not done after 3 s)" in said
    assert manifest.list_checkpoints(tmp_path / "run/checkpoints")[-1].endswith("ckpt-6")


def test_every_row_of_the_table_of_faults_names_tests_that_exist():
    root = Path(__file__).resolve().parents[1]
    rows = [line for line in (root / "docs/results/0134-faults.md").read_text().splitlines() if line.startswith("| ")]
    for row in rows[1:]:
        named = re.findall(r"`((?:tests/[\w/]+\.py)?(?:::\w+)?)`", row.rpartition(" | ")[2])
        assert named or row.endswith("| the same |"), row
        file = ""
        for name in named:
            path, _, test = name.partition("::")
            file = path or file
            assert (root / file).exists(), name
            assert not test or f"def {test}(" in (root / file).read_text(), name
            if test:  # "(slow)" behind it says which tier runs it
                decorated = rf"^@pytest\.mark\.slow\n(?:@.*\n(?:[ )].*\n)*)*def {test}\("
                is_slow = re.search(decorated, (root / file).read_text(), re.M) is not None
                assert (f"{name}` (slow)" in row) == is_slow, name
    assert len(rows) > 20
