"""python -m data.split."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data import split
from data.corpus.manifest import read_jsonl
from tests.helpers.packed_toys import write_parquet


def write_corpus(root: Path, num_speakers: int = 20, **changes: object) -> Path:
    """Three utterances of a second of each speaker."""
    (root / "wav").mkdir(parents=True)
    lines = []
    for number in range(num_speakers):
        for place in range(3):
            path = f"wav/{number}-{place}.wav"
            soundfile.write(root / path, np.full(8_000 + 10 * place + number, 0.1), 8_000)
            fields = {"audio_filepath": path, "text": f"text {number} {place}", "speaker": f"s{number}"}
            fields |= {"gender": "fm"[number % 2], "utterance_id": f"{number}-{place}", "snr": 3.5, **changes}
            lines.append(json.dumps({key: value for key, value in fields.items() if value is not None}))
    (root / "all.jsonl").write_text("\n".join(lines) + "\n")
    return root / "all.jsonl"


def run(manifest: Path, *flags: str) -> int:
    return split.main(["--format=jsonl", f"--input={manifest}", f"--output={manifest.parent}/splits", *flags])


def test_manifests_hold_every_utterance_once_with_its_fields(tmp_path, capsys):
    manifest = write_corpus(tmp_path)
    assert run(manifest, "--parts=train,dev=20%", "--stratify=gender") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith("train: 48 utterances, 0.01 h (the rest), 16 speakers")
    assert lines[1] in ("  gender: f 50 %, m 50 %", "  gender: m 50 %, f 50 %")
    assert lines[2].startswith("dev: 12 utterances, 0.00 h (wanted 0.00 h), 4 speakers") and err == ""
    train, dev = (read_jsonl(tmp_path / f"splits/{name}.jsonl") for name in ("train", "dev"))
    assert {u.utterance_id for u in train} | {u.utterance_id for u in dev} == {
        u.utterance_id for u in read_jsonl(manifest)
    }
    assert not {u.speaker_id for u in train} & {u.speaker_id for u in dev}
    record = json.loads((tmp_path / "splits/dev.jsonl").read_text().splitlines()[0])
    assert record["audio_filepath"].startswith("../wav/") and record["snr"] == 3.5 and record["gender"] in "fm"
    # The same command again leaves them as they are; another split does not replace them.
    assert run(manifest, "--parts=train,dev=20%", "--stratify=gender") == 0
    assert run(manifest, "--parts=train,dev=30%") == 2
    assert "train.jsonl holds something else: give another --output, or delete it" in capsys.readouterr().err


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_fields_are_kept_whatever_the_column_of_the_text_is_called(tmp_path, format):
    manifest = write_corpus(tmp_path)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows = [{**{name: value for name, value in row.items() if name != "text"}, "phrase": row["text"]} for row in rows]
    lines = [json.dumps(row) for row in rows]
    if format == "csv":
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    path = tmp_path / f"named.{format}"
    path.write_text("\n".join(lines) + "\n")
    flags = ["--text_column=phrase", "--stratify=gender", "--parts=train,dev=20%", f"--output={tmp_path}/out"]
    assert split.main([f"--format={format}", f"--input={path}", *flags]) == 0
    record = json.loads((tmp_path / "out/dev.jsonl").read_text().splitlines()[0])
    assert record["text"].startswith("text ") and record["gender"] in "fm"


def test_columns_of_a_table_with_its_audio_are_fields(tmp_path):
    manifest = write_corpus(tmp_path)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    columns = {name: [row[name] for row in rows] for name in ("text", "speaker", "gender", "utterance_id")}
    audio = [{"bytes": (tmp_path / row["audio_filepath"]).read_bytes(), "path": None} for row in rows]
    path = write_parquet(tmp_path / "t.parquet", {"audio": audio, **columns})
    flags = ["--stratify=gender", "--parts=train,dev=20%", f"--output={tmp_path}/out"]
    assert split.main(["--format=parquet", f"--input={path}", *flags]) == 0
    record = json.loads((tmp_path / "out/dev.jsonl").read_text().splitlines()[0])
    assert record["gender"] in "fm" and record["audio_filepath"].startswith("../t.parquet#row=")
    assert len(read_jsonl(tmp_path / "out/dev.jsonl")) == 12


def test_what_may_still_leak_is_said(tmp_path, capsys):
    manifest = write_corpus(tmp_path, speaker=None, text="THE SAME")
    assert run(manifest, "--parts=train,dev=40%", "--by=utterance") == 0
    err = capsys.readouterr().err
    assert re.search(
        r"texts of the same length in samples, perhaps of the same audio, in several parts: \d+, first in", err
    )
    assert "no speaker is named, so one may be in several parts" in err


def test_segments_of_a_recording_stay_together(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(80_000, 0.1), 8_000)
    soundfile.write(tmp_path / "b.wav", np.full(80_000, 0.1), 8_000)
    lines = [
        json.dumps(
            {"audio_filepath": f"{name}.wav", "offset": place, "duration": 1, "text": "a", "speaker": f"{name}{place}"}
        )
        for place in range(10)
        for name in "ab"
    ]
    (tmp_path / "all.jsonl").write_text("\n".join(lines) + "\n")
    assert run(tmp_path / "all.jsonl", "--parts=train,dev=50%") == 0
    parts = [read_jsonl(tmp_path / f"splits/{name}.jsonl") for name in ("train", "dev")]
    assert [len({u.audio_filepath for u in part}) for part in parts] == [1, 1]
    assert [len(part) for part in parts] == [10, 10]


def test_bad_rows_are_left_out_and_named(tmp_path, capsys):
    manifest = write_corpus(tmp_path)
    with manifest.open("a") as file:
        file.write('{"audio_filepath": "wav/absent.wav", "text": "a"}\n')
    assert run(manifest) == 0
    out, err = capsys.readouterr()
    assert (
        "1 bad utterances left out; no audio file" in err
        and sum(int(line.split()[1]) for line in out.splitlines()) == 60
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--stratify=accent",), "no field 'accent' in .*: it has gender, snr"),
        (("--parts=train,dev=1min,test=3h",), "wants 3.02 h beside train"),
        (("--by=nobody",), "argument --by: invalid choice: 'nobody'"),
        (("--parts=train,dev=0.001%",), "dev would be empty"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, capsys, flags, message):
    assert run(write_corpus(tmp_path), *flags) == 2
    err = capsys.readouterr().err
    assert err.startswith("data.split: ") and err.count("\n") == 1

    assert re.search(message, err), err
