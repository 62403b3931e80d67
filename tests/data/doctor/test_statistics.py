"""Padding, memory and vocabulary statistics, against plain counting."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from data.batches.plan import BatchPlan
from data.doctor.report import PlanStatistics, Shape, TrainingTime
from data.doctor.statistics import axis_ends, plan_statistics, predict_memory, predict_time, set_words, vocabulary_use
from data.doctor.text_checks import Corpus
from data.text.tokenizer import FACEBOOK_TOKENS, CharTokenizer


@pytest.mark.parametrize("max_batch_samples", [0, 160_000])
def test_shapes_add_up_to_the_plan(max_batch_samples) -> None:
    lengths = np.random.default_rng(0).integers(8_000, 80_000, 101)
    plan = BatchPlan(
        num_samples=lengths, global_batch_size=4, seed=0, bucket_boundaries=3, max_batch_samples=max_batch_samples,
        row_multiple=1,
    )  # fmt: skip
    found = plan_statistics(plan, lambda n: n // 320)
    batches = [plan.batch(update) for update in range(plan.updates_per_epoch)]
    assert found.updates_per_epoch == len(batches) == sum(shape.num_batches for shape in found.shapes)
    for shape in found.shapes:
        samples = round(shape.padded_secs * 16_000)
        mine = [batch for batch in batches if batch.padded_samples == samples]
        rows = [row for batch in mine for row in batch.rows]
        audio = sum(int(lengths[i]) for row in rows for i in row.members)
        assert (shape.num_batches, shape.num_rows, shape.num_frames) == (len(mine), len(rows), samples // 320)
        assert shape.padding_ratio == pytest.approx(1 - audio / (len(rows) * samples))


def test_the_largest_microbatch_is_the_one_that_takes_most() -> None:
    def quarter(rows: int, samples: int) -> int:
        return rows // 4

    def memory_fn(rows: int, samples: int, training: bool) -> int:
        return rows * samples * (2 if training else 1)

    plan = BatchPlan(num_samples=[16_000] * 9 + [32_000], global_batch_size=8, seed=0, bucket_boundaries=2)
    memory = predict_memory("", plan, quarter, memory_fn, None)
    assert (memory.what, memory.num_rows, memory.secs, memory.predicted_bytes) == ("training", 2, 2.0, 128_000)
    assert predict_memory("dev", plan, quarter, lambda *_: None, None).predicted_bytes is None


def test_the_vocabulary_tells_what_is_unused_unknown_and_new() -> None:
    tokenizer = CharTokenizer(tokens=FACEBOOK_TOKENS)

    def corpus(texts):
        return Corpus.measure("x", SimpleNamespace(texts=texts), tokenizer=tokenizer, text_normalization="librispeech")

    found = vocabulary_use([corpus(["ABBA Ü", "AB"]), corpus(["A ZOO"])], tokenizer)
    assert (found.counts["A"], found.counts["B"], found.counts["|"]) == (3, 3, 1)
    assert "Z" in found.unused and "A" not in found.unused
    assert "|" not in vocabulary_use([corpus(["A"])], tokenizer).unused
    assert (found.unknown, found.only_in_evaluation) == ("Ü", "OZ")
    assert found.unknown_ratio == pytest.approx(1 / 8)


def measure(name, texts, num_samples=()):
    source = SimpleNamespace(texts=texts, num_samples=np.array(num_samples))
    tokenizer = CharTokenizer(tokens=FACEBOOK_TOKENS)
    return Corpus.measure(name, source, tokenizer=tokenizer, text_normalization="librispeech")


def test_words_that_training_never_has_are_counted_after_normalization() -> None:
    train = measure("train", ["the cat, the dog"])
    dev = measure("eval dev", ["THE BIRD sees the bird", "a" * 100])
    first, second = set_words([train, dev], text_normalization="librispeech", trained=train)
    assert (first.num_words, first.num_distinct, first.num_unseen) == (4, 3, 0)
    assert first.frequent == [("THE", 2), ("CAT", 1), ("DOG", 1)]
    assert (second.num_words, second.num_distinct, second.num_unseen, second.num_unseen_distinct) == (6, 4, 4, 3)
    assert second.unseen_ratio == pytest.approx(4 / 6)
    assert second.unseen == [("BIRD", 2), ("A" * 59 + "…", 1), ("SEES", 1)]


def test_without_a_training_set_no_word_is_called_unseen() -> None:
    (found,) = set_words([measure("eval dev", ["a b"])], text_normalization="librispeech", trained=None)
    assert (found.num_words, found.num_unseen) == (2, 0) and found.frequent


def test_long_lists_of_words_are_cut_and_counted_whole() -> None:
    words = " ".join(first + second for first in "abcdefgh" for second in "abcdefgh")
    train, dev = measure("train", ["x"]), measure("eval dev", [words])
    _, found = set_words([train, dev], text_normalization="librispeech", trained=train)
    assert (len(found.unseen), found.num_unseen_distinct) == (50, 64)


def test_the_time_is_predicted_from_rows_lengths_and_audio_of_an_epoch() -> None:
    plan = PlanStatistics(7, 14, 0.125, [Shape(2.0, 99, 5, 10, 0.25), Shape(4.0, 199, 2, 4, 0.0)])
    seen = []

    def predict(shapes, updates_per_epoch):
        seen.append((list(shapes), updates_per_epoch))
        return 700, 1.0, 2.0, "so"

    assert predict_time(plan, predict) == TrainingTime(700, 1.0, 2.0, "so")
    assert seen == [([(10, 32_000, 15.0), (4, 64_000, 16.0)], 7)]
    assert predict_time(plan, lambda *_: None) is None


def test_histograms_of_all_sets_end_at_the_same_round_numbers() -> None:
    train, dev = measure("train", ["abc", "a"], [16_000, 32_000]), measure("eval dev", ["abcdefg"], [90_000])
    assert axis_ends([train, dev]) == (6.0, 8.0)
    assert axis_ends([]) == (1.0, 1.0)
