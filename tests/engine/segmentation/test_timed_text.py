"""Subtitles and annotations, as they are written and read again."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from data.corpus import timed_text as reading
from data.corpus.references import find_reference
from engine.inference.words import Timed
from engine.segmentation import timed_text as writing

UTTERANCES = [Timed('say "a" & b', 0.5, 1.25, 1.0), Timed("c < d", 3661.0, 3662.5, 1.0)]


@pytest.mark.parametrize("format", writing.SUFFIXES)
def test_what_is_written_is_read_again(tmp_path, format):
    text = writing.format_utterances(UTTERANCES, format=format, duration_secs=4000.0, audio_name="long.wav")
    path = tmp_path / f"long{writing.SUFFIXES[format]}"
    path.write_text(text)
    assert reading.read_text(path) == 'say "a" & b c < d'
    assert find_reference(tmp_path / "long.wav", with_times=True) == "SAY A B C D"
    # Other modes write such files beside recordings, and would read their own output.
    assert find_reference(tmp_path / "long.wav") is None


def test_times_have_the_form_of_the_format():
    texts = {
        format: writing.format_utterances(UTTERANCES, format=format, duration_secs=4e3, audio_name="x")
        for format in writing.SUFFIXES
    }
    assert "1\n00:00:00,500 --> 00:00:01,250\nsay" in texts["srt"]
    assert (
        texts["vtt"].startswith("WEBVTT\n\n00:00:00.500 --> 00:00:01.250\nsay") and "01:01:01.000 -->" in texts["vtt"]
    )
    slots = [slot.get("TIME_VALUE") for slot in ElementTree.fromstring(texts["eaf"].encode()).iter("TIME_SLOT")]
    assert slots == ["500", "1250", "3661000", "3662500"]


def test_the_short_form_of_praat_and_the_tier_with_most_letters(tmp_path):
    path = tmp_path / "x.TextGrid"
    tier = '"IntervalTier"\n"{}"\n0\n2\n2\n0\n1\n"{}"\n1\n2\n"{}"\n'
    text = 'File type = "ooTextFile short"\n"TextGrid"\n\n0\n2\n<exists>\n2\n'
    path.write_bytes((text + tier.format("ph", "a", "b") + tier.format("words", "über", "")).encode("utf-16"))
    assert reading.read_text(path) == "über"


def test_marks_of_subtitles_are_not_text(tmp_path):
    path = tmp_path / "x.vtt"
    path.write_text(
        "WEBVTT\n\nNOTE not this\n\nname\n00:01.000 --> 00:02.000 align:start\n<v Anna>hi <b>you</b>\nthere\n"
    )
    assert reading.read_text(path) == "hi you there"


@pytest.mark.parametrize(
    ("name", "content"), [("x.eaf", "<a"), ("x.eaf", "<!DOCTYPE a [<!ENTITY b 'c'>]><a/>"), ("x.TextGrid", "hello")]
)
def test_a_file_of_another_format_is_one_line(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name}: is no (EAF|TextGrid)") as error:
        reading.read_text(tmp_path / name)
    assert "\n" not in str(error.value)
