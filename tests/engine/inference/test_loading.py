"""Loading a trained or an exported recognizer."""

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
    token_strings = "_abcde"

    def decode(self, ids):
        return "".join(self.token_strings[i] for i in ids)


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
    return str(tmp_path / "run"), "".join(Letters.token_strings[token] for token in logits[0].numpy().argmax(-1))


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
        find_reference=lambda path, text_normalization: "said so" if path.endswith("a.wav") else None,
        loss_fn=toy_loss,
        feasible_fn=toy_feasible,
        decoder=toy_decoder,
        span_decoder=every_frame,
        span_graph_decoder=lambda logits, lengths: pytest.fail("nothing to export"),
        page_environment=lambda folder: pytest.fail("nothing to report"),
        build_search=fields.pop("build_search", lambda **fields: None),
        aligner=fields.pop("aligner", lambda log_probs, labels: pytest.fail("nothing to align")),
        word_aligner=lambda **fields: pytest.fail("nothing to align"),
        encode_flac=lambda waveform: pytest.fail("nothing to encode"),
    )


def test_the_longest_row_is_ones_own_choice(trained):
    made = loading.load_transcriber(parts=make_parts(), checkpoint=trained[0], window_secs=3.0)
    # Frames are four samples apart. The run began at random, so half of each window is in the next one.
    assert (made._window_samples, made._step_samples) == (48_000, 24_000)


def test_windows_are_as_long_as_the_training_rows_unless_one_asks_for_others(trained, caplog):
    caplog.set_level("INFO", logger="absl")
    Path(trained[0], "environment.json").write_text('{"trained_row_secs": 3.0}')
    made = loading.load_transcriber(parts=make_parts(), checkpoint=trained[0])
    assert (made._window_samples, made._step_samples) == (48_000, 24_000)
    assert loading.GREEDY.arguments_for(trained[0])["window_secs"] == 3.0
    assert caplog.text == ""  # no recording is cut yet
    list(made.stream_log_probs([np.zeros(100_000, np.float32)]))
    assert "windows of 3 s" in caplog.text and trained[0] in caplog.text
    caplog.clear()
    made = loading.load_transcriber(parts=make_parts(), checkpoint=trained[0], window_secs=30.0)
    assert (made._window_samples, made._step_samples) == (480_000, 400_000)
    assert caplog.text.count("--window_secs=30") == 1 and "rows of up to 3 s" in caplog.text
    list(made.stream_log_probs([np.zeros(500_000, np.float32)]))
    assert "cut into windows" not in caplog.text
    asked = loading.ReadingOptions(window_secs=7.0).arguments_for(trained[0])
    assert asked["window_secs"] == 7.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "has no 'on_rate_mismatch'"),
        ({"on_rate_mismatch": "resample", "text_normalization": 3}, "'text_normalization' is 3, not text"),
    ],
)
def test_an_export_that_does_not_say_how_to_read_is_named(tmp_path, fields, message):
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "export.json").write_text(json.dumps(fields))
    line = f"{tmp_path}/export.json.* {message}"
    with pytest.raises(ValueError, match=line):
        loading.load_transcriber(parts=make_parts(), checkpoint=str(tmp_path))
    with pytest.raises(ValueError, match=line):
        loading.read_text_rules(str(tmp_path))  # before the recognizer is loaded


def test_what_runs_as_it_was_saved_is_not_compiled(tmp_path, trained):
    (tmp_path / "saved_model.pb").touch()
    (tmp_path / "export.json").write_text("{}")
    with pytest.raises(ValueError, match=r"--jit_compile: .* is an export, which runs as it was exported"):
        loading.load_transcriber(parts=make_parts(), checkpoint=str(tmp_path), jit_compile=True)
    config = json.loads(Path(trained[0], "config.json").read_text())
    config["model"]["source"] = "hub"
    Path(trained[0], "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"--jit_compile: the model of .* is a SavedModel \(model.source=hub\)"):
        loading.load_transcriber(parts=make_parts(), checkpoint=trained[0], jit_compile=True)
