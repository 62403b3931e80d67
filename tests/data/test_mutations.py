"""Files that data/ reads, mutated with seeds: each reader answers, or refuses with one line; nothing else leaves it."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from data import synthetic
from data.command import Parser, run_command
from data.common.errors import InputError
from data.corpus.faults import Fault
from data.corpus.manifest import read_utterances
from data.open_corpus import open_source
from data.shards.index import verify_shards
from data.shards.preparation import write_tfrecords
from data.shards.source import TFRecordSource
from data.shards.writer import read_note, write_shard
from data.text.tokenizer import CharTokenizer
from tests.helpers.data_toys import make_task, make_utterances
from tests.helpers.packed_toys import make_items, write_all

NUM_MUTATIONS = 120
# As JSON writes them: what a value of a good file is replaced with.
VALUES = (
    "null", "true", "{}", "[]", "-1", "0.5", "NaN", "Infinity", "1e400", '""', '"x"', '"\\ud800"', '"a\\u0000b"',
    '"gs://x"', '"x.http://127.0.0.1:1/y"', '"../../x"', "9" * 30, "9" * 5000, "[" * 100_000, '{"a":' * 100_000,
    "[[1]]", '[{"a": 1}]', str(2**62), str(2**63), "1" * 18,
)  # fmt: skip
BYTES = (b"\xff", b"\x00", b'"', b"\n", b",", b"\t", b"{", b"[", b"\xed\xa0\x80", b"\r", b"\\")


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Returns the content with a value replaced, or with bytes cut, flipped, repeated or put in."""
    kind = rng.randrange(5)
    at = rng.randrange(len(content) + 1)
    if kind == 0 and content[:1] in b"{[":
        try:
            parsed = json.loads(content.splitlines()[0] if b"}\n{" in content else content)
        except ValueError:
            return content
        place = parsed
        while True:
            key: Any = rng.choice(sorted(place)) if isinstance(place, dict) else rng.randrange(len(place))
            if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.4:
                break
            place = place[key]
        place[key] = "@@"
        return json.dumps(parsed).replace('"@@"', rng.choice(VALUES), 1).encode()
    if kind == 1:
        return content[:at]
    if kind == 2:
        return content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
    if kind == 3:
        return content[:at] + content[at + rng.randrange(40) :]
    return content[:at] + rng.choice(BYTES) * rng.choice((1, 1, 50)) + content[at:]


def check_all(path: Path, read: Callable[[], Any], seed: int) -> None:
    """Writes mutations of a file to its place and reads each."""
    content = path.read_bytes()
    rng = random.Random(seed)
    num_refused = 0
    for number in range(NUM_MUTATIONS):
        path.write_bytes(mutate(content, rng))
        try:
            read()
        except (InputError, OSError) as error:
            num_refused += 1
            assert len(" ".join(str(error).split())) < 1_000, (number, error)
        except Exception as error:
            raise AssertionError(f"mutation {number} of {path.name}: {path.read_bytes()[:300]!r}") from error
    path.write_bytes(content)
    read()
    assert num_refused > NUM_MUTATIONS // 10


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    rows = []
    for index in range(4):
        soundfile.write(tmp_path / f"a{index}.wav", np.linspace(-0.5, 0.5, 8000), 16000)
        fields = {"text": "HELLO, WORLD", "duration": 0.5, "speaker": f"s{index}", "offset": 0.25 * (index % 2)}
        rows.append({"audio_filepath": f"a{index}.wav", **fields, "utterance_id": f"u{index}"})
        rows[-1]["duration"] -= rows[-1]["offset"]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, delimiter in (("m.csv", ","), ("m.tsv", "\t")):
        quote = '"' if delimiter == "," else ""
        lines = [delimiter.join(rows[0])]
        lines += [delimiter.join(f"{quote}{value}{quote}" for value in row.values()) for row in rows]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize("name", ["m.jsonl", "m.csv", "m.tsv"])
def test_mutated_manifests(manifests: Path, name: str) -> None:
    path = manifests / name
    format = name.split(".")[1]
    check_all(path, lambda: read_utterances(format=format, input=path), seed=1)

    def read_past_faults() -> None:
        faults: list[Fault] = []
        read_utterances(format=format, input=path, report=faults.append)
        for fault in faults:
            assert len(fault.message) < 1_000

    check_all(path, read_past_faults, seed=2)


@pytest.mark.parametrize("name", ["wav.scp", "segments", "text", "utt2spk", "reco2dur"])
def test_mutated_kaldi_folders(manifests: Path, name: str) -> None:
    for file, line in [
        ("wav.scp", "r{0} a{0}.wav"), ("segments", "u{0} r{0} 0.05 0.4"), ("text", "u{0} HELLO, WORLD"),
        ("utt2spk", "u{0} s{0}"), ("reco2dur", "r{0} 0.5"),
    ]:  # fmt: skip
        (manifests / file).write_text("".join(f"{line.format(number)}\n" for number in range(4)))

    def read_past_faults() -> None:
        faults: list[Fault] = []
        read_utterances(format="kaldi", input=manifests, report=faults.append)
        for fault in faults:
            raise InputError(fault.message)

    check_all(manifests / name, read_past_faults, seed=9)


def test_mutated_cuts(manifests: Path) -> None:
    rows = []
    for number in range(4):
        spoken = {"id": f"s{number}", "start": 0.0, "duration": 0.3, "channel": 0, "text": "HELLO", "speaker": "ann"}
        source = {"type": "file", "channels": [0], "source": f"a{number}.wav"}
        recording = {"id": "r", "sources": [source], "sampling_rate": 16000, "num_samples": 8000, "duration": 0.5}
        fields = {"start": 0.1, "duration": 0.3, "channel": 0, "supervisions": [spoken], "recording": recording}
        rows.append({"id": f"u{number}", **fields, "type": "MonoCut"})
    path = manifests / "cuts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def read_past_faults() -> None:
        faults: list[Fault] = []
        read_utterances(format="lhotse", input=path, report=faults.append)
        for fault in faults:
            raise InputError(fault.message)

    check_all(path, read_past_faults, seed=10)
    content = path.read_bytes()
    path.write_bytes(gzip.compress(content))
    check_all(path, read_past_faults, seed=11)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_tfrecords(
        utterances=make_utterances(tmp_path / "audio", 4), output=tmp_path / "out", num_shards=2, num_workers=1
    )
    return tmp_path / "out"


def read_all(folder: Path, report: Callable[[Fault], None] | None = None) -> None:
    options: dict[str, Any] = {"report": report} if report else {}
    source = TFRecordSource(input=folder, **options)
    for index, num_samples in enumerate(source.num_samples.tolist()):
        assert len(source.read_waveform(index)) == num_samples


def test_mutated_indexes(shards: Path, tmp_path: Path) -> None:
    check_all(shards / "index.json", lambda: read_all(shards), seed=3)
    check_all(shards / "index.json", lambda: verify_shards(shards, progress=False), seed=4)
    utterances = make_utterances(tmp_path / "audio", 4)

    def prepare_again() -> None:
        # Whatever the index says, the shards are kept or written anew, and then right.
        write_tfrecords(utterances=utterances, output=shards, num_shards=2, num_workers=1, progress=False)
        read_all(shards)

    check_all(shards / "index.json", prepare_again, seed=5)


def test_mutated_shards(shards: Path) -> None:
    check_all(shards / "data-00000-of-00002.tfrecord", lambda: read_all(shards), seed=6)

    def read_past_faults() -> None:
        faults: list[Fault] = []
        read_all(shards, faults.append)
        for fault in faults:
            raise InputError(fault.message)

    check_all(shards / "data-00001-of-00002.tfrecord", read_past_faults, seed=7)


def test_mutated_notes_are_none_or_whole(tmp_path: Path) -> None:
    utterances = make_utterances(tmp_path / "audio", 4)
    task = make_task(tmp_path / "s.tfrecord", utterances)
    whole = write_shard(task)

    def read() -> None:
        note = read_note(task)
        if note is None:
            raise InputError("a damaged note is as none")
        if "error" not in note:
            assert note.keys() >= whole.keys() if whole else False
            assert {len(column) for column in note["columns"].values()} == {4}

    check_all(Path(task.note_path), read, seed=8)


def test_mutated_vocabularies(tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    CharTokenizer(tokens=("<pad>", "<s>", "</s>", "<unk>", "|", "A", "\u00e9")).save(path)
    check_all(path, lambda: CharTokenizer.from_file(path).decode([5, 6]), seed=9)


def test_mutated_descriptions_of_a_synthetic_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.write_synthetic_corpus(
        output=tmp_path / "c", num_train=1, num_eval=1, num_train_speakers=1, num_eval_speakers=1
    )
    parser = Parser(prog="data.synthetic")
    for name in ("output", "num_train", "num_eval"):
        parser.add_argument(f"--{name}", type=str if name == "output" else int)
    argv = [f"--output={tmp_path / 'c'}", "--num_train=1", "--num_eval=1"]

    def read() -> None:
        status = run_command(parser, synthetic._run, argv)
        err = capsys.readouterr().err
        if status:
            raise InputError(err.rstrip("\n"))

    check_all(tmp_path / "c" / "corpus.json", read, seed=10)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("format", "name"),
    [
        ("parquet", "train.parquet"),
        ("arrow", "data-00000-of-00001.arrow"),
        ("webdataset", "train-000000.tar"),
        ("shar", "recording.000000.tar"),
        ("shar", "cuts.000000.jsonl.gz"),
    ],
)
def test_archives(tmp_path, format, name, seed):
    folder = write_all(tmp_path, make_items(3, secs=0.05))[format]

    def read():
        faults: list[Fault] = []
        source = open_source(format=format, input=folder, report=faults.append)
        for index in range(len(source.utterance_ids)):
            with contextlib.suppress(InputError):
                source.read_waveform(index)
        if faults:
            raise InputError(faults[0].message)

    check_all(folder / name, read, seed)
