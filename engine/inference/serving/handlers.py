"""Moves a request through its connection: headers, its body into a file, a place in the queue, its answer.

Each step has a limit and a time: no client can hold more than a connection and a file, and none of them for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from typing import TYPE_CHECKING, Any

import tornado.iostream
import tornado.web
from absl import logging
from tornado.ioloop import IOLoop

from engine.common.out_of_memory import OutOfMemoryError
from engine.inference.serving import answers, uploads
from engine.inference.serving.answers import Answer, Request
from engine.inference.serving.batch_queue import QueueFullError

if TYPE_CHECKING:
    from engine.inference.serving.http_server import Service

# Time that a refused client may go on sending before it is hung up on: it reads no answer while it sends.
_LINGER_SECS = 5.0
_MAX_RETRY_AFTER_SECS = 60
# Most digits of a Content-Length. Tornado reads no body of a longer one, and Python converts no number of thousands.
_MAX_LENGTH_DIGITS = 18
_HEADER_NAMES = re.compile(r"[A-Za-z0-9-]+(\s*,\s*[A-Za-z0-9-]+)*")
_PREFLIGHT_SECS = 600


class ClientError(tornado.web.HTTPError):
    """An HTTP status with a one-line message for the client."""

    def __init__(self, status: int, message: str) -> None:
        """Builds the error from its HTTP status code and its message."""
        super().__init__(status)
        self.message = message


@tornado.web.stream_request_body
class Handler(tornado.web.RequestHandler):
    """Answers in JSON, even where Tornado writes the answer, and drops a body that no route reads.

    With `Limits.cors_origins`, every answer carries the headers that let a page of those origins read it.
    """

    @property
    def service(self) -> Service:
        """The server that this request came to."""
        return self.settings["service"]

    def prepare(self) -> None:
        """Answers a preflight, and limits the size and the time of any other request's body."""
        if self.answer_preflight():
            return
        # Tornado would keep the body in memory, as long as the client likes to send it.
        limits = self.service.limits
        self.request.connection.set_max_body_size(limits.max_body_bytes)  # type: ignore[union-attr]
        self.request.connection.set_body_timeout(limits.body_timeout_secs)  # type: ignore[union-attr]

    def data_received(self, chunk: bytes) -> None:
        """Drops a piece of the body."""

    def set_default_headers(self) -> None:
        """Sets the headers that every answer has, errors included."""
        self.set_header("Content-Type", answers.JSON_TYPE)
        self.set_header("Server", "earshot")
        self.set_header("X-Content-Type-Options", "nosniff")
        if self.service.limits.cors_origins:
            self.set_header("Access-Control-Expose-Headers", "Retry-After")
            self.set_header("Vary", "Origin")
        if origin := self._allowed_origin():
            self.set_header("Access-Control-Allow-Origin", origin)

    def answer_preflight(self) -> bool:
        """Answers a browser that asks whether a page of another origin may call, and returns whether it was one."""
        headers = self.request.headers
        is_preflight = self.request.method == "OPTIONS" and "Access-Control-Request-Method" in headers
        if not is_preflight or not self._allowed_origin():
            return False
        self.set_header("Access-Control-Allow-Methods", "GET, POST")
        self.set_header("Access-Control-Max-Age", str(_PREFLIGHT_SECS))
        names = headers.get("Access-Control-Request-Headers", "")
        if _HEADER_NAMES.fullmatch(names):  # any: OpenAI's clients send a dozen of their own
            self.set_header("Access-Control-Allow-Headers", names)
        self.set_status(204)
        self.finish()
        return True

    def refuse(self, status: int, message: str) -> Answer:
        """Returns an error answer in the form of the route's protocol."""
        return answers.refuse(status, message)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answers with the message of a `ClientError`, or else with the standard reason of the status."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        message = error.message if isinstance(error, ClientError) else self._reason
        if status_code == 405:  # not where it is raised: Tornado drops the headers that were set before an error
            self.set_header("Allow", ", ".join(self._allowed_methods()))
        self.finish(self.refuse(status_code, message).body)

    def _allowed_methods(self) -> list[str]:
        """Returns the methods that the route has."""
        base = tornado.web.RequestHandler
        names = [(method, method.lower()) for method in self.SUPPORTED_METHODS]
        return [method for method, name in names if getattr(type(self), name) is not getattr(base, name)]

    def _allowed_origin(self) -> str:
        """Returns the value of Access-Control-Allow-Origin; "" where the request has no origin that is allowed."""
        allowed = self.service.limits.cors_origins
        if "*" in allowed:
            return "*"
        origin = self.request.headers.get("Origin", "").lower()
        return origin if origin in allowed else ""


class BodyHandler(Handler):
    """Handles a request with a body, from its headers to its answer."""

    kind: str

    @property
    def max_bytes(self) -> int:
        """Largest body."""
        return self.service.limits.max_body_bytes

    def initialize(self) -> None:
        """Starts without a body, an answer or a place in the queue; Tornado calls it in place of a constructor."""
        self._body: uploads.Body | None = None
        self._refusal: Answer | None = None
        self._num_bytes = 0
        self._future: Any = None
        self._is_gone = False
        self._is_counted = False
        self._timer: object = None

    def check_headers(self) -> Answer | None:
        """Returns the refusal of a request whose headers show that it cannot be answered, else None."""
        if self.service.is_draining:
            return self.refuse(503, "the server is going away; try again later")
        length = self.request.headers.get("Content-Length", "0")
        is_number = length.isascii() and length.isdigit()
        if is_number and (len(length) > _MAX_LENGTH_DIGITS or int(length) > self.max_bytes):
            return self._too_large()
        encoding = self.request.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity":
            return self.refuse(415, f"Content-Encoding {encoding} is not understood; send the body as it is")
        return None

    def request_of(self, path: str) -> Request:
        """Returns the request whose body lies in a file."""
        return Request(self.kind, path, self.request.headers.get("Content-Type", ""))

    def _too_large(self) -> Answer:
        return self.refuse(413, f"the body is larger than the {self.max_bytes / 1e6:g} MB that are allowed here")

    def _no_space(self, error: OSError) -> Answer:
        logging.error("a body cannot be kept: %s", error)
        return self.refuse(503, "there is no space for the body; try again later")

    def prepare(self) -> None:
        """Checks the headers, and opens a file for the body or prepares the refusal."""
        if self.answer_preflight():
            return
        if self.request.method != "POST":
            raise ClientError(405, f"{self.request.method} is not possible here; POST the body")
        self._count(1)
        self._refusal = self.check_headers()
        self._timer = IOLoop.current().call_later(self.service.limits.body_timeout_secs, self._end_slow_body)
        if self._refusal is None:
            try:
                self._body = uploads.Body(self.service.folder)
                return
            except OSError as error:
                self._refusal = self._no_space(error)
        headers = self.request.headers
        if (
            headers.get("Expect", "").lower() == "100-continue"  # it has not begun to send, and now it does not
            or len(headers.get("Content-Length", "")) > _MAX_LENGTH_DIGITS
        ):
            self._send(self._refusal)
        else:
            self._linger()

    def data_received(self, chunk: bytes) -> None:
        """Writes a piece of the body into its file, or drops it once the request is refused."""
        self._num_bytes += len(chunk)
        if self._refusal is not None or self._body is None:
            return
        if self._num_bytes > self.max_bytes:
            self._refusal = self._too_large()
        else:
            try:
                self._body.write(chunk)
                return
            except OSError as error:
                self._refusal = self._no_space(error)
        self._body.remove()
        self._linger()

    async def post(self, *arguments: str) -> None:
        """Sends the answer or the refusal of a request whose body has arrived."""
        if self._finished:
            return
        self._stop_timer()
        if self._refusal is None:
            self._refusal = await self._answer()
        await self._send_slowly(self._refusal)

    async def _answer(self) -> Answer:
        """Waits for a place in the queue and then for what comes out of it."""
        limits = self.service.limits
        body = self._body
        assert body is not None
        if not body.num_bytes:
            return self.refuse(400, "the body is empty")
        try:
            body.finish()
            self._future = future = self.service.queue.submit(self.request_of(body.path))
        except OSError as error:
            return self._no_space(error)
        except QueueFullError:
            return self.refuse(503, f"{limits.max_pending} requests are waiting already; try again later")
        # The file must last as long as the work: it may outlive the client.
        self._body = None
        future.add_done_callback(lambda _: body.remove())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), limits.answer_timeout_secs)
        except TimeoutError:
            return self.refuse(503, f"no answer within {limits.answer_timeout_secs:g} s; try again later")
        except asyncio.CancelledError:
            if not self._is_gone:
                raise
            return self.refuse(503, "the client has gone")
        except OutOfMemoryError:
            return self.refuse(503, "there is not enough memory here for this request; send a shorter recording")
        except Exception:  # logged by the queue
            return self.refuse(500, "the request failed here; the server's log says why")

    def _send(self, answer: Answer) -> Any:
        self._stop_timer()
        self.set_status(answer.status)
        self.set_header("Content-Type", answer.content_type)
        if answer.status == 503:
            wait_secs = min(max(1, math.ceil(self.service.queue.secs_until_free)), _MAX_RETRY_AFTER_SECS)
            self.set_header("Retry-After", str(wait_secs))
        if self.service.is_draining or answer.status == 408:
            self.set_header("Connection", "close")
        return self.finish(answer.body)

    async def _send_slowly(self, answer: Answer) -> None:
        """Sends an answer; hangs up on a client that does not take it."""
        with contextlib.suppress(tornado.iostream.StreamClosedError):
            try:
                await asyncio.wait_for(self._send(answer), self.service.limits.body_timeout_secs)
            except TimeoutError:
                self.request.connection.stream.close()  # type: ignore[union-attr]

    def _end_slow_body(self) -> None:
        if not self._finished:
            secs = self.service.limits.body_timeout_secs
            self._send(self.refuse(408, f"the body did not arrive within {secs:g} s"))

    def _linger(self) -> None:
        """Answers when the body has come, or soon."""
        self._stop_timer()
        self._timer = IOLoop.current().call_later(_LINGER_SECS, self._end_lingering)

    def _end_lingering(self) -> None:
        if not self._finished:
            assert self._refusal is not None
            self._send(self._refusal)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            IOLoop.current().remove_timeout(self._timer)
            self._timer = None

    def on_connection_close(self) -> None:
        """Cancels the work for a client that has gone."""
        self._is_gone = True
        if self._future is not None:
            self._future.cancel()
        super().on_connection_close()
        self._let_go()

    def on_finish(self) -> None:
        """Releases the file and the timer once the answer is sent."""
        self._let_go()

    def _let_go(self) -> None:
        """Gives back what a request holds, however it ended."""
        self._stop_timer()
        if self._body is not None:
            self._body.remove()
        self._count(-1)

    def _count(self, change: int) -> None:
        if (change > 0) != self._is_counted:
            self._is_counted = change > 0
            self.service.num_answering += change
