"""Composes the README.md of an exported recognizer."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from common.model_card import Evaluation, compose_card
from common.sentence_pieces import SPACE


def model_card(
    *,
    name: str,
    fields: dict[str, Any],
    config: dict[str, Any],
    tokens: Collection[str],
    evaluations: Sequence[Evaluation],
) -> str:
    """Returns the README.md of an exported recognizer: what it is, how to call it, how well it reads.

    Args:
        name: name of the exported folder.
        fields: the content of export.json.
        config: the config of the run.
        tokens: what each token of the vocabulary says.
        evaluations: the error rates at the exported update.
    """
    data, train, model = config["data"], config["train"], config["model"]
    trained_on = "Nothing was trained here: these are converted weights."
    if "train" in data:  # else a folder of models.convert
        corpora = [data["train"], *data.get("more_train", {}).values()]
        sources = [f"{one['format']}, {one['input']}, split {one['split'] or 'all'}" for one in corpora]
        trained_on = (
            f"{'; '.join(sources)}; text normalization {data['text_normalization']}. Starting weights: "
            f"{model['init'] or 'random'}."
        )
    architecture = model["preset"] if model.get("source", "native") == "native" else model["hub_handle"]
    return compose_card(
        name=name,
        library="tensorflow",
        tags=["wav2vec2", "saved-model"],
        tokens=tokens,
        init=model.get("init", ""),
        evaluations=evaluations,
        summary=[
            f"A wav2vec 2.0 speech recognizer: architecture {architecture}, {fields['num_parameters']:,} parameters, "
            f"{fields['num_tokens']} tokens, trained by Earshot for {fields['step']} updates ({train['precision']}).",
        ],
        usage=[
            "In this folder, with a recording of 16 kHz and 16 bits beside it; nothing but TensorFlow is needed:",
            "",
            "```python",
            "import tensorflow as tf",
            "",
            'recognizer = tf.saved_model.load(".")',
            'audio, sample_rate = tf.audio.decode_wav(tf.io.read_file("a.wav"), desired_channels=1)',
            "waveform = tf.transpose(audio)",
            'found = recognizer.signatures["serving_default"](waveform=waveform, lengths=tf.shape(waveform)[1:])',
            'print(found["text"][0].numpy().decode())',
            "```",
            "",
            "Input: `waveform` [B, T] float32 in [-1, 1] at 16 kHz, any T; `lengths` [B] int32, valid samples of each "
            "row.",
            "Output: `text`, `confidence`, `tokens` with `token_starts`, `token_ends` (s) and `token_confidences`,",
            "`num_tokens`, `logits`, `num_frames`.",
        ],
        more={
            **_other_formats(fields, tokens),
            "Training data": [trained_on],
            "Config": ["```json", json.dumps(config, indent=1, ensure_ascii=False), "```"],
        },
    )


def _text_of_token(tokens: Collection[str], delimiter_id: int | None) -> str:
    """Returns the Python expression for what token i of vocab.json adds to a text."""
    begins_word = [token[0] == " " for token in tokens if token.strip()]
    if begins_word and all(begins_word):  # phones
        return '" " + tokens[i]'
    if any(begins_word):
        return f'tokens[i].replace("{SPACE}", " ")'
    return "tokens[i]" if delimiter_id is None else f'" " if i == {delimiter_id} else tokens[i]'


def _other_formats(fields: dict[str, Any], tokens: Collection[str]) -> dict[str, list[str]]:
    """Returns the section on the files beside the SavedModel and how they compare; {} where there are none."""
    formats: Sequence[dict[str, Any]] = fields.get("formats", ())
    if not formats:
        return {}
    blank_id, text = fields.get("blank_id", 0), _text_of_token(tokens, fields.get("delimiter_id"))

    def percent(ratio: float | None) -> str:
        return "unknown" if ratio is None else f"{100 * ratio:.2f} %"

    rows = [
        f"| {found['file']} | {found['num_bytes'] / 1e6:.1f} MB | {percent(found['wer'])} | "
        f"{found['num_different_words']} of {found['num_words']} | {found['largest_difference']:.2g} | "
        f"{found['speed']:.2f} |"
        for found in formats
    ]
    content = [
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
    ]
    return {"Other formats": content}
