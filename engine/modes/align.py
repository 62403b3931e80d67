"""Runs `--mode=align`: finds when each word of known transcripts was said, and which transcripts do not match."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from engine.common import files
from engine.common.progress import progress_bar
from engine.config import builders
from engine.inference.inputs import find_audio
from engine.inference.loading import load_transcriber
from engine.inference.textgrid import textgrid, textgrid_paths
from engine.inference.transcriber import SAMPLE_RATE, Transcriber
from engine.inference.transcript_score import match_score
from engine.inference.words import Timed, find_words, text_confidence
from engine.protocols import Aligner, Components

_NUM_SHOWN = 10  # mismatches printed; all recordings are in the output file
ALIGNMENTS_FILE = "alignments.jsonl"


def run(*, parts: Components, checkpoint: str, inputs: Sequence[str], output: str, weights: str = "") -> int:
    """Aligns recordings with the transcripts beside them and returns the exit status: 2 if any could not be aligned.

    Writes OUTPUT/alignments.jsonl, worst match first, and a Praat TextGrid of each recording under OUTPUT/textgrid.

    Args:
        parts: Callables of data and models.
        checkpoint: A workdir, a checkpoint inside one, or an exported folder.
        inputs: Audio files, folders and patterns.
        output: Folder to write.
        weights: "raw", "ema" or "" for the checkpoint's own choice.

    Raises:
        ValueError: An argument is missing or names nothing, or no recording has a transcript.
    """
    if not output:
        raise ValueError("--output is empty: name the folder to write")
    if os.path.isfile(output):
        raise ValueError(f"--output={output}: is a file; name the folder to write")
    paths = find_audio(inputs)
    transcriber = load_transcriber(parts=parts, checkpoint=checkpoint, weights=weights)
    text_of = _find_transcripts(transcriber, paths)
    aligner = builders.with_blank(parts, transcriber.tokenizer).aligner
    records, refused = _align_files(transcriber, aligner, list(text_of.items()), output)
    failures = [(path, "no transcript beside it") for path in paths if path not in text_of] + refused
    files.write_jsonl_atomic(os.path.join(output, ALIGNMENTS_FILE), records)
    print(f"{len(records)} of {len(paths)} recordings aligned, written to {output}")
    for line in mismatch_lines(records):
        print(line)
    for path, reason in failures:
        print(f"error: {path} was skipped: {reason}", file=sys.stderr)
    return 2 if failures else 0


def _find_transcripts(transcriber: Transcriber, paths: Sequence[str]) -> dict[str, str]:
    """Returns {path: transcript} of the recordings that have a transcript beside them.

    Raises:
        ValueError: There is none.
    """
    found = {path: text for path in paths if (text := transcriber.find_reference(path)) is not None}
    if not found:
        raise ValueError(
            f"none of the {len(paths)} recordings has a transcript beside it: put its text into NAME.txt, or its line "
            "into a *.trans.txt of the folder"
        )
    return found


def _align_files(
    transcriber: Transcriber, aligner: Aligner, with_text: Sequence[tuple[str, str]], output: str
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Aligns recordings and writes the TextGrid of each.

    Returns:
        The objects of `align_file` with their words, worst match first; and path and reason of each recording that
        could not be aligned.
    """
    records: list[dict[str, Any]] = []
    failures = []
    targets = textgrid_paths(output, [path for path, _ in with_text])
    with progress_bar(total=len(with_text), description="align", unit="file") as bar:
        for (path, text), target in zip(with_text, targets, strict=True):
            try:
                record, words = align_file(transcriber, aligner, path, text)
                files.write_text_atomic(target, textgrid(words, duration_secs=record["duration"]))
                records.append({**record, "words": [word.to_dict() for word in words]})
            except ValueError as error:
                logging.error("%s is skipped: %s", path, error)
                failures.append((path, str(error)))
            bar.update(1)
    return sorted(records, key=lambda record: record["score"]), failures


def mismatch_lines(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yields lines about the transcripts that differ from what the model hears, worst match first.

    Args:
        records: Objects of `align_file`, worst match first.
    """
    different = [record for record in records if record["text"] != record["hypothesis"]]
    if not different:
        if records:
            yield "every transcript is what the model hears"
        return
    more = f"; the {_NUM_SHOWN} worst" if len(different) > _NUM_SHOWN else ""
    yield f"{len(different)} of {len(records)} transcripts differ from what the model hears{more}:"
    for record in different[:_NUM_SHOWN]:
        yield f"{record['score']:9.3f}  {record['audio_filepath']}"
        yield f"           transcript: {record['text']}"
        yield f"           heard:      {record['hypothesis']}"


def align_file(transcriber: Transcriber, aligner: Aligner, path: str, text: str) -> tuple[dict[str, Any], list[Timed]]:
    """Aligns one recording with its transcript.

    Args:
        transcriber: Computes the log-probabilities.
        aligner: Finds the frames of given labels, blank included.
        path: The recording.
        text: Its transcript, normalized.

    Returns:
        An object with audio_filepath, text, hypothesis (what the model hears), duration (s), confidence and score: how
        much less likely a frame is, in nats, if the transcript was said than if the likeliest path was. 0 is a perfect
        match, the further below 0 the worse.

    Raises:
        ValueError: The recording cannot be read, or the transcript does not fit it.
    """
    chunks = list(transcriber.stream_log_probs(transcriber.stream_audio(path)))
    if not chunks:
        raise ValueError(f"{path} is too short for one frame")
    log_probs = np.concatenate([chunk.log_probs for chunk in chunks])
    found = aligner(log_probs, transcriber.tokenizer.encode(text))
    words = find_words(found.spans, transcriber.tokenizer, transcriber.secs_per_frame)
    heard = transcriber.find_words(chunks)
    record = {
        "audio_filepath": path,
        "text": text,
        "hypothesis": " ".join(word.text for word in heard),
        "duration": round(transcriber.count_samples(path) / SAMPLE_RATE, 4),
        "confidence": round(text_confidence(words), 4),
        "score": round(match_score(log_probs, found), 5),
    }
    return record, words
