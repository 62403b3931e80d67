"""Collects the audio of a few utterances of each finding, and of augmentation, for the doctor's page."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from data.audio.decoding import SAMPLE_RATE, to_mono
from data.augmentation.examples import NUM_EXAMPLES, Example, make_examples
from data.batches.datasets import EvalData, TrainData
from data.doctor.findings import SUSPECT, Finding
from data.doctor.text_checks import Corpus
from data.shards.records import encode_flac

CLIPS_PER_FINDING = 3
MAX_SUSPECTS = 200  # suspect transcripts to listen to
MAX_CLIP_SECS = 30
MAX_EXAMPLE_SECS = 5.0
# FLAC on the page, where base64 makes it a third more: of the findings, and of the examples.
MAX_BYTES = 3_000_000
MAX_EXAMPLE_BYTES = 6_000_000
MAX_SUSPECT_BYTES = 8_000_000


def collect_clips(
    findings: Sequence[Finding], corpora: Sequence[Corpus], *, max_bytes: int = MAX_BYTES
) -> dict[tuple[str, str], bytes]:
    """Returns (set, utterance id) -> a FLAC file of at most 30 s, the first utterance of every finding first.

    Findings that are not about utterances, and recordings that cannot be read, have no clips.

    Args:
        findings: Worst first.
        corpora: The examined sets.
        max_bytes: Limit of all files together.
    """
    indices = {corpus.name: _Indices(corpus) for corpus in corpora}
    max_bytes += MAX_SUSPECT_BYTES * any(item.code == SUSPECT for item in findings)
    chosen = [indices[item.where].first_of(item) if item.where in indices else [] for item in findings]
    clips: dict[tuple[str, str], bytes] = {}
    for rank in range(MAX_SUSPECTS):
        for item, utterance_ids in zip(findings, chosen, strict=True):
            if rank >= len(utterance_ids) or (item.where, utterance_ids[rank]) in clips:
                continue
            content = indices[item.where].read(utterance_ids[rank])
            if content and len(content) <= max_bytes:
                max_bytes -= len(content)
                clips[item.where, utterance_ids[rank]] = content
    return clips


def collect_examples(
    sets: Sequence[tuple[str, TrainData | EvalData]], *, max_bytes: int = MAX_EXAMPLE_BYTES
) -> list[Example]:
    """Returns examples of the augmentation of each set that has one: twenty of training, three of any other.

    Args:
        sets: (name of the set, its data), the training set first.
        max_bytes: Limit of all files together.
    """
    found: list[Example] = []
    for name, data in sets:
        if data.augmenter is None:
            continue
        count = NUM_EXAMPLES if isinstance(data, TrainData) else CLIPS_PER_FINDING
        for example in make_examples(data.source, data.augmenter, where=name, count=count, max_secs=MAX_EXAMPLE_SECS):
            max_bytes -= len(example.original) + len(example.altered)
            if max_bytes < 0:
                return found
            found.append(example)
    return found


class _Indices:
    """Finds utterances of a corpus by their ids."""

    def __init__(self, corpus: Corpus) -> None:
        self._source = corpus.source

    @functools.cached_property
    def _index_of(self) -> dict[str, int]:
        return {utterance_id: index for index, utterance_id in enumerate(self._source.utterance_ids)}

    def first_of(self, item: Finding) -> list[str]:
        known = [key for key in item.details if key in self._index_of]
        return known[: MAX_SUSPECTS if item.code == SUSPECT else CLIPS_PER_FINDING]

    def read(self, utterance_id: str) -> bytes:
        try:
            channels, rate = self._source.read_recording(self._index_of[utterance_id])
            return encode_flac(to_mono(channels[: MAX_CLIP_SECS * rate], rate, SAMPLE_RATE))
        except (ValueError, RuntimeError, OSError):
            return b""
