"""Cuts of Lhotse, as its library writes them, whole and broken."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from data.common.errors import InputError
from data.corpus.faults import Fault
from data.corpus.manifest import read_utterances
from data.open_corpus import open_source

RATE = 16_000


def make_recording(path: str, *, num_channels: int = 1) -> dict[str, Any]:
    channels = list(range(num_channels))
    return {
        "id": "talk",
        "sources": [{"type": "file", "channels": channels, "source": path}],
        "sampling_rate": RATE,
        "num_samples": 4 * RATE,
        "duration": 4.0,
        "channel_ids": channels,
    }


def make_cut(name: str, start: float, duration: float, text: str, *, channel: int = 0, **fields: Any) -> dict[str, Any]:
    spoken = {"id": f"{name}-s", "recording_id": "talk", "start": 0.0, "duration": duration, "channel": channel}
    return {
        "id": name,
        "start": start,
        "duration": duration,
        "channel": channel,
        "supervisions": [{**spoken, "text": text, "speaker": "ann", "custom": {"snr": 3.5}}],
        "recording": make_recording("audio/talk.wav", num_channels=2),
        "custom": {"split": "train"},
        "type": "MonoCut",
        **fields,
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "audio").mkdir()
    (tmp_path / "manifests").mkdir()
    samples = np.random.default_rng(0).normal(0, 0.1, (4 * RATE, 2))
    soundfile.write(tmp_path / "audio/talk.wav", samples, RATE)
    return tmp_path


def write_cuts(root: Path, *cuts: Any, name: str = "toy_cuts_train.jsonl.gz") -> Path:
    path = root / "manifests" / name
    content = "".join(f"{cut if isinstance(cut, str) else json.dumps(cut)}\n" for cut in cuts).encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def read(path: Path) -> tuple[list, list[Fault]]:
    faults: list[Fault] = []
    return read_utterances(format="lhotse", input=path, report=faults.append), faults


def cut_with(**changes: Any) -> dict[str, Any]:
    return {**make_cut("u2", 1.0, 2.0, "YES"), **changes}


def changed(change) -> dict[str, Any]:
    cut = copy.deepcopy(cut_with())
    change(cut)
    return cut


def test_cuts_have_the_audio_of_a_manifest_with_offsets_bit_for_bit(root):
    write_cuts(root, make_cut("u1", 0.5, 1.25, "HELLO"), make_cut("u2", 1.0, 2.5, "YES", channel=1))
    write_cuts(root, cut_with(), name="toy_cuts_dev.jsonl")
    where = {"audio_filepath": "../audio/talk.wav", "speaker": "ann"}
    records = [
        {**where, "utterance_id": "u1", "text": "HELLO", "offset": 0.5, "duration": 1.25, "audio_channel": 0},
        {**where, "utterance_id": "u2", "text": "YES", "offset": 1.0, "duration": 2.5, "audio_channel": 1},
    ]
    manifest = root / "manifests/train.jsonl"
    manifest.write_text("".join(json.dumps(record) + "\n" for record in records))
    cuts = open_source(format="lhotse", input=root / "manifests", split="train")
    wanted = open_source(format="jsonl", input=manifest)
    for name in ("utterance_ids", "texts", "speaker_ids"):
        assert getattr(cuts, name) == getattr(wanted, name)
    for index in range(2):
        assert np.array_equal(cuts.read_waveform(index), wanted.read_waveform(index))


def test_each_supervision_of_a_long_cut_is_an_utterance_in_its_own_channel(root):
    cut = make_cut("talk", 1.0, 3.0, "", channel=0, type="MultiCut")
    cut["channel"] = [0, 1]
    cut["supervisions"] = [
        {"id": "s1", "recording_id": "talk", "start": 0.25, "duration": 1.0, "channel": 0, "text": "ONE"},
        {"id": "s2", "recording_id": "talk", "start": 1.5, "duration": 1.52, "channel": [1], "text": "TWO"},
        {"id": "s3", "recording_id": "talk", "start": 2.0, "duration": 0.5, "channel": [0, 1], "text": "ALL"},
    ]
    utterances, faults = read(write_cuts(root, cut))
    assert [(u.utterance_id, u.text, u.start, u.num_samples, u.channel) for u in utterances] == [
        ("s1", "ONE", 20_000, 16_000, 0),
        ("s2", "TWO", 40_000, 24_000, 1),  # which ends with the cut
        ("s3", "ALL", 48_000, 8_000, None),
    ]
    assert not faults


def test_a_recording_that_the_header_contradicts_is_named(root):
    cut = cut_with(recording={**make_recording("audio/talk.wav", num_channels=2), "duration": 9.0})
    utterances, _ = read(write_cuts(root, cut))
    assert utterances[0].duration_conflict == "9 s listed, 4 s in the file"


SAVE = r"save it .*CutSet\.save_audios"
BAD = [
    ("{broken", "cuts_train.jsonl.gz:2 is not JSON"),
    ("[1]", "cuts_train.jsonl.gz:2 is not a JSON object"),
    (cut_with(supervisions=[]), "cuts_train.jsonl.gz:2 has no supervision with a text"),
    (changed(lambda cut: cut["supervisions"][0].pop("text")), "jsonl.gz:2 has no supervision with a text"),
    (cut_with(type="MixedCut", tracks=[]), 'jsonl.gz:2 is a "MixedCut", which is mixed or padded: ' + SAVE),
    (cut_with(type="PaddingCut"), 'jsonl.gz:2 is a "PaddingCut"'),
    (cut_with(recording=None, features={"type": "fbank"}), "jsonl.gz:2 has no recording: its features are not read"),
    (cut_with(recording=None), "jsonl.gz:2 has no recording: add it"),
    (cut_with(recording="talk"), "jsonl.gz:2 'recording' is \"talk\", not a JSON object"),
    (cut_with(start="1"), "jsonl.gz:2 'start' is \"1\", not a finite number"),
    (cut_with(start=-1), "jsonl.gz:2 has a start or a duration that is impossible"),
    (cut_with(duration=0.0), "jsonl.gz:2 has a start or a duration that is impossible"),
    (cut_with(duration=1.0), r"jsonl.gz:2 has a text from 0 s to 2 s in a cut of 1 s"),
    (cut_with(start=3.5), r"jsonl.gz:2 has a segment from 3.5 s to 5.5 s in a recording of 4 s"),
    (cut_with(id=7), "jsonl.gz:2 'id' is 7, not text"),
    (cut_with(channel=5), r"jsonl.gz:2 has channel 5, which no single file"),
    (changed(lambda cut: cut["recording"].update(transforms=[{"name": "Speed"}])), r'alters .*\("Speed"\): ' + SAVE),
    (changed(lambda cut: cut["recording"]["sources"][0].update(type="command")), 'type "command", which is not read'),
    (
        changed(lambda cut: cut["recording"]["sources"][0].update(source="audio/no.wav")),
        r"no audio file .*audio/no\.wav",
    ),
    ({"id": "talk", "sources": []}, "jsonl.gz:2 is no cut: make cuts of recordings and supervisions with: lhotse cut"),
    ({"audio_filepath": "a.wav"}, "jsonl.gz:2 is not a cut of Lhotse"),
    (make_cut("u1", 1.0, 2.0, "YES"), r"1 utterance ids occur more than once .*'u1' \(.*gz:1, .*gz:2\)"),
]


@pytest.mark.parametrize(("cut", "message"), BAD, ids=[message[:50] for _, message in BAD])
def test_a_bad_cut_is_named_and_the_others_are_read(root, cut, message):
    path = write_cuts(root, make_cut("u1", 0.5, 1.25, "HELLO"), cut, make_cut("u3", 0.5, 2.0, "NO"))
    utterances, faults = read(path)
    assert [u.utterance_id for u in utterances] == ["u1", "u3"]
    assert len(faults) == 1 and "\n" not in faults[0].message
    with pytest.raises(InputError, match=message):
        read_utterances(format="lhotse", input=path)


def test_audio_that_is_resampled_on_the_fly_is_read(root):
    resampled = {"name": "Resample", "kwargs": {"source_sampling_rate": 16_000, "target_sampling_rate": 8_000}}
    cut = changed(lambda cut: cut["recording"].update(transforms=[resampled], sampling_rate=8_000, num_samples=32_000))
    utterances, faults = read(write_cuts(root, cut))
    assert [(u.start, u.num_samples, u.duration_conflict) for u in utterances] == [(16_000, 32_000, "")] and not faults


@pytest.mark.parametrize(
    ("names", "split", "message"),
    [
        ((), "", "no file of cuts in .*: it has no .jsonl.gz"),
        (
            ("a_cuts_train.jsonl.gz", "a_cuts_dev.jsonl.gz"),
            "",
            "several files of cuts in .*: it has a_cuts_dev.jsonl.gz, a",
        ),
        (("a_cuts_train.jsonl.gz",), "test", "no file of cuts of 'test' in .*: it has a_cuts_train"),
        (("a_cuts_train-other.jsonl.gz",), "other", "no file of cuts of 'other'"),
    ],
)
def test_a_folder_without_one_file_of_cuts_is_refused(root, names, split, message):
    for name in names:
        write_cuts(root, make_cut("u1", 0.5, 1.25, "HELLO"), name=name)
    with pytest.raises(InputError, match=message):
        read_utterances(format="lhotse", input=root / "manifests", split=split)


def test_a_file_has_no_splits(root):
    path = write_cuts(root, cut_with())
    with pytest.raises(InputError, match="is one file, so it has no split 'dev'"):
        read_utterances(format="lhotse", input=path, split="dev")
    with pytest.raises(InputError, match=r"no file .*absent.*: give the path of Lhotse's cuts"):
        read_utterances(format="lhotse", input=root / "absent.jsonl.gz")


@pytest.mark.parametrize("cut", [0.5, 0.9])
def test_a_compressed_file_that_is_cut_short_is_one_line(root, cut):
    path = write_cuts(root, *[make_cut(f"u{number}", 0.5, 1.25, "HELLO") for number in range(40)])
    content = path.read_bytes()
    path.write_bytes(content[: round(cut * len(content))])
    with pytest.raises(
        InputError, match=r"cuts_train\.jsonl\.gz is damaged .*: compress it with gzip or fetch it again"
    ):
        read_utterances(format="lhotse", input=path)


def test_a_manifest_of_cuts_names_its_format(root):
    path = write_cuts(root, cut_with())
    with pytest.raises(InputError, match=r"jsonl\.gz:1 is a cut of Lhotse, give format=lhotse"):
        read_utterances(format="jsonl", input=path)
