"""The batch plan loses nothing, repeats nothing and depends on its arguments alone."""

from __future__ import annotations

import functools
import math
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batches.plan import PlannedRow, padding_ratio
from data.batches.rows import samples_at_speed
from data.common.errors import InputError
from tests.helpers.data_toys import batch_plan


def for_all(*strategies):
    """Hypothesis' `given` without a time limit on examples: the machine may be busy."""
    return lambda test: settings(max_examples=60, deadline=None)(given(*strategies)(test))


@st.composite
def plan_arguments(draw):
    """Arguments of small plans of every kind, with boundaries that hold all rows."""
    count = draw(st.integers(1, 60))
    arguments = {
        "num_samples": draw(st.lists(st.integers(1, 5000), min_size=count, max_size=count)),
        "global_batch_size": draw(st.integers(1, 9)),
        "seed": draw(st.integers(0, 2**40)),
        "bucket_boundaries": draw(st.integers(1, 6)),
        "shuffle": draw(st.booleans()),
        "speed_factors": draw(st.sampled_from([(1.0,), (0.9, 1.0, 1.1), (0.5,)])),
    }
    if draw(st.booleans()):
        # Five joined rows at half speed and their gaps have up to 50,148 samples, in a bucket of 51,200.
        arguments["row_multiple"] = draw(st.sampled_from([1, 2, 3, 4]))
        arguments["max_batch_samples"] = arguments["row_multiple"] * draw(st.integers(51_200, 300_000))
    if draw(st.booleans()):
        arguments["concat_max_utterances"] = draw(st.integers(2, 5))
        arguments["concat_max_samples"] = draw(st.sampled_from([0, 1000, 6000, 20000]))
        arguments["concat_gap_samples"] = draw(st.sampled_from([0, 37]))
        speakers = st.lists(st.sampled_from("abc"), min_size=count, max_size=count)
        arguments["speaker_ids"] = draw(st.one_of(st.none(), speakers))
    return arguments


def make_plan(num_samples, **changed):
    defaults = {"global_batch_size": 1, "seed": 0, "bucket_boundaries": 3}
    return batch_plan(num_samples=num_samples, **{**defaults, **changed})


def epoch_batches(plan, epoch):
    first = sum(len(plan.batch_rows(number)) for number in range(epoch))
    return [plan.batch(first + position) for position in range(len(plan.batch_rows(epoch)))]


def members_of(batches):
    return [index for batch in batches for row in batch.rows for index in row.members]


def row_length(plan, arguments, row):
    samples = [math.ceil(arguments["num_samples"][index] / row.speed) for index in row.members]
    return sum(samples) + (len(samples) - 1) * plan.concatenation.gap_samples


@for_all(plan_arguments(), st.integers(0, 5))
def test_an_epoch_has_every_utterance_once(arguments, epoch):
    plan = batch_plan(**arguments)
    first = sum(len(plan.batch_rows(number)) for number in range(epoch))
    batches = epoch_batches(plan, epoch)
    assert sorted(members_of(batches)) == list(range(len(arguments["num_samples"])))
    assert {batch.epoch for batch in batches} == {epoch}
    assert [batch.update for batch in batches] == list(range(first, first + len(batches)))
    # The updates before and after belong to other epochs: none is lost between them.
    assert plan.batch(first + len(batches)).epoch == epoch + 1
    assert first == 0 or plan.batch(first - 1).epoch == epoch - 1
    assert sum(bool(row.members) for batch in batches for row in batch.rows) == plan.num_rows
    if "max_batch_samples" not in arguments:
        assert {len(batch.rows) for batch in batches} == {arguments["global_batch_size"]}
        assert len(batches) == plan.updates_per_epoch == math.ceil(plan.num_rows / arguments["global_batch_size"])


@for_all(plan_arguments(), st.integers(0, 5))
def test_a_batch_has_the_shape_of_a_bucket_and_keeps_to_the_limit(arguments, epoch):
    plan = batch_plan(**arguments)
    shapes = dict(zip(plan.bucket_boundaries, plan.bucket_rows, strict=True))
    limit, multiple = arguments.get("max_batch_samples", 0), plan.row_multiple
    for batch in epoch_batches(plan, epoch):
        assert len(batch.rows) == shapes[batch.padded_samples]
        assert len(batch.rows) % multiple == 0
        if limit:
            assert len(batch.rows) * batch.padded_samples <= limit < (len(batch.rows) + multiple) * batch.padded_samples


@for_all(plan_arguments(), st.integers(0, 5))
def test_only_the_last_batch_has_padding_rows_and_they_are_last(arguments, epoch):
    plan = batch_plan(**arguments)
    filled = [[bool(row.members) for row in batch.rows] for batch in epoch_batches(plan, epoch)]
    assert all(all(batch) for batch in filled[:-1])
    assert filled[-1] == sorted(filled[-1], reverse=True) and filled[-1][0]


@for_all(plan_arguments(), st.integers(0, 5))
def test_padded_samples_is_the_smallest_boundary_that_holds_the_batch(arguments, epoch):
    plan = batch_plan(**arguments)
    real, padded = 0, 0
    for batch in epoch_batches(plan, epoch):
        lengths = [row_length(plan, arguments, row) for row in batch.rows if row.members]
        shapes = zip(plan.bucket_boundaries, plan.bucket_rows, strict=True)
        fitting = [samples for samples, rows in shapes if samples >= max(lengths) and rows == len(batch.rows)]
        assert batch.padded_samples == fitting[0]
        assert max(lengths) <= plan.max_row_samples
        real += sum(lengths)
        padded += batch.padded_samples * len(batch.rows)
    assert padding_ratio(plan, epoch) == pytest.approx(1 - real / padded, abs=1e-12)
    assert plan.row_samples(epoch).sum() == real


@for_all(plan_arguments(), st.lists(st.integers(0, 10**6), min_size=1, max_size=8))
def test_a_batch_depends_on_the_arguments_and_its_update_alone(arguments, updates):
    wandering = batch_plan(**arguments)
    if "max_batch_samples" in arguments:
        updates = [update % 500 for update in updates]  # those are reached by counting
    for update in updates:
        assert wandering.batch(update) == batch_plan(**arguments).batch(update)


@for_all(plan_arguments(), st.integers(0, 40))
def test_any_start_gives_the_batches_of_a_run_that_never_stopped(arguments, start):
    uninterrupted, resumed = batch_plan(**arguments), batch_plan(**arguments)
    expected = [uninterrupted.batch(update) for update in range(start + 5)]
    assert [resumed.batch(update) for update in range(start, start + 5)] == expected[start:]


@for_all(plan_arguments(), st.integers(0, 30), st.integers(1, 16), st.sampled_from([1, 2]))
def test_shares_of_1_to_16_hosts_are_disjoint_and_complete(arguments, update, num_hosts, replicas_a_host):
    num_replicas = num_hosts * replicas_a_host
    plan = batch_plan(**arguments)
    share = functools.partial(plan.batch, update, num_replicas=num_replicas)
    shares = [share(replica=replica) for replica in range(num_replicas)]
    whole = plan.batch(update)
    # Padding rows at the end fill up what does not divide, also where there are more replicas than rows.
    rows = tuple(row for share in shares for row in share.rows)
    assert rows[: len(whole.rows)] == whole.rows and set(rows[len(whole.rows) :]) <= {PlannedRow(())}
    members = members_of(shares)
    assert len(set(members)) == len(members)
    assert {len(share.rows) for share in shares} == {math.ceil(len(whole.rows) / num_replicas)}
    assert {share.padded_samples for share in shares} == {whole.padded_samples}


@for_all(plan_arguments(), st.integers(0, 5))
def test_concatenated_rows_keep_to_the_speaker_the_sizes_and_the_limit(arguments, epoch):
    plan = batch_plan(**arguments)
    most, limit = arguments.get("concat_max_utterances", 1), arguments.get("concat_max_samples", 0)
    speakers = arguments.get("speaker_ids") or [""] * len(arguments["num_samples"])
    for batch in epoch_batches(plan, epoch):
        for row in batch.rows:
            assert len(row.members) <= most
            assert len({speakers[index] for index in row.members}) <= 1
            if limit and len(row.members) > 1:
                assert row_length(plan, arguments, row) <= limit


def test_groups_of_a_speaker_cycle_through_the_sizes():
    plan = make_plan([10] * 14, bucket_boundaries=[30], concat_max_utterances=3, speaker_ids=["a"] * 11 + ["b"] * 3)
    groups = {batch.rows[0].members for batch in epoch_batches(plan, 0)}
    # 1, 2, 3, 1, 2 and the two left over.
    assert sorted(len(group) for group in groups if max(group) < 11) == [1, 1, 2, 2, 2, 3]
    assert sorted(len(group) for group in groups if min(group) >= 11) == [1, 2]
    assert groups != {batch.rows[0].members for batch in epoch_batches(plan, 1)}


@pytest.mark.parametrize(("limit", "long_sizes"), [(1850, [1, 2]), (1849, [1, 1, 1])])
def test_joining_under_a_limit_joins_what_fits_and_leaves_the_long_alone(limit, long_sizes):
    joining = {"concat_max_utterances": 4, "concat_max_samples": limit, "concat_gap_samples": 50}
    plan = make_plan([100] * 6 + [900] * 3 + [2000], **joining)
    groups = {batch.rows[0].members for batch in epoch_batches(plan, 0)}
    # Four of 100 and three gaps fit, so the sizes are 1, 2, 3; two of 900 and a gap make 1,850.
    assert sorted(len(group) for group in groups if max(group) < 6) == [1, 2, 3]
    assert sorted(len(group) for group in groups if 6 <= max(group) < 9) == long_sizes
    assert (9,) in groups and plan.max_row_samples == 2000


def test_the_longest_possible_row_is_exact():
    arguments = {"concat_max_utterances": 2, "concat_gap_samples": 5, "speed_factors": (0.5, 1.0)}
    plan = make_plan([10, 20, 30, 40], **arguments)
    longest = max(plan.row_samples(epoch).max() for epoch in range(200))
    assert longest == plan.max_row_samples == (30 + 40) * 2 + 5


def test_epochs_and_seeds_differ():
    def order(seed, epoch):
        plan = make_plan([100] * 64, global_batch_size=4, seed=seed, bucket_boundaries=[100])
        return members_of(epoch_batches(plan, epoch))

    orders = [order(0, 0), order(0, 1), order(1, 0), order(1, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_the_plan_of_a_seed_never_changes():
    # Literal values: a new NumPy, or an edit of the plan, must not reorder a run that resumes.
    arguments = {"seed": 7, "bucket_boundaries": [6, 13], "speed_factors": (1.0, 0.95)}
    plan = make_plan(range(1, 13), global_batch_size=4, **arguments)
    batch = plan.batch(4)
    rows = [(*row.members, row.speed) for row in batch.rows]
    assert rows == [(2, 0.95), (3, 0.95), (4, 0.95), (0, 1.0)]
    assert batch.padded_samples == 6


def test_shuffling_mixes_the_order_of_the_buckets_and_the_rows_within():
    lengths = [100] * 40 + [900] * 40
    plan = make_plan(lengths, global_batch_size=4, bucket_boundaries=[100, 900])
    padded = [batch.padded_samples for batch in epoch_batches(plan, 0)]
    assert padded.count(100) == padded.count(900) == 10
    assert padded != sorted(padded) and padded != sorted(padded, reverse=True)
    first, second = ({frozenset(members_of([b])) for b in epoch_batches(plan, e)} for e in (0, 1))
    assert len(first & second) < 5


def test_leftovers_move_up_into_the_next_larger_bucket():
    plan = make_plan([10] * 5 + [20] * 4 + [30] * 2, global_batch_size=4, bucket_boundaries=[10, 20, 30])
    batches = epoch_batches(plan, 0)
    lengths = {batch.padded_samples: sorted(plan.utterance_samples[members_of([batch])].tolist()) for batch in batches}
    assert lengths == {10: [10] * 4, 20: [10, 20, 20, 20], 30: [20, 30, 30]}
    assert batches[-1].padded_samples == 30


def test_without_shuffling_the_longest_come_first_in_every_epoch():
    arguments = {"bucket_boundaries": [8, 25, 50], "shuffle": False}
    plan = make_plan([5, 50, 20, 50, 7], global_batch_size=2, **arguments)
    for epoch in (0, 3):
        batches = epoch_batches(plan, epoch)
        assert [members_of([batch]) for batch in batches] == [[1, 3], [2, 4], [0]]
        assert [batch.padded_samples for batch in batches] == [50, 25, 8]
    sped = make_plan([1000] * 50, speed_factors=(0.9, 1.1), shuffle=False)
    assert sped.batch(7).rows == sped.batch(57).rows and sped.batch(57).epoch == 1


def test_each_row_draws_a_speed_afresh_and_evenly():
    speeds = (0.9, 1.0, 1.1)
    plan = make_plan([1000] * 3000, global_batch_size=10, speed_factors=speeds)
    drawn = np.zeros((2, 3000))
    for epoch in (0, 1):
        for row in (row for batch in epoch_batches(plan, epoch) for row in batch.rows):
            drawn[epoch, row.members[0]] = row.speed
    lengths = plan.row_samples(0)
    for speed, length in zip(speeds, (1112, 1000, 910), strict=True):
        assert 900 < (drawn[0] == speed).sum() < 1100
        assert (lengths == length).sum() == (drawn[0] == speed).sum()
    assert 800 < (drawn[0] == drawn[1]).sum() < 1200


@for_all(st.integers(1, 10**7), st.sampled_from([0.8, 0.9, 1.0, 1.1, 1.25]))
def test_samples_at_speed_is_the_exact_quotient_rounded_up(num_samples, speed):
    hundredths = round(speed * 100)
    assert int(samples_at_speed(num_samples, speed)) == -(-num_samples * 100 // hundredths)


def test_a_number_of_buckets_is_chosen_for_the_rows_as_they_come_out():
    arguments = {"concat_max_utterances": 3, "concat_gap_samples": 100, "speed_factors": [0.5]}
    joined = make_plan([800] * 30, bucket_boundaries=8, **arguments)
    # 1600, 3300 and 5000 samples, rounded up to the resolution of 1600.
    assert joined.bucket_boundaries == (1600, 4800, 6400)
    assert make_plan([800, 1700], bucket_boundaries=1).bucket_boundaries == (3200,)


def test_more_buckets_pad_less():
    lengths = np.random.default_rng(0).integers(16000, 250000, 2000)
    shares = [
        padding_ratio(make_plan(lengths, global_batch_size=8, bucket_boundaries=count), 0) for count in (1, 4, 16)
    ]
    # Uniform lengths waste half a bucket's width: 117,000 / count of 133,000 + 117,000 / count.
    assert shares == pytest.approx([0.47, 0.18, 0.052], abs=0.015)


def test_a_fast_reader_may_cross_into_the_next_epoch_while_others_lag():
    plan = make_plan(range(1, 200), global_batch_size=4)
    last = plan.updates_per_epoch * 3
    found = {}

    def read(offset):
        for update in range(offset, last, 4):
            found[update] = plan.batch(update)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(4))) == [None] * 4
    alone = make_plan(range(1, 200), global_batch_size=4)
    assert found == {update: alone.batch(update) for update in range(last)}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"num_samples": []}, "no utterances"),
        ({"num_samples": [10, 0, 10]}, "1 utterances are empty, first index 1"),
        ({"num_samples": [10, 101]}, "101 samples, the last bucket boundary is 100"),
        ({"speed_factors": (0.5, 1.0), "num_samples": [60]}, "120 samples"),
        ({"concat_max_utterances": 2, "num_samples": [60] * 3}, "lower concat_max_samples"),
        ({"max_batch_samples": 399, "row_multiple": 4}, "holds 3 rows of the longest bucket.*row_multiple=4: raise it"),
    ],
)
def test_bad_input_is_refused_in_one_line(changed, words):
    with pytest.raises(InputError, match=words) as error:
        make_plan(**{"num_samples": [10, 20], "bucket_boundaries": [100], **changed})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("global_batch_size", [0]),
        ("seed", [-1]),
        ("bucket_boundaries", [[], [100, 100], [0, 100]]),
        ("concat_max_utterances", [0]),
        ("concat_gap_samples", [-1]),
        ("speaker_ids", [["a"], ["a"] * 3]),
        ("speed_factors", [(), (1.0, 0.0), (float("inf"),)]),
        ("max_batch_samples", [-1]),
        ("row_multiple", [0]),
    ],
)
def test_arguments_out_of_range_are_refused(name, values):
    for value in values:
        with pytest.raises(ValueError, match=name):
            make_plan([10, 20], **{"concat_max_utterances": 2, name: value})


def test_updates_and_replicas_out_of_range_are_refused():
    plan = make_plan([1] * 8, global_batch_size=4)
    for update, replica, num_replicas in [(-1, 0, 1), (0, 2, 2), (0, -1, 2), (0, 0, 0)]:
        with pytest.raises(ValueError, match="must"):
            plan.batch(update, replica=replica, num_replicas=num_replicas)


def test_batches_by_seconds_take_more_of_the_short_rows():
    lengths = [16_000] * 40 + [48_000] * 10 + [160_000] * 6
    arguments = {"bucket_boundaries": [16_000, 48_000, 160_000], "max_batch_samples": 400_000, "row_multiple": 2}
    plan = make_plan(lengths, **arguments)
    assert plan.bucket_rows == (24, 8, 2)
    batches = epoch_batches(plan, 0)
    found = sorted((batch.padded_samples, len(batch.rows), len(members_of([batch]))) for batch in batches)
    # 40 rows of 1 s fill one batch of 24; 16 go up into two of 8 beside the ten of 3 s; two are left and go up again.
    assert found == [(16_000, 24, 24)] + [(48_000, 8, 8)] * 3 + [(160_000, 2, 2)] * 4
    assert sorted(members_of(batches)) == list(range(56))


def test_leftovers_pass_over_buckets_without_rows_and_are_padded_as_little_as_can_be():
    arguments = {"bucket_boundaries": [1000, 2000, 3000, 4000], "max_batch_samples": 12_000}
    plan = make_plan([1000] * 5 + [3000], **arguments)
    assert plan.bucket_rows == (12, 6, 4, 3)
    batches = epoch_batches(plan, 0)
    # Five are too few for a batch of 1,000 samples: with the long one they make one of four rows, and two are left.
    assert [(batch.padded_samples, len(batch.rows)) for batch in batches] == [(3000, 4), (3000, 4)]
    alone = make_plan([1000] * 5, **arguments).batch(0)
    assert (alone.padded_samples, len(alone.rows), len(members_of([alone]))) == (1000, 12, 5)


def test_by_seconds_too_the_longest_come_first_without_shuffling():
    arguments = {"bucket_boundaries": [10, 50], "shuffle": False, "max_batch_samples": 100}
    plan = make_plan([5, 50, 10, 50, 7, 8, 49], **arguments)
    for epoch in (0, 3):
        batches = epoch_batches(plan, epoch)
        assert [members_of([batch]) for batch in batches] == [[1, 3], [6, 2], [5, 4, 0]]
        assert [(batch.padded_samples, len(batch.rows)) for batch in batches] == [(50, 2), (50, 2), (10, 10)]


def test_batches_by_seconds_waste_less_of_a_budget_than_batches_by_rows():
    lengths = np.random.default_rng(0).integers(16_000, 250_000, 3000)
    by_secs = make_plan(lengths, bucket_boundaries=8, max_batch_samples=8_000_000, row_multiple=4)
    used = by_secs.batch_rows(0) * by_secs.padded_samples(0) / 8_000_000
    # Rounding 35 rows of the longest down to 32 costs most; by rows the shortest batches have a fifth of the longest.
    assert used.min() > 0.87 and used.mean() > 0.92
    by_rows = make_plan(lengths, bucket_boundaries=8, global_batch_size=32)
    used = by_rows.batch_rows(0) * by_rows.padded_samples(0) / 8_000_000
    assert used.min() < 0.3 and used.mean() < 0.65


def test_300_000_utterances_are_planned_in_seconds():
    lengths = np.random.default_rng(0).integers(16000, 260000, 300_000)
    speakers = [f"s{length % 2400}" for length in lengths]
    joining = {"concat_max_utterances": 3, "concat_max_samples": 400_000, "speaker_ids": speakers}
    start = time.process_time()
    plan = make_plan(lengths, global_batch_size=32, speed_factors=(0.9, 1.0, 1.1), **joining)
    batches = [plan.batch(update) for update in (*range(100), 1000 * plan.updates_per_epoch)]
    # About 0.7 s of processor time on a Xeon core; the bound is for busy and slow machines.
    assert time.process_time() - start < 6
    assert len(batches[-1].rows) == 32 and batches[-1].epoch == 1000
