"""Runs `--mode=transcribe`: writes a file of transcripts of recordings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from engine.common.signals import StopOnSignal
from engine.config.output_formats import SUBTITLES, choose_format
from engine.inference.formats import subtitle_paths, transcript_record, write_transcripts
from engine.inference.inputs import find_audio, readable_paths, report_skipped
from engine.inference.kept_transcripts import from_row, to_content
from engine.inference.loading import GREEDY, ReadingOptions, identify_weights, load_transcriber
from engine.inference.recording_journal import RecordingJournal, make_row, version_of
from engine.inference.transcriber import Summary, Transcriber, Transcript
from engine.protocols import Components

_NUM_SHOWN = 10  # transcripts printed; all are in the output file


def run(
    *,
    parts: Components,
    checkpoint: str,
    inputs: Sequence[str],
    output: str,
    output_format: str = "",
    weights: str = "",
    reading: ReadingOptions = GREEDY,
    stop: StopOnSignal | None = None,
) -> int:
    """Transcribes files, prints a summary and returns the exit status: 2 if any file could not be read.

    The output is written at the end. Until then what is done is in a `RecordingJournal`, from which the same
    command continues.

    Args:
        parts: Callables of data and models.
        checkpoint: A workdir, a checkpoint inside one, or a folder that --mode=export wrote.
        inputs: Audio files, folders and patterns, or "-" for standard input.
        output: The file of transcripts to write; a folder for the subtitles of several recordings.
        output_format: A name among `TRANSCRIPT_FORMATS`; "" = the suffix of the output.
        weights: "raw", "ema" or "" for the checkpoint's own choice.
        reading: Length of the windows, what is compiled, and how to decode.
        stop: Listens for signals, which end this mode at once; None = nothing does.

    Raises:
        ValueError: An argument is missing or names nothing, or the journal belongs to another command.
    """
    if not output:
        raise ValueError("--output is empty: name the file to write, such as out.jsonl")
    format = choose_format(output, output_format)
    paths = find_audio(inputs)
    targets = subtitle_paths(output, paths, format=format) if format in SUBTITLES else []
    how = reading.arguments_for(checkpoint)
    settings = {"checkpoint": identify_weights(checkpoint, weights), **how}
    journal = RecordingJournal(output, mode="transcribe", settings=settings)
    if stop is not None:
        stop.at_once = f"the transcripts so far are in {journal.path}, and the same command continues there"
    with readable_paths(paths) as readable, journal:
        transcriber = load_transcriber(
            parts=parts, checkpoint=checkpoint, weights=weights, jit_compile=reading.jit_compile, **how
        )
        summary = _transcribe_missing(transcriber, readable, journal)
        transcripts = _read_finished(journal, readable, summary)
        name_of = dict(zip(readable, paths, strict=True))
        records = [_make_record(transcriber, found, name_of[found.path]) for found in transcripts]
        target_of = dict(zip(readable, targets, strict=True)) if targets else {}
        write_transcripts(
            output,
            format=format,
            records=records,
            words=[transcript.words for transcript in transcripts],
            targets=[target_of[transcript.path] for transcript in transcripts] if targets else [],
        )
        os.unlink(journal.path)
    _print_first(records)
    speed = summary.audio_secs / max(summary.elapsed_secs, 1e-6)
    print(
        f"{len(records)} of {len(paths)} files, {summary.audio_secs:.1f} s of audio in "
        f"{summary.elapsed_secs:.1f} s (RTFx {speed:.1f}), written to {output}"
    )
    return report_skipped({name_of[path]: reason for path, reason in summary.failures})


def _transcribe_missing(transcriber: Transcriber, paths: Sequence[str], journal: RecordingJournal) -> Summary:
    """Transcribes the recordings that the journal lacks or that have changed since."""
    versions: dict[str, dict[str, Any]] = {}
    for path in paths:
        try:
            versions[path] = version_of(path)
        except OSError:  # said when it is read
            versions[path] = {}

    def keep(transcripts: Sequence[Transcript]) -> None:
        journal.append([make_row(found.path, versions[found.path], to_content(found)) for found in transcripts])

    return transcriber.transcribe_files(journal.find_missing(versions), on_done=keep)


def _read_finished(journal: RecordingJournal, paths: Sequence[str], summary: Summary) -> list[Transcript]:
    """Returns the transcripts of the recordings that have not failed, in their order."""
    failed = {path for path, _ in summary.failures}
    return journal.read_results([path for path in paths if path not in failed], from_row)


def _make_record(transcriber: Transcriber, transcript: Transcript, name: str) -> dict[str, Any]:
    """Returns the object of a transcript, with the reference beside its recording if there is one."""
    record = transcript_record(transcript, name)
    reference = transcriber.find_reference(transcript.path)
    return record if reference is None else {**record, "reference": reference}


def _print_first(records: Sequence[Mapping[str, Any]]) -> None:
    for record in records[:_NUM_SHOWN]:
        print(record["audio_filepath"])
        if "reference" in record:
            print(f"  reference:  {record['reference']}")
        print(f"  hypothesis: {record['text']}")
    if len(records) > _NUM_SHOWN:
        print(f"and {len(records) - _NUM_SHOWN} more")
