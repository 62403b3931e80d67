"""Finds the recordings of a noise or impulse response collection, and reads stretches of them at 16 kHz."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np

from common import storage
from common.audio_kinds import AUDIO_SUFFIXES
from common.near_files import describe_near
from data.audio.decoding import (
    SAMPLE_RATE,
    fit_length,
    read_audio,
    read_header,
    read_segment,
    resample,
    resampled_length,
    to_int16,
    to_mono,
)
from data.common.errors import InputError
from data.corpus.columns import AUDIO_COLUMNS
from data.corpus.faults import refuse
from data.corpus.records import read_json_records, read_text

MAX_CACHED_SECS = 60.0  # longer recordings are read anew, only the stretch that is needed
CACHE_BYTES = 256 * 2**20  # of samples of 16 bits
_NUM_TRIED = 20  # recordings to open before a collection is refused
_FULL_SCALE = np.float32(1.0 / 32768)


class AudioFiles:
    """Reads stretches of recordings and keeps short recordings in memory; thread-safe.

        files = AudioFiles(list_audio_files("musan/noise", "augment.noise_source"), root="musan")
        waveform = files.read(0, unit=0.5, num_samples=16000)

    Attributes:
        paths: The files, sorted by name.
    """

    def __init__(self, paths: Sequence[str], *, root: str):
        """Stores the names of files; none is opened.

        Args:
            paths: Files or URLs.
            root: Folder of the collection, or the list that names it; names are relative to the folder.
        """
        self.paths = list(paths)
        self._root = root
        self._folder = root if storage.is_dir(root) else os.path.dirname(root)
        self._headers: dict[int, tuple[int, int]] = {}
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    def name(self, path: str) -> str:
        """Returns the name of a file within its collection."""
        return path.removeprefix(self._folder).lstrip("/")

    def digest(self) -> str:
        """Returns a digest of the names, which does not depend on where the collection lies."""
        return hashlib.sha256("\n".join(map(self.name, self.paths)).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def check_readable(self, field: str) -> None:
        """Raises InputError if none of the first recordings can be opened; `field` is that of the collection."""
        errors = []
        for path in self.paths[:_NUM_TRIED]:
            try:
                read_header(path)
                return
            except (ValueError, RuntimeError, OSError) as error:
                errors.append(str(error))
        which = f"none of the first {len(errors)} of {len(self.paths)} recordings can be read"
        raise InputError(f"{field}={self._root}: {which}: {errors[0]}")

    def read(self, number: int, *, unit: float, num_samples: int) -> np.ndarray:
        """Returns a stretch of a recording; one that is too short is repeated.

        Args:
            number: Index of the file.
            unit: Place of the stretch, in [0, 1).
            num_samples: Samples of the result at 16 kHz.

        Returns:
            float32 [num_samples].

        Raises:
            InputError: If the file cannot be read.
        """
        if number not in self._headers:
            self._headers[number] = read_header(self.paths[number])
        length, rate = self._headers[number]
        if length > MAX_CACHED_SECS * rate and length * SAMPLE_RATE > num_samples * rate:
            return self._read_stretch(number, unit, num_samples)
        return take_looped(
            self._read_whole(number), int(unit * resampled_length(length, rate, SAMPLE_RATE)), num_samples
        )

    def _read_stretch(self, number: int, unit: float, num_samples: int) -> np.ndarray:
        length, rate = self._headers[number]
        wanted = min(resampled_length(num_samples, SAMPLE_RATE, rate), length)
        start = int(unit * (length - wanted + 1))
        channels, rate = read_segment(self.paths[number], start=start, num_samples=wanted)
        return fit_length(resample(channels[:, 0], rate, SAMPLE_RATE), num_samples)

    def _read_whole(self, number: int) -> np.ndarray:
        """Returns a recording as int16 at 16 kHz, from memory if it is there."""
        with self._lock:
            if number in self._cache:
                self._cache.move_to_end(number)
                return self._cache[number]
        channels, rate = read_audio(self.paths[number])
        samples = to_int16(to_mono(channels, rate, SAMPLE_RATE))
        with self._lock:
            if number not in self._cache:
                self._cache[number] = samples
                self._num_bytes += samples.nbytes
            while self._num_bytes > CACHE_BYTES and len(self._cache) > 1:
                self._num_bytes -= self._cache.popitem(last=False)[1].nbytes
        return samples


def take_looped(samples: np.ndarray, start: int, num_samples: int) -> np.ndarray:
    """Returns float32 [num_samples] of int16 or float32 samples from a place on, which begin again at their end."""
    if start + num_samples > len(samples):
        repeats = -(-(start + num_samples) // len(samples))
        samples = np.tile(samples, repeats) if repeats > 2 else np.concatenate([samples, samples])
    found = samples[start : start + num_samples].astype(np.float32)
    return found * _FULL_SCALE if samples.dtype != np.float32 else found


def list_audio_files(source: str, field: str) -> list[str]:
    """Returns the recordings of a folder and the folders in it, or those that a list names, sorted.

    Args:
        source: Folder; or a list: JSON lines with `audio_filepath`, or a text file with one path a line. Paths are
            relative to the list.
        field: Name of the config field, for messages.

    Raises:
        InputError: If there is no such folder or file, or it has no audio.
    """
    if storage.is_dir(source):
        found = sorted(_walk(source))
        wanted = f"no audio file ({', '.join(AUDIO_SUFFIXES[:4])} ...) in this folder or below"
    elif storage.is_file(source):
        found = sorted(_read_list(source))
        wanted = "the list names no file"
    else:
        raise InputError(f"{field}={source}: no such folder or list{describe_near(source)}")
    if not found:
        raise InputError(f"{field}={source}: {wanted}; give a folder of recordings, or leave the field empty")
    return found


def _walk(folder: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields the audio files of a folder; a link to a folder above it is not followed."""
    above = (*above, storage.real(folder))
    for name in sorted(storage.list_names(folder)):
        path = storage.join(folder, name)
        if name.startswith("."):
            continue
        if name.lower().endswith(AUDIO_SUFFIXES):
            yield path
        # Behind a URL, each question is a request.
        elif not os.path.splitext(name)[1] and storage.is_dir(path) and storage.real(path) not in above:
            yield from _walk(path, above)


def _read_list(path: str) -> Iterator[str]:
    folder = os.path.dirname(path)
    if not path.lower().endswith((".jsonl", ".json")):
        for line in read_text(path).splitlines():
            if line.strip():
                yield storage.join(folder, line.strip())
        return
    for record in read_json_records(path, refuse):
        name = next((record.fields[key] for key in AUDIO_COLUMNS if record.fields.get(key)), None)
        if not isinstance(name, str):
            raise InputError(f"{record.place} has no audio_filepath, add it")
        yield storage.join(folder, name)
