"""Padding, memory and vocabulary figures, against plain counting."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from data.batches.plan import BatchPlan
from data.doctor.statistics import plan_figures, predict_memory, vocabulary
from data.doctor.text_checks import Corpus
from data.text.tokenizer import FACEBOOK_TOKENS, CharTokenizer


@pytest.mark.parametrize("max_batch_samples", [0, 160_000])
def test_shapes_add_up_to_the_plan(max_batch_samples) -> None:
    lengths = np.random.default_rng(0).integers(8_000, 80_000, 101)
    plan = BatchPlan(
        num_samples=lengths, global_batch_size=4, seed=0, bucket_boundaries=3, max_batch_samples=max_batch_samples,
        row_multiple=1,
    )  # fmt: skip
    figures = plan_figures(plan, lambda n: n // 320)
    batches = [plan.batch(update) for update in range(plan.updates_per_epoch)]
    assert figures.updates_per_epoch == len(batches) == sum(shape.num_batches for shape in figures.shapes)
    for shape in figures.shapes:
        samples = round(shape.padded_secs * 16_000)
        mine = [batch for batch in batches if batch.padded_samples == samples]
        rows = [row for batch in mine for row in batch.rows]
        audio = sum(int(lengths[i]) for row in rows for i in row.members)
        assert (shape.num_batches, shape.num_rows, shape.num_frames) == (len(mine), len(rows), samples // 320)
        assert shape.padding_share == pytest.approx(1 - audio / (len(rows) * samples))


def test_the_largest_microbatch_is_the_one_that_takes_most() -> None:
    plan = BatchPlan(num_samples=[16_000] * 9 + [32_000], global_batch_size=8, seed=0, bucket_boundaries=2)
    memory = predict_memory("", plan, 4, lambda rows, samples, training: rows * samples * (2 if training else 1), None)
    assert (memory.what, memory.num_rows, memory.secs, memory.predicted_bytes) == ("training", 2, 2.0, 128_000)
    assert predict_memory("dev", plan, 2, lambda *_: None, None).predicted_bytes is None


def test_the_vocabulary_tells_what_is_unused_unknown_and_new() -> None:
    tokenizer = CharTokenizer(tokens=FACEBOOK_TOKENS)

    def corpus(texts):
        return Corpus.measure("x", SimpleNamespace(texts=texts), tokenizer=tokenizer, text_style="librispeech")

    found = vocabulary([corpus(["ABBA Ü", "AB"]), corpus(["A ZOO"])], tokenizer)
    assert (found.counts["A"], found.counts["B"], found.counts["|"]) == (3, 3, 1)
    assert "Z" in found.unused and "A" not in found.unused
    assert "|" not in vocabulary([corpus(["A"])], tokenizer).unused
    assert (found.unknown, found.only_in_evaluation) == ("Ü", "OZ")
    assert found.unknown_share == pytest.approx(1 / 8)
