"""Runs a `--mode=serve` process with well-behaved and bad clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_START_SECS = 300.0
_TIMEOUT_SECS = 120.0
WHOLE = "--window_secs=30"  # reads short recordings whole, however short the rows of the training were


class Served:
    """A running server.

    Attributes:
        address: Host and port.
        process: Process of the server, whose `exit_status` is set at its end.
    """

    def __init__(self, process: subprocess.Popen, port: int) -> None:
        """Wraps a started process."""
        self.process = process
        self.address = ("127.0.0.1", port)
        self.exit_status: int | None = None
        self._is_told = False

    def terminate(self) -> None:
        """Sends SIGTERM once, because a second one would end the process at once."""
        if not self._is_told:
            self._is_told = True
            self.process.send_signal(signal.SIGTERM)

    def ask(self, body: bytes | None, path: str = "/v1/transcribe") -> tuple[int, dict]:
        """Sends a body, or a GET without one, and returns the status and the object of the answer."""
        with contextlib.closing(http.client.HTTPConnection(*self.address, timeout=_TIMEOUT_SECS)) as connection:
            connection.request("GET" if body is None else "POST", path, body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def stop_sending(self, *, answer: bool) -> int:
        """Stops in the middle of a body and returns the status that it gets, or 0 if it disconnects itself."""
        with socket.create_connection(self.address, timeout=_TIMEOUT_SECS) as connection:
            connection.sendall(b"POST /v1/transcribe HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\nRIFF")
            return int(connection.recv(1000).split()[1]) if answer else 0


@contextlib.contextmanager
def serving(checkpoint: str, **options: object) -> Iterator[Served]:
    """Starts a server on a free port and ends it with SIGTERM.

    Args:
        checkpoint: Value of --checkpoint.
        **options: Fields of --serve.

    Raises:
        RuntimeError: If the server does not start.
    """
    flags = [f"--serve.{name}={value}" for name, value in {"port": 0, **options}.items()]
    command = [sys.executable, str(ROOT / "run.py"), "--mode=serve", f"--checkpoint={checkpoint}", WHOLE, *flags]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)

        def said() -> str:
            log.seek(0)
            return log.read()

        try:
            deadline = time.monotonic() + _START_SECS
            while not (found := re.search(r"^serving \S+ on http://127.0.0.1:(\d+)$", said(), re.MULTILINE)):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not start: {said()[-2000:]}")
                time.sleep(0.1)
            served = Served(process, int(found[1]))
            yield served
            served.terminate()
            served.exit_status = process.wait(timeout=60)
            if "Traceback" in said():
                raise RuntimeError(f"the server says: {said()[-2000:]}")
        finally:
            process.kill()
            process.wait()
