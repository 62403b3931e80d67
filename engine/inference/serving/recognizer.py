"""Turns requests on disk into answers, recordings of a batch together, without knowing the network."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import logging

from engine.inference.formats import format_transcript, transcript_record
from engine.inference.serving import openai_json, tf_serving_json, uploads
from engine.inference.serving.answers import CONTENT_TYPES, OPENAI, PREDICT, Answer, RefusedError, Request, refuse
from engine.inference.transcriber import SAMPLE_RATE, Summary, Transcript


@dataclasses.dataclass(frozen=True)
class _Recording:
    """A recording that is short enough, and how its answer is written.

    Attributes:
        request: The request it came with.
        path: File of the audio.
        name: The client's name of it; "" if it gives none.
        options: Options of a request in OpenAI's form.
    """

    request: Request
    path: str
    name: str
    options: openai_json.Options | None = None


class Recognizer:
    """Answers requests, recordings of a batch together."""

    def __init__(
        self,
        *,
        transcribe_files: Callable[[Sequence[str]], Summary],
        predict: Callable[[np.ndarray, np.ndarray], Mapping[str, np.ndarray]],
        count_samples: Callable[[str], int],
        max_audio_secs: float,
        max_row_secs: float,
        max_rows: int,
        served_model: str = "earshot",
    ) -> None:
        """Stores the functions that do the work, and the limits.

        Args:
            transcribe_files: Paths -> transcripts and failures, like `Transcriber.transcribe_files`.
            predict: The exported signature: waveform float32 [B, T], lengths int32 [B] -> arrays [B, ...] by name.
            count_samples: Path -> samples at 16 kHz, from the header; raises ValueError for files it cannot use.
            max_audio_secs: Longest recording.
            max_row_secs: Longest row of a prediction, which is not cut into windows.
            max_rows: Most rows of a prediction.
            served_model: Name of the model, for messages.
        """
        self._transcribe_files = transcribe_files
        self._predict = predict
        self._count_samples = count_samples
        self._max_audio_secs = max_audio_secs
        self._max_row_secs = max_row_secs
        self._max_rows = max_rows
        self._served_model = served_model

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Returns the answers, in order. Bad input becomes an error answer; an exception is a fault of the server."""
        answers: dict[int, Answer] = {}
        recordings: dict[int, _Recording] = {}
        for index, request in enumerate(requests):
            try:
                if request.kind == PREDICT:
                    answers[index] = self._answer_prediction(request)
                else:
                    recordings[index] = self._open_recording(request)
            except RefusedError as refused:
                answers[index] = _refuse_as(request.kind, refused)
        if recordings:
            answers.update(zip(recordings, self._transcribe(list(recordings.values())), strict=True))
        return [answers[index] for index in range(len(requests))]

    def _open_recording(self, request: Request) -> _Recording:
        """Returns the recording of a request, taken out of its form if it is in one, if it is short enough."""
        recording = _Recording(request, request.path, request.name)
        try:
            if uploads.is_form(request.content_type):
                with open(request.path, "rb") as file:
                    recording, content = self._read_form(request, file.read())
                with open(recording.path, "wb") as file:
                    file.write(content)
                del content
            num_samples = self._count_samples(recording.path)
        except ValueError as error:
            message = _with_name(str(error), recording.path, recording.name)
            raise RefusedError(400, message, param="file") from error
        except OSError as error:  # the file out of a form
            logging.error("a recording cannot be kept: %s", error)
            raise RefusedError(503, "there is no space for the recording; try again later") from error
        secs = num_samples / SAMPLE_RATE
        if secs > self._max_audio_secs:
            raise RefusedError(
                413,
                f"{recording.name or 'the recording'} lasts {secs:.0f} s, and {self._max_audio_secs:g} s are allowed "
                "here; cut it, or raise --serve.max_audio_secs",
                param="file",
            )
        return recording

    def _read_form(self, request: Request, body: bytes) -> tuple[_Recording, bytes]:
        """Returns the recording in a form and its content, which is still to be written to the recording's path."""
        options = None
        if request.kind == OPENAI:
            form = uploads.parse_form(body, request.content_type)
            name, content, options = openai_json.read_form(form, served_model=self._served_model)
        else:
            name, content = uploads.extract_file(body, request.content_type)
        path = f"{request.path}{uploads.PART_SUFFIX}"
        return _Recording(request, path, request.name or name, options), content

    def _transcribe(self, recordings: Sequence[_Recording]) -> list[Answer]:
        summary = self._transcribe_files([recording.path for recording in recordings])
        found = {transcript.path: transcript for transcript in summary.transcripts}
        reasons = dict(summary.failures)
        answers = []
        for recording in recordings:
            if recording.path in found:
                answers.append(_compose(found[recording.path], recording))
            else:
                message = _with_name(reasons[recording.path], recording.path, recording.name)
                answers.append(_refuse_as(recording.request.kind, RefusedError(400, message, param="file")))
        return answers

    def _answer_prediction(self, request: Request) -> Answer:
        with open(request.path, "rb") as file:
            body = file.read()
        max_samples = round(self._max_row_secs * SAMPLE_RATE)
        try:
            rows = tf_serving_json.parse_request(body, max_rows=self._max_rows, max_samples=max_samples)
        except tf_serving_json.TooLargeError as error:
            raise RefusedError(413, str(error)) from error
        except ValueError as error:
            raise RefusedError(400, str(error)) from error
        del body
        outputs = self._predict(rows.waveform, rows.lengths)
        answer = tf_serving_json.format_answer(outputs, by_rows=rows.by_rows)
        return Answer(200, json.dumps(answer, ensure_ascii=False).encode())


def _compose(transcript: Transcript, recording: _Recording) -> Answer:
    if recording.options is not None:
        return openai_json.format_answer(transcript, recording.options)
    format = recording.request.format
    record = transcript_record(transcript, recording.name)
    return Answer(200, format_transcript(record, transcript.words, format=format).encode(), CONTENT_TYPES[format])


def _refuse_as(kind: str, refused: RefusedError) -> Answer:
    if kind == OPENAI:
        return openai_json.refuse(refused.status, str(refused), param=refused.param, code=refused.code)
    return refuse(refused.status, str(refused))


def _with_name(message: str, path: str, name: str) -> str:
    """Returns a message about a file under the name that the client knows it by.

    The server's own path must not be shown, however the message writes it.
    """
    whole = os.fspath(path).removesuffix(uploads.PART_SUFFIX)
    for shown in (whole, os.path.basename(whole)):
        message = message.replace(shown + uploads.PART_SUFFIX, name or "the body").replace(shown, name or "the body")
    return message
