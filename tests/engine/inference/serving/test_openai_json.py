"""OpenAI's form of requests, answers and errors, without a network."""

from __future__ import annotations

import json

import pytest

from engine.inference.serving.answers import RefusedError
from engine.inference.serving.openai_json import Options, describe_model, format_answer, parse_fields, read_form, refuse
from engine.inference.serving.uploads import Form, FormFile
from engine.inference.transcriber import Transcript
from engine.inference.words import Timed


def said(text, start, end, confidence=0.5):
    return Timed(text, start, end, confidence, (Timed(text[0], start, end, confidence),))


TRANSCRIPT = Transcript("body", (said("SO", 0.1, 0.3), said("IT", 0.4, 0.6), said("ENDS", 9.0, 9.5, 0.25)), 10.0)
MODEL = {"model": ["whisper-1"]}


def parse(**fields):
    named = {name.replace("granularities", "granularities[]"): value for name, value in fields.items()}
    return parse_fields({**MODEL, **named}, served_model="toy")


def answer(**fields):
    found = format_answer(TRANSCRIPT, Options(**fields))
    assert found.status == 200
    return found


def test_json_and_text():
    assert json.loads(answer().body) == {"text": "SO IT ENDS"}
    text = answer(response_format="text")
    assert (text.body, text.content_type) == (b"SO IT ENDS\n", "text/plain; charset=utf-8")


def test_subtitles_are_those_of_transcribe():
    srt, vtt = answer(response_format="srt"), answer(response_format="vtt")
    assert srt.body.startswith(b"1\n00:00:00,100 --> 00:00:00,600\nSO IT\n\n2\n00:00:09,000 --> 00:00:09,500\nENDS\n")
    assert vtt.body.startswith(b"WEBVTT\n\n00:00:00.100 --> 00:00:00.600\nSO IT\n")
    assert (srt.content_type, vtt.content_type) == ("application/x-subrip; charset=utf-8", "text/vtt; charset=utf-8")


def test_verbose_json_has_the_lists_that_were_asked_for():
    both = json.loads(answer(response_format="verbose_json", language="en", granularities=("word", "segment")).body)
    assert both["task"] == "transcribe" and both["language"] == "en" and both["duration"] == 10.0
    assert both["words"][2] == {"word": "ENDS", "start": 9.0, "end": 9.5}
    assert [(part["id"], part["start"], part["end"], part["text"]) for part in both["segments"]] == [
        (0, 0.1, 0.6, "SO IT"), (1, 9.0, 9.5, "ENDS"),
    ]  # fmt: skip
    assert [part["avg_logprob"] for part in both["segments"]] == [-0.6931, -1.3863]  # log(1/2), log(1/4)
    assert "words" not in json.loads(answer(response_format="verbose_json").body)
    assert "segments" not in json.loads(answer(response_format="verbose_json", granularities=("word",)).body)


def test_silence_has_no_segments():
    silent = Transcript("body", (), 2.0)
    found = json.loads(format_answer(silent, Options("verbose_json", granularities=("word", "segment"))).body)
    assert (found["text"], found["words"], found["segments"], found["duration"]) == ("", [], [], 2.0)


def test_fields_of_other_models_are_ignored():
    fields = {"prompt": ["Earshot"], "temperature": ["0.2"], "stream": ["false"], "chunking_strategy": ["auto"]}
    assert parse(**fields, language=["de"]) == Options("json", "de", ("segment",))
    assert parse(response_format=[""], temperature=[""], stream=[""]) == Options()
    found = parse(response_format=["verbose_json"], timestamp_granularities=["word", "segment", "word"])
    assert found.granularities == ("word", "segment")


@pytest.mark.parametrize(
    ("fields", "param", "code", "message"),
    [
        ({"model": [" "]}, "model", "missing_required_parameter", '"model" is missing; .* model=toy'),
        ({"response_format": ["docx"]}, "response_format", "invalid_value", "'docx'; use one of json, text, srt"),
        ({"stream": ["true"]}, "stream", "unsupported_parameter", "streaming is not supported"),
        ({"stream": ["maybe"]}, "stream", "unsupported_parameter", "stream is 'maybe'"),
        ({"temperature": ["hot"]}, "temperature", "invalid_value", "a number from 0 to 1"),
        ({"temperature": ["nan"]}, "temperature", "invalid_value", "a number from 0 to 1"),
        ({"temperature": ["2"]}, "temperature", "invalid_value", "a number from 0 to 1"),
        ({"language": ["x" * 36]}, "language", "invalid_value", "no language code"),
        ({"include[]": ["logprobs"]}, "include[]", "unsupported_parameter", "logprobs is not supported"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities[]", "invalid_value", "=verbose_json"),
        (
            {"timestamp_granularities": ["letter"], "response_format": ["verbose_json"]},
            "timestamp_granularities[]", "invalid_value", "'letter'; use word or segment",
        ),
    ],
)  # fmt: skip
def test_fields_that_cannot_be_are_named(fields, param, code, message):
    with pytest.raises(RefusedError, match=message) as caught:
        parse(**fields)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "the form has no file"),
        ((FormFile("file", "a.wav", b"x"), FormFile("file", "b.wav", b"x")), "has 2 files; send one"),
        ((FormFile("audio", "a.wav", b"x"),), 'is the part "audio"; name it "file"'),
        ((FormFile("file", "a.wav", b""),), "a.wav is empty"),
    ],
)
def test_a_form_has_exactly_one_file(files, message):
    with pytest.raises(RefusedError, match=message) as caught:
        read_form(Form(MODEL, files), served_model="toy")
    assert (caught.value.status, caught.value.param) == (400, "file")


def test_the_file_of_a_form():
    form = Form({**MODEL, "response_format": ["vtt"]}, (FormFile("file", "a.wav", b"RIFF"),))
    assert read_form(form, served_model="toy") == ("a.wav", b"RIFF", Options("vtt"))


def test_errors_and_models():
    found = refuse(400, "what\nis wrong", param="file", code="invalid_value")
    wanted = {"message": "what is wrong", "type": "invalid_request_error", "param": "file", "code": "invalid_value"}
    assert (found.status, json.loads(found.body)) == (400, {"error": wanted})
    later = json.loads(refuse(503, "x" * 10_000).body)["error"]
    assert (later["type"], later["param"], later["code"]) == ("server_error", None, None) and len(
        later["message"]
    ) < 600
    assert describe_model("toy", created=7) == {"id": "toy", "object": "model", "created": 7, "owned_by": "earshot"}
