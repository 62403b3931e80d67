"""What a client sends, as a file."""

from __future__ import annotations

import os

import pytest

from engine.inference.serving.uploads import (
    PART_SUFFIX,
    Body,
    clean_name,
    extract_file,
    is_audio_type,
    name_of,
    parse_form,
)
from tests.helpers.hostile_requests import BROKEN_NAMES

CONTENT_TYPE = "multipart/form-data; boundary=XX"


def form(*names):
    head = '--XX\r\nContent-Disposition: form-data; name="file"; filename='
    parts = [f'{head}"{name}"\r\n\r\nRIFF{name}\r\n' for name in names]
    return ("".join(parts) + "--XX--\r\n").encode()


def openai_form(*names, fields=(("model", "whisper-1"),)):
    head = "--XX\r\nContent-Disposition: form-data; name="
    parts = [f'{head}"{name}"\r\n\r\n{value}\r\n' for name, value in fields]
    return "".join(parts).encode() + form(*names)


def test_a_body_is_a_file_until_it_is_removed(tmp_path):
    body = Body(str(tmp_path))
    body.write(b"ab")
    body.write(b"c")
    body.finish()
    with open(body.path, "rb") as file:
        assert file.read() == b"abc"
    assert body.num_bytes == 3
    with open(body.path + PART_SUFFIX, "wb"):
        pass
    body.remove()
    body.remove()
    assert os.listdir(tmp_path) == []


def test_the_one_file_of_a_form():
    assert extract_file(form("a.wav"), CONTENT_TYPE) == ("a.wav", b"RIFFa.wav")
    assert extract_file(form("a.wav"), "Multipart/Form-Data; boundary=XX") == ("a.wav", b"RIFFa.wav")


def test_the_fields_beside_the_file():
    found = parse_form(openai_form("a.wav", fields=(("t[]", "word"), ("t[]", "ü"), ("file", "x"))), CONTENT_TYPE)
    assert found.fields == {"t[]": ["word", "ü"], "file": ["x"]}
    assert [(file.field, file.name, file.content) for file in found.files] == [("file", "a.wav", b"RIFFa.wav")]
    with pytest.raises(ValueError, match="the form cannot be read"):
        parse_form(openai_form("a.wav").replace(b"whisper", b"\xff"), CONTENT_TYPE)


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (form(), CONTENT_TYPE, "has 0 files"),
        (form("a.wav", "b.wav"), CONTENT_TYPE, "has 2 files"),
        (form("a.wav"), "multipart/form-data", "boundary not found"),
        (b"no form", CONTENT_TYPE, "has 0 files|cannot be read"),
        (form("a.wav"), 'multipart/form-data; boundary=""', "cannot be read"),
        (form("a.wav"), "multipart/form-data; boundary=YY", "cannot be read"),
        (form("a.wav").replace(b"filename=", b"filename*=idna''"), CONTENT_TYPE, "cannot be read"),
        (form("a.wav").replace(b"a.wav", b"\xff"), CONTENT_TYPE, "cannot be read"),
        (form(*["a.wav"] * 200), CONTENT_TYPE, "too many parts"),
    ],
)
def test_other_forms_are_refused(body, content_type, message):
    with pytest.raises(ValueError, match=message):
        extract_file(body, content_type)


def test_types_and_names():
    kinds = ["audio/wav", "Audio/X-FLAC; rate=8000", "", "application/octet-stream", CONTENT_TYPE]
    kinds += ["audio/webm;codecs=opus", "video/webm", "video/mp4", "application/mp4"]  # of browsers' recordings
    assert all(map(is_audio_type, kinds))
    assert not any(map(is_audio_type, ["application/json", "text/html", "image/png", "multipart/mixed"]))
    assert name_of('attachment; filename="a b.wav"') == "a b.wav"
    assert name_of("") == name_of("attachment") == ""
    assert clean_name("..\\..\\etc/../x\n\x00y.wav") == "xy.wav"
    assert name_of("attachment; filename*=UTF-8''%e4%b8%ad%20a.wav") == "中 a.wav"
    assert name_of("attachment; name=\"5%\"; filename*=iso-8859-1'de'%e4.wav") == "ä.wav"
    assert name_of("attachment; filename*0*=utf-8''a%20; filename*1=b.wav") == "a b.wav"
    assert name_of('attachment; filename="100%.wav"') == "100%.wav"
    # The plain name is for those who cannot read the other one, and its percent sign is no escape.
    for plain in ('"100%; a.wav"', "100%.wav", '"a\\"b.wav"'):
        assert name_of(f"attachment; filename*=utf-8''%c3%a4.wav; filename={plain}") == "ä.wav"
        assert name_of(f"attachment; filename={plain}; filename*=utf-8''%c3%a4.wav") == "ä.wav"


@pytest.mark.parametrize("parameters", BROKEN_NAMES)
def test_a_name_that_cannot_be_read_is_refused_in_one_line(parameters):
    with pytest.raises(ValueError, match=r"^Content-Disposition: filename\* cannot be read; .*UTF-8''name.wav$"):
        name_of(f"attachment; {parameters}")
