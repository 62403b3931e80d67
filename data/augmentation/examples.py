"""Makes examples of augmentation to listen to: an utterance as it is, and as a row of training hears it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from data.audio.decoding import SAMPLE_RATE
from data.augmentation.augmenter import Augmenter
from data.augmentation.draws import TRAINING, Draws
from data.corpus.sources import Source
from data.shards.records import encode_flac

NUM_EXAMPLES = 20
_TRIES = 20  # rows to draw for each example; a kind may be improbable


@dataclasses.dataclass(frozen=True)
class Example:
    """An altered utterance.

    Attributes:
        where: Name of the set.
        utterance_id: Id of the utterance.
        what: What was done, in words.
        original: FLAC file of the utterance.
        altered: FLAC file of the altered utterance.
    """

    where: str
    utterance_id: str
    what: str
    original: bytes
    altered: bytes


def make_examples(
    source: Source, augmenter: Augmenter, *, where: str = "", count: int = NUM_EXAMPLES, max_secs: float = 0.0
) -> list[Example]:
    """Makes examples of utterances that are drawn from all over a corpus, each time the same.

    Args:
        source: Corpus of the utterances.
        augmenter: Alters them.
        where: Name of the set.
        count: Number of examples; fewer if hardly any row is altered, or can be read.
        max_secs: Longest part of an utterance; 0 = all of it.
    """
    examples: list[Example] = []
    for epoch, index in _draw_rows(len(source.utterance_ids), count * _TRIES):
        if len(examples) >= count:
            break
        try:
            waveform = source.read_waveform(index)
            waveform = waveform[: round(max_secs * SAMPLE_RATE)] if max_secs else waveform
            notes: list[str] = []
            altered = augmenter.apply(waveform, epoch=epoch, members=(index,), notes=notes)
        except (ValueError, RuntimeError, OSError):
            continue  # the checks of the audio report it
        if notes:
            pair = encode_flac(waveform), encode_flac(altered)
            examples.append(Example(where, source.utterance_ids[index], "; ".join(notes), *pair))
    return examples


def _draw_rows(num_utterances: int, count: int) -> Iterator[tuple[int, int]]:
    """Yields an epoch and an utterance of it, all utterances in a random order, and again in the next epoch."""
    order = np.argsort(Draws(seed=0, purpose=TRAINING).bits("examples", count=num_utterances), kind="stable")
    for number in range(count):
        epoch, position = divmod(number, num_utterances)
        yield epoch, int(order[position])
