"""Runs `--mode=segment`: cuts long recordings with imperfect transcripts into utterances to train on."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.common import files
from engine.common.progress import progress_bar
from engine.common.signals import StopOnSignal
from engine.config import builders, field_rules
from engine.inference.inputs import find_audio, log_skipped, report_skipped
from engine.inference.loading import identify_weights, load_transcriber
from engine.inference.recording_journal import RecordingJournal, make_row, version_of
from engine.inference.textgrid import distinct_names
from engine.inference.transcriber import SAMPLE_RATE, Transcriber
from engine.inference.window_length import default_window_secs
from engine.inference.words import Timed
from engine.protocols import Components, Tokenizer
from engine.segmentation import timed_text
from engine.segmentation.cuts import CutOptions
from engine.segmentation.page import count_reasons, render_page
from engine.segmentation.results import CutRecording, Stretch
from engine.segmentation.segmenter import WordAligner, segment_file

MANIFEST_FILE = "segments.jsonl"
LEFT_OUT_FILE = "left_out.jsonl"
PAGE_FILE = "segments.html"


def run(
    *,
    parts: Components,
    checkpoint: str,
    inputs: Sequence[str],
    output: str,
    options: Mapping[str, Any],
    window_secs: float | None = None,
    weights: str = "",
    stop: StopOnSignal | None = None,
) -> int:
    """Cuts recordings and returns the exit status: 2 if any could not be cut, or no utterance is kept.

    Writes OUTPUT/segments.jsonl, a manifest with offsets, OUTPUT/left_out.jsonl with the reasons, OUTPUT/segments.html,
    and the files of config.segment.formats, all at the end. Until then what is done is in a `RecordingJournal`,
    a row for each recording, from which the same command continues.

    Args:
        parts: Callables of data and models.
        checkpoint: A workdir, a checkpoint inside one, or an exported folder.
        inputs: Audio files, folders and patterns; a recording's transcript lies beside it.
        output: Folder to write.
        options: The fields of config.segment.
        window_secs: Longest row in seconds; longer recordings are heard in overlapping windows. None = what suits the
            recognizer.
        weights: "raw", "ema" or "" for the checkpoint's own choice.
        stop: Listens for signals, which end this mode at once; None = nothing does.

    Raises:
        ValueError: An argument is wrong, no recording has a transcript, or the journal belongs to another command.
    """
    field_rules.check_values({"segment": dict(options)})
    if window_secs is None:
        window_secs = default_window_secs(checkpoint)
    settings = {
        # The formats change none of what is kept.
        **{name: value for name, value in options.items() if name != "formats"},
        "checkpoint": identify_weights(checkpoint, weights),
        "window_secs": window_secs,
    }
    journal = RecordingJournal(output, mode="segment", settings=settings)
    if stop is not None:
        stop.at_once = f"the recordings cut so far are in {journal.path}, and the same command continues there"
    paths = find_audio(inputs)
    with journal:
        transcriber = load_transcriber(parts=parts, checkpoint=checkpoint, weights=weights, window_secs=window_secs)
        failures = _cut_missing(parts, transcriber, paths, journal, options)
        found = journal.read_results([path for path in paths if path not in failures], CutRecording.from_row)
        if not found:
            os.unlink(journal.path)
            first = next(iter(failures.items()))
            raise ValueError(f"none of the {len(paths)} recordings could be cut; the first: {': '.join(first)}")
        _write(found, output, formats=options["formats"])
        page = render_page(
            found, page_environment=parts.page_environment, stream_audio=transcriber.stream_audio,
            encode_flac=parts.encode_flac,
        )  # fmt: skip
        files.write_text_atomic(os.path.join(output, PAGE_FILE), page)
        os.unlink(journal.path)
    for line in summary_lines(found, output):
        print(line)
    is_any_kept = any(not cut.reason for one in found for cut in one.stretches)
    return report_skipped(failures) or (0 if is_any_kept else 2)


def bind_options(parts: Components, tokenizer: Tokenizer, options: Mapping[str, Any]) -> tuple[WordAligner, CutOptions]:
    """Returns the aligner and the way to cut that the fields of config.segment ask for."""
    aligner = functools.partial(
        builders.with_blank(parts, tokenizer).word_aligner,
        unknown_loss=options["unknown_loss"],
        skip_loss=options["skip_loss"],
    )
    return aligner, CutOptions(**{field.name: options[field.name] for field in dataclasses.fields(CutOptions)})


def _cut_missing(
    parts: Components,
    transcriber: Transcriber,
    paths: Sequence[str],
    journal: RecordingJournal,
    options: Mapping[str, Any],
) -> dict[str, str]:
    """Cuts the recordings that the journal lacks or that have changed since, and returns {path: reason} of failures."""
    aligner, cutting = bind_options(parts, transcriber.tokenizer, options)
    failures: dict[str, str] = {}
    text_of: dict[str, str] = {}
    versions: dict[str, dict[str, Any]] = {}
    for path in paths:
        try:
            text = transcriber.find_reference(path, with_times=True)
            if not text:
                raise ValueError("no transcript beside it: put its text into NAME.txt, .srt, .vtt, .TextGrid or .eaf")
            text_of[path], versions[path] = text, version_of(path, text)
        except (ValueError, OSError) as error:
            failures[path] = log_skipped(path, error)
    todo = journal.find_missing(versions)
    total = round(sum(_seconds(transcriber, path) for path in todo))
    with progress_bar(total=total, description="segment", unit="audio-s") as bar:
        for path in todo:
            try:
                done = segment_file(transcriber, aligner, path, text_of[path], options=cutting, watch=bar.update)
            except (ValueError, OSError) as error:
                failures[path] = log_skipped(path, error)
                continue
            journal.append([make_row(path, versions[path], CutRecording.of(done).to_content())])
    return failures


def _seconds(transcriber: Transcriber, path: str) -> float:
    """Returns the duration of a recording; 0 if it cannot be read, which is said when it is its turn."""
    try:
        return transcriber.count_samples(path) / SAMPLE_RATE
    except (ValueError, OSError):
        return 0.0


def _write(found: Sequence[CutRecording], output: str, *, formats: Sequence[str]) -> None:
    cuts = [(one, cut) for one in found for cut in one.stretches]
    kept = [_record(one, cut) for one, cut in cuts if not cut.reason]
    left_out = [{**_record(one, cut), "reason": cut.reason} for one, cut in cuts if cut.reason]
    files.write_jsonl_atomic(os.path.join(output, MANIFEST_FILE), kept)
    files.write_jsonl_atomic(os.path.join(output, LEFT_OUT_FILE), left_out)
    for one, name in zip(found, distinct_names([one.path for one in found]), strict=True):
        utterances = [
            Timed(cut.text, cut.start_secs, cut.end_secs, cut.confidence) for cut in one.stretches if not cut.reason
        ]
        for format in formats:
            text = timed_text.format_utterances(
                utterances, format=format, duration_secs=one.duration_secs, audio_name=os.path.abspath(one.path)
            )
            files.write_text_atomic(os.path.join(output, format, f"{name}{timed_text.SUFFIXES[format]}"), text)


def _record(one: CutRecording, cut: Stretch) -> dict[str, Any]:
    return {
        "audio_filepath": os.path.abspath(one.path),
        "offset": round(cut.start_secs, 4),
        "duration": round(cut.duration_secs, 4),
        "text": cut.text,
        "confidence": round(cut.confidence, 4),
        "worst_word": round(cut.worst_word, 4),
    }


def summary_lines(found: Sequence[CutRecording], output: str) -> Iterator[str]:
    """Yields what was cut and what was left out, in lines for the terminal."""
    kept = [cut for one in found for cut in one.stretches if not cut.reason]
    secs, total = sum(cut.duration_secs for cut in kept), sum(one.duration_secs for one in found)
    num_words = sum(cut.num_words for cut in kept)
    yield (
        f"{len(kept):,} utterances, {secs / 3600:.2f} of {total / 3600:.2f} h, "
        f"{num_words:,} of {sum(one.num_words for one in found):,} words: {os.path.join(output, MANIFEST_FILE)}"
    )
    for row in count_reasons(found):
        yield f"left out, {row['reason']}: {row['count']:,} stretches, {row['num_words']:,} words, {row['secs']:,.1f} s"
    yield f"listen to the worst: {os.path.join(output, PAGE_FILE)}"
