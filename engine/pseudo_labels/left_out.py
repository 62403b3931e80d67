"""Names the file of the labels that are left out; nothing is imported for it, so early checks can name it too."""

from __future__ import annotations

import os


def left_out_path(output: str) -> str:
    """Returns the file beside a manifest: OUTPUT.jsonl -> OUTPUT.left_out.jsonl."""
    return f"{os.path.splitext(output)[0]}.left_out.jsonl"
