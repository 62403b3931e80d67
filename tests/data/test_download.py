"""Downloads from a server on 127.0.0.1 that cuts, refuses, forgets and lies."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import os
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from data import download
from data.common.errors import InputError
from data.common.files import only_writer
from data.corpus.manifest import read_librispeech, read_utterances
from data.download import SPLITS, Archive, fetch_split

ROOT = Path(__file__).parents[2]
MAX_REQUESTS = 60
MAX_SERVER_SECS = 60.0
STALL_SECS = 10.0


@dataclasses.dataclass(frozen=True)
class Answer:
    """How to answer one request: whole and right unless told otherwise."""

    status: int = 200
    cut_after: int | None = None  # bytes of the body, then the connection is closed
    reset: bool = False  # ... with a TCP reset
    stall: bool = False  # ... not at all
    hang_up: bool = False  # not even a status
    ranges: bool = True  # honour Range
    with_length: bool = True
    location: str = ""
    content_range: str = ""  # a lie


class Server(ThreadingHTTPServer):
    """Serves `body` under every path; answers in turn by `script`, after that by `rest`."""

    daemon_threads = True

    def __init__(self, body: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.rest = body, Answer()
        self.script: list[Answer] = []
        self.requests: list[tuple[str, str | None]] = []  # path, Range
        self.release = threading.Event()  # lets stalled answers end
        self.url = f"http://127.0.0.1:{self.server_port}"

    @property
    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.requests]

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # a shutdown before it would make a reset an orderly end


class Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = STALL_SECS

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        answer = self.server.script.pop(0) if self.server.script else self.server.rest
        if len(self.server.requests) > MAX_REQUESTS:
            answer = Answer(status=410)
        if answer.hang_up:
            return
        body, status, headers = self.server.body, answer.status, {}
        if status != 200:
            body, headers["Location"] = b"refused", answer.location
        elif asked and answer.ranges:
            start, total = int(asked.removeprefix("bytes=").removesuffix("-")), len(body)
            body = body[start:]
            status, said = (206, f"{start}-{total - 1}") if body else (416, "*")
            headers["Content-Range"] = answer.content_range or f"bytes {said}/{total}"
        if answer.with_length:
            headers["Content-Length"] = str(len(body))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: answer.cut_after])
        if answer.stall:
            self.server.release.wait(STALL_SECS)
        if answer.reset:
            time.sleep(0.1)  # what was sent gets there first
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def flac_bytes(seed: int) -> bytes:
    """Noise, which FLAC cannot make small."""
    file = io.BytesIO()
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, 1200)
    soundfile.write(file, samples, 16000, format="FLAC", subtype="PCM_16")
    return file.getvalue()


FILES = {
    "LibriSpeech/README.TXT": b"about the corpus",
    "LibriSpeech/tiny/19/198/19-198-0000.flac": flac_bytes(0),
    "LibriSpeech/tiny/19/198/19-198-0001.flac": flac_bytes(1),
    "LibriSpeech/tiny/19/198/19-198.trans.txt": b"19-198-0000 HELLO WORLD\n19-198-0001 YES\n",
    "LibriSpeech/tiny/26/495/26-495-0000.flac": flac_bytes(2),
    "LibriSpeech/tiny/26/495/26-495.trans.txt": b"26-495-0000 IT'S ME\n",
}


def member_of(name: str, kind: bytes = tarfile.REGTYPE, linkname: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, linkname, 0o755
    return member


def make_archive(*extra: tarfile.TarInfo, files: dict[str, bytes] = FILES) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        tar.addfile(member_of("LibriSpeech", tarfile.DIRTYPE))
        for name, content in files.items():
            member = member_of(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            tar.addfile(member)
    return file.getvalue()


BODY = make_archive()
TOTAL = len(BODY)
URL_PATH = "/31/tiny.tar.gz"
WORK = "LibriSpeech/.tiny.download"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(BODY) as running:
        watchdog = threading.Timer(MAX_SERVER_SECS, running.shutdown)
        watchdog.daemon = True
        watchdog.start()
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.release.set()
        watchdog.cancel()
        running.shutdown()
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def table_of(body: bytes, num_utterances: int = 3) -> dict[str, Archive]:
    return {"tiny": Archive(31, hashlib.md5(body).hexdigest(), num_utterances)}


def fetch(server: Server, out: Path, **changes: Any) -> bool:
    table = table_of(server.body)
    usual: dict[str, Any] = {"split": "tiny", "base_url": server.url, "splits": table}
    arguments: dict[str, Any] = {"output": out, "backoff_secs": 0.001, **usual, **changes}
    return fetch_split(**arguments)


def run(server: Server, out: Path, *flags: str, body: bytes = BODY) -> int:
    argv = ["--split=tiny", f"--output={out}", f"--base_url={server.url}", *flags]
    return download.main(argv, splits=table_of(body), backoff_secs=0.001)


def tree_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def left_behind(out: Path, content: bytes, name: str = "tiny.tar.gz.part") -> Path:
    """What an earlier call that was killed left of the archive."""
    path = out / WORK / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_command_fetches_extracts_and_is_read(server: Server, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(server, out, f"--base_url={server.url}/mirror/") == 0
    usage = f"read it with --format=librispeech --input={out}/LibriSpeech --split=tiny\n"
    line = f"{out}/LibriSpeech/tiny: 3 utterances; {usage}"
    assert capsys.readouterr() == (line, "")  # no bar where stderr is no terminal
    assert server.requests == [(f"/mirror{URL_PATH}", None)]
    assert tree_of(out) == FILES  # and no archive
    assert sorted(os.listdir(out / "LibriSpeech")) == ["README.TXT", "tiny"]
    utterances = read_utterances(format="librispeech", input=out / "LibriSpeech", split="tiny")
    assert utterances == read_librispeech(out / "LibriSpeech", "tiny")
    assert [(u.utterance_id, u.text, u.num_samples, u.speaker_id) for u in utterances] == [
        ("19-198-0000", "HELLO WORLD", 1200, "19"),
        ("19-198-0001", "YES", 1200, "19"),
        ("26-495-0000", "IT'S ME", 1200, "26"),
    ]
    # Once more: finished, so nothing is fetched and nothing is touched.
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert run(server, out) == 0
    assert capsys.readouterr() == (line.replace(";", " (finished before);", 1), "")
    assert len(server.requests) == 1
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times


def test_second_split_keeps_what_the_first_left(server: Server, out: Path) -> None:
    fetch(server, out)
    (out / "LibriSpeech/README.TXT").write_text("mine")
    files = {name.replace("tiny", "other"): content for name, content in FILES.items()}
    server.body = make_archive(files=files)
    assert fetch(server, out, split="other", splits={"other": table_of(server.body)["tiny"]})
    assert server.requests[1] == ("/31/other.tar.gz", None)
    assert tree_of(out) == {**FILES, **files, "LibriSpeech/README.TXT": b"mine"}


@pytest.mark.parametrize(
    ("part", "script", "asked"),
    [
        (b"", [Answer(cut_after=n) for n in (999, 9, 0)], [None, 999, 1008, 1008]),
        (b"", [Answer(cut_after=999, ranges=False), Answer(ranges=False)], [None, 999]),
        (b"", [Answer(with_length=False)], [None]),
        (b"", [Answer(status=status) for status in (500, 408, 429, 503)], [None] * 5),
        (BODY[:999], [], [999]),
        (BODY, [], [TOTAL]),
        (BODY + b"more", [], [TOTAL + 4, None]),
    ],
    ids=["cut", "no ranges", "no length", "busy", "killed", "complete", "too long"],
)
def test_archive_comes_whole(
    server: Server, out: Path, part: bytes, script: list[Answer], asked: list[int | None]
) -> None:
    if part:
        left_behind(out, part)
    server.script = list(script)
    assert fetch(server, out, keep_archive=True)
    assert server.ranges == [None if start is None else f"bytes={start}-" for start in asked]
    assert tree_of(out) == FILES | {"tiny.tar.gz": BODY}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(cut_after=1024, reset=True), r"the connection to .* broke \(\[Errno \d+\] Connect"),
        (Answer(cut_after=1024, stall=True), r"the connection to .* broke \(timed out\)"),
        (Answer(hang_up=True), r"does not answer \(Remote end closed connection"),
    ],
    ids=["reset", "stall", "silence"],
)
def test_broken_connection_is_resumed(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, reason: str
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_SECS", 0.4)
    monkeypatch.setattr(download, "_CHUNK_BYTES", 256)
    monkeypatch.setattr(download, "MAX_RETRIES", 0)
    server.script, started = [answer], time.monotonic()
    with pytest.raises(InputError, match=reason):
        fetch(server, out)
    assert time.monotonic() - started < STALL_SECS / 2
    monkeypatch.setattr(download, "MAX_RETRIES", 1)
    server.script = [answer]
    assert fetch(server, out)
    asked = [None, None] if answer.hang_up else ["bytes=1024-", "bytes=2048-"]
    assert server.ranges == [None, *asked]
    assert tree_of(out) == FILES


def test_redirection_keeps_the_range_and_may_fail_for_a_while(server: Server, out: Path) -> None:
    with socket.socket() as closed:  # bound and not listening: refuses
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        server.script = [
            Answer(cut_after=999),
            Answer(status=302, location=dead),
            Answer(status=302, location=f"{server.url}/there"),
        ]
        assert fetch(server, out)
    again = (URL_PATH, "bytes=999-")
    assert server.requests == [(URL_PATH, None), again, again, ("/there", "bytes=999-")]
    assert tree_of(out) == FILES


def test_new_bytes_give_new_tries(server: Server, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_RETRIES", 1)
    server.rest = Answer(cut_after=500)
    assert fetch(server, out)
    assert len(server.requests) == -(-TOTAL // 500) > 10
    assert tree_of(out) == FILES


def test_waits_double_up_to_a_minute(server: Server, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    monkeypatch.setattr(download, "MAX_RETRIES", 8)
    server.rest = Answer(status=500)
    with pytest.raises(InputError, match=r"answers 500 Internal Server Error \(9 tries\)"):
        fetch(server, out, backoff_secs=1.0)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


NETWORK = "check the network, then run the same command again to continue after 999 bytes"


@pytest.mark.parametrize(
    ("body", "rest", "num_requests", "reason"),
    [
        (BODY, Answer(status=503), 7, f"answers 503 Service Unavailable (7 tries): {NETWORK}"),
        (BODY, Answer(cut_after=999, ranges=False), 7,
         f"was cut off after 999 of {TOTAL:,} bytes (7 tries): {NETWORK}"),
        (b"<html>", Answer(ranges=False), 1,
         "has 6 bytes, fewer than the 999 that are here: check the network, or delete PART"),
        (BODY, Answer(content_range="bytes 0-9/10"), 1,
         "answers 206 bytes 0-9/10 to a request from byte 999: name a mirror with --base_url"),
        (BODY, Answer(status=404), 1,
         "answers 404 Not Found: check --base_url, or name a mirror with it"),
    ],
    ids=["busy", "no ranges", "log-in page", "wrong range", "gone"],
)  # fmt: skip
def test_given_up_download_is_one_line_and_can_go_on(
    server: Server,
    out: Path,
    capsys: pytest.CaptureFixture[str],
    body: bytes,
    rest: Answer,
    num_requests: int,
    reason: str,
) -> None:
    part = left_behind(out, BODY[:999])
    server.body, server.rest = body, rest
    assert run(server, out) == 2
    reason = reason.replace("PART", str(part))
    assert capsys.readouterr() == ("", f"data.download: {server.url}{URL_PATH} {reason}\n")
    assert len(server.requests) == num_requests
    assert tree_of(out) == {f"{WORK}/{part.name}": BODY[:999]}
    server.body, server.rest, server.requests = BODY, Answer(), []
    assert run(server, out) == 0
    assert server.ranges == ["bytes=999-"]
    assert tree_of(out) == FILES


def test_file_that_is_not_there_leaves_nothing(server: Server, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.rest = Answer(status=404)
    assert run(server, out) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert len(server.requests) == 1
    assert list(out.rglob("*")) == [out / "LibriSpeech"]


def test_interrupted_call_keeps_its_bytes(
    server: Server,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(download.time, "sleep", interrupt)
    server.script = [Answer(cut_after=999)]
    assert run(server, out) == 130
    assert capsys.readouterr() == ("", "data.download: interrupted\n")
    assert tree_of(out) == {f"{WORK}/tiny.tar.gz.part": BODY[:999]}


def test_no_network_is_one_line_and_status_2(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        argv = ["--split=dev-clean", f"--output={tmp_path}/out", f"--base_url={url}"]
        done = subprocess.run(
            [sys.executable, "-m", "data.download", *argv],
            cwd=ROOT,
            env=os.environ | {"no_proxy": "127.0.0.1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    assert (done.returncode, done.stdout) == (2, "")
    refused = f"[Errno {errno.ECONNREFUSED}] Connection refused"
    assert done.stderr == (
        f"data.download: cannot reach {url}/12/dev-clean.tar.gz ({refused}): check the network, "
        "then run the same command again\n"
    )


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--split=dev", "argument --split: invalid choice: 'dev' (choose from 'tiny')"),
        ("--output=gs://bucket/x", "--output is gs://bucket/x: give a local folder, then let data.prepare"),
        ("--base_url=file:///etc", "'file:///etc': it must begin with https:// or http://"),
        ("--base_url=http://[x", "http://[x/31/tiny.tar.gz is not a valid address ("),
        ("--base_url=http://a:b", "http://a:b/31/tiny.tar.gz is not a valid address ("),
        ("--base_url=http://127.0.0.1/a b", "http://127.0.0.1/a b/31/tiny.tar.gz is not a valid address ("),
    ],
)
def test_bad_flags_are_named(
    server: Server, out: Path, capsys: pytest.CaptureFixture[str], flag: str, reason: str
) -> None:
    assert run(server, out, flag) == 2
    stdout, stderr = capsys.readouterr()
    assert (stdout, stderr.count("\n")) == ("", 1)
    assert reason in stderr
    assert tree_of(out) == {}


def test_wrong_checksum_deletes_the_download(server: Server, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.body = BODY[:-1] + b"\x00\x01"
    assert run(server, out, "--keep_archive") == 2
    found, wanted = (hashlib.md5(body).hexdigest() for body in (server.body, BODY))
    assert capsys.readouterr() == (
        "",
        f"data.download: {out}/{WORK}/tiny.tar.gz has MD5 {found} instead of the published {wanted}: "
        "deleted it; run the same command again\n",
    )
    assert tree_of(out) == {}
    server.body = BODY
    assert run(server, out, "--keep_archive") == 0
    assert server.ranges == [None, None]
    assert tree_of(out) == FILES | {"tiny.tar.gz": BODY}


def test_archive_put_there_by_hand_is_used_but_never_deleted(server: Server, out: Path) -> None:
    out.mkdir()
    archive = out / "tiny.tar.gz"
    archive.write_bytes(BODY[:999])
    with pytest.raises(InputError, match=r"out/tiny\.tar\.gz has MD5 .*: delete it, or move it aw"):
        fetch(server, out)
    assert tree_of(out) == {"tiny.tar.gz": BODY[:999]}
    archive.write_bytes(BODY)
    assert fetch(server, out)
    assert tree_of(out) == FILES | {"tiny.tar.gz": BODY}
    assert server.requests == []


def test_calls_killed_after_the_download(server: Server, out: Path) -> None:
    half = left_behind(out, BODY, "tiny.tar.gz").with_name("tree") / "LibriSpeech/tiny/1/1/x.flac"
    half.parent.mkdir(parents=True)
    half.touch()
    assert fetch(server, out)
    assert tree_of(out) == FILES
    left_behind(out, BODY, "tiny.tar.gz")  # killed when the split was in its place already
    assert not fetch(server, out)
    assert tree_of(out) == FILES
    assert server.requests == []


def test_too_little_disk_space_is_told_before_the_first_byte(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(out, BODY[:999])
    usage = dataclasses.make_dataclass("usage", ["free"])
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage(2 * TOTAL - 1000))
    with pytest.raises(InputError, match=r"out/LibriSpeech has 0\.0 GB free, 0\.0 GB needed to fe"):
        fetch(server, out)
    assert list(tree_of(out).values()) == [BODY[:999]]
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage(2 * TOTAL - 999))
    assert fetch(server, out)


def test_two_calls_at_once_do_not_mix(server: Server, out: Path) -> None:
    part = left_behind(out, BODY[:999])
    with (
        only_writer(part.parent),
        pytest.raises(InputError, match="another process is writing to .*tiny.download: wait"),
    ):
        fetch(server, out)
    assert server.requests == []
    assert part.read_bytes() == BODY[:999]


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (member_of("../evil"), r"refused to extract '\.\./evil': it is not in LibriSpeech/"),
        (member_of("/tmp/evil"), r"refused to extract '/tmp/evil': it is not in LibriSpeech/"),
        (member_of("LibriSpeech/../../evil"), r"^refused to extract .* would be extra"),
        (member_of("LibriSpeech/evil", tarfile.SYMTYPE, "README.TXT"), r"/evil': it is a link or"),
        (member_of("LibriSpeech/evil", tarfile.LNKTYPE, "LibriSpeech/README.TXT"), "it is a link"),
        (member_of("LibriSpeech/evil", tarfile.FIFOTYPE), "it is a link or a device"),
        (member_of("LibriSpeech/evil", tarfile.CHRTYPE), "it is a link or a device"),
    ],
    ids=["parent", "absolute", "through", "symlink", "hardlink", "fifo", "device"],
)
def test_evil_members_leave_nothing_behind(server: Server, out: Path, member: tarfile.TarInfo, reason: str) -> None:
    server.body = make_archive(member)
    with pytest.raises(InputError, match=reason) as caught:
        fetch(server, out)
    assert "\n" not in str(caught.value)
    # Only the archive, which agrees with its sum, for whoever wants to look into it.
    assert tree_of(out.parent) == {f"out/{WORK}/tiny.tar.gz": server.body}
    assert not list(out.parent.rglob("*evil*"))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"no archive", r"tiny\.tar\.gz is not a tar\.gz archive "),
        (BODY[:4000], r"tiny\.tar\.gz is not a tar\.gz archive "),
        (make_archive(files={}), r"/tiny has 0 utterances instead of the published 3: is .* the right arch"),
    ],
    ids=["text", "half", "empty"],
)
def test_archive_that_holds_no_split(server: Server, out: Path, body: bytes, reason: str) -> None:
    server.body = body
    with pytest.raises(InputError, match=reason):
        fetch(server, out)
    assert tree_of(out) == {f"{WORK}/tiny.tar.gz": body}


def test_utterances_are_counted(server: Server, out: Path) -> None:
    with pytest.raises(InputError, match=r"/tiny has 3 utterances instead of the published 4: "):
        fetch(server, out, splits=table_of(BODY, num_utterances=4))
    assert not (out / "LibriSpeech/tiny").exists()
    fetch(server, out)
    (out / "LibriSpeech/tiny/19/198/19-198-0001.flac").unlink()
    before = tree_of(out)
    with pytest.raises(InputError, match=r"LibriSpeech/tiny has 2 utterances .* 3: move it away"):
        fetch(server, out)
    assert tree_of(out) == before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_sees_bytes_rate_and_retries(server: Server, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    server.script = [Answer(cut_after=1000)]
    fetch(server, out)
    lines = terminal.getvalue().replace("\r", "\n").split("\n")
    kilobytes = f"{TOTAL / 1000:.2f}k"
    assert any(f" 1.00k/{kilobytes} [" in line for line in lines)
    cut = f"{server.url}{URL_PATH} was cut off after 1,000 of {TOTAL:,} bytes"
    assert f"{cut}: trying again in 0 s" in lines
    for start in ("tiny.tar.gz: 100%", "checksum: 100%", "extracting: 100%"):
        last = [line for line in lines if line.startswith(start)][-1]
        assert f"{kilobytes}/{kilobytes} [00:0" in last and "B/s]" in last


def test_published_table_is_all_of_librispeech() -> None:
    full = {name: archive for name, archive in SPLITS.items() if archive.resource == 12}
    # The corpus's own statistics: 281,241 utterances to train on, 11,126 to test with.
    assert sum(a.num_utterances for name, a in full.items() if name.startswith("train")) == 281241
    assert sum(a.num_utterances for a in full.values()) == 281241 + 11126
    mini = {name for name, archive in SPLITS.items() if archive.resource == 31}
    assert (mini, len(full), len(SPLITS)) == ({"train-clean-5", "dev-clean-2"}, 7, 9)
    assert len({bytes.fromhex(archive.md5) for archive in SPLITS.values()}) == 9
    assert all(len(archive.md5) == 32 for archive in SPLITS.values())


def test_python_without_the_safe_filter_is_refused(server: Server, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(InputError, match=r"use 3\.11\.4 or later"):
        fetch(server, out)
    assert server.requests == []
