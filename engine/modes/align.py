"""Runs `--mode=align`: finds when each word of known transcripts was said, and which transcripts do not match."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from common import storage
from common.json_files import field
from engine.common import files
from engine.common.progress import progress_bar
from engine.common.signals import StopOnSignal
from engine.config import builders
from engine.inference.inputs import find_audio, log_skipped, report_skipped
from engine.inference.loading import identify_weights, load_transcriber
from engine.inference.recording_journal import RecordingJournal, make_row, version_of
from engine.inference.textgrid import textgrid, textgrid_paths
from engine.inference.transcriber import SAMPLE_RATE, Transcriber
from engine.inference.transcript_score import match_score
from engine.inference.words import Timed, find_words, text_confidence
from engine.protocols import Aligner, Components

_NUM_SHOWN = 10  # mismatches printed; all recordings are in the output file
ALIGNMENTS_FILE = "alignments.jsonl"
# What is read of a row of the journal.
_KINDS = {"audio_filepath": str, "text": str, "hypothesis": str, "score": float}


def run(
    *,
    parts: Components,
    checkpoint: str,
    inputs: Sequence[str],
    output: str,
    weights: str = "",
    stop: StopOnSignal | None = None,
) -> int:
    """Aligns recordings with the transcripts beside them and returns the exit status: 2 if any could not be aligned.

    Writes OUTPUT/alignments.jsonl, worst match first, at the end, and a Praat TextGrid of each recording under
    OUTPUT/textgrid as it goes. What is done is in a `RecordingJournal`, from which the same command continues.

    Args:
        parts: Callables of data and models.
        checkpoint: A workdir, a checkpoint inside one, or an exported folder.
        inputs: Audio files, folders and patterns.
        output: Folder to write.
        weights: "raw", "ema" or "" for the checkpoint's own choice.
        stop: Listens for signals, which end this mode at once; None = nothing does.

    Raises:
        ValueError: An argument is missing or names nothing, no recording has a transcript, or the journal belongs to
            another command.
    """
    if not output:
        raise ValueError("--output is empty: name the folder to write")
    if os.path.isfile(output):
        raise ValueError(f"--output={output}: is a file; name the folder to write")
    settings = {"checkpoint": identify_weights(checkpoint, weights)}
    journal = RecordingJournal(output, mode="align", settings=settings)
    if stop is not None:
        stop.at_once = f"the recordings aligned so far are in {journal.path}, and the same command continues there"
    paths = find_audio(inputs)
    with journal:
        transcriber = load_transcriber(parts=parts, checkpoint=checkpoint, weights=weights)
        text_of = _find_transcripts(transcriber, paths)
        aligner = builders.with_blank(parts, transcriber.tokenizer).aligner
        failures = _align_missing(transcriber, aligner, text_of, output, journal)
        records = journal.read_results([path for path in text_of if path not in failures], _from_row)
        records.sort(key=lambda record: record["score"])
        files.write_jsonl_atomic(os.path.join(output, ALIGNMENTS_FILE), records)
        os.unlink(journal.path)
    failures |= {path: "no transcript beside it" for path in paths if path not in text_of}
    print(f"{len(records)} of {len(paths)} recordings aligned, written to {output}")
    for line in mismatch_lines(records):
        print(line)
    return report_skipped(failures)


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


def _align_missing(
    transcriber: Transcriber, aligner: Aligner, text_of: Mapping[str, str], output: str, journal: RecordingJournal
) -> dict[str, str]:
    """Aligns the recordings that the journal lacks or that have changed since, and writes the TextGrid of each.

    Returns:
        {path: reason} of the recordings that could not be aligned.
    """
    failures: dict[str, str] = {}
    versions: dict[str, dict[str, Any]] = {}
    for path, text in text_of.items():
        try:
            versions[path] = version_of(path, text)
        except OSError as error:
            failures[path] = log_skipped(path, error)
    target_of = dict(zip(text_of, textgrid_paths(output, list(text_of)), strict=True))
    missing = set(journal.find_missing(versions))
    todo = [path for path in versions if path in missing or not storage.exists(target_of[path])]
    with progress_bar(total=len(todo), description="align", unit="file") as bar:
        for path in todo:
            try:
                record, words = align_file(transcriber, aligner, path, text_of[path])
            except (ValueError, OSError) as error:
                failures[path] = log_skipped(path, error)
            else:
                files.write_text_atomic(target_of[path], textgrid(words, duration_secs=record["duration"]))
                record["words"] = [word.to_dict() for word in words]
                journal.append([make_row(path, versions[path], {"record": record})])
            bar.update(1)
    return failures


def _from_row(row: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Returns the object of `align_file` with its words, from a row of the journal."""
    record = field(row, "record", dict, f"the row of {path}")
    for name, kind in _KINDS.items():
        field(record, name, kind, f"the row of {path}")
    return {**record, "audio_filepath": path}


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
