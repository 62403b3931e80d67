"""Corpora of any size out of a few recordings; records as a table and a picture."""

from __future__ import annotations

import json

import pytest

from benchmarks.cost_growth import CORPUS_HOURS, draw, main, open_corpus, table, write_manifest


def test_a_simulated_corpus_opens_and_gives_batches(tmp_path):
    manifest = write_manifest(tmp_path, 0.1)
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert sum(line["duration"] for line in lines) / 3600 == pytest.approx(0.1, rel=0.4)
    assert len({line["audio_filepath"] for line in lines}) <= 10
    figures = open_corpus(str(manifest), num_batches=2)
    assert figures["num_utterances"] == len(lines)
    assert figures["open_cpu_secs"] > 0 and figures["audio_secs_per_cpu_sec"] > 0


def test_records_become_a_table_and_a_picture(tmp_path, capsys):
    point = {"audio_secs": 20.0, "cpu_secs": 5.0, "secs": 2.5, "peak_memory_bytes": 2**31}
    corpus = {
        "num_utterances": 29_268, "open_cpu_secs": 1.5, "first_batch_cpu_secs": 0.5,
        "audio_secs_per_cpu_sec": 1234.0, "memory_bytes": 2**27,
    }  # fmt: skip
    records = {
        "batch": {"points": [{"x": 1, **point}, {"x": 2, **point, "cpu_secs": 4.0}]},
        "corpus": {"points": [{"x": hours, **corpus} for hours in CORPUS_HOURS]},
    }
    lines = table(records).splitlines()
    assert lines[2:4] == [
        "| rows of 10 s in an update: 1 | 5.00 | 4.00 | 8.00 | 2.00 GiB |",
        "| rows of 10 s in an update: 2 | 4.00 | 5.00 | 8.00 | 2.00 GiB |",
    ]
    assert lines[-1] == "| 1,000 h | 29,268 | 1.50 | 0.50 | 1,234 | 128 MiB |"
    (tmp_path / "cost-growth.json").write_text(json.dumps(records))
    assert main(["draw", f"--output={tmp_path}"]) == 0
    assert capsys.readouterr().out.strip() == table(records)
    draw(records, tmp_path / "other.svg")
    pictures = [(tmp_path / name).read_text() for name in ("cost-growth.svg", "other.svg")]
    assert all(picture.count('<g id="axes_') == 2 for picture in pictures)
