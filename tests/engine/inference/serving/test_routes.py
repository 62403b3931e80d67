"""What each protocol's routes do beyond the server's limits: formats, OpenAI's errors, other origins, the page."""

from __future__ import annotations

import http.client
import json

import pytest

from engine.inference.serving.page import render_page
from engine.inference.serving.recognizer import Recognizer
from engine.inference.serving.transcribe_api import accepted_format
from tests.engine.inference.serving.test_http_server import Running
from tests.engine.inference.serving.test_recognizer import count_samples, transcribe_files
from tests.engine.inference.serving.test_uploads import CONTENT_TYPE, form, openai_form
from tests.helpers.experiment_toys import make_parts
from tests.helpers.pages import check_page

OPENAI = "/v1/audio/transcriptions"
SITE = "https://app.example"


@pytest.fixture(scope="module")
def server():
    """Answers with the stand-ins of `test_recognizer`: a recording says its own bytes, a letter a second."""
    running = Running(cors_origins=(SITE, "http://localhost:3000"), page=b"<!doctype html>the page")
    running.answer = Recognizer(
        transcribe_files=transcribe_files, predict=lambda waveform, lengths: {"num_frames": lengths},
        count_samples=count_samples, max_audio_secs=9, max_row_secs=30, max_rows=4, served_model="toy",
    ).answer  # fmt: skip
    yield running
    assert running.stop()


def call(server, path, *, method="POST", body=b"hello", **headers):
    """Status, text, headers."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body if method == "POST" else None, names)
    response = connection.getresponse()
    found = response.status, response.read().decode(), response.headers
    connection.close()
    return found


def ask_openai(server, *names, fields=(("model", "whisper-1"),), **headers):
    return call(server, OPENAI, body=openai_form(*names, fields=fields), Content_Type=CONTENT_TYPE, **headers)


def test_each_format_has_its_type(server):
    srt = "1\n00:00:00,000 --> 00:00:01,000\nhello\n\n"
    vtt = "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nhello\n\n"
    for query, wanted, content_type in (
        ("?format=srt", srt, "application/x-subrip; charset=utf-8"),
        ("?format=vtt", vtt, "text/vtt; charset=utf-8"),
        ("?format=txt", "hello\n", "text/plain; charset=utf-8"),
    ):
        status, text, headers = call(server, f"/v1/transcribe{query}")
        assert (status, text, headers["Content-Type"]) == (200, wanted, content_type)
        assert headers["X-Content-Type-Options"] == "nosniff"
    for query in ("", "?format=json"):
        status, text, headers = call(server, f"/v1/transcribe{query}")
        assert (status, json.loads(text)["words"][0]["text"], headers["Content-Type"]) == (
            200,
            "hello",
            "application/json",
        )
    assert call(server, "/v1/transcribe", Accept="text/vtt")[1] == vtt
    assert call(server, "/v1/transcribe?format=srt", Accept="text/vtt")[1] == srt
    status, text, _ = call(server, "/v1/transcribe?format=txt", body=form("c.wav"), Content_Type=CONTENT_TYPE)
    assert (status, text) == (200, "RIFFc.wav\n")


@pytest.mark.parametrize("query", ["?format=docx", "?format=", "?format=SRT", "?format=%ff", "?format=srt&format=x"])
def test_an_unknown_format_is_refused_in_one_line(server, query):
    status, text, headers = call(server, f"/v1/transcribe{query}")
    assert (status, headers["Content-Type"]) == (400, "application/json")
    assert json.loads(text)["error"].endswith("; use one of json, srt, vtt, txt")


def test_errors_stay_json_whatever_format_was_asked_for(server):
    status, text, headers = call(server, "/v1/transcribe?format=srt", body=b"bad")
    assert (status, headers["Content-Type"]) == (400, "application/json")
    assert "cannot be read as audio" in json.loads(text)["error"]


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", "json"), ("*/*", "json"), ("text/html, image/webp", "json"), ("text/plain", "txt"),
        ("application/json, text/plain, */*", "json"), ("text/plain, application/json", "txt"),
        ("text/plain;q=0.1, Text/VTT;q=0.5", "vtt"), ("text/vtt;q=0, */*", "json"), ("text/vtt;q=x", "json"),
        ("application/x-subrip", "srt"), (";;,,q=", "json"),
    ],
)  # fmt: skip
def test_accept_names_the_format_where_the_query_does_not(accept, wanted):
    assert accepted_format(accept) == wanted


def test_openai_transcribes(server):
    status, text, headers = ask_openai(server, "a.wav")
    assert (status, json.loads(text), headers["Content-Type"]) == (200, {"text": "RIFFa.wav"}, "application/json")
    fields = (("model", "toy"), ("response_format", "text"), ("prompt", "x"), ("temperature", "0"))
    status, text, headers = ask_openai(server, "a.wav", fields=fields, Authorization="Bearer sk-anything")
    assert (status, text, headers["Content-Type"]) == (200, "RIFFa.wav\n", "text/plain; charset=utf-8")
    fields = (
        ("model", "toy"), ("response_format", "verbose_json"), ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
    )  # fmt: skip
    verbose = json.loads(ask_openai(server, "a.wav", fields=fields)[1])
    assert verbose["words"] == [{"word": "RIFFa.wav", "start": 0.0, "end": 1.0}] and len(verbose["segments"]) == 1
    assert verbose["duration"] == 9


@pytest.mark.parametrize(
    ("request_fields", "status", "param", "message"),
    [
        ({"body": openai_form()}, 400, "file", "has no file"),
        ({"body": openai_form("a.wav", "b.wav")}, 400, "file", "2 files"),
        ({"body": openai_form("a.wav", fields=())}, 400, "model", "model=toy"),
        ({"body": openai_form("a.wav", fields=(("model", "m"), ("stream", "true")))}, 400, "stream", "not supported"),
        ({"body": openai_form("long.wave")}, 413, "file", "long.wave lasts 13 s"),
        ({"body": openai_form("!.wav")}, 400, "file", "!.wav ends early"),
        ({"body": b"no form"}, 400, "file", "no file|cannot be read"),
        ({"body": openai_form("a.wav").replace(b"whisper", b"\xff")}, 400, "file", "cannot be read"),
        ({"body": b""}, 400, None, "the body is empty"),
        ({"body": b"x" * 100_001}, 413, None, "larger than the 0.1 MB"),
        ({"Content_Type": "audio/wav"}, 415, None, "multipart/form-data"),
        ({"Content_Type": "application/json", "body": b"{}"}, 415, None, "multipart/form-data"),
        ({"method": "GET"}, 405, None, "POST the body"),
    ],
)
def test_openai_errors_have_its_shape(server, request_fields, status, param, message):
    found, text, headers = call(server, OPENAI, **{"Content_Type": CONTENT_TYPE, **request_fields})
    assert (found, headers["Content-Type"]) == (status, "application/json")
    error = json.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert any(part in error["message"] for part in message.split("|")) and "\n" not in error["message"]
    assert server.service.folder not in text


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        ("/v1/transcribe", "GET", "POST"), (OPENAI, "DELETE", "POST"), ("/v1/models/toy:predict", "GET", "POST"),
        ("/healthz", "POST", "GET"), ("/v1/models/toy", "PUT", "GET"), ("/", "POST", "GET, HEAD"),
    ],
)  # fmt: skip
def test_a_wrong_method_is_told_the_right_ones(server, path, method, allowed):
    status, _, headers = call(server, path, method=method)
    assert (status, headers["Allow"]) == (405, allowed)


def test_openais_other_routes_say_what_there_is(server):
    status, text, _ = call(server, "/v1/audio/translations", body=openai_form("a.wav"), Content_Type=CONTENT_TYPE)
    assert status == 404 and "there are POST /v1/audio/transcriptions" in json.loads(text)["error"]["message"]


def test_openai_is_told_when_to_come_back():
    running = Running(answer_timeout_secs=0.2)
    running.gate.clear()
    status, text, headers = ask_openai(running, "a.wav")
    assert (status, json.loads(text)["error"]["type"], headers["Retry-After"]) == (503, "server_error", "1")
    assert running.stop()


def test_models_are_listed_for_both_protocols(server):
    status, text, _ = call(server, "/v1/models", method="GET")
    (model,) = json.loads(text)["data"]
    assert (status, model["id"], model["object"], json.loads(text)["object"]) == (200, "toy", "model", "list")
    one = json.loads(call(server, "/v1/models/toy", method="GET")[1])
    assert one["id"] == "toy" and one["model_version_status"][0]["state"] == "AVAILABLE"


def test_no_origin_may_read_unless_it_is_listed(server):
    for origin in ("https://evil.example", "null", "", "*", f"{SITE}.evil.example", "http://localhost:3001"):
        _, _, headers = call(server, "/v1/transcribe", Origin=origin)
        assert "Access-Control-Allow-Origin" not in headers and headers["Vary"] == "Origin"
        asked = {"Origin": origin, "Access_Control_Request_Method": "POST"}
        status, _, headers = call(server, "/v1/transcribe", method="OPTIONS", **asked)
        assert status == 405 and "Access-Control-Allow-Methods" not in headers


def test_a_listed_origin_may_read_answers_and_errors(server):
    for path, fields, status in (
        ("/v1/transcribe", {}, 200),
        ("/v1/transcribe?format=x", {}, 400),
        ("/v1/transcribe", {"Content_Type": "text/html"}, 415),
        ("/v1/transcribe", {"body": b"x" * 100_001}, 413),
        ("/v1/transcribe", {"method": "GET"}, 405),
        (OPENAI, {"Content_Type": CONTENT_TYPE}, 400),
        ("/v1/models/other:predict", {}, 404),
        ("/v1/models", {"method": "GET"}, 200),
        ("/healthz", {"method": "GET"}, 200),
        ("/nothing", {"method": "GET"}, 404),
    ):
        found, _, headers = call(server, path, Origin=SITE, **fields)
        assert (found, headers["Access-Control-Allow-Origin"]) == (status, SITE), path
        assert headers["Access-Control-Expose-Headers"] == "Retry-After"


@pytest.mark.parametrize("path", ["/v1/transcribe", OPENAI, "/v1/models/toy:predict", "/v1/models"])
def test_preflight_is_answered(server, path):
    status, text, headers = call(
        server, path, method="OPTIONS", Origin="http://localhost:3000", Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="authorization,content-type, x-stainless-lang",
    )  # fmt: skip
    assert (status, text) == (204, "")
    assert headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert "POST" in headers["Access-Control-Allow-Methods"]
    assert headers["Access-Control-Allow-Headers"] == "authorization,content-type, x-stainless-lang"
    assert server.service.num_answering == 0


def test_a_star_allows_every_origin_and_none_is_the_default():
    running = Running(cors_origins=("*",))
    assert call(running, "/v1/transcribe", Origin="null")[2]["Access-Control-Allow-Origin"] == "*"
    assert running.stop()
    running = Running()
    headers = call(running, "/v1/transcribe", Origin=SITE)[2]
    assert "Access-Control-Allow-Origin" not in headers and "Vary" not in headers
    assert running.stop()


def test_the_page_is_answered_whole_and_framed_by_nobody(server):
    status, text, headers = call(server, "/", method="GET")
    assert (status, text, headers["Content-Type"]) == (200, "<!doctype html>the page", "text/html; charset=utf-8")
    assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert call(server, "/", method="HEAD")[:2] == (200, "")
    assert call(server, "/")[0] == 405


def test_the_page_needs_nothing_but_its_server(server):
    limits = server.service.limits
    page = render_page(make_parts().page_environment, limits=limits, max_audio_secs=600.0).decode()
    check_page(page, connects=True)
    assert 'data-max-bytes="100000" data-max-secs="600.0"' in page and "<title>Earshot: toy</title>" in page
