"""Whole runs in processes of their own, stopped in every phase, and compared with one that nothing interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.synthetic import write_synthetic_corpus
from engine import integrity
from tests.workers import finish_workers, said, start_workers

ROOT = Path(__file__).resolve().parents[1]
LIMIT_SECS = 30


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("spoken") / "corpus"
    return write_synthetic_corpus(output=folder, num_train=32, num_eval=6, num_train_speakers=4, num_eval_speakers=2)


def train_command(corpus: Path, workdir: Path, *arguments: str) -> list[str]:
    return [
        sys.executable, str(ROOT / "run.py"), f"--config={ROOT}/configs/debug.py:{corpus}", f"--workdir={workdir}",
        "--config.train.global_batch_size=4", "--config.eval.batch_size=1", *arguments,
    ]  # fmt: skip


def stop(command: list[str], log: Path, is_time, number: signal.Signals) -> tuple[int, float]:
    """Sends the signal as soon as it is time; returns status and seconds from signal to end."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 240
    while not is_time():
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    start = time.monotonic()
    process.send_signal(number)
    return process.wait(timeout=120), time.monotonic() - start


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "number", "saved"),
    [
        ("imports", signal.SIGTERM, []),
        ("data indexing", signal.SIGINT, []),
        ("first compilation", signal.SIGTERM, []),
        ("evaluation", signal.SIGINT, [5, 10]),
    ],
)
def test_a_signal_ends_a_run_in_time_in_any_phase(corpus, tmp_path, phase, number, saved):
    workdir, log = tmp_path / "run", tmp_path / "log"
    start = time.monotonic()
    is_time = {
        "imports": lambda: time.monotonic() > start + 1.0,
        "data indexing": (workdir / ".lock").exists,
        "first compilation": lambda: "starting at update" in log.read_text(),
        "evaluation": lambda: "eval | step:     10" in log.read_text(),
    }[phase]
    status, secs = stop(train_command(corpus, workdir), log, is_time, number)
    # Of a crash, the threads and their frames come first, and then pages of module names.
    assert status == 128 + number, log.read_text().partition("Extension modules")[0][-6000:]
    assert secs < LIMIT_SECS
    assert "Traceback" not in log.read_text()
    paths = integrity.list_checkpoints(workdir / "checkpoints")
    assert [int(path.rpartition("-")[2]) for path in paths] == saved
    assert not any(integrity.find_damage(path) for path in paths)
    if phase == "evaluation":
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
        assert [line["step"] for line in lines] == saved, "the abandoned evaluation has left lines"


@pytest.mark.slow
def test_a_signal_ends_a_transcription_and_leaves_no_half_output(corpus, tmp_path):
    workdir = tmp_path / "run"
    subprocess.run(
        train_command(corpus, workdir, "--mode=train", "--config.train.num_updates=10"),
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    output = tmp_path / "out.jsonl"
    command = [
        sys.executable, str(ROOT / "run.py"), "--mode=transcribe", f"--checkpoint={workdir}",
        f"--inputs={corpus / 'train'}", f"--output={output}",
    ]  # fmt: skip
    start = time.monotonic()
    status, secs = stop(command, tmp_path / "log", lambda: time.monotonic() > start + 3.0, signal.SIGTERM)
    assert status == 143, (tmp_path / "log").read_text()[-2000:]
    assert secs < LIMIT_SECS
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_a_run_that_is_stopped_and_killed_is_the_same_run(corpus, tmp_path):
    done = subprocess.run(
        train_command(
            corpus, tmp_path / "run", "--mode=verify_resume", "--config.verify_resume.num_updates=40",
            "--config.verify_resume.num_interruptions=5",
        ),
        cwd=ROOT, capture_output=True, text=True, timeout=580,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "the same run, bit by bit" in done.stdout
    outcome = json.loads((tmp_path / "run/verify_resume.json").read_text())
    assert outcome["equal"] and len(outcome["interruptions"]) == 5
    compared = {check["name"]: check["num_compared"] for check in outcome["checks"]}
    assert compared["weights, optimizer and counters"] > 100
    assert compared["order of the data"] == 8


def start_two_workers(corpus: Path, folder: Path) -> list[subprocess.Popen]:
    folder.mkdir(exist_ok=True)
    command = train_command(
        corpus, folder / "run", "--mode=train", "--strategy=multi_worker", "--config.train.num_updates=20",
        "--config.eval.batch_size=2",
    )[1:]  # fmt: skip
    return start_workers([command, command], folder)


def worker_lines(folder: Path) -> list[tuple]:
    found = map(json.loads, (folder / "run/metrics.jsonl").open())
    return [(line["step"], line["loss"], line["gradient_norm"], line["data_digest"]) for line in found]


@pytest.fixture(scope="module")
def two_straight(corpus, tmp_path_factory) -> list[tuple]:
    """What two workers that nobody stops write."""
    folder = tmp_path_factory.mktemp("two")
    assert finish_workers(start_two_workers(corpus, folder), folder, timeout_secs=420) == [0, 0]
    return worker_lines(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "statuses"),
    [
        (signal.SIGTERM, [143, 143]),  # both stop at an update that they agree on
        (signal.SIGKILL, [75, -9]),  # the other one says that its peer is gone
    ],
)
def test_two_workers_of_which_one_is_stopped_or_killed_both_go_on(corpus, tmp_path, two_straight, number, statuses):
    processes = start_two_workers(corpus, tmp_path)
    deadline = time.monotonic() + 240
    while not (tmp_path / "run/checkpoints/ckpt-5.manifest.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    # Not the one that saves.
    processes[1].send_signal(number)
    found = finish_workers(processes, tmp_path, timeout_secs=120)
    assert found == statuses, said(tmp_path, 0)[-2000:] + said(tmp_path, 1)[-2000:]
    saved = integrity.list_checkpoints(tmp_path / "run/checkpoints")
    assert 5 <= int(saved[-1].rpartition("-")[2]) < 20 and integrity.find_damage(saved[-1]) is None
    if number == signal.SIGKILL:
        assert "error: another worker is gone, so this one stops" in said(tmp_path, 0)
    assert finish_workers(start_two_workers(corpus, tmp_path), tmp_path, timeout_secs=420) == [0, 0]
    assert worker_lines(tmp_path) == two_straight
