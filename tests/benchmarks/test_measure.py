"""The arithmetic of the speed benchmarks; what they measure is in docs/results."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import cases, flops, measure
from models.wav2vec2.config import preset


def test_batches_are_padded_and_survive_the_file(tmp_path):
    rows = [np.arange(1, 6, dtype=np.float32), np.ones(3, np.float32)]
    labels = [np.array([4, 5], np.int32), np.array([6], np.int32)]
    batch = cases.make_batch(rows, labels, num_samples=8)
    assert batch.waveform.tolist() == [[1, 2, 3, 4, 5, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0]]
    assert (batch.labels.tolist(), batch.lengths.tolist()) == ([[4, 5], [6, 0]], [5, 3])
    assert batch.audio_secs == 8 / 16_000
    cases.save(tmp_path / "b.npz", [batch, cases.noise_batch(num_rows=2, num_samples=16_000)])
    loaded = cases.load(tmp_path / "b.npz")
    np.testing.assert_array_equal(loaded[0].waveform, batch.waveform)
    assert loaded[1].label_lengths.tolist() == [13, 13]


def test_lengths_are_grouped_and_picked_as_they_are_spread():
    assert cases.group([5, 1, 4, 2], 2) == [[1, 3], [2, 0]]
    assert cases.pick_evenly(list(range(100)), 4) == [12, 37, 62, 87]
    # Whole batches of rows that a run over all of them has together, spread evenly.
    assert cases.pick_evenly([5, 1, 4, 2, 9, 8, 7], 4, batch_size=2) == [1, 3, 6, 5]
    assert cases.pick_evenly([3, 1], 8, batch_size=4) == []
    assert cases.round_up(101, [200, 100]) == 200
    with pytest.raises(ValueError, match="301 samples do not fit"):
        cases.round_up(301, [200, 100])


def test_operations_of_a_pass():
    base = preset("base")
    # GFLOP an audio-second, by hand: convolutions 4.9, 85 million weights at 50 frames 8.5, attention over 768 frames
    # 1.4, the positional convolution 0.5.
    assert flops.inference_flops(base, 246_000) / 15.375 / 1e9 == pytest.approx(15.3, rel=0.01)
    assert flops.training_flops(base, 246_000) / 15.375 / 1e9 == pytest.approx(4.9 + 3 * 10.4, rel=0.01)
    unfrozen = flops.training_flops(base, 246_000, freeze_feature_encoder=False)
    assert unfrozen == pytest.approx(3 * flops.inference_flops(base, 246_000))
    # One convolution by hand: 16 samples, kernel 10, stride 5: 2 positions x 10 x 512 products, two operations each.
    one = preset("base", conv_dim=(512,), conv_kernel=(10,), conv_stride=(5,))
    assert flops.feature_encoder_flops(one, 16) == 2 * 2 * 10 * 512


def test_a_table_sets_both_sides_beside_each_other():
    batch = cases.noise_batch(num_rows=2, num_samples=16_000)
    case = measure.Case(
        name="two seconds", task="train", precision="mixed_bfloat16", ours=[batch], theirs=[batch], flops=4e9
    )

    def record(side, secs, cpu_secs):
        passes = [{"secs": s, "cpu_secs": c} for s, c in zip(secs, cpu_secs, strict=True)]
        return measure.summarize(
            case=case, side=side, passes=passes, peak_memory_bytes=2**30, ceiling=1e10, versions={"x": "1"}
        )

    ours, theirs = record("ours", [0.5, 1.0, 4.0], [2.0, 2.0, 2.0]), record("reference", [3.0, 4.0, 5.0], [8.0] * 3)
    assert (ours["audio_secs"], ours["audio_secs_per_sec"], ours["audio_secs_per_cpu_sec"]) == (2.0, 2.0, 1.0)
    assert ours["ceiling_ratio"] == pytest.approx(0.4)
    assert measure.table([ours, theirs]).splitlines()[2:] == [
        "| two seconds | bfloat16 | ours | 2.00 (0.50 to 4.00) | **4.00** | 1.00 | **4.00** | 1.00 GiB | 40 % |",
        "| two seconds | bfloat16 | reference | 0.50 (0.40 to 0.67) |  | 0.25 |  | 1.00 GiB | 10 % |",
    ]
