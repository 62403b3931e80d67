"""The HTTP server of `--mode=serve`: its limits, its routes, its connections, and its orderly end.

The routes of each protocol are in a module of their own: `transcribe_api`, `openai_api` and `tf_serving_api`.
`handlers` moves a request through its connection, and `recognizer` finds the answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import tornado.httpserver
import tornado.httputil
import tornado.iostream
import tornado.netutil
import tornado.routing
import tornado.web
from absl import logging
from tornado.ioloop import IOLoop

from engine.inference.serving import openai_api, tf_serving_api, transcribe_api
from engine.inference.serving.answers import Answer, Request, refuse
from engine.inference.serving.batch_queue import WorkQueue
from engine.inference.serving.hosts import OwnHosts

_DRAIN_STEP_SECS = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits and permissions of a client; the fields of `configs.base.get_serve`, which says more.

    Attributes:
        name: Name of the served model, a part of its URL.
        batch_size: Recordings that run together, and most rows of a prediction.
        max_pending: Most requests that wait or run.
        max_connections: Most open connections.
        max_body_bytes: Largest recording.
        max_json_bytes: Largest prediction request.
        body_timeout_secs: Time for a body to arrive, and for an answer to be taken.
        answer_timeout_secs: Time from a body to its answer.
        idle_timeout_secs: Time for headers to arrive, and between two requests of a connection.
        cors_origins: Origins whose pages may read the answers, in lower case; "*" stands for all.
    """

    name: str
    batch_size: int
    max_pending: int
    max_connections: int
    max_body_bytes: int
    max_json_bytes: int
    body_timeout_secs: float
    answer_timeout_secs: float
    idle_timeout_secs: float
    cors_origins: tuple[str, ...] = ()


class Service:
    """A server with its queue; open until `stop`."""

    def __init__(
        self,
        *,
        answer: Callable[[list[Request]], Sequence[Answer]],
        metadata: dict[str, Any],
        limits: Limits,
        page: bytes = b"",
    ) -> None:
        """Starts the queue; nothing listens yet.

        Args:
            answer: Requests -> answers; called from one thread.
            metadata: Answer to GET .../metadata.
            limits: Limits and permissions of each client.
            page: HTML that GET / answers with, in UTF-8; empty = there is no page.
        """
        self.limits = limits
        self.metadata = metadata
        self.page = page
        self.started_secs = int(time.time())
        self.is_draining = False
        self.num_connections = 0
        self.num_answering = 0
        self._folder = tempfile.TemporaryDirectory(prefix="earshot-serve-")
        self.folder = self._folder.name
        self.queue = WorkQueue(do_batch=answer, batch_size=limits.batch_size, max_pending=limits.max_pending)
        model = r"/v1/models/([^/:]+)(?:/versions/(\d+))?"
        routes: list[Any] = [
            ("/healthz", transcribe_api.HealthHandler),
            ("/v1/transcribe", transcribe_api.TranscribeHandler),
            ("/v1/audio/transcriptions", openai_api.TranscriptionsHandler),
            ("/v1/audio/.*", openai_api.UnknownHandler),
            ("/v1/models", openai_api.ModelsHandler),
            (f"{model}:predict", tf_serving_api.PredictHandler),
            (model, tf_serving_api.StatusHandler),
            (f"{model}/metadata", tf_serving_api.MetadataHandler),
        ]
        if page:
            routes.append(("/", transcribe_api.PageHandler))
        self._application = application = tornado.web.Application(
            routes,
            default_handler_class=transcribe_api.UnknownHandler,
            log_function=_log_request,
            service=self,
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
        addresses = [one.getsockname()[0] for one in sockets]
        foreign = _ForeignHost(OwnHosts(addresses=addresses, host=host, origins=self.limits.cors_origins))
        # Before every other route.
        self._application.wildcard_router.rules.insert(0, tornado.routing.Rule(foreign, transcribe_api.ForeignHandler))
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


class _ForeignHost(tornado.routing.Matcher):
    """Matches the requests whose Host header means another server."""

    def __init__(self, own: OwnHosts) -> None:
        self._own = own

    def match(self, request: tornado.httputil.HTTPServerRequest) -> dict[str, Any] | None:
        """Returns {} for a foreign request, else None."""
        return None if request.host_name in self._own else {}


class _Server(tornado.httpserver.HTTPServer):
    """Counts its connections and hangs up on those beyond the limit."""

    service: Service

    def handle_stream(self, stream: tornado.iostream.IOStream, address: tuple) -> None:
        service = self.service
        if service.num_connections >= service.limits.max_connections:
            body = refuse(503, "too many connections; try again later").body
            head = (
                "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
                f"Retry-After: 1\r\nContent-Length: {len(body)}\r\n"
            )
            if "*" in service.limits.cors_origins:  # nothing is read here, not even who asks
                head += "Access-Control-Allow-Origin: *\r\n"
            head += "\r\n"
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
    """Logs one line for a fault of the server; faults of clients are in their answers."""
    if handler.get_status() >= 500 and handler.get_status() != 503:
        logging.error("%s %s: %d", handler.request.method, handler.request.path, handler.get_status())
