"""Apache Beam's direct runner against the local one, in an environment that the test makes (2.5 GB, once)."""

from __future__ import annotations

import configparser
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data import prepare
from data.shards import beam_runner
from data.shards.writer import read_note
from tests.helpers.data_toys import contents, make_task, make_utterances

ROOT = Path(__file__).parents[3]
CORPORA = ROOT.parent / "shared" / "corpora"


def has_beam() -> bool:
    try:
        import apache_beam  # noqa: F401
    except ImportError:
        return False
    return True


def test_without_beam_the_flag_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if has_beam():
        pytest.skip("Apache Beam is installed here")
    argv = ["--format=jsonl", f"--input={tmp_path}", f"--output={tmp_path / 'out'}", "--runner=beam"]
    assert prepare.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("data.prepare: --runner=beam needs Apache Beam, which is not installed (No module")
    assert error.endswith("): pip install -e '.[beam]'\n")


def test_bad_input_goes_into_the_note(tmp_path: Path) -> None:
    utterances = make_utterances(tmp_path / "audio", 2)
    Path(utterances[1].audio_filepath).write_bytes(b"")
    (tmp_path / "out").mkdir()
    task = make_task(tmp_path / "out" / "x.tfrecord", utterances, max_bad=0)
    beam_runner.write_or_tell(task)
    note = read_note(task)
    assert note is not None and "u1.flac" in note["error"] and "\n" not in note["error"]
    assert os.listdir(tmp_path / "out") == [".x.tfrecord.json"]


@pytest.fixture(scope="module")
def beam_python() -> Path:
    """An interpreter with the extra `beam`, without constraints.txt: Beam wants an older protobuf and pyarrow."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    beam = setup["options.extras_require"]["beam"].split()
    needed = [line for line in setup["options"]["install_requires"].split() if line.startswith(NEEDED)]
    key = hashlib.sha256(repr((beam, needed, sys.version_info)).encode()).hexdigest()[:12]
    environment = Path(tempfile.gettempdir()) / f"earshot-beam-{key}"
    python, done = environment / "bin" / "python", environment / ".installed"
    if not done.is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-compile", *beam, *needed], check=True)
        done.touch()
    return python


NEEDED = ("numpy", "soundfile", "soxr", "tensorflow~=", "tqdm")  # what data.prepare imports


@pytest.mark.slow
def test_beam_writes_the_same_bytes(beam_python: Path, tmp_path: Path) -> None:
    if not CORPORA.is_dir():
        pytest.skip("../shared/corpora is absent")
    corpus = tmp_path / "corpus" / "dev-mini"
    corpus.parent.mkdir()
    subprocess.run(["cp", "-r", CORPORA / "LibriSpeech" / "dev-mini", corpus], check=True)

    def run(output: str, *flags: str) -> subprocess.CompletedProcess[str]:
        argv = ["-m", "data.prepare", "--format=librispeech", f"--input={corpus.parent}", "--split=dev-mini",
                f"--output={tmp_path / output}", "--shard_mb=3", *flags]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run([beam_python, *argv], cwd=ROOT, env=environment, capture_output=True, text=True)

    for payload in ("pcm16", "flac"):
        for runner in ("local", "beam"):
            done = run(f"{payload}-{runner}", f"--payload={payload}", f"--runner={runner}")
            assert done.returncode == 0, done.stderr
            assert "40 utterances, 0.12 h" in done.stdout
        made = contents(tmp_path / f"{payload}-beam")
        assert len(made) == (6 if payload == "pcm16" else 4)
        assert made == contents(tmp_path / f"{payload}-local")
    again = run("flac-beam", "--payload=flac", "--runner=beam")
    assert again.stdout.endswith("(finished before)\n")

    # Bad input: one line, status 2, finished shards kept; a larger limit goes on.
    broken = sorted(corpus.rglob("*.flac"))[-1]
    samples, rate = soundfile.read(broken, dtype="int16")
    broken.write_bytes(broken.read_bytes()[:-20_000])
    assert len(samples) > 20_000 and rate == 16000 and np.any(samples)
    done = run("bad", "--runner=beam")
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING:root:")]
    assert len(lines) == 1 and broken.name in lines[0] and "(bad utterances: 1, allowed" in lines[0]
    assert len(list((tmp_path / "bad").glob("*.tfrecord"))) >= 1
    done = run("bad", "--runner=beam", "--max_unreadable_ratio=0.05")
    assert done.returncode == 0 and "39 utterances" in done.stdout and "1 left out" in done.stdout
