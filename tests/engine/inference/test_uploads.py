"""What a client sends, as a file."""

from __future__ import annotations

import os

import pytest

from engine.inference.uploads import PART_SUFFIX, Body, clean_name, extract_file, is_audio_type, name_of

CONTENT_TYPE = "multipart/form-data; boundary=XX"


def form(*names):
    head = '--XX\r\nContent-Disposition: form-data; name="file"; filename='
    parts = [f'{head}"{name}"\r\n\r\nRIFF{name}\r\n' for name in names]
    return ("".join(parts) + "--XX--\r\n").encode()


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


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (form(), CONTENT_TYPE, "has 0 files"),
        (form("a.wav", "b.wav"), CONTENT_TYPE, "has 2 files"),
        (form("a.wav"), "multipart/form-data", "boundary not found"),
        (b"no form", CONTENT_TYPE, "has 0 files|cannot be read"),
    ],
)
def test_other_forms_are_refused(body, content_type, message):
    with pytest.raises(ValueError, match=message):
        extract_file(body, content_type)


def test_types_and_names():
    kinds = ["audio/wav", "Audio/X-FLAC; rate=8000", "", "application/octet-stream", CONTENT_TYPE]
    assert all(map(is_audio_type, kinds))
    assert not any(map(is_audio_type, ["application/json", "text/html", "image/png", "multipart/mixed"]))
    assert name_of('attachment; filename="a b.wav"') == "a b.wav"
    assert name_of("") == name_of("attachment") == ""
    assert clean_name("..\\..\\etc/../x\n\x00y.wav") == "xy.wav"
