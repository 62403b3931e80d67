"""The routes of the server's own protocol: the page for people, transcripts of recordings, health.

GET  /                                 a page with a microphone, for people
POST /v1/transcribe                    a recording, as the body or as the file of a form -> transcript
     ?format=json|srt|vtt|txt          the same by the Accept header; json without either
GET  /healthz                          200, or 503 once the server is going away
"""

from __future__ import annotations

import json

from engine.inference.serving import uploads
from engine.inference.serving.answers import CONTENT_TYPES, TRANSCRIBE, Answer, Request
from engine.inference.serving.handlers import BodyHandler, Handler

_FORMAT_OF_TYPE = {content_type.partition(";")[0]: format for format, content_type in CONTENT_TYPES.items()}


class PageHandler(Handler):
    """Answers with the page."""

    def get(self) -> None:
        """Sends the page, which no other page may frame."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Cache-Control", "no-cache")
        self.set_header("Referrer-Policy", "no-referrer")
        # The page itself forbids everything else; this one works in a header alone.
        self.set_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.finish(self.service.page)

    head = get


class TranscribeHandler(BodyHandler):
    """Answers a recording with its transcript."""

    kind = TRANSCRIBE

    def initialize(self) -> None:
        """Starts with no file name and JSON as the format."""
        super().initialize()
        self._name = ""
        self._format = "json"

    def check_headers(self) -> Answer | None:
        """Reads the file's name and the transcript's format; returns the refusal of others, else None."""
        headers = self.request.headers
        content_type = headers.get("Content-Type", "")
        if not uploads.is_audio_type(content_type):
            shown = f"{content_type[:100]!r} is no audio"
            return self.refuse(415, f"Content-Type {shown}; send audio, or multipart/form-data with one audio file")
        asked = self.request.query_arguments.get("format")
        self._format = asked[-1].decode("utf-8", "replace") if asked else accepted_format(headers.get("Accept", ""))
        if self._format not in CONTENT_TYPES:
            return self.refuse(400, f"unknown format {self._format[:100]!r}; use one of {', '.join(CONTENT_TYPES)}")
        try:
            self._name = uploads.name_of(headers.get("Content-Disposition", ""))
        except ValueError as error:
            return self.refuse(400, str(error))
        return super().check_headers()

    def request_of(self, path: str) -> Request:
        """Returns the request with the file's name and the transcript's format."""
        return Request(self.kind, path, self.request.headers.get("Content-Type", ""), self._name, self._format)


class HealthHandler(Handler):
    """Says whether the server takes requests, and how many wait."""

    def get(self) -> None:
        """Answers with the state of the server, and how many requests wait and connections are open."""
        service = self.service
        self.set_status(503 if service.is_draining else 200)
        state = {
            "status": "stopping" if service.is_draining else "ok",
            "pending": service.queue.num_pending,
            "max_pending": service.limits.max_pending,
            "connections": service.num_connections,
        }
        self.finish(json.dumps(state))


class UnknownHandler(Handler):
    """Names the routes to a client that asks for another."""

    def find_refusal(self) -> Answer:
        """Names the routes that exist."""
        return self.refuse(
            404,
            "nothing is served here; there are POST /v1/transcribe, POST /v1/audio/transcriptions, "
            "POST /v1/models/NAME:predict, GET /v1/models, GET /healthz",
        )


class ForeignHandler(Handler):
    """Refuses a request that means another host."""

    def find_refusal(self) -> Answer:
        """Says which hosts are answered."""
        return self.refuse(
            403,
            f"the Host header {self.request.host[:100]!r} names another host, and this server answers those that mean "
            "this machine, such as localhost; a proxy before it must send such a Host, or name its own origin in "
            "--serve.cors_origins",
        )


def accepted_format(accept: str) -> str:
    """Returns the transcript format that an Accept header prefers; json where it names none."""
    best, best_weight = "json", 0.0
    for part in accept.lower().split(","):
        content_type, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((_to_weight(piece) for piece in parameters if piece.startswith("q=")), 1.0)
        if content_type in _FORMAT_OF_TYPE and weight > best_weight:
            best, best_weight = _FORMAT_OF_TYPE[content_type], weight
    return best


def _to_weight(parameter: str) -> float:
    try:
        return float(parameter.removeprefix("q="))
    except ValueError:
        return 0.0
