"""Data folders of Kaldi and ESPnet, whole and broken."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common import storage
from data.common.errors import InputError
from data.corpus.faults import Fault
from data.corpus.manifest import read_utterances
from data.corpus.sources import FileSource
from data.open_corpus import open_source

RATE = 16_000


def write_lines(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A recipe whose data/train cuts three utterances out of two recordings."""
    (tmp_path / "audio").mkdir()
    for number, num_channels in ((0, 1), (1, 2)):
        samples = np.random.default_rng(number).normal(0, 0.1, (4 * RATE, num_channels))
        soundfile.write(tmp_path / f"audio/talk {number}.wav", samples, RATE)
    folder = tmp_path / "data/train"
    write_lines(folder / "wav.scp", "r0 audio/talk 0.wav", "r1 audio/talk 1.wav")
    write_lines(folder / "segments", "u1 r0 0.50 1.75", "u2 r1 1 3.25 1", "u3 r0 2.5 -1")
    write_lines(folder / "text", "u1 HELLO  WORLD", "u2\tYES", "u3")
    write_lines(folder / "utt2spk", "u1 ann", "u2 bob", "u3 ann")
    return tmp_path


def read(folder: Path, *, split: str = "") -> tuple[list, list[Fault]]:
    faults: list[Fault] = []
    return read_utterances(format="kaldi", input=folder, split=split, report=faults.append), faults


def test_segments_have_the_audio_of_a_manifest_with_offsets_bit_for_bit(root):
    records = [
        {"utterance_id": "u1", "audio_filepath": "audio/talk 0.wav", "offset": 0.5, "duration": 1.25},
        {"utterance_id": "u2", "audio_filepath": "audio/talk 1.wav", "offset": 1, "duration": 2.25, "audio_channel": 1},
        {"utterance_id": "u3", "audio_filepath": "audio/talk 0.wav", "offset": 2.5},
    ]
    texts = ["HELLO  WORLD", "YES", ""]
    lines = [json.dumps({**record, "text": text}) for record, text in zip(records, texts, strict=True)]
    write_lines(root / "train.jsonl", *lines)
    manifest = open_source(format="jsonl", input=root / "train.jsonl")
    kaldi = open_source(format="kaldi", input=root / "data", split="train")
    assert kaldi.utterance_ids == manifest.utterance_ids == ["u1", "u2", "u3"]
    assert kaldi.texts == manifest.texts == texts
    assert kaldi.speaker_ids == ["ann", "bob", "ann"]
    assert kaldi.num_samples.tolist() == [20_000, 36_000, 24_000]
    for index in range(3):
        assert np.array_equal(kaldi.read_waveform(index), manifest.read_waveform(index))


def test_without_segments_each_recording_is_an_utterance(root):
    folder = root / "dump/raw/dev"
    write_lines(folder / "wav.scp", "u1 ../../../audio/talk 0.wav", f"u2 {root}/audio/talk 1.wav")
    write_lines(folder / "text", "u2 TWO", "u1 ONE")
    write_lines(folder / "spk2utt", "ann u2", "bob u1")
    write_lines(folder / "utt2num_samples", "u1 64000", "u2 48000")
    utterances, faults = read(folder)
    assert [(u.utterance_id, u.text, u.start, u.speaker_id) for u in utterances] == [
        ("u1", "ONE", None, "bob"), ("u2", "TWO", None, "ann"),
    ]  # fmt: skip
    assert [u.duration_conflict for u in utterances] == ["", "48000 samples listed, 64000 in the file"]
    assert not faults


@pytest.mark.parametrize("duration", ["1e20", "1e400", "soon", ""])
def test_a_duration_that_is_impossible_is_told_and_the_header_decides(root, duration):
    write_lines(root / "data/train/reco2dur", f"r0 {duration}")
    utterances, faults = read(root / "data/train")
    assert len(utterances) == 3
    assert [fault.message.partition(" ")[2] for fault in faults] == [
        f"has no number behind the id, correct the line: r0 {duration}".strip()
    ]


def test_listed_durations_that_the_header_contradicts_are_named(root):
    write_lines(root / "data/train/reco2dur", "r0 4.0", "r1 7.5")
    utterances, _ = read(root / "data/train")
    assert [u.duration_conflict for u in utterances] == ["", "7.5 s listed, 4 s in the file", ""]


BAD = [
    ("wav.scp", "r1 sph2pipe -f wav a.sph |", "wav.scp:2 is a command, which is not run", {"u2"}),
    ("wav.scp", "r1 audio.ark:1234", "wav.scp:2 is a place in an archive, which is not read", {"u2"}),
    ("wav.scp", "r1", "wav.scp:2 has no file behind the id, add it: r1", {"u2"}),
    ("wav.scp", "", "segments:2 has a recording that .*/wav.scp lacks, add it: u2 r1 1 3.25 1", {"u2"}),
    ("segments", "u2 r1 1 3.25 2", "wanted channel 2", set()),
    ("segments", "u2 r1 1", "segments:2 is not an utterance, a recording, a start and an end in seconds", {"u2"}),
    ("segments", "u2 r1 1 3 0 9", "segments:2 is not an utterance, a recording, a start", {"u2"}),
    ("segments", "u2", "segments:2 is not an utterance, a recording, a start", {"u2"}),
    ("segments", "u2 r1 one 3", "segments:2 has a start, an end or a channel that is no number", {"u2"}),
    ("segments", "u2 r1 1 nan", "segments:2 has a start or an end that is no number of seconds", {"u2"}),
    ("segments", "u2 r1 3 1", "segments:2 has a segment from 3 s to 1 s", {"u2"}),
    ("segments", "u2 r1 -3 1", "segments:2 has a negative number", {"u2"}),
    ("segments", "u2 r1 3 9", "segments:2 has a segment from 3 s to 9 s in a recording of 4 s", {"u2"}),
    ("segments", "", "text:2 has an utterance that .*/segments lacks, add it: u2 YES", {"u2"}),
    ("text", "", "segments:2 has no transcript in .*/text, add it: u2 r1 1 3.25 1", {"u2"}),
    ("text", "u1 AGAIN", "text:2 has the id of line 1 again, give each its own: u1 AGAIN", {"u2"}),
    ("utt2spk", "u2 bob smith", "utt2spk:2 is not an utterance and its speaker", set()),
]


@pytest.mark.parametrize(("name", "line", "message", "lost"), BAD, ids=[f"{name}:{line}" for name, line, *_ in BAD])
def test_a_bad_line_is_named_and_the_others_are_read(root, name, line, message, lost):
    path = root / "data/train" / name
    lines = path.read_text(encoding="utf-8").splitlines()
    write_lines(path, lines[0], line, *lines[2:])
    utterances, faults = read(root / "data/train")
    assert {u.utterance_id for u in utterances} == {"u1", "u2", "u3"} - lost
    messages = [fault.message for fault in faults]
    if not faults:  # a channel shows when the recording is decoded
        with pytest.raises(InputError) as caught:
            FileSource(utterances=utterances).read_waveform(1)
        messages = [str(caught.value)]
    assert all("\n" not in text for text in messages)
    assert any(re.search(message, text) for text in messages), messages
    if lost:
        with pytest.raises(InputError, match=message):
            read_utterances(format="kaldi", input=root / "data/train")


def test_all_lines_of_one_fault_are_one_message(root):
    write_lines(root / "data/train/wav.scp", "r0 cat a.wav |", "r1 cat b.wav |")
    with pytest.raises(InputError, match=r"wav\.scp:1 is a command, .* \(3 of 3 lines are so\)"):
        read_utterances(format="kaldi", input=root / "data/train")


def test_an_absent_file_is_named_with_the_number_of_them(root):
    write_lines(root / "data/train/wav.scp", "r0 audio/talk 0.wav", "r1 audio/talk 7.wav")
    utterances, faults = read(root / "data/train")
    assert [u.utterance_id for u in utterances] == ["u1", "u3"]
    assert [(fault.code, set(fault.details)) for fault in faults] == [("missing_audio", {"u2"})]
    assert str(root / "audio/talk 7.wav") in faults[0].message


@pytest.mark.parametrize(
    ("path", "split", "message"),
    [
        ("data", "", r"no wav\.scp in .*data: give a folder with wav\.scp and text; .* has the splits train"),
        ("data", "tset", "no folder .*tset: check the path; .* has the splits train"),
        ("audio", "", r"no wav\.scp in .*audio: give a folder"),
    ],
)
def test_a_folder_that_is_no_data_folder_is_refused(root, path, split, message):
    with pytest.raises(InputError, match=message):
        read_utterances(format="kaldi", input=root / path, split=split)


def test_a_data_folder_may_be_behind_a_url(root):
    base = "ram://kaldi"
    storage.write_bytes(f"{base}/audio/talk 0.wav", (root / "audio/talk 0.wav").read_bytes())
    storage.write_bytes(f"{base}/data/train/wav.scp", b"r0 audio/talk 0.wav\n")
    storage.write_bytes(f"{base}/data/train/segments", b"u1 r0 0.5 1.75\n")
    storage.write_bytes(f"{base}/data/train/text", b"u1 HELLO\n")
    remote = open_source(format="kaldi", input=f"{base}/data", split="train")
    local = open_source(format="kaldi", input=root / "data/train")
    assert np.array_equal(remote.read_waveform(0), local.read_waveform(0))
