"""python -m data.prepare."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data import prepare
from data.open import open_source

ROOT = Path(__file__).parents[2]
CORPORA = ROOT.parent / "shared" / "corpora"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    lines = []
    for index, text in enumerate(["Hello!", "room 12", "yes"]):
        soundfile.write(tmp_path / f"u{index}.ogg", np.sin(np.arange(4000) * 0.1) * 0.3, 8000)
        record = {"audio_filepath": f"u{index}.ogg", "text": text, "speaker": f"s{index}"}
        lines.append(json.dumps(record) + "\n")
    path = tmp_path / "m.jsonl"
    path.write_text("".join(lines))
    return path


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "data.prepare", *argv]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_command_writes_shards_that_open(manifest: Path) -> None:
    out = manifest.parent / "out"
    done = run("--source=jsonl", f"--input={manifest}", f"--output={out}", "--num_shards=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}: 3 utterances, 0.00 h, 2 shards\n"
    # No progress bar where stderr is no terminal, and nothing from TensorFlow.
    assert done.stderr == (
        "data.prepare: warning: digits are dropped from 1 transcripts, first u1: spell them out, "
        "or give --normalization=unicode\n"
    )
    source = open_source(format="tfrecord", input=out)
    assert list(source.texts) == ["HELLO", "ROOM", "YES"]
    assert source.num_samples.tolist() == [8000] * 3
    again = run("--source=jsonl", f"--input={manifest}", f"--output={out}", "--num_shards=2")
    assert again.stdout == f"{out}: 3 utterances, 0.00 h, 2 shards (finished before)\n"


def test_speakers_and_normalization(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = manifest.parent / "out"
    argv = ["--source=jsonl", f"--input={manifest}", f"--output={out}", "--num_shards=1"]
    assert prepare.main([*argv, "--exclude_speakers=s0,s2", "--normalization=unicode"]) == 0
    assert capsys.readouterr().err == ""
    assert list(open_source(format="tfrecord", input=out).texts) == ["room 12"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input": "absent.jsonl"}, "no manifest absent.jsonl"),
        ({"source": "xml"}, "unknown format 'xml'"),
        ({"num_shards": "9"}, "num_shards is 9, wanted 1 to 3"),
        ({"num_shards": "two"}, "invalid int value: 'two'"),
        ({"speakers": "zoe"}, "no speaker 'zoe'"),
        ({"on_rate_mismatch": "refuse"}, "3 of 3 files do not have 16000 Hz"),
        ({"output": "OCCUPIED"}, "File exists"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    manifest: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    reason: str,
) -> None:
    if changes.get("output") == "OCCUPIED":
        changes = {"output": str(manifest)}
    flags = {
        "source": "jsonl",
        "input": str(manifest),
        "output": str(manifest.parent / "out"),
        "num_shards": "1",
        "normalization": "unicode",
    }
    assert prepare.main([f"--{key}={value}" for key, value in {**flags, **changes}.items()]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert reason in err


def test_bad_input_has_no_traceback_from_the_shell(tmp_path: Path) -> None:
    done = run("--source=librispeech", f"--input={tmp_path}", "--split=x", "--output=y")
    assert done.returncode == 2
    assert done.stderr == f"data.prepare: no folder {tmp_path / 'x'}: check the path\n"


@pytest.mark.skipif(not CORPORA.is_dir(), reason="../shared/corpora is absent")
def test_real_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--source=librispeech", f"--input={CORPORA / 'LibriSpeech'}", "--split=dev-mini"]
    assert prepare.main([*argv, f"--output={tmp_path / 'dev'}", "--num_shards=4"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'dev'}: 40 utterances, 0.12 h, 4 shards\n"
    source = open_source(format="tfrecord", input=tmp_path, split="dev", speakers=("26",))
    assert set(source.speaker_ids) == {"26"}
    assert len(source.read_waveform(3)) == source.num_samples[3]
