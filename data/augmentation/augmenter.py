"""Applies the kinds of augmentation to the rows of a corpus, each drawn from (seed, epoch, first utterance, kind)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from data.audio.decoding import SAMPLE_RATE
from data.augmentation import filters
from data.augmentation.audio_files import AudioFiles, list_audio_files
from data.augmentation.draws import Draws, between, whole_between
from data.augmentation.noise import (
    SILENT_POWER,
    Babble,
    GeneratedNoise,
    Noise,
    OnBad,
    RecordedBabble,
    RecordedNoise,
    open_noise,
)
from data.augmentation.options import KINDS, AugmentOptions
from data.augmentation.rooms import RecordedRooms, SimulatedRooms
from data.common.errors import InputError
from data.corpus.sources import Source


@dataclasses.dataclass
class _Row:
    """A row on its way through the kinds.

    Attributes:
        waveform: float32 [T].
        speech: Part of the waveform without the silence that was added.
        members: Utterances of the row.
        on_bad: Called with the name and the fault of a recording that is left out.
        notes: Gets a line for each alteration.
    """

    waveform: np.ndarray
    speech: slice
    members: Sequence[int]
    on_bad: OnBad
    notes: list[str]


_Step = tuple[str, float, int, Callable[[_Row, np.ndarray], None]]


class Augmenter:
    """Alters rows as a microphone, a room, noise or a telephone would; thread-safe.

    A row is one recording: all its utterances are in one room, with one noise, on one line. What is drawn depends on
    the seed, the epoch and the row's first utterance alone. So replicas, hosts, parallel calls and resumed runs get the
    same samples.

        augmenter = Augmenter(options=AugmentOptions(noise_prob=1.0), source=source, seed=0, purpose=TRAINING)
        waveform = augmenter.apply(waveform, epoch=0, members=(17,))
    """

    def __init__(self, *, options: AugmentOptions, source: Source, seed: int, purpose: str):
        """Lists noises and impulse responses; reads no audio.

        Args:
            options: Probability and strength of each kind.
            source: Corpus of the rows, which babble is made of.
            seed: Seed of all draws.
            purpose: `data.augmentation.draws.TRAINING` or `EVALUATION`.

        Raises:
            InputError: If a collection has no audio, or babble has no other utterances.
        """
        self.options = options
        self._draws = draws = Draws(seed=seed, purpose=purpose)
        self._num_utterances = len(source.utterance_ids)
        self._files: dict[str, AudioFiles] = {}
        self._noise: Noise = GeneratedNoise(draws)
        talkers = None
        if options.noise_source and (options.noise_prob or options.babble_prob):
            self._files["noise"], talkers = open_noise(options.noise_source)
            self._files.update({"talkers": talkers} if talkers else {})
            self._noise = RecordedNoise(self._files["noise"])
        self._babble: Babble | RecordedBabble | None = None
        if options.babble_prob:
            self._babble = RecordedBabble(talkers) if talkers else Babble(source=source, draws=draws)
        self._rooms: SimulatedRooms | RecordedRooms = SimulatedRooms(draws=draws, decay_secs=options.room_decay_secs)
        if options.room_source and options.room_prob:
            paths = list_audio_files(options.room_source, "augment.room_source")
            self._files["room"] = AudioFiles(paths, root=options.room_source)
            self._rooms = RecordedRooms(self._files["room"])
        for name, files in self._files.items():
            files.check_readable("augment.room_source" if name == "room" else "augment.noise_source")
        self._steps = tuple(self._list_steps())

    def digest(self) -> str:
        """Returns a digest of what decides the altered samples: fields, and the names of noises and responses."""
        files = {f"{kind}_files": found.digest() for kind, found in self._files.items()}
        described = json.dumps({**self.options.describe(), **files}, sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()[:16]

    @property
    def max_silence_samples(self) -> int:
        """Most samples of silence that a row gets, both ends together."""
        if not self.options.silence_prob:
            return 0
        return 2 * round(self.options.silence_secs[1] * SAMPLE_RATE)

    def silence_samples(self, epoch: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Returns the silence of an epoch before and after a row that begins with each utterance.

        Args:
            epoch: Number of the epoch.
            start: First utterance.
            stop: Utterance after the last one; None = all.

        Returns:
            int64 [stop - start, 2]. The cost follows from their number: with several corpora the rows of a batch come
            from many epochs of a small one.
        """
        count = (self._num_utterances if stop is None else stop) - start
        units = self._draws.uniform("silence", epoch, count=3 * count, start=3 * start).reshape(-1, 3)
        low, high = self.options.silence_secs
        samples = np.rint((low + (high - low) * units[:, 1:]) * SAMPLE_RATE).astype(np.int64)
        return samples * (units[:, :1] < self.options.silence_prob)

    def apply(
        self,
        waveform: np.ndarray,
        *,
        epoch: int,
        members: Sequence[int],
        on_bad: OnBad = lambda name, reason: None,
        notes: list[str] | None = None,
    ) -> np.ndarray:
        """Returns an altered row.

        Args:
            waveform: float32 [T], not normalized.
            epoch: Number of the epoch.
            members: Utterances of the row; the first is the key of its draws.
            on_bad: Called with each noise, impulse response or talker that cannot be read; another takes its place.
            notes: Gets a few words about each kind that was applied.

        Returns:
            float32 [T + silence], finite. Silent speech gets no noise: there is no ratio to keep.

        Raises:
            InputError: If none of the noises or impulse responses can be read.
        """
        row = _Row(waveform, slice(0, len(waveform)), members, on_bad, [] if notes is None else notes)
        if not len(waveform):
            return waveform
        if self.options.silence_prob:
            _add_silence(row, self.silence_samples(epoch, members[0], members[0] + 1)[0].tolist())
        for kind, prob, count, alter in self._steps:
            units = self._draws.uniform(kind, epoch, members[0], count=count + 1)
            if units[0] < prob:
                alter(row, units[1:])
        return row.waveform

    def _list_steps(self) -> Iterator[_Step]:
        """Yields the name, the probability, the number of draws and the function of each kind that is on."""
        counts = {
            "noise": 3,
            "babble": 2 + 2 * int(self.options.babble_talkers[1]),
            "equalizer": len(filters.OCTAVES_HZ),
        }
        for kind in KINDS:
            prob = getattr(self.options, f"{kind}_prob")
            if prob and kind != "silence":  # the plan knows the silence beforehand
                yield kind, prob, counts.get(kind, 1), getattr(self, f"_apply_{kind}")

    def _apply_room(self, row: _Row, units: np.ndarray) -> None:
        count, reason = self._rooms.num_responses, ""
        for step in range(count):
            number = (int(units[0] * count) + step) % count
            try:
                response, name = self._rooms.response(number)
            except (ValueError, RuntimeError, OSError) as error:
                files, reason = self._files["room"], str(error)
                row.on_bad(files.name(files.paths[number]), reason)
                continue
            row.notes.append(f"in {name}")
            row.waveform = filters.convolve(row.waveform, response)
            return
        raise InputError(f"augment.room_source: none of {count} impulse responses can be read; the last one: {reason}")

    def _apply_noise(self, row: _Row, units: np.ndarray) -> None:
        noise, name = self._noise.draw(units[1:], len(row.waveform), row.on_bad)
        _add_noise(row, noise, between(self.options.noise_snr_db, units[0]), name)

    def _apply_babble(self, row: _Row, units: np.ndarray) -> None:
        assert self._babble is not None
        num_talkers = whole_between(self.options.babble_talkers, units[0])
        chosen = units[2:].reshape(-1, 2)[:num_talkers]
        noise = self._babble.draw(chosen, len(row.waveform), without=row.members, on_bad=row.on_bad)
        _add_noise(row, noise, between(self.options.babble_snr_db, units[1]), f"{num_talkers} other talkers")

    def _apply_equalizer(self, row: _Row, units: np.ndarray) -> None:
        gains = np.array([between(self.options.equalizer_gain_db, unit) for unit in units])
        row.waveform = filters.equalize(row.waveform, gains)
        row.notes.append(f"equalizer {', '.join(f'{gain:+.0f}' for gain in gains)} dB")

    def _apply_low_pass(self, row: _Row, units: np.ndarray) -> None:
        cutoff_hz = between(self.options.low_pass_hz, units[0])
        row.waveform = filters.low_pass(row.waveform, cutoff_hz)
        row.notes.append(f"nothing above {cutoff_hz:,.0f} Hz")

    def _apply_gain(self, row: _Row, units: np.ndarray) -> None:
        gain_db = between(self.options.gain_db, units[0])
        row.waveform = row.waveform * np.float32(10 ** (gain_db / 20))
        row.notes.append(f"gain {gain_db:+.1f} dB")

    def _apply_clip(self, row: _Row, units: np.ndarray) -> None:
        cut_db = between(self.options.clip_db, units[0])
        row.waveform = filters.clip(row.waveform, cut_db)
        row.notes.append(f"clipped {cut_db:.1f} dB below the peak")

    def _apply_telephone(self, row: _Row, units: np.ndarray) -> None:
        codec = self.options.telephone_codecs[int(units[0] * len(self.options.telephone_codecs))]
        row.waveform = filters.telephone(row.waveform, codec)
        row.notes.append(f"telephone, {codec if codec != 'none' else 'no codec'}")


def _add_silence(row: _Row, samples: Sequence[int]) -> None:
    before, after = samples
    if before or after:
        row.waveform = np.pad(row.waveform, (before, after))
        row.speech = slice(before, len(row.waveform) - after)
        row.notes.append(f"{before / SAMPLE_RATE:.2f} s of silence before, {after / SAMPLE_RATE:.2f} s after")


def _add_noise(row: _Row, noise: np.ndarray, snr_db: float, name: str) -> None:
    """Adds noise at a ratio between the mean power of the speech and that of the noise."""
    of_speech, of_noise = filters.power(row.waveform[row.speech]), filters.power(noise)
    if of_speech > SILENT_POWER and of_noise > 0.0:
        row.waveform = row.waveform + noise * np.float32(np.sqrt(of_speech / of_noise * 10 ** (-snr_db / 10)))
        row.notes.append(f"{name} at {snr_db:.1f} dB")
