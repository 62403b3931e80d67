"""--mode=transcribe between its arguments and the transcriber; whole runs are in tests/test_run.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from configs import base
from engine.checkpointing.best import BestCheckpoint
from engine.inference import loading
from engine.protocols import Components
from tests.helpers.engine_toys import NUM_SAMPLES, ToyModel, toy_decoder, toy_feasible, toy_loss


class Letters:
    num_tokens = 6
    blank_id = 0
    pieces = "_abcde"

    def decode(self, ids):
        return "".join(self.pieces[i] for i in ids)


WAVEFORM = np.linspace(-1, 1, NUM_SAMPLES, dtype=np.float32)


def count_samples(path):
    if "bad" in path:
        raise ValueError("not audio")
    return NUM_SAMPLES


def stream_audio(path, on_rate_mismatch):
    assert on_rate_mismatch == "refuse"
    yield WAVEFORM / 2


def every_frame(log_probs):
    """Each frame is a token."""
    return [(int(token), frame, frame + 1, 1.0) for frame, token in enumerate(log_probs.argmax(-1))]


@pytest.fixture
def trained(tmp_path):
    """A workdir with a model, and the text that this model gives the one waveform."""
    model = ToyModel(seed=3)
    config = base.get_small_config()
    config.data.on_rate_mismatch = "refuse"
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps(config.to_dict()))
    BestCheckpoint(
        checkpoint=tf.train.Checkpoint(model=model), directory=tmp_path / "run/best", global_step=tf.Variable(1)
    ).save_if_better(0.1, metric="dev/wer")
    logits = model(tf.constant(WAVEFORM)[tf.newaxis], tf.constant([NUM_SAMPLES]))
    return str(tmp_path / "run"), "".join(Letters.pieces[token] for token in logits[0].numpy().argmax(-1))


def make_parts(**fields):
    return Components(
        build_tokenizer=lambda path: Letters(),
        build_train_data=None,
        build_eval_data=None,
        find_architecture=lambda **fields: {},
        build_model=lambda **fields: ToyModel(seed=99),
        count_samples=count_samples,
        stream_audio=stream_audio,
        normalize_waveform=lambda waveform: waveform * 2,
        find_reference=lambda path, text_style: "said so" if path.endswith("a.wav") else None,
        loss_fn=toy_loss,
        feasible_fn=toy_feasible,
        decoder=toy_decoder,
        span_decoder=every_frame,
        span_graph_decoder=lambda logits, lengths: pytest.fail("nothing to export"),
        page_environment=lambda folder: pytest.fail("nothing to report"),
        build_search=fields.pop("build_search", lambda **fields: None),
        aligner=fields.pop("aligner", lambda log_probs, labels: pytest.fail("nothing to align")),
    )


def test_the_runs_own_weights_make_the_text(trained, tmp_path, capsys):
    workdir, text = trained
    (tmp_path / "a.wav").touch()
    output = tmp_path / "out.jsonl"
    status = loading.run(parts=make_parts(), checkpoint=workdir, inputs=[str(tmp_path / "a.wav")], output=str(output))
    assert status == 0
    assert json.loads(output.read_text())["text"] == text
    printed = capsys.readouterr().out
    assert f"  reference:  said so\n  hypothesis: {text}\n" in printed
    assert "1 of 1 files" in printed


def test_a_skipped_file_makes_the_status_2(trained, tmp_path, capsys):
    for name in ("a.wav", "bad.wav"):
        (tmp_path / name).touch()
    status = loading.run(
        parts=make_parts(), checkpoint=trained[0], inputs=[str(tmp_path)], output=str(tmp_path / "out.jsonl")
    )
    assert status == 2
    captured = capsys.readouterr()
    assert "1 of 2 files" in captured.out
    assert "bad.wav was skipped: not audio" in captured.err


def test_the_longest_row_is_ones_own_choice(trained):
    made = loading.load_transcriber(parts=make_parts(), checkpoint=trained[0], window_secs=3.0)
    # ToyModel's frames are four samples apart: windows of 48,000 samples, a sixth of them shared.
    assert (made._window_samples, made._step_samples) == (48_000, 40_000)


def test_output_must_be_named(trained):
    with pytest.raises(ValueError, match="--output is empty"):
        loading.run(parts=make_parts(), checkpoint=trained[0], inputs=["a.wav"], output="")


class Found:
    def __init__(self, tokens, score):
        self.tokens, self.score, self.log_prob = tokens, score, 0.0
        self.spans = [(token, place, place + 1, 0.5) for place, token in enumerate(tokens)]


def test_the_search_comes_from_the_run_and_from_what_is_given_and_its_best_texts_are_written(trained, tmp_path):
    asked = []

    def build_search(**fields):
        asked.append(fields)
        return lambda log_probs: [Found([1, 2], -1.5), Found([2, 2], -2.0)]

    (tmp_path / "a.wav").touch()
    path = Path(trained[0]) / "config.json"
    config = json.loads(path.read_text())
    config["decode"] = {"method": "beam", "beam_size": 7}  # of a version that had no other fields
    path.write_text(json.dumps(config))
    loading.run(
        parts=make_parts(build_search=build_search, aligner=lambda log_probs, labels: Found(labels, 0.0)),
        checkpoint=trained[0],
        inputs=[str(tmp_path / "a.wav")],
        output=str(tmp_path / "out.jsonl"),
        decode_defaults=base.get_decode().to_dict(),
        decode_given={"num_hypotheses": 2},
    )
    (fields,) = asked
    assert (fields["method"], fields["beam_size"], fields["num_hypotheses"]) == ("beam", 7, 2)
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert record["text"] == record["words"][0]["text"] == "ab"
    assert record["words"][0]["confidence"] == 0.5
    assert record["nbest"] == [{"text": "ab", "score": -1.5}, {"text": "bb", "score": -2.0}]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "has no 'on_rate_mismatch'"),
        ({"on_rate_mismatch": "resample", "text_style": 3}, "'text_style' is 3, not text"),
    ],
)
def test_an_export_that_does_not_say_how_to_read_is_named(tmp_path, fields, message):
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "export.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=f"{tmp_path}/export.json.* {message}"):
        loading.load_transcriber(parts=make_parts(), checkpoint=str(tmp_path))
