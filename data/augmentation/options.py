"""Options of augmentation: the probability and the strength of each kind, as the fields of config.data.augment."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common import storage
from common.near_files import describe_near
from common.nearest import name_nearest
from data.common.errors import InputError

CODECS = ("none", "mulaw", "gsm")
# The kinds in the order in which they are applied.
KINDS = ("silence", "room", "noise", "babble", "equalizer", "low_pass", "gain", "clip", "telephone")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentOptions:
    """Probability and strength of each kind of augmentation; a pair holds the ends of a range that is drawn from.

        options = AugmentOptions(noise_prob=0.5, noise_snr_db=(5.0, 20.0))

    Attributes:
        silence_prob: Probability of silence before and after a row.
        silence_secs: Silence at each end.
        room_prob: Probability of reverberation.
        room_source: Folder or list of impulse responses; "" simulates rooms.
        room_decay_secs: Time in which the sound of a simulated room falls by 60 dB.
        noise_prob: Probability of noise.
        noise_source: Folder or list of noise recordings, or a folder in MUSAN's layout; "" generates noise.
        noise_snr_db: Ratio of speech to noise.
        babble_prob: Probability of other people talking.
        babble_talkers: Number of them.
        babble_snr_db: Ratio of speech to babble.
        equalizer_prob: Probability of a random frequency response.
        equalizer_gain_db: Gain of each octave.
        low_pass_prob: Probability that high frequencies are lost.
        low_pass_hz: Frequency above which they are.
        gain_prob: Probability of another level.
        gain_db: Change of the level.
        clip_prob: Probability of clipping.
        clip_db: Part of the peak that is cut off.
        telephone_prob: Probability of a telephone's band, 300 to 3,400 Hz at a sample rate of 8 kHz.
        telephone_codecs: Codecs of the telephone, each as likely; of `CODECS`.

    Raises:
        InputError: If a value is out of range; names the field.
    """

    silence_prob: float = 0.0
    silence_secs: Sequence[float] = (0.0, 0.5)
    room_prob: float = 0.0
    room_source: str = ""
    room_decay_secs: Sequence[float] = (0.1, 0.5)
    noise_prob: float = 0.0
    noise_source: str = ""
    noise_snr_db: Sequence[float] = (5.0, 30.0)
    babble_prob: float = 0.0
    babble_talkers: Sequence[int] = (3, 7)
    babble_snr_db: Sequence[float] = (10.0, 25.0)
    equalizer_prob: float = 0.0
    equalizer_gain_db: Sequence[float] = (-10.0, 10.0)
    low_pass_prob: float = 0.0
    low_pass_hz: Sequence[float] = (2000.0, 7000.0)
    gain_prob: float = 0.0
    gain_db: Sequence[float] = (-15.0, 10.0)
    clip_prob: float = 0.0
    clip_db: Sequence[float] = (0.0, 15.0)
    telephone_prob: float = 0.0
    telephone_codecs: Sequence[str] = CODECS

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            _check_range(f"augment.{name}", getattr(self, name), low, high)
        if any(value != int(value) for value in self.babble_talkers):
            raise InputError(f"augment.babble_talkers={tuple(self.babble_talkers)}: wanted whole numbers")
        for kind in KINDS:
            prob = getattr(self, f"{kind}_prob")
            if not _is_number(prob) or not 0 <= prob <= 1:
                raise InputError(f"augment.{kind}_prob={prob!r}: wanted a number, 0 to 1")
        for codec in self.telephone_codecs:
            if codec not in CODECS:
                raise InputError(f"augment.telephone_codecs={codec}: no such codec{name_nearest(str(codec), CODECS)}")
        if not self.telephone_codecs:
            raise InputError(f"augment.telephone_codecs is empty: wanted one or more of {', '.join(CODECS)}")

    @property
    def is_on(self) -> bool:
        """Returns True if any kind has a probability above 0."""
        return any(getattr(self, f"{kind}_prob") for kind in KINDS)

    def describe(self) -> dict[str, Any]:
        """Returns the fields of the kinds that are on; {} if none is. Where a source lies is left out."""
        on = [kind for kind in KINDS if getattr(self, f"{kind}_prob")]
        fields = dataclasses.asdict(self)
        return {
            name: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
            for name, value in sorted(fields.items())
            if any(name.startswith(f"{kind}_") for kind in on) and not name.endswith("_source")
        }


def augment_groups(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the name and the fields of each group of a config that alters audio; older configs have none."""
    data = config.get("data", {})
    for group, fields in [("data", data), *((f"data.eval.{name}", one) for name, one in data.get("eval", {}).items())]:
        if isinstance(augment := fields.get("augment"), Mapping):
            yield f"{group}.augment", augment


def check_augment(fields: Mapping[str, Any], group: str, *, is_read: bool = True) -> None:
    """Checks the fields of a group of a config.

    Args:
        fields: The fields.
        group: The name of the group, such as "data.augment".
        is_read: Whether its sources are read, so that they must exist.

    Raises:
        InputError: A value is out of range, or a source does not exist; names the field.
    """
    try:
        options = AugmentOptions(**fields)
    except InputError as error:
        raise InputError(f"{group}.{str(error).removeprefix('augment.')}") from error
    for name in ("noise_source", "room_source") if is_read else ():
        if (source := getattr(options, name)) and not storage.is_remote(source) and not storage.exists(source):
            raise InputError(f"{group}.{name}={source}: no such folder or list{describe_near(source)}")


# The limits of both ends of each range.
_RANGES: Mapping[str, tuple[float, float]] = {
    "silence_secs": (0.0, 60.0),
    "room_decay_secs": (0.02, 10.0),
    "noise_snr_db": (-100.0, 100.0),
    "babble_talkers": (1, 100),
    "babble_snr_db": (-100.0, 100.0),
    "equalizer_gain_db": (-60.0, 60.0),
    "low_pass_hz": (100.0, 8000.0),
    "gain_db": (-100.0, 100.0),
    "clip_db": (0.0, 60.0),
}


def _check_range(name: str, value: Sequence[float], low: float, high: float) -> None:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2 or not all(map(_is_number, value)):
        raise InputError(f"{name}={value!r}: wanted two numbers, the lower and the upper end")
    if value[0] > value[1]:
        raise InputError(f"{name}={tuple(value)}: the lower end comes first: ({value[1]:g}, {value[0]:g})")
    if value[0] < low or value[1] > high:
        raise InputError(f"{name}={tuple(value)}: wanted numbers from {low:g} to {high:g}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
