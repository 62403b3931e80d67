"""Moves a request through its connection: headers, its body into a file, a place in the queue, its answer.

Each step has a limit and a time: no client can hold more than a connection and a file, and none of them for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import socket
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

# Time that a client may go on sending a body that has grown too large: it reads no answer while it sends.
_LINGER_SECS = 5.0
# Most bytes that a client may go on sending after it is refused, and how many of them are read at once.
_MAX_DROPPED_BYTES = 10**9
_CHUNK_BYTES = 64 * 1024
_MAX_RETRY_AFTER_SECS = 60
# Most digits of a Content-Length. Tornado reads no body of a longer one, and Python converts no number of thousands.
_MAX_LENGTH_DIGITS = 18
_HEADER_NAMES = re.compile(r"[A-Za-z0-9-]+(\s*,\s*[A-Za-z0-9-]+)*")
_PREFLIGHT_SECS = 600


@tornado.web.stream_request_body
class Handler(tornado.web.RequestHandler):
    """Answers in JSON, even where Tornado writes the answer, and drops a body that no route reads.

    With `Limits.cors_origins`, every answer carries the headers that let a page of those origins read it.
    """

    @property
    def service(self) -> Service:
        """The server that this request came to."""
        return self.settings["service"]

    async def prepare(self) -> None:
        """Answers a preflight, refuses what the headers alone show to be wrong, or makes ready for the body."""
        if self.answer_preflight():
            return
        refusal = self.find_refusal() or self.accept_body()
        if refusal is None:
            return
        headers = self.request.headers
        if "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0":
            await self._hang_up(refusal)
        else:
            # In place of the route's method: Tornado would close the connection after an answer from here.
            setattr(self, str(self.request.method).lower(), lambda *_: self.send_slowly(refusal))

    def find_refusal(self) -> Answer | None:
        """Returns the refusal of a request whose headers show that it cannot be answered, else None."""
        if self.request.method in self._allowed_methods():
            return None
        return self.refuse(405, "Method Not Allowed")

    def accept_body(self) -> Answer | None:
        """Limits the size and the time of the body; returns the refusal of a body that cannot be taken, else None."""
        # Tornado would keep the body in memory, as long as the client likes to send it.
        limits = self.service.limits
        self.request.connection.set_max_body_size(limits.max_body_bytes)  # type: ignore[union-attr]
        self.request.connection.set_body_timeout(limits.body_timeout_secs)  # type: ignore[union-attr]
        return None

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
        """Answers an error that Tornado raised, with the standard reason of its status."""
        self.send(self.refuse(status_code, self._reason))

    def send(self, answer: Answer) -> Any:
        """Sends an answer; returns the future that ends with it."""
        self._set_head(answer)
        return self.finish(answer.body)

    async def send_slowly(self, answer: Answer) -> None:
        """Sends an answer; hangs up on a client that does not take it."""
        with contextlib.suppress(tornado.iostream.StreamClosedError):
            try:
                await asyncio.wait_for(self.send(answer), self.service.limits.body_timeout_secs)
            except TimeoutError:
                self.request.connection.stream.close()  # type: ignore[union-attr]

    async def _hang_up(self, answer: Answer) -> None:
        """Sends an answer before the body has come, and ends the connection.

        A socket that is closed with unread bytes resets its connection, and a client that sends everything before it
        reads would lose the answer. So only the server's half is closed at once. What still comes is dropped, until the
        client closes its half, or has used up the time of a body or `_MAX_DROPPED_BYTES`.
        """
        self._set_head(answer)
        self.set_header("Connection", "close")
        self.set_header("Content-Length", len(answer.body))
        self.write(answer.body)
        self.flush()
        # Tornado reads no further request from a stream that is detached, and counts the connection until this returns.
        stream = self.detach()
        client = stream.socket
        self.service.num_answering += 1
        num_bytes = 0
        try:
            with contextlib.closing(stream), contextlib.suppress(OSError):  # the client has gone, or its time is over
                async with asyncio.timeout(self.service.limits.body_timeout_secs):
                    await stream.write(b"")  # until the answer is written
                    client.shutdown(socket.SHUT_WR)
                    while num_bytes < _MAX_DROPPED_BYTES:
                        num_bytes += len(await stream.read_bytes(_CHUNK_BYTES, partial=True))
                        await asyncio.sleep(0)  # a fast client would keep the server from the others
        finally:
            self.service.num_answering -= 1

    def _set_head(self, answer: Answer) -> None:
        """Sets the status and the headers of an answer."""
        self.set_status(answer.status)
        self.set_header("Content-Type", answer.content_type)
        if answer.status == 405:
            self.set_header("Allow", ", ".join(self._allowed_methods()))
        if answer.status == 503:
            wait_secs = min(max(1, math.ceil(self.service.queue.secs_until_free)), _MAX_RETRY_AFTER_SECS)
            self.set_header("Retry-After", str(wait_secs))
        if self.service.is_draining or answer.status == 408:
            self.set_header("Connection", "close")

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

    def find_refusal(self) -> Answer | None:
        """Returns the refusal of a request that is no POST, or whose headers the route refuses, else None."""
        if self.request.method != "POST":
            return self.refuse(405, f"{self.request.method} is not possible here; POST the body")
        return self.check_headers()

    def check_headers(self) -> Answer | None:
        """Returns the refusal of a POST whose headers show that it cannot be answered, else None."""
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

    def accept_body(self) -> Answer | None:
        """Opens a file for the body; returns the refusal where that cannot be, else None."""
        try:
            self._body = uploads.Body(self.service.folder)
        except OSError as error:
            return self._no_space(error)
        self._count(1)
        self._timer = IOLoop.current().call_later(self.service.limits.body_timeout_secs, self._end_slow_body)
        return None

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
        await self.send_slowly(self._refusal)

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

    def _end_slow_body(self) -> None:
        if not self._finished:
            secs = self.service.limits.body_timeout_secs
            self.send(self.refuse(408, f"the body did not arrive within {secs:g} s"))

    def _linger(self) -> None:
        """Answers when the body has come, or soon."""
        self._stop_timer()
        self._timer = IOLoop.current().call_later(_LINGER_SECS, self._end_lingering)

    def _end_lingering(self) -> None:
        if not self._finished:
            assert self._refusal is not None
            self.send(self._refusal)

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
