"""Parts of a corpus by hours that keep groups together, in any order of the utterances."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from data.common.errors import InputError
from data.corpus.splits import Part, assign_parts, group_utterances, read_parts


def test_sizes_are_hours_minutes_and_percent_of_the_whole():
    assert read_parts("train, dev=5%,test=30min,held=0.25 h", 36_000.0) == [
        Part("train", None), Part("dev", 1_800.0), Part("test", 1_800.0), Part("held", 900.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train", "must name two or more parts"),
        ("train,dev", "must name two or more parts, each once, all but one with a size"),
        ("train=50%,dev=20%", "must name two or more parts"),
        ("train,dev=1%,dev=2%", "must name two or more parts"),
        ("train,dev=5", "has 'dev=5': write a name and a size, such as dev=5%"),
        ("train,dev=", "has 'dev='"),
        ("train,../dev=5%", "has '../dev=5%'"),
        ("train,.dev=5%", "has '.dev=5%'"),
        ("train,dev=0h", r"wants 0\.00 h beside train, of 10\.00 h in all"),
        ("train,dev=6h,test=4h", r"wants 10\.00 h beside train, of 10\.00 h in all"),
    ],
)
def test_parts_that_cannot_be_made_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        read_parts(text, 36_000.0)


def test_utterances_that_share_a_key_through_others_are_one_group():
    keys = [["ann", "r1"], ["bob", "r2"], ["cid", "r3"], ["bob", "r1"], [], []]
    groups = group_utterances(keys)
    assert groups[0] == groups[1] == groups[3]
    assert len(set(groups)) == 4


def make_corpus(num_speakers: int = 200, seed: int = 0) -> list[tuple[str, str, float, str]]:
    """(id, speaker, seconds, gender): a third of the time is of women, who speak more each."""
    rng = random.Random(seed)
    rows = []
    for number in range(num_speakers):
        gender = "f" if number % 5 == 0 else "m"
        for place in range(rng.randint(5, 30) * (2 if gender == "f" else 1)):
            rows.append((f"{number}-{place}", f"s{number}", rng.uniform(1, 15), gender))
    return rows


def divide(rows, parts, *, stratify=True, seed=0) -> dict[str, str]:
    chosen = assign_parts(
        names=[row[0] for row in rows],
        groups=group_utterances([[row[1]] for row in rows]),
        secs=[row[2] for row in rows],
        strata=[row[3] if stratify else "" for row in rows],
        parts=parts,
        seed=seed,
    )
    return dict(zip((row[0] for row in rows), chosen, strict=True))


PARTS = [Part("train", None), Part("dev", 1_500.0), Part("test", 3_000.0)]


def test_parts_have_their_hours_and_share_no_speaker_in_any_order():
    rows = make_corpus()
    chosen = divide(rows, PARTS)
    parts_of = defaultdict(set)
    secs = defaultdict(float)
    for name, speaker, each, _ in rows:
        parts_of[speaker].add(chosen[name])
        secs[chosen[name]] += each
    assert all(len(parts) == 1 for parts in parts_of.values())
    assert secs["dev"] == pytest.approx(1_500, rel=0.15) and secs["test"] == pytest.approx(3_000, rel=0.1)
    random.Random(1).shuffle(rows)
    assert divide(rows, PARTS) == chosen
    assert divide(rows, PARTS, seed=1) != chosen


@pytest.mark.parametrize("seed", range(5))
def test_strata_are_as_frequent_in_each_part_as_in_the_whole(seed):
    rows = make_corpus(seed=seed)
    chosen = divide(rows, PARTS, seed=seed)
    share = {}
    for part in ("train", "dev", "test"):
        found = [(secs, gender) for name, _, secs, gender in rows if chosen[name] == part]
        share[part] = sum(secs for secs, gender in found if gender == "f") / sum(secs for secs, _ in found)
    assert share["dev"] == pytest.approx(share["train"], abs=0.08)
    assert share["test"] == pytest.approx(share["train"], abs=0.08)


def test_groups_too_large_for_a_part_are_named():
    rows = [(f"u{number}", f"s{number % 2}", 3_600.0, "") for number in range(4)]
    with pytest.raises(
        InputError, match=r"dev would be empty .* wants 1\.0 min, and the smallest of the 2 groups .* 120\.0"
    ):
        divide(rows, [Part("train", None), Part("dev", 60.0)])
