"""The HTTP server of `--mode=serve`: reads what arrives and writes what goes out; `recognizer` finds the answers.

    POST /v1/transcribe                    a recording, as the body or as the file of a form -> transcript
    POST /v1/models/NAME:predict           TensorFlow Serving's request, /versions/1 allowed -> its answer
    GET  /v1/models/NAME  .../metadata     TensorFlow Serving's status and signature
    GET  /healthz                          200, or 503 once the server is going away

A request moves through one connection like this: headers -> its body into a file -> a place in the queue -> its answer.
Each step has a limit and a time: no client can hold more than a connection and a file, and none of them for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import tornado.httpserver
import tornado.iostream
import tornado.netutil
import tornado.web
from absl import logging
from tornado.ioloop import IOLoop

from engine.inference.serving import recognizer, uploads
from engine.inference.serving.batch_queue import QueueFullError, WorkQueue
from engine.inference.serving.recognizer import Answer, Request, refuse

# What a refused client may still send before it is hung up on: it would not read the answer while it is sending.
_LINGER_SECS = 5.0
_DRAIN_STEP_SECS = 0.05
_MAX_RETRY_AFTER_SECS = 60
# Of a Content-Length. Tornado reads no body of a longer one, and Python converts no number of thousands of digits.
_MAX_LENGTH_DIGITS = 18


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What one client may use. Fields of `configs.base.get_serve`, which says more."""

    name: str
    batch_size: int
    max_pending: int
    max_connections: int
    max_body_bytes: int
    max_json_bytes: int
    body_timeout_secs: float
    answer_timeout_secs: float
    idle_timeout_secs: float


class Service:
    """A server with its queue; open until `stop`."""

    def __init__(
        self, *, answer: Callable[[list[Request]], Sequence[Answer]], metadata: dict[str, Any], limits: Limits
    ) -> None:
        """Starts the queue; nothing listens yet.

        Args:
            answer: Requests -> answers; called from one thread.
            metadata: What GET .../metadata says.
            limits: As the class says.
        """
        self.limits = limits
        self.metadata = metadata
        self.is_draining = False
        self.num_connections = 0
        self.num_answering = 0
        self._folder = tempfile.TemporaryDirectory(prefix="earshot-serve-")
        self.folder = self._folder.name
        self.queue = WorkQueue(do_batch=answer, batch_size=limits.batch_size, max_pending=limits.max_pending)
        routes: list[Any] = [
            ("/healthz", _Health, {"service": self}),
            ("/v1/transcribe", _Transcribe, {"service": self}),
            (r"/v1/models/([^/:]+)(?:/versions/(\d+))?:predict", _Predict, {"service": self}),
            (r"/v1/models/([^/:]+)(?:/versions/(\d+))?", _Status, {"service": self}),
            (r"/v1/models/([^/:]+)(?:/versions/(\d+))?/metadata", _Metadata, {"service": self}),
        ]
        application = tornado.web.Application(
            routes,
            default_handler_class=_Unknown,
            default_handler_args={"service": self},
            log_function=_log_request,
        )
        self._server = _Server(
            application,
            # The handlers count for themselves, to answer in words.
            max_body_size=2**62,
            max_header_size=16 * 1024,
            chunk_size=64 * 1024,
            idle_connection_timeout=limits.idle_timeout_secs,
        )
        self._server.service = self

    def listen(self, *, host: str, port: int) -> int:
        """Opens the port, any free one for 0, and returns it.

        Raises:
            ValueError: It cannot be opened.
        """
        try:
            sockets = tornado.netutil.bind_sockets(port, host, backlog=max(self.limits.max_connections, 128))
        except (OSError, OverflowError) as error:
            raise ValueError(f"cannot listen on {host}:{port} ({error}); see --serve.host and --serve.port") from error
        self._server.add_sockets(sockets)
        return sockets[0].getsockname()[1]

    async def stop(self, *, timeout_secs: float) -> bool:
        """Takes no more requests, answers those it has, and returns whether it could in time."""
        self.is_draining = True
        self._server.stop()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_secs
        while (self.queue.num_pending or self.num_answering) and loop.time() < deadline:
            await asyncio.sleep(_DRAIN_STEP_SECS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._server.close_all_connections(), max(deadline - loop.time(), 0.1))
        is_done = self.queue.close(timeout_secs=max(deadline - loop.time(), 0.1))
        self._folder.cleanup()
        return is_done


class _Server(tornado.httpserver.HTTPServer):
    """Counts its connections, and hangs up where there are too many."""

    service: Service

    def handle_stream(self, stream: tornado.iostream.IOStream, address: tuple) -> None:
        service = self.service
        if service.num_connections >= service.limits.max_connections:
            body = refuse(503, "too many connections; try again later").body
            head = (
                "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
                f"Retry-After: 1\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            with contextlib.suppress(tornado.iostream.StreamClosedError):
                stream.write(head.encode("ascii") + body).add_done_callback(lambda future: future.exception())
            # As long as it takes to read it; whoever sends first may see a reset instead.
            IOLoop.current().call_later(0.1, stream.close)
            return
        service.num_connections += 1
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        self.service.num_connections -= 1
        super().on_close(server_conn)


def _log_request(handler: tornado.web.RequestHandler) -> None:
    """One line for what is a fault of ours; what clients do wrong they are told themselves."""
    if handler.get_status() >= 500 and handler.get_status() != 503:
        logging.error("%s %s: %d", handler.request.method, handler.request.path, handler.get_status())


class _ClientError(tornado.web.HTTPError):
    """A status with a line for who caused it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status)
        self.message = message


@tornado.web.stream_request_body
class _Handler(tornado.web.RequestHandler):
    """Answers in JSON, also where Tornado makes the answer, and drops a body that nobody asked for."""

    def initialize(self, service: Service) -> None:
        self.service = service

    def prepare(self) -> None:
        # Tornado would keep the body in memory, as long as the client likes to send it.
        limits = self.service.limits
        self.request.connection.set_max_body_size(limits.max_body_bytes)  # type: ignore[union-attr]
        self.request.connection.set_body_timeout(limits.body_timeout_secs)  # type: ignore[union-attr]

    def data_received(self, chunk: bytes) -> None:
        """Drops it."""

    def set_default_headers(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.set_header("Server", "earshot")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        self.finish(refuse(status_code, error.message if isinstance(error, _ClientError) else self._reason).body)

    def check_model(self, name: str, version: str | None) -> None:
        wanted = self.service.limits.name
        if name != wanted or version not in (None, "1"):
            version = f" version {version}" if version else ""
            raise _ClientError(404, f"no model {name}{version} is served here, only {wanted} version 1")


class _Unknown(_Handler):
    def get(self) -> NoReturn:
        raise _ClientError(
            404, "nothing is served here; there are POST /v1/transcribe, POST /v1/models/NAME:predict, GET /healthz"
        )

    head = post = delete = patch = put = options = get


class _Health(_Handler):
    def get(self) -> None:
        service = self.service
        self.set_status(503 if service.is_draining else 200)
        state = {
            "status": "stopping" if service.is_draining else "ok",
            "pending": service.queue.num_pending,
            "max_pending": service.limits.max_pending,
            "connections": service.num_connections,
        }
        self.finish(json.dumps(state))


class _Status(_Handler):
    def get(self, name: str, version: str | None) -> None:
        self.check_model(name, version)
        state = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        self.finish(json.dumps({"model_version_status": [state]}))


class _Metadata(_Handler):
    def get(self, name: str, version: str | None) -> None:
        self.check_model(name, version)
        self.finish(json.dumps(self.service.metadata))


class _BodyHandler(_Handler):
    """A request with a body, from its headers to its answer."""

    max_bytes: int
    kind: str

    def initialize(self, service: Service) -> None:
        super().initialize(service)
        self._body: uploads.Body | None = None
        self._refusal: Answer | None = None
        self._num_bytes = 0
        self._name = ""
        self._future: Any = None
        self._is_gone = False
        self._is_counted = False
        self._timer: object = None

    def check_headers(self) -> Answer | None:
        """What is wrong with the request, as far as its headers tell."""
        if self.service.is_draining:
            return refuse(503, "the server is going away; try again later")
        length = self.request.headers.get("Content-Length", "0")
        is_number = length.isascii() and length.isdigit()
        if is_number and (len(length) > _MAX_LENGTH_DIGITS or int(length) > self.max_bytes):
            return self._too_large()
        encoding = self.request.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity":
            return refuse(415, f"Content-Encoding {encoding} is not understood; send the body as it is")
        return None

    def _too_large(self) -> Answer:
        return refuse(413, f"the body is larger than the {self.max_bytes / 1e6:g} MB that are allowed here")

    @staticmethod
    def _no_space(error: OSError) -> Answer:
        logging.error("a body cannot be kept: %s", error)
        return refuse(503, "there is no space for the body; try again later")

    def prepare(self) -> None:
        if self.request.method != "POST":
            self.set_header("Allow", "POST")
            raise _ClientError(405, f"{self.request.method} is not possible here; POST the body")
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
        self._num_bytes += len(chunk)
        if self._refusal is not None:
            return
        assert self._body is not None
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
            return refuse(400, "the body is empty")
        try:
            body.finish()
            self._future = future = self.service.queue.submit(self.request_of(body.path))
        except OSError as error:
            return self._no_space(error)
        except QueueFullError:
            return refuse(503, f"{limits.max_pending} requests are waiting already; try again later")
        # The file must last as long as the work: it may outlive the client.
        self._body = None
        future.add_done_callback(lambda _: body.remove())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), limits.answer_timeout_secs)
        except TimeoutError:
            return refuse(503, f"no answer within {limits.answer_timeout_secs:g} s; try again later")
        except asyncio.CancelledError:
            if not self._is_gone:
                raise
            return refuse(503, "the client has gone")
        except Exception:  # logged by the queue
            return refuse(500, "the request failed here; the server's log says why")

    def request_of(self, path: str) -> Request:
        """The request whose body lies in a file."""
        return Request(self.kind, path, self.request.headers.get("Content-Type", ""), self._name)

    def _send(self, answer: Answer) -> Any:
        self._stop_timer()
        self.set_status(answer.status)
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
            self._send(refuse(408, f"the body did not arrive within {secs:g} s"))

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
        self._is_gone = True
        if self._future is not None:
            self._future.cancel()
        super().on_connection_close()
        self._let_go()

    def on_finish(self) -> None:
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


class _Transcribe(_BodyHandler):
    kind = recognizer.TRANSCRIBE

    @property
    def max_bytes(self) -> int:  # type: ignore[override]
        return self.service.limits.max_body_bytes

    def check_headers(self) -> Answer | None:
        content_type = self.request.headers.get("Content-Type", "")
        if not uploads.is_audio_type(content_type):
            return refuse(415, f"{content_type[:100]!r} is no audio; send a recording, or a form with one")
        try:
            self._name = uploads.name_of(self.request.headers.get("Content-Disposition", ""))
        except ValueError as error:
            return refuse(400, str(error))
        return super().check_headers()


class _Predict(_BodyHandler):
    kind = recognizer.PREDICT

    @property
    def max_bytes(self) -> int:  # type: ignore[override]
        return self.service.limits.max_json_bytes

    def prepare(self) -> None:
        self.check_model(*self.path_args)
        super().prepare()
