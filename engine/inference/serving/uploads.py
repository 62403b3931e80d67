"""Keeps the bodies of requests in files and reads the recording, its name and the fields out of a form."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import tempfile
from email.message import Message
from typing import BinaryIO

from tornado.httputil import HTTPFile, HTTPHeaders, HTTPInputError, parse_body_arguments

FORM = "multipart/form-data"
# curl --data-binary calls everything a web form unless it is told otherwise.
_RAW_TYPES = ("", "application/octet-stream", "application/ogg", "application/mp4", "application/x-www-form-urlencoded")
# A browser calls a recording of its microphone video/webm or video/mp4: what is in it decides, not its name.
_MEDIA = ("audio/", "video/")
_LONGEST_NAME = 200
_CHARSETS = ("utf-8", "us-ascii", "iso-8859-1")
# A plain `filename`, which is for recipients that cannot read the `filename*` beside it (RFC 6266).
_PLAIN_NAME = re.compile(r'filename\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.IGNORECASE)
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# Ending of the file with the recording out of a form; it lies beside the body's.
PART_SUFFIX = ".part"


class Body:
    """Keeps a request's body in a file of its own: many uploads at a time cost no memory.

    Attributes:
        path: The file.
        num_bytes: Bytes written so far.
    """

    def __init__(self, folder: str) -> None:
        """Creates the file.

        Args:
            folder: Folder that the file is created in.
        """
        handle, self.path = tempfile.mkstemp(prefix="body-", dir=folder)
        self._file: BinaryIO | None = os.fdopen(handle, "wb")
        self.num_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Appends; raises OSError where the disk is full."""
        assert self._file is not None
        self._file.write(chunk)
        self.num_bytes += len(chunk)

    def finish(self) -> None:
        """Ends writing; the file can be read now."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def remove(self) -> None:
        """Deletes the file and what came out of it; once more does no harm."""
        with contextlib.suppress(OSError):  # the disk is full
            self.finish()
        for path in (self.path, self.path + PART_SUFFIX):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def is_audio_type(content_type: str) -> bool:
    """Returns whether a body of this Content-Type may be a recording."""
    kind = content_type.split(";")[0].strip().lower()
    return kind.startswith(_MEDIA) or kind in _RAW_TYPES or kind == FORM


def is_form(content_type: str) -> bool:
    """Returns whether a body of this Content-Type is a form, with the recording as one of its parts."""
    return content_type.split(";")[0].strip().lower() == FORM


@dataclasses.dataclass(frozen=True)
class FormFile:
    """A file in a form.

    Attributes:
        field: Name of the form's field.
        name: The client's name of the file, fit for one line.
        content: Its bytes.
    """

    field: str
    name: str
    content: bytes


@dataclasses.dataclass(frozen=True)
class Form:
    """The parts of a form.

    Attributes:
        fields: Values of each field that is no file, in order.
        files: The files, in order.
    """

    fields: dict[str, list[str]]
    files: tuple[FormFile, ...]


def parse_form(body: bytes, content_type: str) -> Form:
    """Returns the parts of a form.

    Args:
        body: The request's body.
        content_type: Its Content-Type header, with the boundary.

    Raises:
        ValueError: The form cannot be read; one line for the sender.
    """
    fields: dict[str, list[bytes]] = {}
    files: dict[str, list[HTTPFile]] = {}
    _, _, parameters = content_type.partition(";")
    try:
        parse_body_arguments(f"{FORM};{parameters}", body, fields, files, HTTPHeaders())
        texts = {name: [value.decode("utf-8") for value in values] for name, values in fields.items()}
    except (HTTPInputError, UnicodeDecodeError) as error:
        raise ValueError(f"the form cannot be read: {error}") from error
    found = [FormFile(name, clean_name(file["filename"]), file["body"]) for name in files for file in files[name]]
    return Form(texts, tuple(found))


def extract_file(body: bytes, content_type: str) -> tuple[str, bytes]:
    """Returns name and content of the one file of a form.

    Raises:
        ValueError: The form cannot be read or has not exactly one file; one line for the sender.
    """
    files = parse_form(body, content_type).files
    if len(files) != 1:
        raise ValueError(f"the form has {len(files)} files, wanted one: curl -F file=@speech.wav")
    return files[0].name, files[0].content


def name_of(disposition: str) -> str:
    """Returns the file name of a Content-Disposition header; "" without one.

    Raises:
        ValueError: the header cannot be read: `filename*` has an unknown or unsuitable character set, a broken escape
            or bytes that are no text. One line for the sender.
    """
    if not disposition:
        return ""
    without_plain = _PLAIN_NAME.sub("", disposition)
    if "filename*" in without_plain.lower():
        disposition = without_plain
    message = Message()
    message["Content-Disposition"] = disposition
    try:
        found = message.get_param("filename", "", header="Content-Disposition")
        if isinstance(found, tuple):  # filename*=CHARSET'LANGUAGE'TEXT, its escapes undone into Latin-1
            charset, _, text = found
            encoded = disposition.lower().partition("filename*")[2]
            # No other: Python also knows character sets that are none, such as idna.
            if (charset or "us-ascii").lower() not in _CHARSETS or _BROKEN_ESCAPE.search(encoded):
                raise ValueError(f"character set {charset!r} or a broken escape")
            found = text.encode("latin-1").decode(charset or "us-ascii")
    except (ValueError, LookupError) as error:  # of ValueError too: numbers of thousands of digits in filename*N
        raise ValueError(
            "Content-Disposition: filename* cannot be read; send it as RFC 8187 says: filename*=UTF-8''name.wav"
        ) from error
    return clean_name(found)


def clean_name(name: str) -> str:
    """Returns a client's file name fit for one line: without folders and without what is not printable."""
    last = name.replace("\\", "/").rsplit("/", maxsplit=1)[-1]
    return "".join(letter for letter in last if letter.isprintable())[:_LONGEST_NAME]
