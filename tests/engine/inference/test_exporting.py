"""--mode=export between its arguments and the folder; a whole run's is in tests/test_run.py."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from engine import unpack
from engine.inference import exporting, transcription
from models.alignment import greedy_spans
from models.decoding import greedy_decode_spans
from tests.engine.inference.test_export import Letters
from tests.engine.inference.test_transcription import make_parts, trained  # noqa: F401 - a fixture
from tests.engine_toys import NUM_SAMPLES

WAVEFORM = np.random.default_rng(0).uniform(-1, 1, NUM_SAMPLES).astype(np.float32)


class Set:
    """Two rows, one of which fills up."""

    utterance_ids = {7: "seven"}

    def dataset(self, context):
        batch = {
            "waveform": np.stack([WAVEFORM, WAVEFORM]),
            "waveform_lengths": np.array([NUM_SAMPLES, 0], np.int32),
            "weight": np.array([1.0, 0.0], np.float32),
            "utterance_index": np.array([7, -1]),
        }
        return tf.data.Dataset.from_tensors(batch)


@pytest.fixture
def parts():
    def normalize(waveform):
        return (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)

    return dataclasses.replace(
        make_parts(),
        build_tokenizer=lambda path: Letters(),
        span_decoder=greedy_spans,
        span_graph_decoder=greedy_decode_spans,
        normalize_waveform=normalize,
    )


def test_a_run_becomes_a_folder_that_transcribes_alike(trained, parts, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(unpack, "build_eval_data", lambda *arguments: {"dev": Set()})
    workdir, _ = trained
    output = tmp_path / "exported"
    assert exporting.run(parts=parts, checkpoint=workdir, inputs=[], output=str(output)) == 0
    assert "parameters of update 1; 1 recordings read as by the trained model" in capsys.readouterr().out
    fields = json.loads((output / "export.json").read_text())
    assert (fields["step"], fields["samples_per_frame"], fields["on_rate_mismatch"]) == (1, 4, "refuse")
    assert fields["checked"]["num_recordings"] == 1
    (tmp_path / "a.wav").touch()
    texts = []
    for checkpoint in (workdir, str(output)):
        arguments = {"inputs": [str(tmp_path / "a.wav")], "output": str(tmp_path / "out.txt")}
        assert transcription.run(parts=parts, checkpoint=checkpoint, **arguments) == 0
        texts.append((tmp_path / "out.txt").read_text())
    assert texts[0] == texts[1] and len(texts[0]) > 1


def test_recordings_of_ones_own_are_read_instead(trained, parts, tmp_path):  # noqa: F811
    (tmp_path / "a.wav").touch()
    output = tmp_path / "exported"
    exporting.run(parts=parts, checkpoint=trained[0], inputs=[str(tmp_path / "a.wav")], output=str(output))
    assert json.loads((output / "export.json").read_text())["checked"]["num_recordings"] == 1
    with pytest.raises(ValueError, match="exported already"):
        exporting.run(parts=parts, checkpoint=str(output), inputs=[], output=str(tmp_path / "again"))


def test_output_must_be_named(trained, parts):  # noqa: F811
    with pytest.raises(ValueError, match="--output is empty"):
        exporting.run(parts=parts, checkpoint=trained[0], inputs=[], output="")
