"""`--mode=transcribe`: a workdir and audio files in, JSON-lines out."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence

from engine import checkpoints, unpack
from engine.inference.transcriber import Transcriber, find_audio
from engine.protocols import Parts

_NUM_SHOWN = 10  # transcripts printed; all are in the output file


def load_transcriber(*, parts: Parts, checkpoint: str, batch_size: int = 8) -> Transcriber:
    """Builds a transcriber from a run's config, vocabulary and best weights.

    Args:
        parts: What data and models contribute.
        checkpoint: A workdir, or a checkpoint inside one.
        batch_size: Files decoded together.

    Raises:
        ValueError: If the run or its weights cannot be used.
    """
    config, workdir = unpack.load_run(checkpoint)
    tokenizer = parts.build_tokenizer(os.path.join(workdir, "vocab.json"))
    model = unpack.build_model(config, parts, num_tokens=tokenizer.num_tokens)
    checkpoints.restore_model(model, checkpoint)
    return Transcriber(
        model=model,
        decoder=parts.decoder,
        tokenizer=tokenizer,
        load_waveform=functools.partial(parts.load_waveform, on_rate_mismatch=config.data.on_rate_mismatch),
        find_reference=functools.partial(parts.find_reference, text_style=config.data.text_style),
        batch_size=batch_size,
    )


def run(*, parts: Parts, checkpoint: str, inputs: Sequence[str], output: str) -> int:
    """Transcribes files, prints a summary and returns the exit status: 2 if any file could not be read.

    Raises:
        ValueError: If an argument is missing or names nothing.
    """
    if not output:
        raise ValueError("--output is empty: name the JSON-lines file to write")
    paths = find_audio(inputs)
    transcriber = load_transcriber(parts=parts, checkpoint=checkpoint)
    summary = transcriber.transcribe_files(paths, output)
    for record in summary.records[:_NUM_SHOWN]:
        print(record["audio_filepath"])
        if "reference" in record:
            print(f"  reference:  {record['reference']}")
        print(f"  hypothesis: {record['text']}")
    if len(summary.records) > _NUM_SHOWN:
        print(f"and {len(summary.records) - _NUM_SHOWN} more")
    speed = summary.audio_secs / max(summary.elapsed_secs, 1e-6)
    print(
        f"{len(summary.records)} of {len(paths)} files, {summary.audio_secs:.1f} s of audio in "
        f"{summary.elapsed_secs:.1f} s ({speed:.1f} times real time), written to {output}"
    )
    for path, reason in summary.failures:
        print(f"error: {path} was skipped: {reason}", file=sys.stderr)
    return 2 if summary.failures else 0
