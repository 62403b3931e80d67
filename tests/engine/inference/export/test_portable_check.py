"""What may differ between a converted recognizer and the trained one, and what is said of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from engine.inference.export.portable_check import Recording, check_portable

RECORDINGS = [Recording(str(n), np.full(3, n, np.float32), "two words" if n else None) for n in range(30)]


def make(changes=(), noise=0.0):
    """Waveform -> logits that say which recording it is; `changes` are heard as another one."""

    def run(waveform):
        number = int(waveform[0])
        logits = np.zeros([1, 100], np.float32)
        logits[0, number + 50 * (number in changes)] = 9.0
        return logits + noise * np.arange(100, dtype=np.float32)

    return run


def text(log_probs):
    """Recording 7 as "7 words"; its changed self as "57 words"."""
    return f"{log_probs[0].argmax()} words"


def check(name, **fields):
    return check_portable(name, 1000, make(**fields), RECORDINGS, trained=make(), to_text=text)


def test_equal_models():
    found = check("onnx", noise=1e-5)
    assert 0 < found.largest_difference < 2e-3 and found.speed > 0
    found = dataclasses.asdict(found)
    del found["largest_difference"], found["speed"]
    assert found == {
        "format": "onnx", "file": "model.onnx", "num_bytes": 1000, "num_recordings": 30, "num_words": 60,
        "num_different_words": 0, "wer": 0.5, "trained_wer": 0.5,
    }  # fmt: skip


def test_rounded_weights_may_change_a_few_words_and_the_wer_says_so():
    found = check("tflite_dynamic", changes=(2, 5, 8))
    assert found.num_different_words == 3
    with pytest.raises(ValueError, match="changes 4 of 60 words .*5 % are .*2 is '52 words' instead of '2 "):
        check("tflite_dynamic", changes=(2, 5, 8, 9))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("tflite_float32", {"changes": (4,)}, "changes 1 of 60 words"),
        ("tflite_float16", {"changes": (4, 5)}, "changes 2 of 60 words"),
        ("onnx", {"noise": 1e-3}, "log-probabilities that differ by 0.0"),
        ("tflite_float32", {"noise": np.nan}, "of 60 words of the trained"),
    ],
)
def test_what_differs_more_than_its_format_may_is_refused(name, fields, message):
    with pytest.raises(ValueError, match=message):
        check(name, **fields)


def test_what_cannot_run_is_named():
    def broken(waveform):
        raise RuntimeError("Node 7 failed to prepare.\nand more")

    found = check_portable(
        "tflite_dynamic", 1, lambda waveform: make()(waveform).repeat(2, axis=0), RECORDINGS,
        trained=make(), to_text=text,
    )  # fmt: skip
    assert found.largest_difference == np.inf  # another number of frames
    with pytest.raises(ValueError, match=r"onnx does not run \(Node 7 failed to prepare.\)"):
        check_portable("onnx", 1, broken, RECORDINGS, trained=make(), to_text=text)
