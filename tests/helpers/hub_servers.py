"""Local servers that speak the protocols of the Hugging Face Hub, of Kaggle Models and of a plain web server."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import TypeVar
from urllib.parse import unquote, urlsplit

Server = TypeVar("Server", bound=http.server.ThreadingHTTPServer)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer(http.server.ThreadingHTTPServer):
    """One model of the Hugging Face Hub and some plain files; faults are set as attributes.

    Attributes:
        repository: name of the model, OWNER/NAME.
        files: its files by name.
        plain: other files by path.
        answers: (status, headers, body) by path, of what is neither.
        status: answer of the model's listing; 200 = as it should be.
        error_code: what the Hub puts into X-Error-Code beside a status.
        cut: file whose body breaks off in its middle.
        requests: "METHOD path" of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repository = "someone/some-model"
        self.files: dict[str, bytes] = {}
        self.plain: dict[str, bytes] = {}
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.status = 200
        self.error_code = ""
        self.cut = ""
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class KaggleServer(http.server.ThreadingHTTPServer):
    """One SavedModel of Kaggle Models, in the protocol that kagglehub speaks; faults are set as attributes.

    A download is a redirection to a storage that knows ranges and tells the MD5 of each file, as Kaggle's does.

    Attributes:
        model: OWNER/MODEL/FRAMEWORK/VARIATION, the framework as the protocol writes it.
        version: its newest version.
        files: its files by name.
        status: answer of the API; 200 = as it should be.
        cut: file whose body breaks off in its middle.
        requests: "METHOD path" of each request, with the range that it asks for.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _KaggleHandler)
        self.model = "someone/some-model/TensorFlow2/base"
        self.version = 3
        self.files: dict[str, bytes] = {}
        self.status = 200
        self.cut = ""
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def serving(kind: type[Server] = HubServer) -> Iterator[Server]:
    server = kind()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Sender(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _send_json(self, value: object, *, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"}, body=True)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool, *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body and cut:
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif body:
            self.wfile.write(content)


class _Handler(_Sender):
    server: HubServer

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {path}")
        if path in hub.plain:
            tag = f'"{hashlib.md5(hub.plain[path]).hexdigest()}"'
            if self.headers.get("If-None-Match") == tag:
                self._send(304, b"", {"ETag": tag}, body)
            else:
                self._send(200, hub.plain[path], {"ETag": tag}, body, cut=path == hub.cut)
            return
        if path in hub.answers:
            status, headers, content = hub.answers[path]
            self._send(status, content, headers, body)
            return
        if hub.status != 200:
            headers = {"X-Error-Code": hub.error_code} if hub.error_code else {}
            self._send(hub.status, b"{}", headers, body)
            return
        api, resolve = f"/api/models/{hub.repository}", f"/{hub.repository}/resolve/"
        if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            siblings = [{"rfilename": name} for name in hub.files]
            self._send_json({"id": hub.repository, "modelId": hub.repository, "sha": COMMIT, "siblings": siblings})
        elif path.startswith(f"{api}/tree/"):
            if path.split("/tree/")[1].split("/")[0] not in ("main", COMMIT):
                self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
                return
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": _blob(content)}
                for name, content in hub.files.items()
            ]
            self._send_json(entries)
        elif path.startswith(f"{api}/revision/"):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
        elif path.startswith(resolve) and (name := path.removeprefix(resolve).partition("/")[2]) in hub.files:
            content = hub.files[name]
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_blob(content)}"'}
            self._send(200, content, headers, body, cut=name == hub.cut)
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)


def _blob(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class _KaggleHandler(_Sender):
    server: KaggleServer

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client of a refused download hangs up
            super().handle()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        hub, call = self.server, self.path.rpartition("/")[2]
        hub.requests.append(f"POST {call} {asked.get('path', '')}".rstrip())
        if hub.status != 200:
            self._send_json({"code": hub.status, "message": "refused"}, status=hub.status)
            return
        owner, model, _, variation = hub.model.split("/")
        if (asked["ownerSlug"], asked["modelSlug"], asked["instanceSlug"]) != (owner, model, variation):
            self._send_json({"code": 404, "message": "not found"}, status=404)
        elif call == "GetModelInstance":
            self._send_json({"versionNumber": hub.version})
        elif call == "ListModelInstanceVersionFiles":
            self._send_json({"files": [{"name": name} for name in hub.files], "nextPageToken": ""})
        else:
            self._send(302, b"", {"Location": f"{hub.url}/storage/{asked['path']}"}, body=True)

    def do_GET(self) -> None:
        hub, name = self.server, unquote(self.path).removeprefix("/storage/")
        content, asked = hub.files[name], self.headers.get("Range", "")
        hub.requests.append(f"GET {name} {asked}".rstrip())
        digest = base64.b64encode(hashlib.md5(content).digest()).decode()
        headers = {"Accept-Ranges": "bytes", "x-goog-hash": f"crc32c=AAAAAA==,md5={digest}"}
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self._send(206 if asked else 200, content[start:], headers, body=True, cut=name == hub.cut)
