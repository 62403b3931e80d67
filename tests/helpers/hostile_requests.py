"""Requests that a server must refuse or hang up on: with a 4xx, in time, and without a traceback in its log."""

from __future__ import annotations

_POST = b"POST /v1/transcribe HTTP/1.1\r\nHost: localhost\r\n"
_CLOSE = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_END = b"Content-Length: 1\r\nConnection: close\r\n\r\na"


def hostile_heads() -> dict[str, bytes]:
    """Returns requests whose start line, headers or framing are wrong, by the name of what is."""
    found = {
        "5,000-digit length": _POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nabc",
        "5,000 zeros as length": _POST + b"Content-Length: " + b"0" * 5000 + b"\r\n\r\nabc",
        "two lengths of 5,000 digits": _POST + (b"Content-Length: " + b"9" * 5000 + b"\r\n") * 2 + b"\r\nabc",
        "length beyond 64 bits": _POST + b"Content-Length: 18446744073709551617\r\n\r\nabc",
        "negative length": _POST + b"Content-Length: -1\r\n\r\nabc",
        "length with a sign": _POST + b"Content-Length: +1\r\n\r\na",
        "length in words": _POST + b"Content-Length: abc\r\n\r\na",
        "length in another script": _POST + b"Content-Length: \xb2\r\n\r\na",
        "no length": _POST + b"Content-Length: \r\n\r\na",
        "two lengths": _POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "length and chunks": _POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "unknown transfer": _POST + b"Transfer-Encoding: gzip\r\n\r\nabc",
        "transfer twice": _POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "chunk of letters": _POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        "negative chunk": _POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
        "endless chunk": _POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"F" * 60 + b"\r\nabc\r\n",
        "long chunk head": _POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 6000 + b"\r\nabc\r\n",
        "chunk without end": _POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n",
        "no host": b"POST /v1/transcribe HTTP/1.1\r\nContent-Length: 1\r\n\r\na",
        "two hosts": b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "no version": b"GET /healthz\r\n\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "bytes": bytes(range(256)) * 4 + b"\r\n\r\n",
        "100,000 headers": _POST + b"".join(b"X%d: y\r\n" % number for number in range(100_000)) + b"\r\n",
        "long header": _POST + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        "header without colon": _POST + b"foo\r\n\r\n",
        "folded header": _POST + b"X: a\r\n b\r\n\r\n",
        "zero byte in a header": _POST + b"X: a\x00b\r\n\r\n",
        "path that is no text": b"GET /v1/models/%ff%fe" + _CLOSE,
        "broken escape in the path": b"GET /v1/models/%zz%00" + _CLOSE,
        "line end in the path": b"GET /v1/models/a%0d%0aX:%20y" + _CLOSE,
        "long model": b"GET /v1/models/" + b"a" * 15_000 + _CLOSE,
        "long version": b"GET /v1/models/toy/versions/" + b"9" * 6000 + _CLOSE,
        "many queries": b"GET /healthz?" + b"a=b&" * 3000 + _CLOSE,
        "unknown method": b"FOO /healthz" + _CLOSE,
        "endless body for nothing": _POST.replace(b"v1/transcribe", b"healthz")
        + b"Content-Length: 999999999999\r\n\r\nabc",
        "long type": _POST + b"Content-Type: " + b"a" * 9000 + b"\r\n" + _END,
        "long encoding": _POST + b"Content-Encoding: " + b"a" * 9000 + b"\r\n" + _END,
        "form without boundary": _POST + b"Content-Encoding: br\r\nContent-Type: multipart/form-data\r\n" + _END,
    }
    for name in BROKEN_NAMES:
        found[f"name {name[:30]}"] = (
            _POST + b"Content-Disposition: attachment; " + name.encode("latin-1") + b"\r\n" + _END
        )
    return found


BROKEN_NAMES = (
    "filename*=idna''x.wav", "filename*=undefined''x", "filename*=utf-8''%zz", "filename*=utf-8''%",
    "filename*=utf-8''%ff%fe",
    "filename*=utf-16''%00", "filename*=rot13''x", "filename*=zip''x", "filename*=unicode_escape''%5cud800",
    "filename*=utf-7''+2AA-", "filename*=utf-8''%ed%a0%80", "filename*0*=idna''x; filename*1*=y",
    "filename*" + "9" * 5000 + "*=x", "filename*=no-such-set''x", "filename*=us-ascii''%e4",
)  # fmt: skip
"""Parameters of a Content-Disposition whose `filename*` cannot be read."""


def json_bombs(num_bytes: int) -> dict[str, bytes]:
    """Returns predict requests of about `num_bytes` that cost far more than they weigh, by name."""

    def many(item: bytes, *, head: bytes = b'{"instances":[', tail: bytes = b"]}") -> bytes:
        return head + b",".join([item] * (num_bytes // (len(item) + 1))) + tail

    half = num_bytes // 4
    return {
        "empty rows": many(b"[]"),
        "empty objects": many(b"{}"),
        "rows in columns": many(b"[]", head=b'{"inputs":{"waveform":[', tail=b"]}}"),
        "a long row and many empty ones": b'{"instances":[[' + b",".join([b"0"] * half) + b"]," + many(b"[]", head=b""),
        "a row of zeros": many(b"0", head=b'{"instances":[[', tail=b"]]}"),
        "a row of texts": many(b'"a"', head=b'{"instances":[[', tail=b"]]}"),
        "many names": b"{" + b",".join(b'"%d":0' % number for number in range(num_bytes // 12)) + b"}",
        "many lengths": many(b"0", head=b'{"inputs":{"waveform":[[0]],"lengths":[', tail=b"]}}"),
        "deep arrays": b'{"instances":' + b"[" * num_bytes,
        "deep objects": b'{"a":' * (num_bytes // 5),
        "long name": b'{"instances":[{"' + b"k" * num_bytes + b'":1}]}',
        "long signature": b'{"signature_name":"' + b"k" * num_bytes + b'","instances":[[0]]}',
        "number of many digits": b'{"instances":[[' + b"9" * num_bytes + b"]]}",
    }
