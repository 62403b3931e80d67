"""Requests and answers of the server, whatever protocol brings them."""

from __future__ import annotations

import dataclasses
import json

TRANSCRIBE = "transcribe"
PREDICT = "predict"
OPENAI = "openai"
JSON_TYPE = "application/json"
CONTENT_TYPES = {
    "json": JSON_TYPE,
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
}
"""The formats of a served transcript and the Content-Type of each."""

_LONGEST_MESSAGE = 500  # characters; a message may quote what the client sent


@dataclasses.dataclass(frozen=True)
class Request:
    """A request whose body lies in a file.

    Attributes:
        kind: The protocol: `TRANSCRIBE`, `PREDICT` or `OPENAI`.
        path: File with the body.
        content_type: Content-Type header of the body.
        name: File name that the client gives the recording; "" if it gives none.
        format: Format of the transcript, one of `CONTENT_TYPES`; read for `TRANSCRIBE` alone.
    """

    kind: str
    path: str
    content_type: str = ""
    name: str = ""
    format: str = "json"


@dataclasses.dataclass(frozen=True)
class Answer:
    """The response to a request.

    Attributes:
        status: HTTP status code.
        body: Content of the response.
        content_type: Content-Type header of the response.
    """

    status: int
    body: bytes
    content_type: str = JSON_TYPE


class RefusedError(Exception):
    """Raised for a request that is answered by an error; the message is one line for the client.

    Attributes:
        status: HTTP status code.
        param: Field of the request that is wrong; "" if it is not a single field.
        code: Machine-readable kind of the error; "" if unclassified.
    """

    def __init__(self, status: int, message: str, *, param: str = "", code: str = "") -> None:
        """Builds the error; see the attributes."""
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


def one_line(message: str) -> str:
    """Returns a message on one line, cut to a readable length."""
    text = " ".join(message.split())
    return f"{text[:_LONGEST_MESSAGE]}..." if len(text) > _LONGEST_MESSAGE else text


def refuse(status: int, message: str) -> Answer:
    """Returns an error answer with a one-line message, in TensorFlow Serving's form."""
    return Answer(status, json.dumps({"error": one_line(message)}).encode())
