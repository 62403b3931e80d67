"""python -m data.prepare."""

from __future__ import annotations

import json
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common import storage
from data import prepare
from data.common.files import only_writer
from data.open_corpus import open_source
from data.shards import records
from tests.helpers.data_toys import contents

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
    done = run("--format=jsonl", f"--input={manifest}", f"--output={out}", "--num_shards=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}: 3 utterances, 0.00 h, 2 shards\n"
    # No progress bar where stderr is no terminal, and nothing from TensorFlow.
    assert done.stderr == (
        "data.prepare: warning: digits are dropped from 1 transcripts, first u1: spell them out, "
        "or give --text_normalization=unicode\n"
    )
    source = open_source(format="tfrecord", input=out)
    assert list(source.texts) == ["HELLO", "ROOM", "YES"]
    assert source.num_samples.tolist() == [8000] * 3
    again = run("--format=jsonl", f"--input={manifest}", f"--output={out}", "--num_shards=2")
    assert again.stdout == f"{out}: 3 utterances, 0.00 h, 2 shards (finished before)\n"


def test_speakers_and_normalization(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = manifest.parent / "out"
    argv = ["--format=jsonl", f"--input={manifest}", f"--output={out}", "--num_shards=1"]
    assert prepare.main([*argv, "--exclude_speakers=s0,s2", "--text_normalization=unicode"]) == 0
    assert capsys.readouterr().err == ""
    assert list(open_source(format="tfrecord", input=out).texts) == ["room 12"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input": "absent.jsonl"}, "no manifest absent.jsonl"),
        ({"format": "xml"}, "unknown format 'xml'"),
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
        "format": "jsonl",
        "input": str(manifest),
        "output": str(manifest.parent / "out"),
        "num_shards": "1",
        "text_normalization": "unicode",
    }
    assert prepare.main([f"--{key}={value}" for key, value in {**flags, **changes}.items()]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert reason in err


def test_bad_input_has_no_traceback_from_the_shell(tmp_path: Path) -> None:
    done = run("--format=librispeech", f"--input={tmp_path}", "--split=x", "--output=y")
    assert done.returncode == 2
    assert done.stderr == f"data.prepare: no folder {tmp_path / 'x'}: check the path\n"


@pytest.mark.skipif(not CORPORA.is_dir(), reason="../shared/corpora is absent")
def test_real_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--format=librispeech", f"--input={CORPORA / 'LibriSpeech'}", "--split=dev-mini"]
    assert prepare.main([*argv, f"--output={tmp_path / 'dev'}", "--num_shards=4"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'dev'}: 40 utterances, 0.12 h, 4 shards\n"
    source = open_source(format="tfrecord", input=tmp_path, split="dev", speakers=("26",))
    assert set(source.speaker_ids) == {"26"}
    assert len(source.read_waveform(3)) == source.num_samples[3]


def test_bad_utterances_are_named_counted_and_left_out(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = manifest.parent / "out"
    (manifest.parent / "u1.ogg").unlink()
    argv = ["--format=jsonl", f"--input={manifest}", f"--output={out}", "--num_shards=1"]
    assert prepare.main(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "u1.ogg" in error
    assert "(bad utterances: 1, allowed by --max_unreadable_ratio: 0)" in error
    assert prepare.main([*argv, "--max_unreadable_ratio=0.5"]) == 0
    done = capsys.readouterr()
    assert done.out == f"{out}: 2 utterances, 0.00 h, 1 shards, 1 left out\n"
    assert "warning: 1 bad utterances left out, all named in index.json:\n" in done.err
    absent = f"no audio file {manifest.parent / 'u1.ogg'}: check the path; listed in {manifest}:2"
    assert f"warning:   u1: {absent}\n" in done.err
    assert json.loads((out / "index.json").read_text())["skipped"] == {"u1": "missing_audio"}


def test_every_kind_of_bad_utterance_counts_and_is_left_out(
    manifest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = manifest.parent
    for name in ("other", "raises", "vanishes", "memory"):
        soundfile.write(folder / f"{name}.wav", np.zeros(1600), 8000 if name == "other" else 16000)
    rows = [
        {"audio_filepath": "other.wav", "text": "A"},
        {"audio_filepath": "raises.wav", "text": "A"},
        {"audio_filepath": "vanishes.wav", "text": "A"},
        {"audio_filepath": "memory.wav", "text": "A"},
        {"audio_filepath": "raises.wav", "text": float("nan"), "utterance_id": "void"},
        {"audio_filepath": "raises.wav", "text": "A", "offset": 99, "utterance_id": "beyond"},
        {"audio_filepath": "nul\0.wav", "text": "A"},
        *({"audio_filepath": "good.wav", "text": "A", "utterance_id": f"good{i}"} for i in range(4)),
    ]
    soundfile.write(folder / "good.wav", np.full(1600, 0.1), 16000)
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"audio_filepath": [[[\n')

    def encode(path: str, **options: object) -> records.EncodedAudio:
        match Path(path).stem:
            case "raises":
                raise RuntimeError("a decoder's own\nwords")
            case "memory":
                raise MemoryError
        return records.encode_audio(path, **options)

    def states(paths: list[str]) -> list[storage.FileState]:
        (folder / "vanishes.wav").unlink(missing_ok=True)  # between listing and writing
        return [storage.state(path) for path in paths]

    monkeypatch.setattr("data.shards.writer.encode_audio", encode)
    monkeypatch.setattr("common.storage.states", states)
    out = folder / "out"
    argv = ["--format=jsonl", f"--input={manifest}", f"--output={out}", "--num_workers=1", "--on_rate_mismatch=refuse"]
    assert prepare.main([*argv, "--max_unreadable_ratio=0.7"]) == 0, capsys.readouterr().err
    done = capsys.readouterr()
    assert done.out == f"{out}: 4 utterances, 0.00 h, 1 shards, 8 left out\n"
    assert json.loads((out / "index.json").read_text())["skipped"] == {
        f"{manifest}:12": "bad_record",
        "beyond": "bad_segment",
        "memory": "unreadable_audio",
        "nul\0": "missing_audio",
        "other": "wrong_rate",
        "raises": "unreadable_audio",
        "vanishes": "missing_audio",
        "void": "missing_transcript",
    }
    assert f"warning:   {manifest}:12: is not JSON (" in done.err
    assert "raises: cannot read" in done.err and "(a decoder's own words): fetch or make it again\n" in done.err
    assert prepare.main([*argv[:2], f"--output={folder / 'other'}", *argv[3:], "--max_unreadable_ratio=0.6"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "allowed by --max_unreadable_ratio: " in error


def test_the_reason_is_told_where_every_line_is_bad(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest.write_text('{"audio_filepath": "u0.ogg", "text": null}\n' * 3)
    argv = [
        "--format=jsonl",
        f"--input={manifest}",
        f"--output={manifest.parent / 'out'}",
        "--max_unreadable_ratio=0.9",
    ]
    assert prepare.main(argv) == 2
    error = capsys.readouterr().err
    assert f"no utterance of {manifest} can be used: {manifest}:1 has no text, add it: " in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("payload", ["pcm16", "flac"])
def test_segments_are_written_as_they_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], payload: str
) -> None:
    samples = np.random.default_rng(0).integers(-3000, 3000, 64_000).astype(np.int16)
    soundfile.write(tmp_path / "rec.flac", samples, 16000)
    lines = [{"offset": 0, "duration": 1.5}, {"offset": 1.5, "duration": 1}, {"offset": 2.5}, {"duration": 1}]
    rows = [{"audio_filepath": "rec.flac", "text": "A", "utterance_id": str(i), **line} for i, line in enumerate(lines)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    argv = ["--format=jsonl", f"--input={tmp_path / 'm.jsonl'}", f"--output={out}", f"--payload={payload}"]
    assert prepare.main([*argv, "--num_workers=1"]) == 0
    err = capsys.readouterr().err
    assert "warning: 1 durations in the manifest contradict the files, first 3 (1 s listed, 4 s in the file)" in err
    source = open_source(format="tfrecord", input=out)
    for index, part in enumerate((samples[:24_000], samples[24_000:40_000], samples[40_000:], samples)):
        np.testing.assert_array_equal(np.rint(source.read_waveform(index) * 32768), part)
    # Another part of the same length is another shard.
    rows[1]["offset"] = 1.6
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert prepare.main([*argv, "--num_workers=1"]) == 2
    assert "holds other shards" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--num_shards=2", "--shard_mb=1"], "--num_shards and --shard_mb contradict each other"),
        (["--shard_mb=0"], "shard_mb is 0.0, wanted more than 0"),
        (["--max_unreadable_ratio=1"], "--max_unreadable_ratio is 1.0, wanted 0 or more and less than 1"),
        (["--runner=beam", "--beam_options='--x"], '--beam_options="\'--x" cannot be split into flags: No closing'),
        (["--payload=mp3"], "argument --payload: invalid choice: 'mp3'"),
        (["--num_workers=0"], "num_workers is 0, wanted at least 1"),
        (["--output=foo://bucket/x"], "cannot write to foo://bucket/x (cannot use foo://bucket/x: File system scheme"),
    ],
)
def test_new_flags_are_checked(
    manifest: Path, capsys: pytest.CaptureFixture[str], flags: list[str], reason: str
) -> None:
    out = manifest.parent / "out"
    argv = ["--format=jsonl", f"--input={manifest}", f"--output={out}", "--text_normalization=none", *flags]
    assert prepare.main(argv) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1


def test_common_voice_behind_urls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns and folders of Common Voice, from ram:// to ram://."""
    header = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tlocale\tsegment"
    lines = [header]
    storage.make_dirs("ram://cv/hi/clips")
    for index, text in enumerate(["\u0939\u093f\u0928\u094d\u0926\u0940\u0964", 'say "yes" now']):
        name = f"common_voice_hi_{index}.mp3"
        soundfile.write(tmp_path / name, np.sin(np.arange(48_000) * 0.05) * 0.3, 48_000)
        storage.write_bytes(f"ram://cv/hi/clips/{name}", (tmp_path / name).read_bytes())
        lines.append("\t".join([f"speaker{index}", name, text, "2", "0", "", "", "", "hi", ""]))
    storage.write_bytes("ram://cv/hi/train.tsv", "\n".join(lines).encode())
    argv = ["--format=tsv", "--input=ram://cv/hi", "--split=train", "--output=ram://cv/shards/train", "--payload=flac"]
    assert prepare.main([*argv, "--text_normalization=unicode"]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out == "ram://cv/shards/train: 2 utterances, 0.00 h, 1 shards, 2 re-encoded\n"
    source = open_source(format="tfrecord", input="ram://cv/shards", split="train")
    assert list(source.texts) == ["\u0939\u093f\u0928\u094d\u0926\u0940", "say yes now"]
    assert list(source.speaker_ids) == ["speaker0", "speaker1"]
    assert source.num_samples.tolist() == [len(source.read_waveform(index)) for index in range(2)] == [16000] * 2


def test_full_disk_is_one_line(manifest: Path) -> None:
    """A limit on file sizes stands in for a full disk: writing fails in the middle of a shard."""
    out = manifest.parent / "out"
    argv = ["--format=jsonl", f"--input={manifest}", f"--output={out}", "--text_normalization=none", "--num_workers=1"]
    done = subprocess.run(
        [sys.executable, "-m", "data.prepare", *argv],
        cwd=ROOT, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert re.search(r"cannot write .*data-00000-of-00001\.tfrecord \(.*\): make room, or choose", done.stderr)
    assert list(out.iterdir()) == []


def kill_and_rerun(audio: list[Path], tmp_path: Path, *, num_kills: int, num_rounds: int) -> None:
    """Kills runs with two workers, none with a chance to tidy up; what is there in between and in the end is right.

    Args:
        audio: recordings.
        tmp_path: for manifest and shards.
        num_kills: Runs that are killed.
        num_rounds: Times that the corpus holds each recording: how long a run takes.
    """
    moments = random.Random(0)
    lines = [
        json.dumps({"audio_filepath": str(path), "text": f"{path.stem}", "utterance_id": f"{path.stem}-{number}"})
        for number in range(num_rounds)
        for path in audio
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    whole, out = tmp_path / "whole", tmp_path / "out"

    def start(output: Path) -> subprocess.Popen[str]:
        argv = ["--format=jsonl", f"--input={tmp_path / 'm.jsonl'}", f"--output={output}", "--num_shards=12",
                "--num_workers=2", "--text_normalization=none"]  # fmt: skip
        command = [sys.executable, "-m", "data.prepare", *argv]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_for_work(process: subprocess.Popen[str], output: Path) -> None:
        while process.poll() is None and not list(output.glob(".*.tmp")):
            time.sleep(0.01)

    process = start(whole)
    wait_for_work(process, whole)
    begin = time.monotonic()
    _, err = process.communicate()
    assert process.returncode == 0, err
    writing_secs = time.monotonic() - begin
    expected = contents(whole)

    num_half_done = 0
    for number in range(num_kills):
        process = start(out)
        if number % 5 == 4:  # while it still starts
            time.sleep(moments.uniform(0.05, 1.5))
        else:
            wait_for_work(process, out)
            time.sleep(moments.uniform(0.0, 0.6 * writing_secs))
        process.kill()
        process.communicate()
        out.mkdir(exist_ok=True)
        with only_writer(out, wait_secs=10):  # the workers are gone, though nobody told them
            before = contents(out)
        num_half_done += "index.json" not in before and len(before) > 0
        for name in before.keys() & expected.keys():  # what has its final name is whole
            assert before[name] == expected[name], name
        time.sleep(0.3)
        assert contents(out) == before  # nobody goes on writing
        if "index.json" in before:
            shutil.rmtree(out)
    assert num_half_done >= num_kills // 3
    process = start(out)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert contents(out) == expected


def test_killed_run_is_completed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    for index in range(12):
        noise = np.random.default_rng(index).normal(scale=0.1, size=64_000)
        soundfile.write(tmp_path / "audio" / f"u{index}.flac", noise, 8000)  # resampling takes its time
    kill_and_rerun(sorted((tmp_path / "audio").iterdir()), tmp_path, num_kills=1, num_rounds=4)


@pytest.mark.slow
@pytest.mark.skipif(not CORPORA.is_dir(), reason="../shared/corpora is absent")
def test_kill_9_at_ten_moments(tmp_path: Path) -> None:
    audio = sorted((CORPORA / "LibriSpeech" / "dev-mini").rglob("*.flac"))
    assert len(audio) == 40
    kill_and_rerun(audio, tmp_path, num_kills=10, num_rounds=15)


@pytest.mark.parametrize(
    ("text", "status", "line"),
    [
        (
            "\u0928\u092e \u0967",
            0,
            "data.prepare: warning: --text_normalization=librispeech is for English, and 3 of 3",
        ),
        ("\u0967\u0968", 2, "data.prepare: --text_normalization=librispeech leaves nothing of 3 transcripts, first u0"),
    ],
)
def test_hindi_with_the_default_normalization_is_told_the_flag(
    manifest: Path, capsys: pytest.CaptureFixture[str], text: str, status: int, line: str
) -> None:
    lines = [json.loads(record) for record in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps({**record, "text": text}) + "\n" for record in lines))
    output = manifest.parent / "out"
    argv = ["--format=jsonl", f"--input={manifest}", f"--output={output}", "--num_workers=1"]
    assert prepare.main(argv) == status
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(line) and "--text_normalization=unicode" in said
    assert (output / "index.json").exists() == (status == 0)
