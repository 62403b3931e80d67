"""Makes containers that libsndfile does not know, with PyAV itself."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

# Ending -> container, codec, rate.
KINDS = {
    "m4a": ("ipod", "aac", 16_000),
    "mp4": ("mp4", "aac", 44_100),
    "aac": ("adts", "aac", 16_000),
    "webm": ("webm", "libopus", 48_000),
    "mkv": ("matroska", "pcm_s16le", 16_000),
    "amr": ("amr", "libopencore_amrnb", 8_000),
    "wma": ("asf", "wmav2", 44_100),
    "avi": ("avi", "pcm_s16le", 16_000),
    "ts": ("mpegts", "aac", 16_000),
}


def sweep(secs: float, rate: int) -> np.ndarray:
    """A tone that rises from 200 to 1,200 Hz, float32 [T]."""
    times = np.arange(round(secs * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (200 * times + 500 / secs * times**2))).astype(np.float32)


def write_media(
    path: Path,
    waveform: np.ndarray,
    *,
    rate: int,
    container: str,
    codec: str,
    channels: int = 1,
    video: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Encodes a waveform [T] to every channel; with a few black pictures of twice its length if `video`."""
    layout = "mono" if channels == 1 else "stereo"
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=container, options=options or {}) as file:
        picture = None
        if video:
            picture = file.add_stream("mpeg4", rate=10)
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        audio = file.add_stream(codec, rate=rate, layout=layout)
        audio.bit_rate = 12_200 if codec.endswith("amrnb") else 128_000
        samples = np.clip(np.tile(waveform, (channels, 1)) * 32767, -32768, 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples.T.reshape(1, -1).copy(), format="s16", layout=layout)
        frame.sample_rate = rate
        size = audio.codec_context.frame_size or 1024
        resampler = av.AudioResampler(
            format=audio.codec_context.format,
            layout=layout,
            rate=rate,
            frame_size=size,
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(audio.encode(part))
        file.mux(audio.encode(None))
        if picture is not None:
            for number in range(round(20 * len(waveform) / rate)):
                shown = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
                shown.pts = number
                file.mux(picture.encode(shown))
            file.mux(picture.encode(None))
    return path


def write_kind(folder: Path, ending: str, secs: float = 2.0, **more) -> Path:
    """Writes FOLDER/ENDING.ENDING of `sweep`."""
    container, codec, rate = KINDS[ending]
    path = folder / f"{ending}.{ending}"
    return write_media(path, sweep(secs, rate), rate=rate, container=container, codec=codec, **more)
