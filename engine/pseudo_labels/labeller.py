"""Transcribes recordings without transcripts in one view or two, and decides which labels are kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from engine.evaluation.metrics import count_char_errors
from engine.inference.transcriber import SAMPLE_RATE, Transcriber, Transcript
from engine.inference.words import Timed
from engine.protocols import UnlabelledRecording
from engine.pseudo_labels.labels import UNREADABLE, Label, LabelFilter, make_labels

_BATCHES_AT_ONCE = 16  # whose recordings are sorted by length, and whose labels are written together
_SECS_AT_ONCE = 3_600.0  # of audio after which no more recordings are taken; an interruption loses at most these


@dataclasses.dataclass(frozen=True)
class View:
    """A recording at a playing speed, which a transcriber takes in place of a path."""

    recording: UnlabelledRecording
    speed: float = 1.0

    def __str__(self) -> str:
        return self.recording.name


def count_samples(view: View) -> int:
    """Returns the number of samples of a view, for `Transcriber`."""
    return view.recording.count_samples(view.speed)


def stream_audio(view: View, *, on_rate_mismatch: str) -> Iterator[np.ndarray]:
    """Yields the samples of a view, for `Transcriber`."""
    del on_rate_mismatch  # the corpus knows it
    return view.recording.stream(view.speed)


class Labeller:
    """Makes the labels of recordings.

    labeller = Labeller(transcriber=transcriber, options=config.pseudo_label.to_dict(), output="pseudo.jsonl")
    for rows in labeller.split(corpus):
        done = labeller.label(rows)
    """

    def __init__(
        self,
        *,
        transcriber: Transcriber,
        second: Transcriber | None = None,
        options: Mapping[str, Any],
        output: str,
        num_replicas: int = 1,
    ) -> None:
        """Prepares the labelling.

        Args:
            transcriber: Makes the labels; its recordings are `View`s.
            second: Transcriber of the second view; None = there is none.
            options: The fields of config.pseudo_label.
            output: The manifest that the labels are for.
            num_replicas: Number of replicas that share a batch.
        """
        self._rows_at_once = options["batch_size"] * num_replicas * _BATCHES_AT_ONCE
        self._transcriber = transcriber
        self._second = second
        self._speed = options["second_speed"]
        self._max_secs = options["max_duration_secs"]
        self._filter = LabelFilter(**{field.name: options[field.name] for field in dataclasses.fields(LabelFilter)})
        self._output = output

    def split(self, rows: Iterator[Any]) -> Iterator[list[Any]]:
        """Yields the rows that are labelled together."""
        secs, held = 0.0, []
        for row in rows:
            held.append(row)
            secs += _duration_secs(row)
            if len(held) == self._rows_at_once or secs > _SECS_AT_ONCE:
                yield held
                secs, held = 0.0, []
        if held:
            yield held

    def label(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Returns an object for each row: its name, its seconds of audio, and its labels, each with a reason or "".

        Args:
            rows: Recordings, and rows that name none, which have a `reason`.
        """
        found = {id(row): _unreadable(row.name, row.reason) for row in rows if hasattr(row, "reason")}
        recordings: list[UnlabelledRecording] = [row for row in rows if id(row) not in found]
        first = self._transcribe(self._transcriber, recordings, 1.0, found)
        second = self._transcribe(self._second, [row for row in recordings if id(row) in first], self._speed, found)
        for row in recordings:
            if id(row) not in found:
                found[id(row)] = self._record(row, first[id(row)], second.get(id(row)))
        return [found[id(row)] for row in rows]

    def _transcribe(
        self,
        transcriber: Transcriber | None,
        recordings: Sequence[UnlabelledRecording],
        speed: float,
        found: dict[int, dict[str, Any]],
    ) -> dict[int, Transcript]:
        """Returns the transcripts by the identity of their recording; `found` gets the recordings that fail."""
        if transcriber is None:
            return {}
        views: list[Any] = [View(recording, speed) for recording in recordings]
        summary = transcriber.transcribe_files(views, quiet=True)
        for view, reason in summary.failures:
            recording = _recording(view)
            found[id(recording)] = _unreadable(recording.name, reason, recording.utterance_id)
        return {id(_recording(transcript.path)): transcript for transcript in summary.transcripts}

    def _record(self, row: UnlabelledRecording, first: Transcript, second: Transcript | None) -> dict[str, Any]:
        labels = make_labels(
            first.words,
            duration_secs=first.duration_secs,
            max_secs=self._max_secs,
            second=None if second is None else _at_first_speed(second.words, self._speed),
        )
        return {
            "name": row.name,
            "audio_secs": first.duration_secs,
            "labels": [self._describe(row, label, number) for number, label in enumerate(labels, start=1)],
        }

    def _describe(self, row: UnlabelledRecording, label: Label, number: int) -> dict[str, Any]:
        reason = self._filter.find_reason(label)
        duration_secs = None if label.is_whole else label.duration_secs
        fields = {
            **row.manifest_fields(self._output, label.start_secs, duration_secs, is_kept=not reason),
            **label.to_fields(),
            "utterance_id": row.utterance_id if label.is_whole else f"{row.utterance_id}~{number}",
            "speaker": row.speaker_id,
            "reason": reason,
        }
        if row.reference and label.is_whole:
            errors = count_char_errors(row.reference, label.text)
            fields |= {"reference_errors": errors.num_errors, "reference_chars": errors.num_reference}
        return fields


def _recording(view: Any) -> UnlabelledRecording:
    assert isinstance(view, View)
    return view.recording


def _duration_secs(row: Any) -> float:
    """Returns the duration of a row's recording; 0 for one that cannot be read, which is reported later."""
    try:
        return 0.0 if hasattr(row, "reason") else row.count_samples() / SAMPLE_RATE
    except (ValueError, OSError):
        return 0.0


def _at_first_speed(words: Sequence[Timed], speed: float) -> list[Timed]:
    """Returns words with the times that they have at speed 1."""
    return [
        dataclasses.replace(word, start_secs=word.start_secs * speed, end_secs=word.end_secs * speed) for word in words
    ]


def _unreadable(name: str, why: str, utterance_id: str = "") -> dict[str, Any]:
    label = {"audio_filepath": name, "utterance_id": utterance_id, "reason": UNREADABLE, "detail": why}
    return {"name": name, "audio_secs": 0.0, "labels": [label]}
