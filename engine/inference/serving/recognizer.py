"""Requests on disk to answers in JSON: what a server says, whatever brings it there."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import logging

from engine.inference.formats import transcript_record
from engine.inference.serving import tf_serving_json, uploads
from engine.inference.transcriber import SAMPLE_RATE, Summary

TRANSCRIBE = "transcribe"
PREDICT = "predict"
_LONGEST_MESSAGE = 500  # characters; a message may quote what the client sent


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes:
        kind: `TRANSCRIBE` or `PREDICT`.
        path: File with the body.
        content_type: Of the body.
        name: The recording's, as the client calls it.
    """

    kind: str
    path: str
    content_type: str = ""
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What is said.

    Attributes:
        status: Of HTTP.
        body: JSON.
    """

    status: int
    body: bytes


def refuse(status: int, message: str) -> Answer:
    """An answer that says in one line what is wrong, in TensorFlow Serving's form."""
    text = " ".join(message.split())
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[:_LONGEST_MESSAGE]}..."
    return Answer(status, json.dumps({"error": text}).encode())


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
    ) -> None:
        """Keeps its arguments.

        Args:
            transcribe_files: As `Transcriber.transcribe_files`.
            predict: The signature: waveform [B, T], lengths [B] -> arrays [B, ...] by name.
            count_samples: Path -> samples at 16 kHz, from the header; raises ValueError for files it cannot use.
            max_audio_secs: Longest recording.
            max_row_secs: Longest row of a prediction: it is not cut into windows.
            max_rows: Most rows of one.
        """
        self._transcribe_files = transcribe_files
        self._predict = predict
        self._count_samples = count_samples
        self._max_audio_secs = max_audio_secs
        self._max_row_secs = max_row_secs
        self._max_rows = max_rows

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Returns the answers, in order. Bad input makes an answer; what raises is a fault of ours."""
        answers: dict[int, Answer] = {}
        recordings: dict[int, Request] = {}
        for index, request in enumerate(requests):
            try:
                if request.kind == PREDICT:
                    answers[index] = self._answer_prediction(request)
                else:
                    recordings[index] = self._check_recording(request)
            except _RefusedError as refused:
                answers[index] = refuse(refused.status, str(refused))
        if recordings:
            answers.update(zip(recordings, self._transcribe(list(recordings.values())), strict=True))
        return [answers[index] for index in range(len(requests))]

    def _check_recording(self, request: Request) -> Request:
        """The same request with a file that is a recording short enough."""
        path, name = request.path, request.name
        try:
            if uploads.is_form(request.content_type):
                with open(path, "rb") as file:
                    found, content = uploads.extract_file(file.read(), request.content_type)
                path, name = f"{path}{uploads.PART_SUFFIX}", name or found
                with open(path, "wb") as file:
                    file.write(content)
                del content
            num_samples = self._count_samples(path)
        except ValueError as error:
            raise _RefusedError(400, _with_name(str(error), path, name)) from error
        except OSError as error:  # the file out of a form
            logging.error("a recording cannot be kept: %s", error)
            raise _RefusedError(503, "there is no space for the recording; try again later") from error
        secs = num_samples / SAMPLE_RATE
        if secs > self._max_audio_secs:
            raise _RefusedError(
                413,
                f"{name or 'the recording'} lasts {secs:.0f} s, and {self._max_audio_secs:g} s are allowed here; cut "
                "it, or raise --serve.max_audio_secs",
            )
        return dataclasses.replace(request, path=path, name=name)

    def _transcribe(self, requests: Sequence[Request]) -> list[Answer]:
        summary = self._transcribe_files([request.path for request in requests])
        found = {transcript.path: transcript for transcript in summary.transcripts}
        reasons = dict(summary.failures)
        answers = []
        for request in requests:
            if request.path in found:
                transcript = found[request.path]
                record = transcript_record(transcript, request.name)
                record["words"] = [word.to_dict() for word in transcript.words]
                answers.append(Answer(200, json.dumps(record, ensure_ascii=False).encode()))
            else:
                answers.append(refuse(400, _with_name(reasons[request.path], request.path, request.name)))
        return answers

    def _answer_prediction(self, request: Request) -> Answer:
        with open(request.path, "rb") as file:
            body = file.read()
        max_samples = round(self._max_row_secs * SAMPLE_RATE)
        try:
            rows = tf_serving_json.parse_request(body, max_rows=self._max_rows, max_samples=max_samples)
        except tf_serving_json.TooLargeError as error:
            raise _RefusedError(413, str(error)) from error
        except ValueError as error:
            raise _RefusedError(400, str(error)) from error
        del body
        outputs = self._predict(rows.waveform, rows.lengths)
        answer = tf_serving_json.format_answer(outputs, by_rows=rows.by_rows)
        return Answer(200, json.dumps(answer, ensure_ascii=False).encode())


class _RefusedError(Exception):
    """Input that is answered by an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _with_name(message: str, path: str, name: str) -> str:
    """Returns a message about a file under the name that the client knows it by.

    The server's own path must not be shown, however the message writes it.
    """
    whole = os.fspath(path).removesuffix(uploads.PART_SUFFIX)
    for shown in (whole, os.path.basename(whole)):
        message = message.replace(shown + uploads.PART_SUFFIX, name or "the body").replace(shown, name or "the body")
    return message
