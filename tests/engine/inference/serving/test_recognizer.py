"""Requests to answers, without a network."""

from __future__ import annotations

import json

import numpy as np
import pytest

from data.audio.streaming import duration_samples, stream_audio
from engine.inference.serving import uploads
from engine.inference.serving.answers import PREDICT, TRANSCRIBE, Request, refuse
from engine.inference.serving.recognizer import Recognizer
from engine.inference.transcriber import SAMPLE_RATE, Summary, Transcript
from engine.inference.words import Timed
from tests.engine.inference.serving.test_uploads import CONTENT_TYPE, form


def read(path):
    with open(path, "rb") as file:
        return file.read().decode()


def count_samples(path):
    """A text file stands for a recording of as many seconds as it has letters."""
    if read(path) == "bad":
        raise ValueError(f"{path} cannot be read as audio: send another")
    return len(read(path)) * SAMPLE_RATE


def transcribe_files(paths):
    good = [path for path in paths if "!" not in read(path)]
    word = [Timed(read(path), 0.0, 1.0, 0.5, (Timed("x", 0.0, 1.0, 0.5),)) for path in good]
    return Summary(
        transcripts=tuple(Transcript(path, (said,), len(read(path))) for path, said in zip(good, word, strict=True)),
        failures=tuple((path, f"{path} ends early") for path in paths if path not in good),
        audio_secs=0.0,
        elapsed_secs=0.0,
    )


@pytest.fixture
def recognizer():
    return Recognizer(
        transcribe_files=transcribe_files,
        predict=lambda waveform, lengths: {"text": np.array([b"T"] * len(lengths), object), "num_frames": lengths},
        count_samples=count_samples,
        max_audio_secs=9,
        max_row_secs=0.001,
        max_rows=2,
    )


@pytest.fixture
def ask(recognizer, tmp_path):
    def ask(*requests):
        made = []
        for number, (kind, body, *rest) in enumerate(requests):
            path = tmp_path / f"body-{number}"
            path.write_bytes(body)
            made.append(Request(kind, str(path), *rest))
        found = [(answer.status, json.loads(answer.body)) for answer in recognizer.answer(made)]
        assert all(str(tmp_path) not in json.dumps(body) for _, body in found)
        return found

    return ask


def test_a_batch_of_all_kinds_is_answered_in_order(ask):
    answers = ask(
        (TRANSCRIBE, b"hello", "audio/wav", "a.wav"),
        (TRANSCRIBE, b"bad", "", "b.wav"),
        (PREDICT, b'{"instances": [[0.5]]}'),
        (TRANSCRIBE, b"he!lo"),
        (TRANSCRIBE, form("c.wav"), CONTENT_TYPE),
        (TRANSCRIBE, b"hellohello", "", "long.wav"),
        (PREDICT, b'{"instances": 3}'),
    )
    assert answers[0] == (
        200,
        {
            "audio_filepath": "a.wav", "text": "hello", "duration": 5, "confidence": 0.5,
            "words": [
                {"text": "hello", "start": 0.0, "end": 1.0, "confidence": 0.5,
                 "characters": [{"text": "x", "start": 0.0, "end": 1.0, "confidence": 0.5}]},
            ],
        },
    )  # fmt: skip
    assert answers[1] == (400, {"error": "b.wav cannot be read as audio: send another"})
    assert answers[2] == (200, {"predictions": [{"text": "T", "num_frames": 1}]})
    assert answers[3] == (400, {"error": "the body ends early"})
    assert (answers[4][1]["text"], answers[4][1]["audio_filepath"]) == ("RIFFc.wav", "c.wav")
    assert answers[5][0] == 413 and answers[5][1]["error"].startswith("long.wav lasts 10 s, and 9 s are allowed")
    assert answers[6] == (400, {"error": '"instances" is no list'})


def test_asked_again_a_form_still_reads(recognizer, tmp_path):
    """As `WorkQueue` does after a fault in the batch."""
    (tmp_path / "body").write_bytes(form("c.wav"))
    request = Request(TRANSCRIBE, str(tmp_path / "body"), CONTENT_TYPE)
    assert recognizer.answer([request]) == recognizer.answer([request])


@pytest.mark.parametrize("rows", [[[0.0]] * 3, [[0.0] * 17]])
def test_predictions_are_limited(ask, rows):
    ((status, body),) = ask((PREDICT, json.dumps({"instances": rows}).encode()))
    assert status == 413 and "/v1/transcribe" in body["error"]


@pytest.mark.parametrize("name", ["", "talk.webm"])
@pytest.mark.parametrize("is_form", [False, True])
def test_the_servers_own_path_is_never_shown(tmp_path, name, is_form):
    def count(path):
        whole, part = path, path.rsplit("/", maxsplit=1)[-1]
        raise ValueError(f"{whole}: no format that can be read: convert it, for example ffmpeg -i {part} {part}.flac")

    recognizer = Recognizer(
        transcribe_files=transcribe_files, predict=lambda *arrays: {}, count_samples=count, max_audio_secs=9,
        max_row_secs=1, max_rows=2,
    )  # fmt: skip
    (tmp_path / "body-x1").write_bytes(form(name or "f") if is_form else b"\x1aE\xdf\xa3")
    request = Request(TRANSCRIBE, str(tmp_path / "body-x1"), CONTENT_TYPE if is_form else "video/webm", name)
    (answer,) = recognizer.answer([request])
    shown = name or ("f" if is_form else "the body")
    wanted = f"{shown}: no format that can be read: convert it, for example ffmpeg -i {shown} {shown}.flac"
    assert (answer.status, json.loads(answer.body)) == (400, {"error": wanted})


def test_a_full_disk_is_no_fault_of_the_request(recognizer, tmp_path):
    (tmp_path / "body").write_bytes(form("c.wav"))
    (tmp_path / ("body" + uploads.PART_SUFFIX)).mkdir()  # cannot be written
    (answer,) = recognizer.answer([Request(TRANSCRIBE, str(tmp_path / "body"), CONTENT_TYPE)])
    assert answer.status == 503 and b"no space" in answer.body


def test_a_message_that_quotes_the_client_is_cut():
    assert len(refuse(400, "x" * 10_000).body) < 600


@pytest.mark.parametrize("ending", ["webm", "m4a"])
@pytest.mark.parametrize("is_form", [False, True])
def test_what_browsers_and_phones_record_is_heard(tmp_path, ending, is_form):
    media = pytest.importorskip("tests.helpers.media", reason="the extra media is not installed")
    heard = []

    def transcribe(paths):
        heard.extend(sum(map(len, stream_audio(path))) for path in paths)
        return Summary(tuple(Transcript(path, (), 1.0) for path in paths), (), 0.0, 0.0)

    recognizer = Recognizer(
        transcribe_files=transcribe, predict=lambda *arrays: {}, count_samples=duration_samples, max_audio_secs=9,
        max_row_secs=1, max_rows=2,
    )  # fmt: skip
    content = media.write_kind(tmp_path, ending).read_bytes()
    (tmp_path / "body").write_bytes(form("talk").replace(b"RIFFtalk", content) if is_form else content)
    kind = CONTENT_TYPE if is_form else "video/webm"
    (answer,) = recognizer.answer([Request(TRANSCRIBE, str(tmp_path / "body"), kind)])
    assert answer.status == 200, answer.body
    assert heard == [pytest.approx(2 * SAMPLE_RATE, abs=0.2 * SAMPLE_RATE)]
