"""Transcripts beside recordings: when each word was said, and which do not match."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tensorflow as tf

from engine.inference.textgrid import textgrid, textgrid_paths
from engine.inference.transcriber import Transcriber, TranscriberOptions
from engine.inference.words import Timed
from engine.modes import align
from models.ctc.alignment import forced_align, greedy_spans
from tests.engine.inference.test_transcriber import SAMPLE_RATE, VOCAB, count_samples, stream_audio, write


class SureOfASecond:
    """Each second is one frame; the model is three nats surer of the second's first sample than of all else."""

    max_training_samples = 0

    def __call__(self, waveform, waveform_lengths, training=False, random=None):
        return 3.0 * tf.one_hot(tf.cast(tf.round(waveform[:, ::SAMPLE_RATE]), tf.int32), len(VOCAB))

    def output_lengths(self, waveform_lengths):
        return tf.cast(waveform_lengths, tf.int32) // SAMPLE_RATE


class Letters:
    token_strings = ["", *VOCAB[1:]]
    blank_id = 0

    def encode(self, text):
        return [VOCAB.index(letter) for letter in text]


def find_reference(path):
    beside = Path(path).with_suffix(".txt")
    return beside.read_text() if beside.exists() else None


@pytest.fixture
def parts(monkeypatch):
    transcriber = Transcriber(
        model=SureOfASecond(),
        span_decoder=greedy_spans,
        tokenizer=Letters(),
        count_samples=count_samples,
        stream_audio=stream_audio,
        normalize_waveform=lambda waveform: waveform,
        find_reference=find_reference,
        options=TranscriberOptions(window_secs=8, overlap_secs=4),
    )

    class Parts:
        aligner = staticmethod(forced_align)
        weights = []

    monkeypatch.setattr(align, "identify_weights", lambda checkpoint, weights: f"{checkpoint} {weights}")
    monkeypatch.setattr(
        align, "load_transcriber", lambda **fields: (Parts.weights.append(fields["weights"]), transcriber)[1]
    )

    return Parts


def transcripts(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)


def test_words_get_their_times_and_the_worst_match_comes_first(parts, tmp_path, capsys):
    write(tmp_path, good="_ab_ cc__d__", wrong="_ab_ cc__d__", close="ab")
    transcripts(tmp_path, good="ab cd", wrong="ab ed", close="ab")
    output = tmp_path / "out"
    arguments = {"parts": parts, "checkpoint": "x", "inputs": [str(tmp_path)], "output": str(output)}
    assert align.run(**arguments, weights="ema") == 0
    assert parts.weights == ["ema"]
    records = [json.loads(line) for line in (output / "alignments.jsonl").read_text().splitlines()]
    assert [Path(record["audio_filepath"]).stem for record in records] == ["wrong", "close", "good"]
    # c is heard for two seconds, where the transcript has e: two frames are three nats less likely.
    assert [record["score"] for record in records] == [pytest.approx(-2 * 3 / 12), 0.0, 0.0]
    assert records[0]["hypothesis"] == "ab cd" and records[0]["text"] == "ab ed"
    good = {word["text"]: (word["start"], word["end"]) for word in records[2]["words"]}
    assert good == {"ab": (1.0, 3.0), "cd": (5.0, 10.0)}
    assert sorted(path.name for path in (output / "textgrid").iterdir()) == [
        "close.TextGrid",
        "good.TextGrid",
        "wrong.TextGrid",
    ]
    printed = capsys.readouterr().out
    assert f"3 of 3 recordings aligned, written to {output}\n1 of 3 transcripts differ" in printed
    assert "wrong.wav\n           transcript: ab ed\n           heard:      ab cd\n" in printed
    assert "good.wav" not in printed and "close.wav" not in printed


def test_where_every_transcript_matches_none_is_listed(parts, tmp_path, capsys):
    write(tmp_path, good="_ab_", close="ab")
    transcripts(tmp_path, good="ab", close="ab")
    assert align.run(parts=parts, checkpoint="x", inputs=[str(tmp_path)], output=str(tmp_path / "out")) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1:] == ["every transcript is what the model hears"]


def test_of_many_mismatches_the_worst_are_listed_and_counted():
    records = [
        {"audio_filepath": f"{number}.wav", "text": "a", "hypothesis": "a" if number % 2 else "b", "score": number - 50}
        for number in range(50)
    ]
    lines = list(align.mismatch_lines(records))
    assert lines[0] == "25 of 50 transcripts differ from what the model hears; the 10 worst:"
    assert [line.split()[1] for line in lines[1::3]] == [f"{number}.wav" for number in range(0, 20, 2)]


def test_what_cannot_be_aligned_is_named_and_the_rest_is_done(parts, tmp_path, capsys):
    write(tmp_path, good="ab", short="a", silent="ab", damaged="a!")
    transcripts(tmp_path, good="ab", short="abab", damaged="a")
    status = align.run(parts=parts, checkpoint="x", inputs=[str(tmp_path)], output=str(tmp_path / "out"))
    assert status == 2
    errors = capsys.readouterr().err
    assert "short.wav was skipped: 4 labels" in errors
    assert "silent.wav was skipped: no transcript" in errors
    assert "damaged.wav was skipped: damaged" in errors
    assert len((tmp_path / "out/alignments.jsonl").read_text().splitlines()) == 1


def test_without_any_transcript_or_folder_it_is_one_line(parts, tmp_path):
    write(tmp_path, a="ab")
    with pytest.raises(ValueError, match="none of the 1 recordings has a transcript"):
        align.run(parts=parts, checkpoint="x", inputs=[str(tmp_path)], output=str(tmp_path / "out"))
    with pytest.raises(ValueError, match="is a file; name the folder"):
        align.run(parts=parts, checkpoint="x", inputs=[str(tmp_path)], output=str(tmp_path / "a.wav"))
    with pytest.raises(ValueError, match="--output is empty"):
        align.run(parts=parts, checkpoint="x", inputs=[str(tmp_path)], output="")


def test_a_textgrid_leaves_no_gap():
    letters = (Timed("o", 0.5, 0.52, 1.0), Timed('"', 0.52, 0.6, 1.0))
    text = textgrid([Timed('o"', 0.5, 0.6, 1.0, letters)], duration_secs=3661.125)
    assert text.startswith('File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 3661.125\n')
    words, characters = text.split("    item [")[1:]
    assert words == (
        '1]:\n        class = "IntervalTier"\n        name = "words"\n        xmin = 0\n        xmax = 3661.125\n'
        "        intervals: size = 3\n"
        '        intervals [1]:\n            xmin = 0\n            xmax = 0.5\n            text = ""\n'
        '        intervals [2]:\n            xmin = 0.5\n            xmax = 0.6\n            text = "o"""\n'
        '        intervals [3]:\n            xmin = 0.6\n            xmax = 3661.125\n            text = ""\n'
    )
    bounds = [float(line.split("=")[1]) for line in characters.splitlines() if "            xm" in line]
    assert bounds == [0, 0.5, 0.5, 0.52, 0.52, 0.6, 0.6, 3661.125]


def test_recordings_of_one_name_stay_apart():
    assert textgrid_paths("out", ["a/x.wav", "b/y.wav"]) == ["out/textgrid/x.TextGrid", "out/textgrid/y.TextGrid"]
    assert textgrid_paths("out", ["a/x.wav", "b/x.wav"]) == ["out/textgrid/a/x.TextGrid", "out/textgrid/b/x.TextGrid"]
    same = ["out/textgrid/x.wav.TextGrid", "out/textgrid/x.flac.TextGrid"]
    assert textgrid_paths("out", ["a/x.wav", "a/x.flac"]) == same


def test_the_same_command_goes_on_and_writes_what_an_uninterrupted_one_writes(parts, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", a="_ab_", b="cc__d__", c="ab")
    transcripts(tmp_path / "in", a="ab", b="cd", c="ad")
    align_file, names = align.align_file, []

    def run(output, kill_at=99):
        def watched(transcriber, aligner, path, text):
            if len(names) == kill_at:
                raise SystemExit(143)
            names.append(Path(path).stem)
            return align_file(transcriber, aligner, path, text)

        names.clear()
        monkeypatch.setattr(align, "align_file", watched)
        return align.run(parts=parts, checkpoint="x", inputs=[str(tmp_path / "in")], output=str(output))

    def content(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert run(tmp_path / "straight") == 0
    output, partial = tmp_path / "out", tmp_path / "out.partial"
    with pytest.raises(SystemExit):
        run(output, kill_at=2)
    assert partial.exists() and not (output / "alignments.jsonl").exists()
    transcripts(tmp_path / "in", a="ac")
    with pytest.raises(SystemExit):
        run(output, kill_at=1)
    assert names == ["a"]
    transcripts(tmp_path / "in", a="ab")
    assert run(output) == 0 and names == ["a", "c"]
    assert content(output) == content(tmp_path / "straight") and not partial.exists()
    assert f"continues: 1 of 3 recordings are in {partial}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(output, kill_at=1)
    partial.write_text(partial.read_text().replace('"score": ', '"score": "'))
    with pytest.raises(ValueError, match="out.partial.*; delete the file to begin anew"):
        run(output)
