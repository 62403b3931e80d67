"""Which speakers are held out: the same ones always, some but not most of the corpus."""

from __future__ import annotations

import logging

import pytest

from data.common.errors import InputError
from data.corpus.held_out import split_held_out


def split(speakers, ratio=0.1, ids=None, **more):
    ids = ids or [f"u{i}" for i in range(len(speakers))]
    stay, out = split_held_out(speaker_ids=speakers, utterance_ids=ids, ratio=ratio, where="all.jsonl", **more)
    assert sorted([*stay, *out]) == list(range(len(speakers)))
    return {speakers[i] for i in stay}, {speakers[i] for i in out}, {ids[i] for i in out}


def test_about_a_tenth_is_held_out_in_whole_speakers():
    speakers = [f"s{i % 40}" for i in range(400)]
    stay, out, _ = split(speakers)
    assert not stay & out
    assert len(out) == 4 and len(stay) == 36


def test_the_order_of_the_manifest_does_not_matter():
    speakers = [f"s{i % 7}" for i in range(100)]
    ids = [f"u{i}" for i in range(100)]
    assert split(speakers, ids=ids) == split(speakers[::-1], ids=ids[::-1])
    # Fixed: a change of the choice would evaluate a resumed run on what it was trained on.
    assert split([f"s{i % 10}" for i in range(100)])[1] == {"s7"}


def test_a_speaker_with_half_of_the_corpus_is_not_the_one():
    speakers = ["big"] * 50 + [f"s{i}" for i in range(50)]
    for ratio in (0.05, 0.1, 0.3):
        assert "big" not in split(speakers, ratio)[1]


def test_of_few_speakers_the_smallest_is_held_out():
    assert split(["ann"] * 60 + ["bob"] * 40)[1] == {"bob"}


def test_utterances_without_a_speaker_are_trained_on():
    stay, out, _ = split([""] * 50 + [f"s{i % 5}" for i in range(50)])
    assert "" in stay and "" not in out and len(out) == 1


@pytest.mark.parametrize(
    ("speakers", "why"),
    [([""] * 30, "does not name its speakers"), (["ann"] * 30, "has too few speakers to hold one out")],
)
def test_without_speakers_to_spare_utterances_are_held_out_with_one_line(caplog, speakers, why):
    with caplog.at_level(logging.WARNING):
        _, _, out = split(speakers, warn=True)
        assert (len(out), split(speakers)[2]) == (3, out)
    assert len(caplog.records) == 1
    assert f"all.jsonl {why}: 10 % of its utterances are held out, so speakers may be in both" in caplog.text


@pytest.mark.parametrize("total", [2, 3, 5])
def test_of_the_smallest_corpora_one_utterance_is_held_out_and_one_stays(total):
    for ratio in (0.1, 0.5):
        assert 1 <= len(split([""] * total, ratio)[2]) < total


@pytest.mark.parametrize(("ratio", "message"), [(0.6, "is 0.6, wanted"), (-0.1, "is -0.1"), (0.1, "has 1 utterances")])
def test_a_split_that_cannot_be_is_refused(ratio, message):
    with pytest.raises(InputError, match=message):
        split(["ann"], ratio)
