"""Worker processes: progress, the first error, a killed worker."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from tqdm import tqdm

from data.common.errors import InputError
from data.common.files import Lock, only_writer
from data.shards.local_runner import LocalRunner
from data.shards.writer import ShardTask, read_note
from tests.helpers.data_toys import make_task, make_utterances


@pytest.fixture
def tasks(tmp_path: Path) -> list[ShardTask]:
    (tmp_path / "out").mkdir()
    utterances = make_utterances(tmp_path / "audio", 8)
    return [
        make_task(tmp_path / "out" / f"x{number}.tfrecord", utterances[2 * number : 2 * number + 2], payload="flac")
        for number in range(4)
    ]


@pytest.fixture
def bar() -> tqdm:
    return tqdm(total=10, initial=2, disable=True)


class Bar:
    """Counts as tqdm does; a bar that is off does not."""

    def __init__(self) -> None:
        self.n = 2

    def update(self, count: int) -> None:
        self.n += count


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_shard_is_written_and_counted(tasks: list[ShardTask], tmp_path: Path, num_workers: int) -> None:
    bar = Bar()
    with only_writer(tmp_path / "out") as lock:
        LocalRunner(num_workers=num_workers)(tasks, folder=str(tmp_path / "out"), lock=lock, bar=bar, max_bad=0)
    assert bar.n == 10
    assert all(read_note(task) for task in tasks)
    with only_writer(tmp_path / "out"):  # no worker is left that shares the lock
        pass


def test_bad_utterances_of_several_shards_add_up(tasks: list[ShardTask], tmp_path: Path, bar: tqdm) -> None:
    for task in tasks[:2]:
        Path(task.utterances[1].audio_filepath).write_bytes(b"")
    flags = {"folder": str(tmp_path / "out"), "bar": bar, "lock": Lock(None)}
    LocalRunner(num_workers=1)(tasks, **flags, max_bad=2)
    with pytest.raises(InputError, match=r"u1\.flac.*\(bad utterances: 2, allowed by --max_unreadable_ratio: 1\)"):
        LocalRunner(num_workers=1)(tasks, **flags, max_bad=1)


def test_killed_worker_is_one_line(tasks: list[ShardTask], tmp_path: Path, bar: tqdm) -> None:
    # So much to do that it is killed in the middle of it.
    num_many = 20_000
    many = {"utterances": [*tasks[0].utterances[:1]] * num_many, "texts": [*tasks[0].texts[:1]] * num_many}
    tasks[0] = dataclasses.replace(tasks[0], **many)

    def kill() -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            for temporary in (tmp_path / "out").glob(".x0.tfrecord.*.tmp"):
                os.kill(int(temporary.name.split(".")[3]), signal.SIGKILL)
                return
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    with (
        only_writer(tmp_path / "out") as lock,
        pytest.raises(InputError, match="a worker process was killed, perhaps because memory ran out: run the same"),
    ):
        LocalRunner(num_workers=2)(tasks, folder=str(tmp_path / "out"), lock=lock, bar=bar, max_bad=0)
    killer.join()


def test_number_of_workers_must_be_positive() -> None:
    with pytest.raises(InputError, match="num_workers is 0, wanted at least 1"):
        LocalRunner(num_workers=0)
