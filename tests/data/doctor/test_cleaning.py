"""The doctor's cleaned manifests: what has an error is left out with the reason, the rest trains as it is."""

from __future__ import annotations

import json

import numpy as np
import pytest

from data.corpus.manifest import read_jsonl
from data.doctor.html_report import write_report
from tests.data.doctor.test_examine import clean_sets, make_set, run
from tests.helpers.planted_corpus import write_audio


@pytest.fixture
def folder(tmp_path):
    """Manifests of tones with planted errors; train/m.jsonl and dev/m.jsonl."""
    random = np.random.default_rng(0)
    waves = [0.3 * np.sin(np.arange(8_000 + 300 * i) * random.uniform(0.1, 0.5)) for i in range(24)]
    for split, first, count in (("train", 0, 16), ("dev", 16, 8)):
        lines = []
        for number in range(first, first + count):
            wave = {3: np.zeros(8_000), 5: waves[4], 7: waves[17]}.get(number, waves[number])
            write_audio(tmp_path / split / f"u{number}.wav", wave.astype(np.float32))
            text = {2: " "}.get(number, f"WORD {'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[number]}")
            record = {"audio_filepath": f"u{number}.wav", "text": text, "accent": f"a{number}", "speaker": split}
            lines.append(json.dumps(record) + "\n")
        if split == "train":
            lines.insert(9, "no JSON\n")
            lines.append('{"audio_filepath": "gone.wav", "text": "GONE"}\n')
        (tmp_path / split / "m.jsonl").write_text("".join(lines))
    return tmp_path


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_has_an_error_is_left_out_with_the_reason(folder, tmp_path):
    report = run(sets=clean_sets(folder))
    write_report(report, tmp_path / "run", title="run")
    kept = tmp_path / "run/cleaned/train.jsonl"
    wanted = [f"u{number}" for number in range(16) if number not in (2, 3, 4, 5, 7)]
    assert [item.utterance_id for item in read_jsonl(kept)] == wanted
    assert [line["accent"] for line in read_lines(kept)] == [f"a{name[1:]}" for name in wanted]
    left_out = {line["utterance_id"]: line for line in read_lines(tmp_path / "run/cleaned/train.left_out.jsonl")}
    reasons = {name: {reason["code"] for reason in line["reasons"]} for name, line in left_out.items()}
    broken = f"{folder}/train/m.jsonl:10"
    assert reasons == {
        "u2": {"empty_text"}, "u3": {"silent_audio"}, "gone": {"missing_audio"}, broken: {"bad_record"},
        # Nobody knows which of two transcripts is right; what leaks is no fault of the evaluation set.
        "u4": {"contradicting_transcripts"}, "u5": {"contradicting_transcripts"}, "u7": {"audio_leak"},
    }  # fmt: skip
    assert left_out["u7"]["reasons"][0]["detail"] == "eval dev has it, as u17"
    assert (left_out["u5"]["text"], left_out["u5"]["accent"]) == ("WORD F", "a5")
    assert not (tmp_path / "run/cleaned/dev.jsonl").exists()
    assert any("cleaned/train.jsonl has the 11 utterances without errors" in line for line in report.lines())
    # The cleaned manifest has none of these errors, and an examination without errors leaves no old files.
    (folder / "train/m.jsonl").write_text(
        "".join(
            json.dumps({**line, "audio_filepath": f"u{line['accent'][1:]}.wav"}) + "\n" for line in read_lines(kept)
        )
    )
    again = run(sets=clean_sets(folder))
    assert again.num_errors == 0 and again.cleaned == []
    write_report(again, tmp_path / "run", title="run")
    assert list((tmp_path / "run/cleaned").iterdir()) == []


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_fields_stay_where_the_text_is_in_a_column_of_its_own(folder, tmp_path, format):
    rows = [
        {"audio_filepath": f"u{number}.wav", "said": f"WORD {number and 'A'}", "accent": "irish"} for number in (0, 1)
    ]
    rows[0]["said"] = "?"
    lines = [json.dumps(row) for row in rows]
    if format == "csv":
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    path = folder / f"train/said.{format}"
    path.write_text("".join(f"{line}\n" for line in lines))
    write_report(run(sets=[make_set("", format=format, input=str(path), text_column="said")]), tmp_path, title="run")
    (kept,) = read_lines(tmp_path / "cleaned/train.jsonl")
    assert (kept["utterance_id"], kept["text"], kept["accent"]) == ("u1", "WORD A", "irish")
    (left_out,) = read_lines(tmp_path / "cleaned/train.left_out.jsonl")
    assert (left_out["accent"], left_out["reasons"][0]["code"]) == ("irish", "empty_text")


def test_an_evaluation_set_called_train_has_files_of_its_own(folder, tmp_path):
    train, _ = clean_sets(folder)
    report = run(sets=[train, make_set("train", format="jsonl", input=str(folder / "train/m.jsonl"))])
    assert [one.stem for one in report.cleaned] == ["train", "eval_train"]


def test_segments_of_evaluation_audio_leave_training_alone(folder, tmp_path):
    write_audio(folder / "long.wav", np.random.default_rng(1).normal(0, 0.1, 160_000).astype(np.float32))

    def write(name, *spans):
        lines = [
            {"audio_filepath": "../long.wav", "text": "A WORD", "offset": start, "duration": end - start,
             "utterance_id": f"{name}{number}", "speaker": name}
            for number, (start, end) in enumerate(spans)
        ]  # fmt: skip
        (folder / name / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    write("train", (0.0, 2.0), (2.0, 4.5), (4.25, 6.0), (6.0, 8.0))
    write("dev", (4.0, 5.0), (8.0, 9.0))
    report = run(sets=clean_sets(folder))
    write_report(report, tmp_path / "run", title="run")
    lines = read_lines(tmp_path / "run/cleaned/train.left_out.jsonl")
    assert {line["utterance_id"]: [reason["detail"] for reason in line["reasons"]] for line in lines} == {
        "train1": ["0.50 s of it are in dev0 of eval dev"],
        "train2": ["0.75 s of it are in dev0 of eval dev"],
    }
    assert not (tmp_path / "run/cleaned/dev.jsonl").exists()


def test_transcripts_are_ranked_by_how_well_a_model_finds_them(folder):
    seen = []

    def score(items):
        for waveform, text in items:
            seen.append((len(waveform), text))
            yield {"word b": -4.0, "word p": -1.5, "word q": float("nan")}.get(text, -0.01 * len(seen) / 24), "heard"

    report = run(sets=clean_sets(folder), score_fn=score, score_normalization="unicode")
    found = {item.where: item for item in report.findings if item.code == "suspect_transcript"}
    assert {where: list(item.details) for where, item in found.items()} == {"train": ["u1", "u15"]}
    assert found["train"].details["u1"] == "score -4.00; the model hears 'heard'"
    # Only what can be heard and read, long ones first.
    assert len(seen) == 24 - 2 and "word d" not in {text for _, text in seen}
    lengths = [length for length, text in seen if text < "word q"]
    assert lengths == sorted(lengths, reverse=True)
    assert report.texts["train", "u15"] == "WORD P" and ("train", "u1") in report.clips
    assert not any(item.code == "suspect_transcript" for item in run(sets=clean_sets(folder)).findings)
