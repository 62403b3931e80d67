"""Transcripts beside audio files."""

from __future__ import annotations

import os

from data.corpus.references import find_reference


def test_librispeech_listing_is_found_by_the_files_name(tmp_path):
    (tmp_path / "1-2.trans.txt").write_text("1-2-0000 HELLO THERE\n1-2-0001 it's me\n")
    assert find_reference(tmp_path / "1-2-0001.flac") == "IT'S ME"
    assert find_reference(tmp_path / "1-2-000.flac") is None


def test_a_text_file_of_the_same_name_is_found(tmp_path):
    (tmp_path / "a.txt").write_text("Hello, there!\n")
    assert find_reference(tmp_path / "a.wav") == "HELLO THERE"
    assert find_reference(tmp_path / "a.wav", text_normalization="unicode") == "hello there"


def test_hidden_listings_and_pipes_are_passed_over(tmp_path):
    (tmp_path / "._1-2.trans.txt").write_bytes(b"1-2-0001 NOT THIS\n")
    os.mkfifo(tmp_path / "0.trans.txt")
    (tmp_path / "1-2.trans.txt").write_text("1-2-0001 HELLO\n")
    assert find_reference(tmp_path / "1-2-0001.flac") == "HELLO"


def test_no_transcript_is_none(tmp_path):
    assert find_reference(tmp_path / "a.wav") is None
