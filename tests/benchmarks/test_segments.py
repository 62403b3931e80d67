"""The benchmark's corpus is the same in each layout, and its records become a table and a picture."""

from __future__ import annotations

import pytest

from benchmarks.segments import LAYOUTS, draw, read_corpus, table, write_corpus
from data.open_corpus import open_source


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segments")
    write_corpus(folder, 12, 3)
    return folder


def test_each_layout_has_the_same_utterances_and_audio(folder):
    sources = [open_source(format=format, input=f"{folder}/12-{name}") for name, format in LAYOUTS.items()]
    assert len(sources[0].utterance_ids) == 36
    for source in sources[1:]:
        for name in ("utterance_ids", "texts", "speaker_ids"):
            assert getattr(source, name) == getattr(sources[0], name)
        for index in (0, 17, 35):
            assert (source.read_waveform(index) == sources[0].read_waveform(index)).all()


def test_records_become_a_table_and_a_picture(folder, tmp_path):
    points = [read_corpus(name, f"{folder}/12-{name}", num_batches=1) for name in LAYOUTS]
    assert {point["num_utterances"] for point in points} == {36}
    assert all(point["audio_secs_per_cpu_sec"] > 0 for point in points)
    records = {"num_files": 12, "points": points}
    assert [line.split("|")[1].strip() for line in table(records).splitlines()[2:]] == list(LAYOUTS)
    draw(records, tmp_path / "segments.svg")
    assert "<svg" in (tmp_path / "segments.svg").read_text()
