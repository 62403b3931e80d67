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
from engine.checkpointing import manifest
from engine.resume_check.run_comparison import compare_runs
from tests.helpers.workers import finish_workers, said, start_workers

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
        ("evaluation", signal.SIGHUP, [5, 10]),
    ],
)
def test_a_signal_ends_a_run_in_time_in_any_phase(corpus, tmp_path, phase, number, saved):
    workdir, log = tmp_path / "run", tmp_path / "log"
    start = time.monotonic()
    is_time = {
        "imports": lambda: time.monotonic() > start + 1.0,
        "data indexing": (workdir / ".lock").exists,
        "first compilation": lambda: "starting at update" in log.read_text(),
        "evaluation": lambda: "evaluating " in log.read_text(),
    }[phase]
    status, secs = stop(train_command(corpus, workdir), log, is_time, number)
    # Of a crash, the threads and their frames come first, and then pages of module names.
    assert status == 128 + number, log.read_text().partition("Extension modules")[0][-6000:]
    assert secs < LIMIT_SECS
    assert "Traceback" not in log.read_text()
    paths = manifest.list_checkpoints(workdir / "checkpoints")
    assert [int(path.rpartition("-")[2]) for path in paths] == saved
    assert not any(manifest.find_damage(path) for path in paths)
    if phase == "evaluation":
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
        assert [line["step"] for line in lines] == saved, "the abandoned evaluation has left lines"


@pytest.mark.slow
def test_a_training_whose_output_nobody_reads_any_more_goes_on_to_its_end(corpus, tmp_path):
    """As with `run.py ... 2>&1 | head -1`."""
    workdir = tmp_path / "run"
    command = train_command(corpus, workdir, "--config.train.num_updates=10", "--config.eval.every_updates=5")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=240) == 0
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    assert {line["step"] for line in lines} == {5, 10}
    assert manifest.list_checkpoints(workdir / "checkpoints")[-1].endswith("ckpt-10")


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("trained") / "run"
    command = train_command(corpus, workdir, "--mode=train", "--config.train.num_updates=10")
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return workdir


@pytest.mark.slow
def test_a_signal_ends_a_transcription_and_leaves_no_half_output(corpus, trained, tmp_path):
    output, log = tmp_path / "out.jsonl", tmp_path / "log"
    command = [
        sys.executable, str(ROOT / "run.py"), "--mode=transcribe", f"--checkpoint={trained}",
        f"--inputs={corpus / 'train'}", f"--output={output}",
    ]  # fmt: skip
    start = time.monotonic()
    status, secs = stop(command, log, lambda: time.monotonic() > start + 3.0, signal.SIGTERM)
    assert status == 143, log.read_text()[-2000:]
    assert secs < LIMIT_SECS
    assert "Traceback" not in log.read_text()
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reached", "number"),
    [
        ("*", signal.SIGTERM),  # the folder is there, the graph is being traced and written
        ("*/model/vocab.json", signal.SIGINT),  # all is written and being compared with the live model
    ],
)
def test_a_signal_ends_an_export_and_leaves_what_was_there(trained, tmp_path, reached, number):
    earlier, log = tmp_path / "exports/earlier/saved_model.pb", tmp_path / "log"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"an export")
    command = [
        sys.executable, str(ROOT / "run.py"), "--mode=export", f"--checkpoint={trained}",
        f"--output={tmp_path / 'exports/new'}",
    ]  # fmt: skip
    pattern = reached.replace("*", ".exporting-*", 1)
    status, secs = stop(command, log, lambda: any((tmp_path / "exports").glob(pattern)), number)
    assert status == 128 + number, log.read_text()[-2000:]
    assert secs < LIMIT_SECS
    assert "Traceback" not in log.read_text()
    assert [path for path in (tmp_path / "exports").rglob("*") if path.is_file()] == [earlier]
    assert earlier.read_bytes() == b"an export" and not (tmp_path / "exports/new").exists()


@pytest.mark.slow
def test_a_run_that_is_stopped_and_killed_is_the_same_run(corpus, tmp_path):
    done = subprocess.run(
        train_command(
            corpus, tmp_path / "run", "--mode=verify_resume", "--config.verify_resume.num_updates=40",
            "--config.verify_resume.num_interruptions=5", "--config.train.ema_decay=0.9",
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
        corpus, folder / "run", "--strategy=multi_worker", "--config.train.num_updates=30",
        "--config.eval.every_updates=20", "--config.eval.batch_size=2", "--config.train.ema_decay=0.9",
    )[1:]  # fmt: skip
    return start_workers([command, command], folder)


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_or_stopped_make_the_run_of_two_that_are_left_alone(corpus, tmp_path):
    folder = tmp_path / "ended"
    checkpoints = folder / "run/checkpoints"

    def is_saved(update: int) -> bool:
        return (checkpoints / f"ckpt-{update}.manifest.json").exists()

    def is_evaluating() -> bool:
        return "evaluating unseen_voices" in said(folder, 0)

    for is_time, index, number, statuses, last in (
        (lambda: is_saved(5), 0, signal.SIGKILL, [-9, 75], range(5, 10)),  # the one that saves
        (lambda: is_saved(10), 1, signal.SIGTERM, [143, 143], range(11, 20)),  # at an update that both agree on
        (is_evaluating, 0, signal.SIGINT, [130, 143], range(20, 21)),  # after a batch that both agree on
        (lambda: is_saved(25), 1, signal.SIGKILL, [75, -9], range(25, 30)),
    ):
        processes = start_two_workers(corpus, folder)
        deadline = time.monotonic() + 240
        while not is_time() and time.monotonic() < deadline:
            time.sleep(0.01)
        processes[index].send_signal(number)
        found = finish_workers(processes, folder, timeout_secs=120)
        assert found == statuses, said(folder, 0)[-2000:] + said(folder, 1)[-2000:]
        saved = manifest.list_checkpoints(checkpoints)
        assert int(saved[-1].rpartition("-")[2]) in last and manifest.find_damage(saved[-1]) is None
        if number == signal.SIGKILL:
            assert "error: another worker is gone, so this one stops" in said(folder, 1 - index)
    lines = [json.loads(line) for line in (folder / "run/metrics.jsonl").open()]
    assert [line["step"] for line in lines if line["split"] == "unseen_voices"] == [20]
    for name in ("ended", "straight"):
        assert finish_workers(start_two_workers(corpus, tmp_path / name), tmp_path / name, timeout_secs=420) == [0, 0]
    checks = compare_runs(tmp_path / "straight/run", folder / "run")
    assert {check.name: check.first_difference for check in checks if check.num_different} == {}
    compared = {check.name: check.num_compared for check in checks}
    assert compared["weights, optimizer and counters"] > 250  # the averages are among them
    assert compared["order of the data"] == 6 and compared["metrics of evaluations"] > 20
