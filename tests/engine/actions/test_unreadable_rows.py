"""Unreadable rows: named once, counted over the whole run, and the end of a run that is sure to have too many."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from engine.actions.unreadable_rows import UnreadableReport, UnreadableRowGuard
from engine.common.signals import StopTraining


def make_guard(max_unreadable_ratio, rows_per_epoch):
    return UnreadableRowGuard(
        max_unreadable_ratio=max_unreadable_ratio, rows_per_epoch=rows_per_epoch, global_step=tf.Variable(0)
    )


def feed(guard, num_bad, num_rows, num_updates=1):
    guard._global_step.assign_add(num_updates)
    guard({"num_bad": float(num_bad), "num_rows": float(num_rows)})


def test_one_bad_row_among_the_first_does_not_stop_a_run_whose_corpus_is_large():
    guard = make_guard(0.01, 1000)
    feed(guard, 1, 1)
    for _ in range(9):
        feed(guard, 1, 50)
    with pytest.raises(StopTraining, match=r"11 of 501 training rows .* corpus of 1000 rows that exceeds .*=0.01"):
        feed(guard, 1, 50)


def test_a_share_of_zero_allows_no_bad_row_and_one_of_one_any():
    guard = make_guard(0.0, 1000)
    feed(guard, 0, 4)
    with pytest.raises(StopTraining):
        feed(guard, 1, 4)
    guard = make_guard(1.0, 10)
    for _ in range(30):
        feed(guard, 10, 10, num_updates=10)


@given(st.integers(1, 60), st.integers(0, 30), st.integers(1, 17), st.integers(0, 2**32), st.integers(0, 100))
def test_a_run_stops_if_and_only_if_the_corpus_has_too_many(num_rows, num_bad, loop_rows, seed, percent):
    """Any order, loops across the ends of epochs; within two epochs where the share is too large by half."""
    num_bad = min(num_bad, num_rows // 2)  # more than half is the window's business
    is_bad = np.arange(num_rows) < num_bad
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.permutation(is_bad) for _ in range(6)])
    guard = make_guard(percent / 100, num_rows)
    stopped_at = 0
    for first in range(0, len(rows), loop_rows):
        loop = rows[first : first + loop_rows]
        try:
            feed(guard, loop.sum(), len(loop), num_updates=0)
        except StopTraining:
            stopped_at = first + len(loop)
            break
    if num_bad <= percent / 100 * num_rows:
        assert stopped_at == 0
    elif loop_rows <= num_rows and num_bad > 2 * percent / 100 * num_rows:
        assert 0 < stopped_at <= 2 * num_rows + loop_rows
    if loop_rows == 1 and num_bad > percent / 100 * num_rows:
        assert 0 < stopped_at <= num_rows  # at the end of the first epoch at the latest


def test_counts_go_through_a_checkpoint(tmp_path):
    guard = make_guard(0.01, 1000)
    feed(guard, 10, 100)
    path = tf.train.Checkpoint(counts=guard.counts).write(str(tmp_path / "state"))
    resumed = make_guard(0.01, 1000)
    tf.train.Checkpoint(counts=resumed.counts).read(path)
    feed(resumed, 0, 100)
    with pytest.raises(StopTraining, match="11 of 300"):
        feed(resumed, 1, 100)


def test_recordings_that_vanish_in_a_late_epoch_stop_the_run_before_the_share_is_reached():
    guard = make_guard(0.01, 100_000)
    for _ in range(400):
        feed(guard, 0, 800, num_updates=50)
    feed(guard, 200, 400, num_updates=25)  # half: not more than half
    feed(guard, 380, 400, num_updates=5)
    with pytest.raises(StopTraining, match="780 of the 800 training rows of the last 20 updates could not be read"):
        feed(guard, 400, 400, num_updates=15)


def test_batches_that_are_bad_because_they_are_long_do_not_look_like_a_lost_disk():
    guard = make_guard(0.01, 100_000)
    feed(guard, 0, 16)
    for _ in range(20):
        feed(guard, 16, 16)  # a batch of one update
        for _ in range(15):
            feed(guard, 0, 16)


def test_a_name_is_written_once_with_the_loop_that_met_it_and_not_before(tmp_path):
    path, step, found = tmp_path / "metrics.jsonl", tf.Variable(0), [(3, "b", "cut"), (12, "c", "gone")]

    def report():
        return UnreadableReport(
            path=path, global_step=step, unreadable_fn=lambda before: [item for item in found if item[0] < before]
        )

    def written():
        lines = path.read_text().splitlines() if path.exists() else []
        return [(line["step"], line["utterance_id"], line["update"], line["reason"]) for line in map(json.loads, lines)]

    first = report()
    step.assign(3)
    first({"loss": 1.0})
    assert written() == []
    step.assign(10)
    first({})
    first()
    assert written() == [(10, "b", 3, "cut")]
    # Another process goes on at 10 and meets c where it comes, and b in the next epoch.
    found = [(12, "c", "gone"), (17, "b", "cut")]
    second = report()
    step.assign(20)
    second({})
    assert written() == [(10, "b", 3, "cut"), (20, "c", 12, "gone")]
    assert {json.loads(line)["split"] for line in path.read_text().splitlines()} == {"unreadable"}


def resume(guard, tmp_path, max_unreadable_ratio=0.01, rows_per_epoch=1000):
    path = tf.train.Checkpoint(counts=guard.counts).write(str(tmp_path / "state"))
    resumed = make_guard(max_unreadable_ratio, rows_per_epoch)
    tf.train.Checkpoint(counts=resumed.counts).read(path)
    return resumed


def test_a_run_that_was_stopped_goes_on_after_a_repair_and_stops_again_without_one(tmp_path):
    guard = make_guard(0.01, 1000)
    with pytest.raises(StopTraining, match="11 of 100 .*: repair them or raise .* the same command continues"):
        feed(guard, 11, 100)
    repaired = resume(guard, tmp_path)
    for _ in range(20):
        feed(repaired, 0, 100)
    feed(repaired, 10, 100)  # as many as an epoch may have
    not_repaired = resume(guard, tmp_path)
    with pytest.raises(StopTraining, match="11 of 100"):
        feed(not_repaired, 11, 100)


def test_rows_of_a_lost_disk_do_not_count_after_it_came_back(tmp_path):
    guard = make_guard(0.01, 100_000)
    feed(guard, 0, 16)
    with pytest.raises(StopTraining, match="800 of the 800 .* restore them; the same command continues"):
        feed(guard, 800, 800, num_updates=16)
    resumed = resume(guard, tmp_path, rows_per_epoch=100_000)
    feed(resumed, 900, 90_000)  # 1 % of what is there
