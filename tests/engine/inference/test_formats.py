"""Files of transcripts, letter by letter."""

from __future__ import annotations

import json

import pytest

from engine.config.output_formats import choose_format
from engine.inference.formats import format_transcript, subtitle_paths, subtitles, write_transcripts
from engine.inference.words import Timed

WORDS = [Timed("so", 0.0, 0.26, 0.9), Timed("a<b", 0.5, 1.0, 0.8), Timed("end", 3661.5, 3661.52, 0.5)]
RECORD = {"audio_filepath": "a.wav", "text": "so a<b end", "duration": 3662.0, "confidence": 0.7}


@pytest.mark.parametrize(
    ("output", "name", "wanted"),
    [("x/a.jsonl", "", "jsonl"), ("a.SRT", "", "srt"), ("folder", "vtt", "vtt"), ("a.txt", "tsv", "tsv")],
)
def test_format(output, name, wanted):
    assert choose_format(output, name) == wanted


@pytest.mark.parametrize(("output", "name"), [("a.docx", ""), ("a", ""), ("a.txt", "pdf")])
def test_no_format(output, name):
    with pytest.raises(ValueError, match="no format of transcripts; end it in one of .jsonl"):
        choose_format(output, name)


def test_json_lines_tsv_and_text(tmp_path):
    for format in ("jsonl", "tsv", "txt"):
        write_transcripts(tmp_path / format, format=format, records=[RECORD], words=[WORDS])
    (record,) = map(json.loads, (tmp_path / "jsonl").read_text().splitlines())
    assert record.pop("words")[1] == {"text": "a<b", "start": 0.5, "end": 1.0, "confidence": 0.8}
    assert record == RECORD
    assert (tmp_path / "tsv").read_text() == (
        "audio_filepath\tstart\tend\tconfidence\ttext\na.wav\t0.000\t3661.520\t0.7000\tso a<b end\n"
    )
    assert (tmp_path / "txt").read_text() == "so a<b end\n"


def test_one_transcript_as_text_is_what_a_file_of_it_holds(tmp_path):
    for format in ("txt", "srt", "vtt"):
        target = tmp_path / f"a.{format}"
        write_transcripts(target, format=format, records=[RECORD], words=[WORDS], targets=[str(target)])
        assert format_transcript(RECORD, WORDS, format=format) == target.read_text()
    write_transcripts(tmp_path / "a.jsonl", format="jsonl", records=[RECORD], words=[WORDS])
    assert format_transcript(RECORD, WORDS, format="json") + "\n" == (tmp_path / "a.jsonl").read_text()


def test_silence(tmp_path):
    silent = {**RECORD, "text": "", "confidence": 0.0}
    for format in ("tsv", "srt"):
        write_transcripts(
            tmp_path / format, format=format, records=[silent], words=[[]], targets=[str(tmp_path / "silent.srt")]
        )
    assert (tmp_path / "tsv").read_text().splitlines()[1] == "a.wav\t\t\t0.0000\t"
    assert (tmp_path / "silent.srt").read_text() == ""


def test_subrip():
    assert subtitles(WORDS, format="srt") == (
        "1\n00:00:00,000 --> 00:00:01,000\nso a<b\n\n2\n01:01:01,500 --> 01:01:02,000\nend\n\n"
    )


def test_webvtt_escapes_markup():
    assert subtitles(WORDS, format="vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nso a&lt;b\n\n01:01:01.500 --> 01:01:02.000\nend\n\n"
    )


def test_cues_are_short_and_their_lines_even():
    words = [Timed("word", 0.3 * i, 0.3 * i + 0.2, 1.0) for i in range(40)]
    cues = subtitles(words, format="srt").strip().split("\n\n")
    texts = [cue.split("\n")[2:] for cue in cues]
    assert sum(len(line.split()) for lines in texts for line in lines) == 40
    assert all(len(lines) <= 2 and max(map(len, lines)) <= 42 for lines in texts)
    assert [len(" ".join(lines).split()) for lines in texts] == [16, 16, 8]


def test_where_subtitles_go(tmp_path):
    assert subtitle_paths("out/a.srt", ["x.wav"], format="srt") == ["out/a.srt"]
    assert subtitle_paths(str(tmp_path), ["x.wav"], format="srt") == [str(tmp_path / "x.srt")]
    assert subtitle_paths("out", ["d/x.wav", "-"], format="vtt") == ["out/x.vtt", "out/-.vtt"]
    with pytest.raises(ValueError, match="2 recordings need a folder"):
        subtitle_paths("a.srt", ["x.wav", "y.wav"], format="srt")
    with pytest.raises(ValueError, match="a/x.wav and b/x.flac would both be written"):
        subtitle_paths("out", ["a/x.wav", "b/x.flac"], format="srt")
