"""Encodes and decodes a record of a shard, with audio as 16-bit samples or as FLAC."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
import soundfile

from common import storage
from data.archives.contents import read_address
from data.audio.decoding import SAMPLE_RATE, load_audio, to_int16
from data.audio.open_files import OpenFiles
from data.common.errors import InputError

# pcm16: little-endian int16 at 16 kHz. flac: a FLAC file, the original one if it is 16 kHz and mono.
PAYLOADS = ("pcm16", "flac")
_FULL_SCALE = 32768
_FLAC_MAGIC = b"fLaC"


class EncodedAudio(NamedTuple):
    """Audio of a record.

    Attributes:
        audio: Encoded audio.
        num_samples: Number of samples at 16 kHz.
        is_original: Whether `audio` is the original file.
    """

    audio: bytes
    num_samples: int
    is_original: bool


def feature_spec() -> dict[str, Any]:
    """Returns the features of a record for `tf.io.parse_example`; the index records the payload of `audio`."""
    import tensorflow as tf  # imported here, because it takes seconds that listing and checking shards do not need

    kinds = {
        "audio": tf.string,
        "num_samples": tf.int64,
        "text": tf.string,
        "utterance_id": tf.string,
        "speaker_id": tf.string,
    }
    return {name: tf.io.FixedLenFeature([], kind) for name, kind in kinds.items()}


def encode_audio(
    path: str,
    *,
    payload: str,
    on_rate_mismatch: str,
    start: int | None = None,
    num_samples: int = 0,
    channel: int | None = None,
    files: OpenFiles | None = None,
) -> EncodedAudio:
    """Encodes an audio file or a segment of it as a payload; always decodes it, to find damaged files.

    Args:
        path: Path or URL of the audio file.
        payload: One of `PAYLOADS`. With "flac", anything that is not 16 kHz mono FLAC is re-encoded losslessly from the
            samples of "pcm16".
        on_rate_mismatch: "resample", or "refuse" to raise if the file is not sampled at 16 kHz.
        start: First sample of a segment at the file's rate; None = the whole file.
        num_samples: Samples of the segment at the file's rate.
        channel: The only channel to take, from 0; None = their mix.
        files: Keeps the file open for the next segment of it; None = it is closed.

    Raises:
        InputError: If the audio cannot be read.
    """
    if payload == "pcm16" or start is not None or channel is not None:
        waveform = load_audio(
            path,
            on_rate_mismatch=on_rate_mismatch,
            start=start,
            num_samples=num_samples,
            channel=channel,
            files=files,
        )
        audio = to_int16(waveform).tobytes() if payload == "pcm16" else encode_flac(waveform)
        return EncodedAudio(audio, len(waveform), False)
    try:
        found = read_address(path)
        content = storage.read_bytes(path) if found is None else found
    except OSError as error:
        raise InputError(f"cannot read audio file {path} ({error.strerror or error}): fetch it again") from error
    waveform = load_audio(path, on_rate_mismatch=on_rate_mismatch, content=content)
    if _is_plain_flac(content):
        return EncodedAudio(content, len(waveform), True)
    return EncodedAudio(encode_flac(waveform), len(waveform), False)


def encode_flac(waveform: np.ndarray) -> bytes:
    """Encodes float32 [T] at 16 kHz as a 16-bit FLAC file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, to_int16(waveform), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def encode_record(*, audio: bytes, num_samples: int, text: str, utterance_id: str, speaker_id: str) -> bytes:
    """Serializes a record."""
    import tensorflow as tf

    example = tf.train.Example()
    feature = example.features.feature
    feature["audio"].bytes_list.value.append(audio)
    feature["num_samples"].int64_list.value.append(num_samples)
    feature["text"].bytes_list.value.append(text.encode())
    feature["utterance_id"].bytes_list.value.append(utterance_id.encode())
    feature["speaker_id"].bytes_list.value.append(speaker_id.encode())
    return example.SerializeToString(deterministic=True)  # else the order of the map varies


def decode_record(record: bytes, *, payload: str, name: str) -> np.ndarray:
    """Decodes the audio of a record to float32 [T] at 16 kHz; `name` identifies it in errors."""
    import tensorflow as tf

    audio = tf.train.Example.FromString(record).features.feature["audio"].bytes_list.value[0]
    if payload == "flac":
        return load_audio(name, content=audio)
    return np.frombuffer(audio, dtype="<i2").astype(np.float32) / np.float32(_FULL_SCALE)


def _is_plain_flac(content: bytes) -> bool:
    if content[:4] != _FLAC_MAGIC:
        return False
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        return file.samplerate == SAMPLE_RATE and file.channels == 1
