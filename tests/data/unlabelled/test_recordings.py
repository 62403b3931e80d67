"""Recordings that a pseudo-label is made of, and where a manifest finds them again."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import soundfile

from data.common.errors import InputError
from data.common.files import relative_path
from data.corpus.manifest import read_jsonl, write_jsonl
from data.corpus.sources import FileSource
from tests.data.unlabelled.test_listing import open_corpus, write_audio, write_lines, write_shards


def read(row, speed=1.0):
    return np.concatenate(list(row.stream(speed)))


def write_manifest(path, *fields):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"text": "a", "utterance_id": str(number), **line} for number, line in enumerate(fields)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("rate", [16_000, 8_000, 44_100])
def test_a_line_made_of_a_recording_reads_the_same_samples_again(tmp_path, rate):
    write_audio(tmp_path / "in/a.wav", 2.0, rate)
    manifest = write_lines(
        tmp_path / "in/m.jsonl",
        {"audio_filepath": "a.wav"},
        {"audio_filepath": "a.wav", "offset": 0.5125, "duration": 0.7},
    )
    whole, part = open_corpus(manifest)
    output = tmp_path / "out/deep/pseudo.jsonl"
    fields = [whole.manifest_fields(str(output), 0.0, None), part.manifest_fields(str(output), 0.0, None)]
    source = FileSource(utterances=read_jsonl(write_manifest(output, *fields)))
    assert "offset" not in fields[0] and fields[1]["offset"] == pytest.approx(0.5125, abs=1e-4)
    for index, row in enumerate((whole, part)):
        np.testing.assert_array_equal(source.read_waveform(index), read(row))
        assert row.count_samples() == len(read(row))


def test_a_part_of_a_segment_keeps_the_offset_of_the_segment(tmp_path):
    write_audio(tmp_path / "a.wav", 2.0)
    manifest = write_lines(tmp_path / "m.jsonl", {"audio_filepath": "a.wav", "offset": 0.5, "duration": 1.25})
    (row,) = open_corpus(manifest)
    fields = row.manifest_fields(str(tmp_path / "pseudo.jsonl"), 0.25, 0.5)
    assert fields == {"audio_filepath": "a.wav", "offset": 0.75, "duration": 0.5}
    source = FileSource(utterances=read_jsonl(write_manifest(tmp_path / "pseudo.jsonl", fields)))
    np.testing.assert_array_equal(source.read_waveform(0), read(row)[4_000:12_000])


def test_paths_resolve_from_a_manifest_whose_folder_is_a_link(tmp_path):
    write_audio(tmp_path / "audio/a.wav")
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere/deep")
    path = relative_path(str(tmp_path / "audio/a.wav"), str(tmp_path / "link"))
    assert os.path.exists(os.path.join(tmp_path / "link", path)), path
    (utterance,) = read_jsonl(write_manifest(tmp_path / "m.jsonl", {"audio_filepath": "audio/a.wav"}))
    write_jsonl(tmp_path / "link/again.jsonl", [utterance])
    assert read_jsonl(tmp_path / "link/again.jsonl")[0].num_samples == utterance.num_samples


@pytest.mark.parametrize("speed", [0.8, 1.1])
def test_another_speed_is_that_much_shorter_and_as_long_as_counted(tmp_path, speed):
    write_audio(tmp_path / "a.wav", 1.0)
    (row,) = open_corpus(tmp_path / "a.wav")
    assert row.count_samples(speed) == len(read(row, speed)) == pytest.approx(16_000 / speed, abs=1)


def test_a_speed_changes_the_pitch(tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 400 * np.arange(16_000) / 16_000)
    soundfile.write(tmp_path / "a.wav", tone, 16_000)
    (row,) = open_corpus(tmp_path / "a.wav")
    spectrum = np.abs(np.fft.rfft(read(row, 1.25)[:12_800]))
    assert np.argmax(spectrum) * 16_000 / 12_800 == pytest.approx(500, abs=2)


def test_a_recording_that_cannot_be_read_says_so(tmp_path):
    write_audio(tmp_path / "a.wav", 1.0)
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    manifest = write_lines(
        tmp_path / "m.jsonl",
        {"audio_filepath": "none.wav"},
        {"audio_filepath": "b.wav"},
        {"audio_filepath": "a.wav", "offset": 0.5, "duration": 9.0},
    )
    for row, message in zip(open_corpus(manifest), ("no audio file", "b.wav", "m.jsonl:3 has a segment"), strict=True):
        with pytest.raises(InputError, match=message):
            row.count_samples()


def test_the_audio_of_a_shard_is_written_for_a_label_that_is_kept(tmp_path):
    write_audio(tmp_path / "a.wav", 0.5)
    manifest = write_manifest(tmp_path / "m.jsonl", {"audio_filepath": "a.wav", "utterance_id": "x/y"})
    write_shards(manifest, tmp_path / "shards")
    (row,) = open_corpus(tmp_path / "shards")
    output = tmp_path / "out/pseudo.jsonl"
    left_out = row.manifest_fields(str(output), 0.0, None, is_kept=False)
    assert left_out["audio_filepath"] == row.name and not output.parent.exists()
    fields = row.manifest_fields(str(output), 0.0, None)
    assert fields == {"audio_filepath": "pseudo_audio/0000000-x_y.flac", "duration": 0.5}
    source = FileSource(utterances=read_jsonl(write_manifest(output, fields)))
    np.testing.assert_array_equal(source.read_waveform(0), read(row))
