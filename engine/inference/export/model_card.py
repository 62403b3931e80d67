"""Writes the README.md of an exported model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def model_card(*, fields: dict[str, Any], config: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> str:
    """Returns the text of README.md: the model, its interface, its training data and its error rates.

    Args:
        fields: Content of export.json.
        config: Config of the run.
        metrics: The last line of metrics.jsonl of each evaluation set at the exported checkpoint's update.
    """
    data, train, model = config["data"], config["train"], config["model"]
    rows = [
        f"| {line['split']} | {100 * line['wer']:.2f} % | {100 * line['cer']:.2f} % | {line['num_words']:.0f} | "
        f"{line['num_utterances']:.0f} |"
        for line in metrics
    ]
    table = ["| set | WER | CER | words | utterances |", "|---|---|---|---|---|", *rows]
    trained_on = "Nothing was trained here: these are converted weights."
    if "train" in data:  # else a folder of models.convert
        trained_on = (
            f"{data['train']['format']}, {data['train']['input']}, split {data['train']['split'] or 'all'}; text style "
            f"{data['text_style']}. Starting weights: {model['init'] or 'random'}."
        )
    architecture = model["preset"] if model.get("source", "native") == "native" else model["hub_handle"]
    lines = [
        "# A wav2vec 2.0 speech recognizer",
        "",
        f"Architecture {architecture}, {fields['num_parameters']:,} parameters, {fields['num_tokens']} tokens, trained "
        f"by Earshot for {fields['step']} updates ({train['precision']}).",
        "",
        "Input: `waveform` [B, T] float32 in [-1, 1] at 16 kHz, any T; `lengths` [B] int32, valid samples of each row.",
        "Output: `text`, `confidence`, `tokens` with `token_starts`, `token_ends` (s) and `token_confidences`,",
        "`num_tokens`, `logits`, `num_frames`.",
        "",
        "```python",
        "import tensorflow as tf",
        'recognize = tf.saved_model.load("FOLDER").signatures["serving_default"]',
        'print(recognize(waveform=waveform, lengths=lengths)["text"])',
        "```",
        "",
        "## Error rates",
        "",
        *(table if rows else ["Not measured in the run that it was exported from."]),
        "",
        *_other_formats(fields),
        "## Training data",
        "",
        trained_on,
        "",
        "## Config",
        "",
        "```json",
        json.dumps(config, indent=1, ensure_ascii=False),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _other_formats(fields: dict[str, Any]) -> list[str]:
    """Returns the section about the files beside the SavedModel; empty without such files."""
    formats: Sequence[dict[str, Any]] = fields.get("formats", ())
    if not formats:
        return []
    blank_id, delimiter_id = fields.get("blank_id", 0), fields.get("delimiter_id")
    text = "tokens[i]" if delimiter_id is None else f'" " if i == {delimiter_id} else tokens[i]'

    def percent(ratio: float | None) -> str:
        return "unknown" if ratio is None else f"{100 * ratio:.2f} %"

    rows = [
        f"| {found['file']} | {found['num_bytes'] / 1e6:.1f} MB | {percent(found['wer'])} | "
        f"{found['num_different_words']} of {found['num_words']} | {found['largest_difference']:.2g} | "
        f"{found['speed']:.2f} |"
        for found in formats
    ]
    return [
        "## Other formats",
        "",
        "Input: `waveform` [1, T] float32 in [-1, 1] at 16 kHz, any T of at least one frame.",
        "Output: `logits` [1, F, V].",
        f"The text is computed outside of the graph; `tokens` are the tokens of vocab.json in their order, "
        f"{blank_id} is the CTC blank:",
        "",
        "```python",
        "ids = logits[0].argmax(-1)",
        f'text = "".join({text} for i, before in zip(ids, [-1, *ids]) if i not in (before, {blank_id}))',
        "```",
        "",
        f"Compared on {formats[0]['num_recordings']} recordings, one at a time, on which the model in TensorFlow "
        f"(float32) has a WER of {percent(formats[0]['trained_wer'])}. Speed is relative to that model.",
        "",
        "| file | size | WER | words that differ | largest difference of log-probabilities | speed |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]
