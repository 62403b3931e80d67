"""Composes the model card of a Hugging Face folder."""

from __future__ import annotations

import os
from pathlib import Path

from common.json_files import optional_field, read_object
from common.model_card import Evaluation, compose_card, read_evaluations
from common.workdir_layout import CONFIG_FILE
from models.hugging_face.files import Vocabulary


def compose_card_of(
    folder: Path, *, name: str, vocabulary: Vocabulary | None, model_type: str, num_parameters: int
) -> str:
    """Returns the README.md of a folder that `transformers` loads, with the error rates that a run has measured.

    Args:
        folder: Converted folder or workdir that the model comes from.
        name: Name of the model.
        vocabulary: Tokens of the head; None if they are unknown.
        model_type: Type of the model in transformers.
        num_parameters: Number of parameters of the model.

    Raises:
        ValueError: If config.json or metrics.jsonl is damaged.
    """
    config = read_object(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
    run = optional_field(config, "model", dict, os.fspath(folder / CONFIG_FILE), {})
    evaluations: list[Evaluation] = []
    if run:
        from models.wav2vec2 import pretrained  # imports TensorFlow, so not before the flags of a command are checked

        step = pretrained.find_run_checkpoint(folder).rpartition("-")[2]
        evaluations = read_evaluations(os.fspath(folder), int(step) if step.isdecimal() else 0)
    loader = "AutoProcessor" if vocabulary is not None else "AutoFeatureExtractor"
    said = "processor.batch_decode(logits.argmax(-1))[0]" if vocabulary is not None else "logits.argmax(-1)"
    return compose_card(
        name=name,
        library="transformers",
        tags=[model_type],
        tokens=vocabulary.ids if vocabulary is not None else (),
        init=str(run.get("init", "")),
        evaluations=evaluations,
        summary=[f"A {model_type} speech recognizer of {num_parameters:,} parameters, written by Earshot."],
        usage=[
            "In this folder, with a recording of 16 kHz beside it; it needs torch, transformers and soundfile:",
            "",
            "```python",
            "import soundfile",
            "import torch",
            f"from transformers import AutoModelForCTC, {loader}",
            "",
            f'processor = {loader}.from_pretrained(".")',
            'model = AutoModelForCTC.from_pretrained(".")',
            'waveform, sample_rate = soundfile.read("a.wav")',
            'inputs = processor(waveform, sampling_rate=sample_rate, return_tensors="pt")',
            "with torch.no_grad():",
            "    logits = model(**inputs).logits",
            f"print({said})",
            "```",
            "",
            "Fine-tune it further with Earshot: `--config.model.init=` takes this folder's name on the Hub, as "
            "`hf://OWNER/NAME`.",
        ],
        more={},
    )
