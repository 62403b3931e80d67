"""The card says what, on what, and how well."""

from __future__ import annotations

from common.model_card import Evaluation
from engine.inference.export.model_card import model_card


def test_card():
    config = {
        "data": {"train": {"format": "jsonl", "input": "my.jsonl", "split": ""}, "text_normalization": "unicode"},
        "train": {"precision": "float32"},
        "model": {"preset": "tiny", "init": ""},
    }
    fields = {"num_parameters": 1_234_567, "num_tokens": 32, "step": 500}
    given = {
        "name": "mine",
        "config": config,
        "tokens": ["", "a"],
        "evaluations": [Evaluation("dev", 0.1234, 0.05, 100, 7)],
    }
    card = model_card(fields=fields, **given)
    assert (
        "recognizer: architecture tiny, 1,234,567 parameters, 32 tokens, trained by Earshot for 500 updates (float32)."
        in card
    )
    assert "| dev | 12.34 % | 5.00 % | 100 | 7 |" in card
    assert "jsonl, my.jsonl, split all; text normalization unicode. Starting weights: random." in card
    assert "Not measured" in model_card(fields=fields, **{**given, "evaluations": []})
    assert "## Other formats" not in card
    compared = {
        "file": "model.onnx", "num_bytes": 4_400_000, "num_recordings": 8, "num_words": 30, "num_different_words": 0,
        "wer": 0.1, "trained_wer": None, "largest_difference": 1.23e-5, "speed": 2.5,
    }  # fmt: skip
    card = model_card(fields={**fields, "formats": [compared]}, **given)
    assert "| model.onnx | 4.4 MB | 10.00 % | 0 of 30 | 1.2e-05 | 2.50 |" in card
    assert "Compared on 8 recordings" in card and "has a WER of unknown" in card
