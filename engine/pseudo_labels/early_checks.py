"""Checks the flags and paths of --mode=pseudo_label before TensorFlow is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from common.near_files import describe_near
from common.split_paths import STDIN
from common.weight_names import is_weight_name, repository_hint
from engine.config.early_checks import is_checkpoint, is_url
from engine.pseudo_labels.left_out import left_out_path


def check_pseudo_label(fields: Mapping[str, Any], *, strategy: str, inputs: Sequence[str], output: str) -> None:
    """Checks what --mode=pseudo_label has beside the other modes that use a trained model.

    Args:
        fields: The fields of config.pseudo_label; {} without a config.
        strategy: The value of --strategy.
        inputs: The values of --inputs.
        output: The value of --output.

    Raises:
        ValueError: Names the flag or the field, and what to do.
    """
    if strategy in ("multi_worker", "tpu"):
        raise ValueError(f"--strategy={strategy}: --mode=pseudo_label runs on the devices of one host; give mirrored")
    if os.path.splitext(output)[1].lower() != ".jsonl" or is_url(output):
        raise ValueError(f"--output={output}: wanted a local file with the suffix .jsonl, a manifest to train on")
    if STDIN in inputs:
        raise ValueError("--inputs=-: a manifest cannot name standard input; save the recording to a file")
    read = {os.path.realpath(path) for path in inputs}
    if os.path.realpath(output) in read:
        raise ValueError(f"--output={output}: is one of --inputs, which it would replace; name another file")
    if os.path.realpath(left_out := left_out_path(output)) in read:
        raise ValueError(
            f"--output={output}: what is left out goes to {left_out}, one of --inputs, which it would replace; name "
            "another file"
        )
    second = fields.get("second_checkpoint", "")
    if second and not is_checkpoint(second) and not is_weight_name(second):
        raise ValueError(
            f"pseudo_label.second_checkpoint={second}: no such folder or checkpoint{describe_near(second)}"
            f"{repository_hint(second)}"
        )
