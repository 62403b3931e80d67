"""Lists the formats of transcripts (--output_format) and of exported models (--export_formats)."""

from __future__ import annotations

from pathlib import Path

TRANSCRIPT_FORMATS = ("jsonl", "tsv", "txt", "srt", "vtt")
SUBTITLES = ("srt", "vtt")  # one file per recording
EXPORT_FORMATS = ("tflite_float32", "tflite_float16", "tflite_dynamic", "onnx")


def choose_format(output: str, name: str = "") -> str:
    """Returns the format to write.

    Args:
        output: Path of the output; its suffix names the format if `name` is "".
        name: A name among `TRANSCRIPT_FORMATS`, or "".

    Raises:
        ValueError: Neither names a format.
    """
    found = name or Path(output).suffix.removeprefix(".").lower()
    if found not in TRANSCRIPT_FORMATS:
        raise ValueError(
            f"--output={output}: no format of transcripts; end it in one of .{', .'.join(TRANSCRIPT_FORMATS)}, or "
            "name one with --output_format"
        )
    return found
