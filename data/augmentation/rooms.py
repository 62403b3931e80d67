"""Reverberates with impulse responses: recorded ones, or those of simulated rooms."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from data.audio.decoding import SAMPLE_RATE, read_audio, resample
from data.augmentation.audio_files import AudioFiles
from data.augmentation.draws import Draws, between
from data.common.errors import InputError

NUM_ROOMS = 500
MAX_RESPONSE_SECS = 2.0
_MAX_KEPT = 2000  # recorded responses in memory, at most 256 MB
_SPEED_OF_SOUND = 343.0  # meters a second
_ROOM_METERS = ((3.0, 9.0), (3.0, 7.0), (2.4, 3.6))
_DISTANCE_METERS = (0.2, 3.0)  # from the mouth to the microphone, as likely between 0.2 and 0.4 as between 1 and 2


class SimulatedRooms:
    """Impulse responses of rooms of random sizes, made at their first use.

    rooms = SimulatedRooms(draws=Draws(seed=0, purpose=TRAINING), decay_secs=(0.1, 0.5))
    response, name = rooms.response(17)
    """

    num_responses = NUM_ROOMS

    def __init__(self, *, draws: Draws, decay_secs: Sequence[float]):
        """Stores the key of the rooms and the range of their decay times."""
        self._draws = draws
        self._decay_secs = decay_secs
        self._made: dict[int, tuple[np.ndarray, str]] = {}

    def response(self, number: int) -> tuple[np.ndarray, str]:
        """Returns the response of a room, float32 [K] with 1 for the direct sound at its start, and its name."""
        if number not in self._made:
            units = self._draws.uniform("simulated room", number, count=11)
            decay_secs = between(self._decay_secs, float(units[10]))
            noise = self._draws.normal("room tail", number, count=round(decay_secs * SAMPLE_RATE))
            made = simulate_room(units[:10], noise, decay_secs=decay_secs)
            self._made[number] = made, f"a simulated room, {decay_secs:.2f} s"
        return self._made[number]


def simulate_room(units: np.ndarray, noise: np.ndarray, *, decay_secs: float) -> np.ndarray:
    """Returns the impulse response of a room: direct sound, the first reflection of each wall, and a diffuse tail.

    The tail is noise that falls by 60 dB in `decay_secs` (Polack's model). Its energy follows from the distance of the
    mouth and from the critical distance of the room, 0.057 sqrt(volume / decay time) meters.

    Args:
        units: [10] in [0, 1): size of the room, place of the microphone, a place in the direction of the mouth, and
            the distance of the mouth.
        noise: float32 [K] of unit variance.
        decay_secs: Time in which the sound falls by 60 dB.

    Returns:
        float32 [K], the direct sound at its start with amplitude 1.
    """
    size = np.array([between(ends, float(unit)) for ends, unit in zip(_ROOM_METERS, units, strict=False)])
    microphone, direction = size * (0.1 + 0.8 * units[3:6]), size * (0.1 + 0.8 * units[6:9])
    near, far = _DISTANCE_METERS
    farthest = max(float(np.linalg.norm(direction - microphone)), near)
    distance = min(near * (far / near) ** float(units[9]), farthest)
    mouth = microphone + (direction - microphone) * (distance / farthest)
    volume, surface = float(np.prod(size)), 2.0 * float(np.prod(size) * (1.0 / size).sum())
    # Sabine: how much of the energy a wall must absorb for this decay.
    absorbed = min(0.161 * volume / (surface * decay_secs), 0.99)
    times = np.arange(len(noise)) / SAMPLE_RATE
    response = noise * np.exp(-3.0 * np.log(10.0) / decay_secs * times)
    mirrored = np.repeat(mouth[None], 6, axis=0)
    mirrored[range(3), range(3)] *= -1.0
    mirrored[range(3, 6), range(3)] = 2.0 * size - mouth
    paths = np.maximum(np.linalg.norm(mirrored - microphone, axis=1), distance)
    delays = np.rint((paths - distance) / _SPEED_OF_SOUND * SAMPLE_RATE).astype(np.int64)
    response[: max(int(delays.min()), 1)] = 0.0
    energy = (distance / 0.057) ** 2 * decay_secs / volume
    response *= np.sqrt(energy / max(float(np.square(response).sum()), 1e-12))
    is_inside = delays < len(response)
    np.add.at(response, delays[is_inside], (np.sqrt(1.0 - absorbed) * distance / paths)[is_inside])
    response[0] = 1.0
    return response.astype(np.float32)


class RecordedRooms:
    """Impulse responses in files, aligned at their direct sound."""

    def __init__(self, files: AudioFiles):
        """Stores the files; they are read at their first use."""
        self._files = files
        self.num_responses = len(files.paths)
        self._made: dict[int, tuple[np.ndarray, str]] = {}
        self._lock = threading.Lock()

    def response(self, number: int) -> tuple[np.ndarray, str]:
        """Returns a response as `SimulatedRooms.response` does.

        Raises:
            InputError: If the file cannot be read, or is silent.
        """
        with self._lock:
            if number in self._made:
                return self._made[number]
        path = self._files.paths[number]
        channels, rate = read_audio(path)
        # One microphone: the mix of an array is a comb filter.
        made = align_response(resample(channels[:, 0], rate, SAMPLE_RATE), path), self._files.name(path)
        with self._lock:
            while len(self._made) >= _MAX_KEPT:
                del self._made[next(iter(self._made))]
            self._made[number] = made
        return made


def align_response(recorded: np.ndarray, path: str) -> np.ndarray:
    """Returns float32 [K] from the highest peak on, which becomes 1, of at most `MAX_RESPONSE_SECS`."""
    start = int(np.abs(recorded).argmax()) if len(recorded) else 0
    if not len(recorded) or not recorded[start]:
        raise InputError(f"{path} is silent: remove it from the impulse responses")
    response = recorded[start : start + round(MAX_RESPONSE_SECS * SAMPLE_RATE)]
    return (response / recorded[start]).astype(np.float32)
