"""Keeps recordings open between the segments that are read from them."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import soundfile

from data.archives.address import parse_address
from data.audio.decoder import open_audio, unreadable
from data.audio.media_file import MediaFile
from data.common.files import most_open

_MOST_OPEN = 256  # a decoder of FLAC holds some 100 kB
_LIMIT_DIVISOR = 8  # each set has a pool


class OpenFiles:
    """A pool of open recordings; thread-safe.

    files = OpenFiles()
    with files.borrow("talk.flac") as file:
        file.seek(16_000)
    """

    def __init__(self, most: int = 0):
        """Opens nothing yet.

        Args:
            most: Most files to keep open while nobody reads them; those read longest ago are closed. 0 = by the limit
                of the process, at most 256.
        """
        self._most = most or most_open(_MOST_OPEN, _LIMIT_DIVISOR)
        self._idle: OrderedDict[str, tuple[soundfile.SoundFile | MediaFile, ExitStack]] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def borrow(self, path: str | os.PathLike[str]) -> Iterator[soundfile.SoundFile | MediaFile]:
        """Lends a recording to one reader; another reader at the same time gets a handle of its own.

        Raises:
            InputError: If `open_audio` refuses the recording, or libsndfile or the file system raises inside the
                context; the recording is then closed.
        """
        name = os.fspath(path)
        with self._lock:
            file, stack = self._idle.pop(name, (None, ExitStack()))
        with stack:
            try:
                if file is None:
                    file = stack.enter_context(open_audio(path, is_decoded=False, walks=False))
                yield file
            except (soundfile.SoundFileError, OSError) as error:
                raise unreadable(path, error) from error
            if can_be_kept(file) and parse_address(path) is None:  # its bytes would be kept with it
                self._keep(name, file, stack.pop_all())

    def _keep(self, name: str, file: soundfile.SoundFile, stack: ExitStack) -> None:
        with self._lock:
            closing = [self._idle.pop(name)[1]] if name in self._idle else []
            self._idle[name] = (file, stack)
            if len(self._idle) > self._most:
                closing.append(self._idle.popitem(last=False)[1][1])
        for one in closing:
            one.close()

    def __del__(self) -> None:
        for _, stack in getattr(self, "_idle", {}).values():
            stack.close()


def can_be_kept(file: soundfile.SoundFile | MediaFile) -> bool:
    """Returns whether a recording is no bytes in memory, and what it gives after a seek depends only on the place.

    With Ogg Vorbis that depends on what was read before: samples behind a seek differ in their last bits with the place
    that the decoder comes from, and a run that resumes comes from another one.
    """
    return file.format != "OGG" and not isinstance(file, MediaFile) and not isinstance(file.name, io.BytesIO)
