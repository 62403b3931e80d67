"""Opens recordings by their content, whatever their names, and decodes them block by block."""

from __future__ import annotations

import io
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

import numpy as np
import soundfile
from absl import logging

from common import storage
from common.audio_kinds import HEAD_BYTES, READABLE_FORMATS, AudioKind, conversion_command, has_media_extra, identify
from data.archives.address import parse_address
from data.archives.contents import read_address
from data.audio.compressed import MP3_INFO_FRAMES
from data.audio.containers import check_container
from data.audio.media_file import MediaFile
from data.audio.verdict import skip_id3
from data.common.errors import InputError

# Speech sampled below 4 kHz is unintelligible, and no converter exceeds 384 kHz. Damaged headers say 1 Hz, which would
# turn each sample into 16,000. Microphone arrays have up to 64 channels.
SAMPLE_RATES = (4_000, 384_000)
MAX_CHANNELS = 64
BLOCK_VALUES = 2**23  # values to read at a time, over all channels
# Most samples of a channel that a byte can hold: silence in FLAC.
_MAX_SAMPLES_A_BYTE = 8192
# An MP3 header can differ from what the decoder delivers by one encoder delay and one last block, each at most two
# frames of 1,152 samples. All other formats must be exact.
MP3_SLACK_SAMPLES = 4 * 1152
# libsndfile's "unknown length", from FLAC streams whose encoder could not seek back to the header.
_UNKNOWN_LENGTH = 2**62
# libsndfile recognizes these only by name: they have no header, or data before the first frame.
_KNOWN_BY_NAME = (".mp3", ".gsm", ".vox")
_HEADERLESS = (".raw", ".pcm", ".sln", ".vox")
_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")
# A float file with a larger peak holds unscaled integers: a peak of 32 would be 30 dB too loud as a float, and close to
# silence as a 16-bit integer.
_MAX_FLOAT_PEAK = 32.0


@contextmanager
def open_audio(
    path: str | os.PathLike[str], *, content: bytes | None = None, is_decoded: bool = True, walks: bool = True
) -> Iterator[soundfile.SoundFile | MediaFile]:
    """Opens a recording and checks its header against its bytes; decoding may still find a fault.

    Args:
        path: File or URL, in a format that libsndfile knows by its content, or an address inside an archive
            (`data.archives.address`).
        content: Bytes of the file if they are in memory; `path` is then only a name.
        is_decoded: Whether the audio will be decoded; if so, all bytes are checked.
        walks: Whether containers without a length, such as Ogg, are walked from end to end; not for a segment, whose
            file was walked when it was listed.

    Raises:
        InputError: If the file is absent, not a regular file, not readable audio, empty, shorter or longer than its
            header says, or has an impossible rate or number of channels. Errors of libsndfile and of the file system
            inside the context are converted to it.
    """
    content = read_address(path) if content is None else content
    try:
        with _open_bytes(path, content) as stream:
            # Each read behind a URL costs a request, so remote files are walked only when they are decoded.
            walks = walks and (is_decoded or not storage.is_remote(path))
            kind = identify(stream.read(HEAD_BYTES))
            if kind is not None and kind.demuxer and has_media_extra():
                with MediaFile(
                    os.fspath(path),
                    stream,
                    demuxer=kind.demuxer,
                    kind=kind.name,
                    advice=_conversion(path),
                    walks=walks and not is_decoded,
                ) as media:
                    _check_numbers(path, media)
                    yield media
                return
            _check_content(path, stream, kind, is_decoded=is_decoded, walks=walks)
            with _open_sound(path, stream) as file:
                _check_header(path, file, stream)
                yield file
    except (soundfile.SoundFileError, OSError) as error:
        raise unreadable(path, error, content) from error


def decode_blocks(
    path: str | os.PathLike[str], file: soundfile.SoundFile | MediaFile, *, block_samples: int = 0
) -> Iterator[np.ndarray]:
    """Decodes an open recording block by block, in memory that does not depend on the length in its header.

    Args:
        path: Name of the file in messages.
        file: File of `open_audio`, at its beginning.
        block_samples: Samples per channel of a block; 0 = about 30 MB.

    Yields:
        float32 [N, C] as stored; together the blocks have the header's length.

    Raises:
        InputError: If the file ends early or holds values that are not finite.
    """
    promised, num_read = file.frames, 0
    most = max(1, BLOCK_VALUES // file.channels)
    block_samples = min(block_samples or most, most)
    while num_read < promised:
        block = file.read(min(block_samples, promised - num_read), dtype="float32", always_2d=True)
        if not len(block):
            break
        if not np.isfinite(peak(block)):
            raise InputError(f"{path} holds values that are not finite: remove it or record it again")
        num_read += len(block)
        yield block
    missing = promised - num_read
    if missing > _slack_of(file):
        raise InputError(f"{path} ends early: {num_read} of {promised} samples; fetch or make it again")
    if missing:
        yield np.zeros((missing, file.channels), np.float32)


def _slack_of(file: soundfile.SoundFile | MediaFile) -> int:
    """Returns by how many samples the decoded audio may be shorter than the header says."""
    if isinstance(file, MediaFile):
        return file.slack
    return MP3_SLACK_SAMPLES if file.subtype.startswith("MPEG") else 0


def scan_scale(path: str | os.PathLike[str], file: soundfile.SoundFile | MediaFile) -> float:
    """Reads an open recording through, returns its `scale_of` and seeks back to its beginning."""
    if isinstance(file, MediaFile) or file.subtype not in _FLOAT_SUBTYPES:
        return 1.0
    highest = 0.0
    try:
        for block in decode_blocks(path, file):
            highest = max(highest, peak(block))
    except InputError:
        pass  # decoding raises it again, after the usable part
    file.seek(0)
    return scale_of(file, highest)


def scale_of(file: soundfile.SoundFile | MediaFile, highest: float) -> float:
    """Returns the power of two that scales a float file of 16, 24 or 32-bit integers to full scale 1, or 1.0.

    Args:
        file: File of `open_audio`.
        highest: Largest magnitude in the file.
    """
    if file.subtype not in _FLOAT_SUBTYPES or highest <= _MAX_FLOAT_PEAK:
        return 1.0
    for bits in (16, 24, 32):
        if highest <= 2.0**bits:  # twice the range of the integers, because resampling overshoots
            return 2.0 ** (1 - bits)
    return float(2.0 ** -np.ceil(np.log2(highest)))


def peak(values: np.ndarray) -> float:
    """Returns the largest magnitude, or NaN if any value is NaN."""
    return max(float(values.max()), -float(values.min()))


def unreadable(path: str | os.PathLike[str], error: Exception, content: bytes | None = None) -> InputError:
    """Converts an error of libsndfile or the file system to an InputError.

    Args:
        path: Name of the file.
        error: Error to convert.
        content: Bytes of the file if they are in memory.
    """
    if content is None and parse_address(path) is None:  # the archive of an address has been read
        try:
            is_there, is_file = storage.exists(path), storage.is_file(path)
        except OSError as fault:  # the file system does not answer, or the scheme is unknown
            return InputError(f"cannot read audio file {path} ({fault}): check the path", code="missing_audio")
        if not is_there:
            return InputError(f"no audio file {path}: check the path", code="missing_audio")
        if not is_file:
            return InputError(f"{path} is not a file: give the path of an audio file")
    # libsndfile puts the path in front of the reason.
    reason = str(error).rstrip(".").rsplit(": ", 1)[-1]
    if "Format not recognised" in reason:
        if os.fspath(path).lower().endswith(_HEADERLESS):
            example = f"ffmpeg -f s16le -ar 16000 -ac 1 -i {shlex.quote(os.fspath(path))} x.flac"
            return InputError(
                f"{path} has no header with its rate and format: convert it with the right ones, for example {example}"
            )
        return InputError(
            f"cannot decode audio file {path} (no header of {READABLE_FORMATS}): convert it to one of these, or fetch "
            "or make it again"
        )
    return InputError(f"cannot decode audio file {path} ({reason}): fetch or make it again")


class _Content(io.BytesIO):
    """Bytes for libsndfile, in whose callbacks an exception would print a traceback."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


class _Remote:
    """A file behind a URL for libsndfile, without exceptions in its callbacks."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with suppress(Exception):
            self._file.seek(offset, whence)
        return self._file.tell()

    def tell(self) -> int:
        return self._file.tell()

    def read(self, num_bytes: int = -1) -> bytes:
        try:
            return self._file.read(num_bytes)
        except Exception:  # file systems raise errors of their own; libsndfile sees the end of the file
            return b""


@contextmanager
def _open_bytes(path: str | os.PathLike[str], content: bytes | None) -> Iterator[BinaryIO]:
    """Opens the bytes to decode; refuses local files that are not regular, because a pipe could wait forever."""
    if content is not None:
        yield _Content(content)
    elif storage.is_remote(path):
        with storage.open_binary(path) as stream:
            yield _Remote(stream)  # type: ignore[misc]
    elif "\0" in os.fspath(path):
        raise InputError(f"no audio file {os.fspath(path)!r}: check the path", code="missing_audio")
    else:
        with storage.open_regular(path) as local:
            yield local


def _check_content(
    path: str | os.PathLike[str], stream: BinaryIO, kind: AudioKind | None, *, is_decoded: bool, walks: bool
) -> None:
    """Refuses unsupported containers, and those that hold less or more than they say."""
    if kind is not None and not kind.is_readable:
        if kind.is_audio:
            example = _conversion(path)
            if kind.demuxer:
                raise InputError(
                    f"{path} is {kind.name}, which only PyAV reads: pip install -e '.[media]', or convert it, {example}"
                )
            raise InputError(
                f"{path} is {kind.name}, which is not supported ({READABLE_FORMATS} are): convert it, {example}"
            )
        raise InputError(f"{path} is {kind.name}, not audio: fetch the recording itself, or leave it out")
    verdict = check_container(
        stream,
        stream.seek(0, os.SEEK_END) or stream.tell(),
        walks=walks,
        is_decoded=is_decoded,
    )
    if verdict.fault:
        raise InputError(f"{path} {verdict.fault}", code=verdict.code)
    if verdict.is_unended and not is_decoded:  # once, not in each epoch
        logging.warning("%s has no end-of-stream mark: check that it is complete", path)
    stream.seek(0)


@contextmanager
def _open_sound(path: str | os.PathLike[str], stream: BinaryIO) -> Iterator[soundfile.SoundFile]:
    is_local = isinstance(stream, io.FileIO)
    try:
        # By its handle, because from a name libsndfile guesses a format without a header and reads noise.
        file = soundfile.SoundFile(stream.fileno() if is_local else stream, closefd=False)
    except soundfile.SoundFileError:
        name = os.fspath(path)
        if not is_local or not name.lower().endswith(_KNOWN_BY_NAME):
            raise
        file = soundfile.SoundFile(name)
    with file:
        yield file


def _check_header(path: str | os.PathLike[str], file: soundfile.SoundFile, stream: BinaryIO) -> None:
    """Refuses a header without a length, and one with impossible values.

    libsndfile guesses the length of an MP3 file without an information frame from its first frame and its size, and
    reads no further, so with a variable bit rate it silently drops speech.
    """
    _check_numbers(path, file)
    position = stream.tell()  # libsndfile reads through the same handle
    says_length = not file.subtype.startswith("MPEG") or _has_mp3_length(stream)
    num_bytes = stream.seek(0, os.SEEK_END) or stream.tell()
    stream.seek(position)
    if file.frames >= _UNKNOWN_LENGTH or not says_length:
        raise InputError(f"{path} does not say how long it is: convert it, for example to FLAC")
    if file.frames > num_bytes * _MAX_SAMPLES_A_BYTE:
        raise InputError(
            f"{path} is damaged: its header promises {file.frames} samples in {num_bytes} bytes; fetch or make it again"
        )


def _conversion(path: str | os.PathLike[str]) -> str:
    """Returns what follows "convert it," in messages."""
    return "and write the archive again" if parse_address(path) else f"for example {conversion_command(path)}"


def _check_numbers(path: str | os.PathLike[str], file: soundfile.SoundFile | MediaFile) -> None:
    """Refuses empty recordings, and impossible rates and numbers of channels."""
    if file.frames <= 0:
        raise InputError(f"no samples in audio file {path}: remove it or record it again", code="empty_audio")
    if not SAMPLE_RATES[0] <= file.samplerate <= SAMPLE_RATES[1] or not 1 <= file.channels <= MAX_CHANNELS:
        raise InputError(
            f"{path} has {file.samplerate} Hz and {file.channels} channel(s) by its header, wanted {SAMPLE_RATES[0]} "
            f"to {SAMPLE_RATES[1]} Hz and at most {MAX_CHANNELS} channels: fetch or make it again"
        )


def _has_mp3_length(stream: BinaryIO) -> bool:
    """Returns whether MPEG audio has an information frame, or is in a WAV file with a count of its samples."""
    stream.seek(skip_id3(stream))
    head = stream.read(2048)
    return any(name in head for name in (*MP3_INFO_FRAMES, *((b"fact",) if head[:4] == b"RIFF" else ())))
