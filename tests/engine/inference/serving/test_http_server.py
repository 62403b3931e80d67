"""The server over real sockets: limits, time-outs, and what is left when all is over. The answers are a stand-in's."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import json
import logging as std_logging
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from engine.common.out_of_memory import OutOfMemoryError
from engine.inference.serving import handlers
from engine.inference.serving.answers import Answer
from engine.inference.serving.hosts import OwnHosts
from engine.inference.serving.http_server import Limits, Service
from engine.inference.serving.recognizer import Recognizer
from tests.engine.inference.serving.test_recognizer import count_samples, transcribe_files
from tests.engine.inference.serving.test_uploads import CONTENT_TYPE, form
from tests.helpers.hostile_requests import BROKEN_NAMES, hostile_heads, json_bombs

LIMITS = {
    "name": "toy", "batch_size": 4, "max_pending": 3, "max_connections": 30, "max_body_bytes": 100_000,
    "max_json_bytes": 1000, "body_timeout_secs": 0.6, "answer_timeout_secs": 5.0, "idle_timeout_secs": 0.6,
}  # fmt: skip


class Running:
    """A service in a thread of its own that says how long each body is; `gate` holds the answers back."""

    def __init__(self, *, page=b"", **limits):
        self._page = page
        self.gate = threading.Event()
        self.gate.set()
        self.asked, self.sizes = [], []
        self._is_over = threading.Event()
        self._limits = Limits(**{**LIMITS, **limits})
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def answer(self, requests):
        self.asked += requests
        assert self.gate.wait(20)
        if any(request.name == "fault" for request in requests):
            raise RuntimeError("planted")
        if any(request.name == "huge" for request in requests):
            raise OutOfMemoryError("out of memory on GPU 0; lower --serve.batch_size")
        sizes = [os.path.getsize(request.path) for request in requests]
        self.sizes += sizes
        return [Answer(200, str(size).encode()) for size in sizes]

    async def _serve(self):
        self.service = Service(
            answer=lambda requests: self.answer(requests), metadata={"some": "thing"}, limits=self._limits,
            page=self._page,
        )  # fmt: skip
        self.port = self.service.listen(host="127.0.0.1", port=0)
        self._ready.set()
        while not self._is_over.is_set():
            await asyncio.sleep(0.01)
        self.is_done = await self.service.stop(timeout_secs=10)

    def begin_to_stop(self):
        self._is_over.set()

    def stop(self):
        self._is_over.set()
        self.gate.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.is_done

    def ask(self, path="/v1/transcribe", body=b"x", method="POST", **headers):
        """Status, object, headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body if method == "POST" else None, names)
            response = connection.getresponse()
            assert response.headers["Content-Type"] == "application/json"
            return response.status, json.loads(response.read()), response.headers

    def send(self, raw: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(raw)
        return connection

    def wait_until(self, is_so):
        deadline = time.monotonic() + 10
        while not is_so():
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture(scope="module")
def server():
    running = Running()
    yield running
    assert running.stop()


@pytest.fixture
def start():
    """As `Running`, stopped whatever the test comes to."""
    with contextlib.ExitStack() as stack:

        def start(**limits):
            running = Running(**limits)
            stack.callback(running.stop)
            return running

        yield start


def read_all(connection: socket.socket) -> bytes:
    with contextlib.closing(connection):
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_bodies_of_every_form_arrive_whole(server):
    assert server.ask(body=b"x" * 99_999, Content_Type="audio/wav")[:2] == (200, 99_999)
    assert server.ask(body=iter([b"ab", b"cde"]))[:2] == (200, 5)
    assert server.ask(body=form("a"), Content_Type=CONTENT_TYPE)[:2] == (200, len(form("a")))
    assert server.ask(Content_Disposition='attachment; filename="a.wav"')[0] == 200
    assert (server.asked[-1].kind, server.asked[-1].name) == ("transcribe", "a.wav")
    for path in ("/v1/models/toy:predict", "/v1/models/toy/versions/1:predict"):
        assert server.ask(path, body=b"{}", Content_Type="text/plain")[:2] == (200, 2)
    assert server.asked[-1].kind == "predict"


def test_health_and_metadata(server):
    status, state, _ = server.ask("/healthz", method="GET")
    assert (status, state["status"], state["pending"], state["max_pending"]) == (200, "ok", 0, 3)
    assert server.ask("/v1/models/toy", method="GET")[1]["model_version_status"][0]["state"] == "AVAILABLE"
    assert server.ask("/v1/models/toy/metadata", method="GET")[:2] == (200, {"some": "thing"})


@pytest.mark.parametrize(
    ("request_fields", "status", "message"),
    [
        ({"path": "/"}, 404, "nothing is served here"),
        ({"path": "/v1/models/other:predict"}, 404, "no model other is served"),
        ({"path": "/v1/models/toy/versions/2:predict"}, 404, "no model toy version 2"),
        ({"method": "GET"}, 405, "POST the body"),
        ({"body": b""}, 400, "the body is empty"),
        ({"Content_Type": "application/json"}, 415, "'application/json' is no audio"),
        ({"Content_Encoding": "gzip"}, 415, "Content-Encoding gzip"),
        ({"body": b"x" * 100_001}, 413, "larger than the 0.1 MB"),
        ({"body": b"x" * 1001, "path": "/v1/models/toy:predict"}, 413, "larger than the 0.001 MB"),
        ({"body": b"x" * 9_000_000}, 413, "larger than the 0.1 MB"),
        ({"body": iter([b"x" * 60_000] * 3)}, 413, "larger than the 0.1 MB"),
        ({"path": "/healthz", "body": b"x" * 1000}, 405, "Method Not Allowed"),
        ({"Content_Length": "9" * 5000}, 413, "larger than the 0.1 MB"),
        ({"Content_Disposition": f"attachment; {BROKEN_NAMES[0]}"}, 400, "filename* cannot be read"),
        ({"Content_Disposition": "attachment; filename=fault"}, 500, "the server's log says why"),
        ({"Content_Disposition": "attachment; filename=huge"}, 503, "not enough memory here for this request"),
    ],
)
def test_what_cannot_be_answered_is_told_in_one_line(server, request_fields, status, message):
    found_status, found, _ = server.ask(**request_fields)
    assert found_status == status
    assert message in found["error"] and "\n" not in found["error"]
    assert server.ask()[:2] == (200, 1)


FOREIGN = (
    "evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example:{port}", "x", "10.0.0.1",
    "[2001:db8::1]:{port}", "0x7f000001",
)  # fmt: skip
OWN = ("localhost", "LocalHost:9", "localhost.", "127.0.0.1", "127.9.9.9:{port}", "[::1]:{port}", "a.localhost")


def with_host(server, host, method="GET", path="/healthz", body=b""):
    host = host.format(port=server.port)
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    answer = read_all(server.send(head.encode() + body))
    return int(answer.split()[1]), answer


@pytest.mark.parametrize("host", FOREIGN)
def test_a_page_that_pointed_its_own_name_at_this_machine_is_refused_everywhere(server, host):
    asked = len(server.asked)
    for method, path in (("GET", "/healthz"), ("POST", "/v1/transcribe"), ("POST", "/v1/models/toy:predict"),
                         ("GET", "/v1/models"), ("GET", "/nothing"), ("OPTIONS", "/v1/transcribe")):  # fmt: skip
        status, answer = with_host(server, host, method, path, b"{}")
        assert status == 403, (method, path)
        assert b"names another host" in answer and len(json.loads(answer.partition(b"\r\n\r\n")[2])["error"]) < 400
    assert len(server.asked) == asked


@pytest.mark.parametrize("host", OWN)
def test_every_name_of_this_machine_is_answered(server, host):
    assert with_host(server, host)[0] == 200
    assert with_host(server, host, "POST", "/v1/transcribe", b"xyz")[1].endswith(b"3")


def test_a_request_of_an_old_client_without_a_host_is_answered(server):
    assert read_all(server.send(b"GET /healthz HTTP/1.0\r\n\r\n")).split()[1] == b"200"


def test_the_page_is_not_given_to_a_foreign_name(start):
    server = start(page=b"<p>page</p>")
    assert with_host(server, "evil.example", path="/")[0] == 403
    assert b"<p>page</p>" in with_host(server, "localhost", path="/")[1]


def test_the_host_of_an_origin_that_may_call_is_answered_and_with_a_star_every_one(start):
    server = start(cors_origins=("https://app.example:8443", "http://localhost:3000"))
    assert [with_host(server, host)[0] for host in ("app.example", "app.example:8443", "b.example")] == [200, 200, 403]
    assert with_host(start(cors_origins=("*",)), "b.example")[0] == 200


@pytest.mark.parametrize(
    ("addresses", "host", "is_foreign"),
    [
        (["127.0.0.1"], "127.0.0.1", True),
        (["127.0.0.1", "::1"], "localhost", True),
        (["127.0.1.1"], "evil.example", False),  # what it was told to be
        (["0.0.0.0", "::"], "", False),
        (["192.168.1.2"], "192.168.1.2", False),
        (["127.0.0.1", "192.168.1.2"], "mine", False),
    ],
)
def test_only_a_server_that_others_cannot_reach_asks_for_its_name(addresses, host, is_foreign):
    assert ("evil.example" not in OwnHosts(addresses=addresses, host=host, origins=())) == is_foreign


def test_an_oversized_body_is_refused_before_it_is_sent(server):
    head = b"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100001\r\nExpect: 100-continue\r\n\r\n"
    assert read_all(server.send(head)).startswith(b"HTTP/1.1 413 ")


TYPE, LENGTH = "Content-Type: %s\r\n", "Content-Length: %s\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"


def head_of(request, fields=LENGTH % 100, host="localhost"):
    return f"{request} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode()


def read_to_end(connection):
    """As `read_all`, and leaves the client's half open."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("head", "status", "message"),
    [
        (head_of("POST /v1/transcribe", host="evil.example"), 403, "names another host"),
        (head_of("GET /healthz", host="evil.example"), 403, "names another host"),
        (head_of("POST /nothing", host="evil.example"), 403, "names another host"),
        (head_of("POST /v1/transcribe", CHUNKED, host="evil.example"), 403, "names another host"),
        (head_of("POST /v1/transcribe", LENGTH % 9 + "Expect: 100-continue\r\n", host="x"), 403, "names another host"),
        (head_of("POST /nothing"), 404, "nothing is served here"),
        (head_of("POST /v1/audio/translations"), 404, "nothing is served here"),
        (head_of("POST /v1/models/other:predict"), 404, "no model other"),
        (head_of("GET /v1/models/other"), 404, "no model other"),
        (head_of("GET /v1/models/toy/versions/2/metadata"), 404, "no model toy version 2"),
        (head_of("POST /healthz"), 405, "Method Not Allowed"),
        (head_of("PUT /v1/transcribe"), 405, "POST the body"),
        (head_of("POST /v1/transcribe", LENGTH % 100_001), 413, "larger than the 0.1 MB"),
        (head_of("POST /v1/models/toy:predict", LENGTH % 1001), 413, "larger than the 0.001 MB"),
        (head_of("POST /v1/transcribe", LENGTH % 9 + TYPE % "text/html"), 415, "is no audio"),
        (head_of("POST /v1/transcribe", CHUNKED + TYPE % "text/html"), 415, "is no audio"),
        (head_of("POST /v1/audio/transcriptions", LENGTH % 9 + TYPE % "audio/wav"), 415, "multipart/form-data"),
        (head_of("POST /v1/transcribe", LENGTH % 9 + "Content-Encoding: gzip\r\n"), 415, "Content-Encoding gzip"),
        (head_of("POST /v1/transcribe?format=x"), 400, "unknown format"),
    ],
)
def test_what_the_headers_alone_decide_does_not_wait_for_the_body(start, head, status, message):
    running = start(body_timeout_secs=20)
    for beginning in (b"", b"1\r\n"):  # of a body that never ends
        begin = time.monotonic()
        with contextlib.closing(running.send(head + beginning)) as connection:
            answer = read_to_end(connection)
            assert time.monotonic() - begin < 3
            assert int(answer.split()[1]) == status and message.encode() in answer
            assert b"\r\nConnection: close\r\n" in answer and answer.count(b"HTTP/1.1 ") == 1
            assert (status == 405) == (b"\r\nAllow: " in answer)
            assert running.service.num_connections == 1
            assert os.listdir(running.service.folder) == []
        running.wait_until(lambda: running.service.num_connections == running.service.num_answering == 0)
    assert running.asked == []


def test_a_server_that_goes_away_says_so_before_the_body(start):
    running = start(body_timeout_secs=20, idle_timeout_secs=20)
    running.gate.clear()
    with contextlib.closing(running.send(head_of("GET /healthz", ""))) as connection:
        assert connection.recv(999).startswith(b"HTTP/1.1 200 ")
        taken = running.send(head_of("POST /v1/transcribe", LENGTH % 1) + b"x")
        running.wait_until(lambda: running.service.queue.num_pending == 1)
        running.begin_to_stop()
        running.wait_until(lambda: running.service.is_draining)
        begin = time.monotonic()
        connection.sendall(head_of("POST /v1/transcribe") + b"x")
        answer = read_to_end(connection)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: " in answer
        assert time.monotonic() - begin < 3
    assert running.stop()
    taken.close()


@pytest.mark.parametrize("host", ["localhost", "evil.example"])
def test_a_refused_client_that_sends_everything_before_it_reads_gets_its_answer(start, host):
    running = start(body_timeout_secs=20)
    for request in ("POST /v1/transcribe", "POST /nothing", "POST /v1/models/other:predict"):
        connection = running.send(head_of(request, LENGTH % 20_000_000, host) + bytes(20_000_000))
        time.sleep(0.1)
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 403 " if host == "evil.example" else b"HTTP/1.1 4")
        assert b"\r\n\r\n{" in answer


@pytest.mark.parametrize("limits", [{"body_timeout_secs": 0.6}, {"body_timeout_secs": 20}])
def test_a_refused_client_sends_on_within_bounds_of_time_and_bytes(start, monkeypatch, limits):
    is_slow = limits["body_timeout_secs"] < 1
    monkeypatch.setattr(handlers, "_MAX_DROPPED_BYTES", 10**9 if is_slow else 10**6)
    running = start(**limits)
    with contextlib.closing(running.send(head_of("POST /v1/transcribe", LENGTH % 10**12, "evil.example"))) as one:
        assert read_to_end(one).startswith(b"HTTP/1.1 403 ")
        assert running.service.num_connections == 1
        begin = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - begin < 10:
                one.sendall(bytes(1000 if is_slow else 100_000))
                time.sleep(0.01)
        running.wait_until(lambda: running.service.num_connections == 0)
    assert running.ask()[:2] == (200, 1)


def test_nothing_of_a_refused_body_is_taken_for_a_request(server):
    asked = len(server.asked)
    hidden = head_of("POST /v1/transcribe", LENGTH % 1) + b"x"
    for fields in (LENGTH % 1, LENGTH % len(hidden), LENGTH % 10**12, CHUNKED):
        for head in (head_of("POST /v1/transcribe", fields, "evil.example"), head_of("POST /healthz", fields)):
            answer = read_all(server.send(head + hidden * 3))
            assert answer.count(b"HTTP/1.1 ") == 1 and answer.split()[1] in (b"403", b"405")
    assert len(server.asked) == asked


def test_a_refusal_of_a_request_without_a_body_leaves_the_connection_open(server):
    requests = [
        head_of("GET /nothing", ""),
        head_of("GET /healthz", "", "evil.example"),
        head_of("POST /healthz", LENGTH % 0),
        head_of("GET /v1/transcribe", ""),
        head_of("POST /v1/models/other:predict", LENGTH % 0),
        head_of("POST /v1/transcribe", LENGTH % 0 + TYPE % "text/html"),
        head_of("GET /healthz", "Connection: close\r\n"),
    ]
    answer = read_all(server.send(b"".join(requests)))
    statuses = [int(part.split()[0]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [404, 403, 405, 405, 404, 415, 200]


def test_a_slow_body_is_told_and_slow_headers_are_hung_up_on(server):
    begin = time.monotonic()
    body = server.send(b"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nxx")
    headers = server.send(b"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-")
    assert server.ask()[:2] == (200, 1)  # meanwhile
    answer = read_all(body)
    assert answer.startswith(b"HTTP/1.1 408 ") and b"did not arrive within 0.6 s" in answer
    assert read_all(headers) == b""
    assert 0.5 < time.monotonic() - begin < 5


def test_a_full_queue_says_when_to_come_back_and_loses_nothing(server):
    server.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        taken = [pool.submit(server.ask, body=b"x" * (n + 1)) for n in range(3)]
        server.wait_until(lambda: server.service.queue.num_pending == 3)
        status, found, headers = server.ask()
        assert (status, found["error"]) == (503, "3 requests are waiting already; try again later")
        assert 1 <= int(headers["Retry-After"]) <= 60
        server.gate.set()
        assert [future.result()[:2] for future in taken] == [(200, 1), (200, 2), (200, 3)]


def test_a_client_that_leaves_is_not_worked_for(server):
    server.gate.clear()
    first = server.send(b"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx")
    server.wait_until(lambda: server.service.queue.num_pending == 1)
    server.sizes.clear()
    second = server.send(b"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nxx")
    server.wait_until(lambda: server.service.queue.num_pending == 2)
    second.close()
    server.wait_until(lambda: server.service.queue.num_pending == 1)
    third = server.send(
        b"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nConnection: close\r\n\r\nxxx"
    )
    server.wait_until(lambda: server.service.queue.num_pending == 2)
    server.gate.set()
    assert read_all(third).endswith(b"3")
    assert server.sizes == [1, 3]
    first.close()


def test_an_answer_that_takes_too_long_and_too_many_connections(start):
    running = start(answer_timeout_secs=0.2, max_connections=2, idle_timeout_secs=10)
    running.gate.clear()
    with contextlib.closing(running.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")):
        status, found, _ = running.ask()
        assert (status, found["error"]) == (503, "no answer within 0.2 s; try again later")
        running.wait_until(lambda: running.service.num_connections == 1)
        with contextlib.closing(running.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")) as second:
            assert second.recv(99).startswith(b"HTTP/1.1 200 ")
            answer = read_all(running.send(b""))
            assert answer.startswith(b"HTTP/1.1 503 ") and b"too many connections" in answer
    assert running.stop()


def test_the_end_answers_what_was_taken_and_nothing_new(start):
    running = start(idle_timeout_secs=10)
    running.gate.clear()
    kept = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    kept.request("GET", "/healthz")
    kept.getresponse().read()
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(running.ask, body=b"xx")
        running.wait_until(lambda: running.service.queue.num_pending == 1)
        running.begin_to_stop()
        running.wait_until(lambda: running.service.is_draining)
        kept.request("POST", "/v1/transcribe", b"x")
        response = kept.getresponse()
        assert (response.status, response.headers["Connection"]) == (503, "close")
        assert "going away" in json.loads(response.read())["error"]
        with pytest.raises(ConnectionRefusedError):
            running.send(b"")
        running.gate.set()
        assert taken.result()[:2] == (200, 2)
    assert running.stop()
    assert not os.path.exists(running.service.folder)


def test_nothing_is_left_of_good_bad_large_slow_and_vanished_clients(server):
    def client(number):
        kind = number % 5
        if kind == 0:
            return server.ask(body=b"x" * number)[0]
        if kind == 1:
            return server.ask(Content_Type="text/html")[0]
        if kind == 2:
            return server.ask(body=b"x" * 100_001)[0]
        raw = b"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nxx"
        if kind == 3:
            return int(read_all(server.send(raw)).split()[1])
        server.send(raw).close()
        return 0

    process = psutil.Process()
    before = None
    for _ in range(2):  # the first round opens what stays open
        with ThreadPoolExecutor(10) as pool:
            statuses = list(pool.map(client, range(1, 61)))
        assert statuses[0::5] == [415] * 12 and statuses[1::5] == [413] * 12
        assert statuses[2::5] == [408] * 12 and set(statuses[4::5]) <= {200, 503}
        server.wait_until(lambda: server.service.num_connections == 0)
        server.wait_until(lambda: os.listdir(server.service.folder) == [])
        assert server.service.num_answering == 0
        found = process.num_fds() + threading.active_count()
        assert before is None or found < before + 5  # of 60 clients each
        before = found


def test_hostile_heads_are_refused_or_hung_up_on_and_leave_no_trace(server, caplog):
    for name, raw in hostile_heads().items():
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connection = server.send(raw)
            answer = read_all(connection)
            assert not answer or 400 <= int(answer.split()[1]) < 500, name
            assert len(answer) < 2000, name
        assert server.ask()[:2] == (200, 1), name
    server.wait_until(lambda: os.listdir(server.service.folder) == [])
    gc.collect()  # a task that failed unseen is logged when it is collected
    assert [record for record in caplog.records if record.exc_info or record.levelno >= std_logging.ERROR] == []


def test_what_nobody_asked_for_is_not_kept_in_memory(start):
    """Tornado gathers the body of a handler that does not stream it, up to the limit of the largest recording."""
    running = start(max_body_bytes=2**40, body_timeout_secs=20)
    process = psutil.Process()
    head = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n"
    with contextlib.closing(running.send(head)) as one:
        chunk = bytes(2**20)
        for _ in range(8):
            one.sendall(chunk)
        before = process.memory_info().rss
        for _ in range(192):
            one.sendall(chunk)
        assert process.memory_info().rss - before < 100e6
    assert running.ask()[:2] == (200, 1)


def test_health_answers_while_bombs_are_looked_at(start):
    recognizer = Recognizer(
        transcribe_files=transcribe_files,
        predict=lambda waveform, lengths: {"num_frames": lengths},
        count_samples=count_samples,
        max_audio_secs=600,
        max_row_secs=30,
        max_rows=4,
    )
    running = start(max_json_bytes=16_000_000, max_pending=64, body_timeout_secs=20)
    running.answer = recognizer.answer
    bombs = list(json_bombs(7_000_000).values())
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(running.ask, "/v1/models/toy:predict", body) for body in bombs]
        waits = []
        while not all(future.done() for future in asked):
            begin = time.monotonic()
            assert running.ask("/v1/models/toy", method="GET")[0] == 200
            waits.append(time.monotonic() - begin)
            time.sleep(0.02)
    for future in asked:
        status, found, _ = future.result()
        assert status in (400, 413) and len(found["error"]) < 600
    assert max(waits) < 3, waits
    good = running.ask("/v1/models/toy:predict", b'{"instances": [[0.5]]}')
    assert good[:2] == (200, {"predictions": [{"num_frames": 1}]})
