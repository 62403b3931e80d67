"""Makes the noises that are added to speech: generated ones, recorded ones, and other people talking."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from scipy import fft

from common import storage
from data.audio.decoding import SAMPLE_RATE, to_int16
from data.augmentation.audio_files import AudioFiles, list_audio_files, take_looped
from data.augmentation.draws import Draws
from data.augmentation.filters import power
from data.common.errors import InputError
from data.corpus.sources import Source

GENERATED = ("white", "pink", "brown", "hum")
# A loop holds whole periods of 50 and 60 Hz, so that its end fits its start.
_LOOP_SAMPLES = 30 * SAMPLE_RATE
_TALKER_RMS = 0.05  # of each talker, whose peaks then hardly ever reach full scale
_POOL_SIZE = 128  # utterances that babble is made of; some 60 MB
# Below this power a recording counts as silent: half a step of 16 bits.
SILENT_POWER = (0.5 / 32768) ** 2

OnBad = Callable[[str, str], None]
"""Reports a recording that is left out: (name, what is wrong)."""


class Noise(Protocol):
    """A source of noise: generated, or recordings."""

    def draw(self, units: np.ndarray, num_samples: int, on_bad: OnBad) -> tuple[np.ndarray, str]:
        """Returns float32 [num_samples] and its name; `units` [2] in [0, 1) choose the noise and the place in it."""


class GeneratedNoise:
    """White, pink and brown noise, and the hum of the mains."""

    def __init__(self, draws: Draws):
        """Stores the key of the noises, which are made at their first use."""
        self._draws = draws
        self._lock = threading.Lock()

    def draw(self, units: np.ndarray, num_samples: int, on_bad: OnBad) -> tuple[np.ndarray, str]:
        """See `Noise.draw`."""
        del on_bad
        color = GENERATED[int(units[0] * len(GENERATED))]
        with self._lock:  # the first user makes them, the others wait
            loop = self._loops[color]
        return take_looped(loop, int(units[1] * len(loop)), num_samples), f"{color} noise" if color != "hum" else color

    @functools.cached_property
    def _loops(self) -> dict[str, np.ndarray]:
        """Returns a loop of each kind, float32 of unit power."""
        white = fft.rfft(self._draws.normal("white noise", count=_LOOP_SAMPLES))
        # Flat below 20 Hz, where a slope would hold all of the power.
        frequencies = np.maximum(fft.rfftfreq(_LOOP_SAMPLES, 1.0 / SAMPLE_RATE), 20.0).astype(np.float32)
        spectra = {"white": white, "pink": white / np.sqrt(frequencies), "brown": white / frequencies}
        hum = np.zeros_like(white)
        phases = self._draws.uniform("hum", count=24)
        for i, phase in enumerate(phases):
            harmonic = i // 2 + 1
            hum[(50 if i % 2 else 60) * harmonic * 30] = np.exp(2j * np.pi * phase) / harmonic
        spectra["hum"] = hum
        loops = {}
        for color, spectrum in spectra.items():
            spectrum[0] = 0.0
            loop = fft.irfft(spectrum, _LOOP_SAMPLES).astype(np.float32)
            loops[color] = loop / np.float32(np.sqrt(power(loop)))
        return loops


class RecordedNoise:
    """Noise recordings in files."""

    def __init__(self, files: AudioFiles):
        """Stores the files; they are read when they are drawn."""
        self._files = files
        self._unreadable: dict[int, str] = {}

    def draw(self, units: np.ndarray, num_samples: int, on_bad: OnBad) -> tuple[np.ndarray, str]:
        """See `Noise.draw`; a recording that cannot be read or is silent is reported, and the next one drawn.

        Raises:
            InputError: If no recording can be used.
        """
        files = self._files
        first, reason = int(units[0] * len(files.paths)), ""
        for step in range(len(files.paths)):
            number = (first + step) % len(files.paths)
            path, reason = files.paths[number], self._unreadable.get(number, "")
            if not reason:
                try:
                    waveform = files.read(number, unit=float(units[1]), num_samples=num_samples)
                    if power(waveform) > SILENT_POWER:
                        return waveform, files.name(path)
                    reason = f"{path} is silent where it was drawn"
                except (ValueError, RuntimeError, OSError) as error:
                    reason = self._unreadable[number] = str(error)
            on_bad(files.name(path), reason)
        raise InputError(f"no noise can be read, of {len(files.paths)} recordings; the last one: {reason}")


class Babble:
    """Other people talking, made of other rows of the corpus."""

    def __init__(self, *, source: Source, draws: Draws):
        """Chooses the utterances that babble is made of; they are read at their first use.

        Raises:
            InputError: If there are no other utterances.
        """
        if len(source.utterance_ids) < 2:
            raise InputError("augment.babble_prob: babble is made of other utterances, and there are none")
        bits = draws.bits("babble pool", count=len(source.utterance_ids))
        self._pool = np.argsort(bits, kind="stable")[:_POOL_SIZE].tolist()
        self._source = source
        self._read: dict[int, np.ndarray] = {}

    def draw(self, units: np.ndarray, num_samples: int, *, without: Sequence[int], on_bad: OnBad) -> np.ndarray:
        """Returns float32 [num_samples]: the sum of talkers as loud as each other; zeros if none can be read.

        Args:
            units: [talkers, 2] in [0, 1): whom to take, and where to begin.
            num_samples: Samples of the result.
            without: Utterances that are not taken.
            on_bad: Called with each utterance that cannot be read.
        """
        total = np.zeros(num_samples, dtype=np.float32)
        for who, where in units:
            samples = self._talker(int(who * len(self._pool)), without, on_bad)
            if samples is not None:
                total += take_looped(samples, int(where * len(samples)), num_samples)
        return total

    def _talker(self, first: int, without: Sequence[int], on_bad: OnBad) -> np.ndarray | None:
        for step in range(len(self._pool)):
            index = self._pool[(first + step) % len(self._pool)]
            if index in without:
                continue
            if index not in self._read:
                try:
                    waveform = self._source.read_waveform(index)
                    if not len(waveform) or not np.isfinite(waveform).all():
                        raise InputError("it is empty or holds values that are not finite")
                    gain = _TALKER_RMS / np.sqrt(max(power(waveform), SILENT_POWER))
                    self._read[index] = to_int16(waveform * np.float32(gain))
                except (ValueError, RuntimeError, OSError) as error:
                    on_bad(self._source.utterance_ids[index], str(error))
                    continue
            return self._read[index]
        return None


class RecordedBabble:
    """People talking in recordings, such as MUSAN's speech."""

    def __init__(self, files: AudioFiles):
        """Stores the files."""
        self._noise = RecordedNoise(files)

    def draw(self, units: np.ndarray, num_samples: int, *, without: Sequence[int], on_bad: OnBad) -> np.ndarray:
        """See `Babble.draw`."""
        del without
        total = np.zeros(num_samples, dtype=np.float32)
        for one in units:
            part = self._noise.draw(one, num_samples, on_bad)[0]
            total += part * np.float32(1.0 / np.sqrt(power(part)))
        return total


def open_noise(source: str) -> tuple[AudioFiles, AudioFiles | None]:
    """Returns the noises of a collection, and its talkers if it is in MUSAN's layout: noise/, music/ and speech/."""
    field = "augment.noise_source"
    if not (storage.is_dir(storage.join(source, "noise")) and storage.is_dir(storage.join(source, "speech"))):
        return AudioFiles(list_audio_files(source, field), root=source), None
    noises = [
        path
        for part in ("noise", "music")
        if storage.is_dir(folder := storage.join(source, part))
        for path in list_audio_files(folder, field)
    ]
    talkers = list_audio_files(storage.join(source, "speech"), field)
    return AudioFiles(sorted(noises), root=source), AudioFiles(talkers, root=source)
