"""One record: what of an audio file it keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from data.audio.decoding import load_audio
from data.common.errors import InputError
from data.shards.records import decode_record, encode_audio, encode_record

NOISE = np.random.default_rng(0).normal(scale=0.2, size=(3000, 2)).clip(-1, 1)


def there_and_back(path: Path, payload: str) -> tuple[np.ndarray, bool]:
    audio, num_samples, is_original = encode_audio(str(path), payload=payload, on_rate_mismatch="resample")
    ids = {"text": "A", "utterance_id": "u", "speaker_id": ""}
    record = encode_record(audio=audio, num_samples=num_samples, **ids)
    waveform = decode_record(record, payload=payload, name="u")
    assert len(waveform) == num_samples
    if is_original:
        assert audio == path.read_bytes()
    return waveform, is_original


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype", "is_original"),
    [
        ("a.flac", 16000, 1, "PCM_16", True),
        ("a.flac", 16000, 1, "PCM_24", True),
        ("a.flac", 16000, 2, "PCM_16", False),
        ("a.flac", 22050, 1, "PCM_16", False),
        ("a.wav", 16000, 1, "PCM_16", False),
        ("a.ogg", 16000, 1, "VORBIS", False),
    ],
)
def test_flac_payload(tmp_path: Path, name: str, rate: int, channels: int, subtype: str, is_original: bool) -> None:
    path = tmp_path / name
    soundfile.write(path, NOISE[:, :channels], rate, subtype=subtype)
    waveform, kept = there_and_back(path, "flac")
    samples, _ = there_and_back(path, "pcm16")
    assert kept == is_original
    if kept:  # to the last bit, 24-bit files too
        np.testing.assert_array_equal(waveform, load_audio(path))
        np.testing.assert_allclose(waveform, samples, atol=0.51 / 32768)
    else:
        np.testing.assert_array_equal(waveform, samples)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(b"fLaC" + bytes(100))
    for payload in ("pcm16", "flac"):
        with pytest.raises(InputError, match=r"cannot decode audio file .*a\.flac"):
            encode_audio(str(tmp_path / "a.flac"), payload=payload, on_rate_mismatch="resample")
        with pytest.raises(InputError, match=r"audio file .*b\.flac"):
            encode_audio(str(tmp_path / "b.flac"), payload=payload, on_rate_mismatch="resample")
    soundfile.write(tmp_path / "c.flac", NOISE, 8000)
    with pytest.raises(InputError, match="has 8000 Hz, wanted 16000 Hz"):
        encode_audio(str(tmp_path / "c.flac"), payload="flac", on_rate_mismatch="refuse")


@pytest.mark.parametrize("payload", ["pcm16", "flac"])
@pytest.mark.parametrize("scale", [1.0, 4.0, 32768.0])
def test_a_float_file_survives_sixteen_bits_at_any_scale(tmp_path: Path, payload: str, scale: float) -> None:
    soundfile.write(tmp_path / "a.wav", NOISE[:, 0] * scale, 16000, subtype="FLOAT")
    waveform, _ = there_and_back(tmp_path / "a.wav", payload)
    assert np.corrcoef(waveform, NOISE[:, 0])[0, 1] > 0.99999


def test_an_error_about_a_record_does_not_look_for_a_file() -> None:
    ids = {"text": "A", "utterance_id": "u", "speaker_id": ""}
    record = encode_record(audio=b"fLaC" + bytes(100), num_samples=1, **ids)
    with pytest.raises(InputError, match="cannot decode audio file u"):
        decode_record(record, payload="flac", name="u")
