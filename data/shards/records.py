"""One record of a shard: its features, and the audio in it as 16-bit samples or as FLAC."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
import soundfile

from common import storage
from data.audio.decoding import SAMPLE_RATE, load_audio, to_int16
from data.common.errors import InputError

# pcm16: little-endian int16 at 16 kHz. flac: a FLAC file, the original where that is 16 kHz and mono.
PAYLOADS = ("pcm16", "flac")
_FULL_SCALE = 32768
_FLAC_MAGIC = b"fLaC"


class EncodedAudio(NamedTuple):
    """Audio as a record holds it; `is_original` where the file's own bytes were kept."""

    audio: bytes
    num_samples: int
    is_original: bool


def feature_spec() -> dict[str, Any]:
    """Features of a record, for `tf.io.parse_example`; the index says which of `PAYLOADS` `audio` is."""
    import tensorflow as tf  # takes seconds, which listing and checking shards need not wait for

    kinds = {
        "audio": tf.string,
        "num_samples": tf.int64,
        "text": tf.string,
        "utterance_id": tf.string,
        "speaker_id": tf.string,
    }
    return {name: tf.io.FixedLenFeature([], kind) for name, kind in kinds.items()}


def encode_audio(
    path: str, *, payload: str, on_rate_mismatch: str, start: int | None = None, num_samples: int = 0
) -> EncodedAudio:
    """Reads an audio file or a part of it into the form of a payload; decodes it in any case, so that a bad one shows.

    Args:
        path: local or a URL.
        payload: one of `PAYLOADS`. What is no FLAC of 16 kHz and one channel becomes one for "flac": the samples
            that "pcm16" would hold, without loss.
        on_rate_mismatch: as `load_audio`.
        start: as `load_audio`.
        num_samples: as `load_audio`.

    Raises:
        InputError: as `load_audio`.
    """
    if payload == "pcm16" or start is not None:
        waveform = load_audio(path, on_rate_mismatch=on_rate_mismatch, start=start, num_samples=num_samples)
        audio = to_int16(waveform).tobytes() if payload == "pcm16" else encode_flac(waveform)
        return EncodedAudio(audio, len(waveform), False)
    try:
        content = storage.read_bytes(path)
    except OSError as error:
        raise InputError(f"cannot read audio file {path} ({error.strerror or error}): fetch it again") from error
    waveform = load_audio(path, on_rate_mismatch=on_rate_mismatch, content=content)
    if _is_plain_flac(content):
        return EncodedAudio(content, len(waveform), True)
    return EncodedAudio(encode_flac(waveform), len(waveform), False)


def encode_flac(waveform: np.ndarray) -> bytes:
    """Returns float32 [T] at 16 kHz as a FLAC file of 16 bits."""
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
    return example.SerializeToString(deterministic=True)  # a map has no order of its own


def decode_record(record: bytes, *, payload: str, name: str) -> np.ndarray:
    """Audio of a record, float32 [T] at 16 kHz; `name` stands in errors."""
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
