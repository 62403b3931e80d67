"""The plan of several corpora takes exactly its share of each, from any update on, and of one corpus is as it was."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batches.corpora import choose_passes
from data.batches.rows import Mixture
from tests.helpers.data_toys import batch_plan

NUM_SAMPLES = np.random.default_rng(0).integers(1000, 20_000, 60)
SIZES = (40, 15, 5)


def make_plan(passes=(0.7, 1.0, 6.3), **changed):
    options = {"num_samples": NUM_SAMPLES, "global_batch_size": 4, "seed": 3, "bucket_boundaries": 3, **changed}
    return batch_plan(**options, mixture=Mixture(SIZES, passes))


def rows_of_epoch(plan, epoch):
    first = sum(len(plan.batch_rows(number)) for number in range(epoch))
    batches = [plan.batch(first + position) for position in range(len(plan.batch_rows(epoch)))]
    assert {batch.epoch for batch in batches} == {epoch}
    return [row for batch in batches for row in batch.rows if row.members]


def corpus_of(utterance):
    return int(np.searchsorted(np.cumsum(SIZES), utterance, side="right"))


def test_every_epoch_has_the_same_rows_of_each_corpus():
    plan = make_plan()
    assert plan.corpus_rows == (28, 15, 32) and plan.num_rows == 75  # 6.3 passes over 5 rows are 31.5
    for epoch in range(7):
        counts = Counter(corpus_of(row.members[0]) for row in rows_of_epoch(plan, epoch))
        assert [counts[number] for number in range(3)] == [28, 15, 32]


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.floats(0.02, 9.0)] * 3),
    st.integers(1, 12),
    st.sampled_from([{}, {"max_batch_samples": 200_000, "row_multiple": 2}, {"speed_factors": (0.9, 1.1)}]),
)
def test_after_any_number_of_epochs_the_utterances_of_a_corpus_have_come_equally_often_but_for_one(
    passes, num_epochs, options
):
    plan = make_plan(passes, **options)
    counts = np.zeros(60, dtype=int)
    for epoch in range(num_epochs):
        for row in rows_of_epoch(plan, epoch):
            counts[list(row.members)] += 1
    for number, end in enumerate(np.cumsum(SIZES)):
        heard = counts[end - SIZES[number] : end]
        assert heard.sum() == num_epochs * plan.corpus_rows[number]
        assert heard.max() - heard.min() <= 1


def test_an_utterance_that_comes_more_than_once_in_an_epoch_never_comes_as_the_same_visit():
    plan = make_plan(speed_factors=(0.8, 0.9, 1.0, 1.1))
    visits = [(row.members, row.visit) for epoch in range(4) for row in rows_of_epoch(plan, epoch)]
    assert len(set(visits)) == len(visits)
    speeds = {row.speed for row in rows_of_epoch(plan, 0) if row.members == (59,)}
    assert len(speeds) > 1  # each time another draw


def test_a_plan_that_starts_in_mid_epoch_has_the_batches_of_one_that_began_at_0():
    for options in ({}, {"max_batch_samples": 200_000, "row_multiple": 2}, {"concat_max_utterances": 3}):
        straight = make_plan(**options)
        batches = [straight.batch(update) for update in range(90)]
        for update in (37, 5, 89):
            assert make_plan(**options).batch(update) == batches[update]


def test_replicas_share_the_rows_of_one_process():
    plan, shared = make_plan(), make_plan()
    for update in range(40):
        shares = [shared.batch(update, replica=replica, num_replicas=2).rows for replica in range(2)]
        assert tuple(itertools.chain(*shares)) == plan.batch(update).rows


def test_concatenated_rows_never_cross_corpora_whose_speakers_are_called_alike():
    speakers = ["1"] * 60
    plan = make_plan(concat_max_utterances=4, speaker_ids=speakers)
    sizes = set()
    for epoch in range(3):
        for row in rows_of_epoch(plan, epoch):
            assert len({corpus_of(member) for member in row.members}) == 1
            sizes.add(len(row.members))
    assert sizes == {1, 2, 3, 4}


def test_another_seed_takes_other_rows_and_corpora_of_the_same_lengths_have_orders_of_their_own():
    halves = {"num_samples": np.tile(NUM_SAMPLES[:30], 2), "global_batch_size": 1, "bucket_boundaries": 1}

    def taken(seed):
        plan = batch_plan(**halves, seed=seed, mixture=Mixture((30, 30), (0.5, 0.5)))
        found = {row.members[0] for update in range(30) for row in plan.batch(update).rows}
        return {i for i in found if i < 30}, {i - 30 for i in found if i >= 30}

    first, second = taken(0)
    assert len(first) == len(second) == 15 and first != second
    assert taken(1) != (first, second)


def test_a_corpus_that_is_next_to_nothing_has_one_row_an_epoch():
    plan = make_plan((1.0, 1.0, 1e-6))
    assert plan.corpus_rows == (40, 15, 1)


@pytest.mark.parametrize(
    ("sizes", "passes"), [((), ()), ((1, 2), (1.0,)), ((0, 2), (1.0, 1.0)), ((1, 2), (0.0, 1.0)), ((1,), (np.inf,))]
)
def test_mixtures_that_cannot_be_are_refused(sizes, passes):
    with pytest.raises(ValueError, match="must be positive"):
        Mixture(sizes, passes)


def test_corpora_must_cover_the_utterances():
    with pytest.raises(ValueError, match=r"corpora of \(2, 3\) utterances for 60"):
        batch_plan(
            num_samples=NUM_SAMPLES, global_batch_size=1, seed=0, bucket_boundaries=1, mixture=Mixture((2, 3), (1, 1))
        )


def test_the_plan_of_one_corpus_is_that_of_versions_without_mixtures():
    digest = hashlib.sha256()
    for concat, speeds, max_samples in itertools.product((1, 3), ((1.0,), (0.9, 1.0, 1.1)), (0, 400_000)):
        plan = batch_plan(
            num_samples=np.arange(60) * 331 % 17_001 + 1000, global_batch_size=8, seed=3, bucket_boundaries=4,
            speed_factors=speeds, concat_max_utterances=concat, concat_gap_samples=37, max_batch_samples=max_samples,
            row_multiple=4, speaker_ids=[str(i % 3) for i in range(60)],
        )  # fmt: skip
        for update in range(40):
            batch = plan.batch(update)
            rows = [(row.members, float(row.speed)) for row in batch.rows]
            digest.update(repr((batch.padded_samples, batch.epoch, rows)).encode())
            assert all(row.visit == (batch.epoch if row.members else 0) for row in batch.rows)
    assert digest.hexdigest()[:16] == "52da92edc5da88d8"


@pytest.mark.parametrize(
    ("secs", "weights", "alpha", "shares"),
    [
        ((100.0, 10.0), (1.0, 1.0), 1.0, (100 / 110, 10 / 110)),
        ((100.0, 10.0), (1.0, 1.0), 0.0, (0.5, 0.5)),
        ((100.0, 1.0), (1.0, 1.0), 0.5, (10 / 11, 1 / 11)),  # p_i ~ hours ** 0.5
        ((100.0, 10.0), (1.0, 5.0), 1.0, (100 / 150, 50 / 150)),
        ((9.0, 4.0, 1.0), (1.0, 2.0, 3.0), 0.5, (0.3, 0.4, 0.3)),
    ],
)
def test_a_corpus_makes_up_its_weight_times_a_power_of_its_hours(secs, weights, alpha, shares):
    passes = choose_passes(secs, weights, alpha=alpha)
    heard = np.array(passes) * secs
    assert heard / heard.sum() == pytest.approx(shares)
    assert heard.sum() == pytest.approx(sum(secs))  # an epoch has as much audio as the corpora


def test_corpora_as_they_are_come_once_each():
    assert choose_passes([1234.5, 0.1, 77.7], [1.0] * 3, alpha=1.0) == pytest.approx((1.0, 1.0, 1.0), abs=1e-12)
