"""Names the statistics that a train loop sums up, and turns the sums into metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from engine.training.frame_statistics import FRAME_SUMS

SAMPLE_RATE = 16_000
# In the order of the variable that holds the sums.
STATISTICS = (
    "loss_sum",  # nats, over valid rows
    *FRAME_SUMS,  # over the frames of valid rows
    "num_valid",  # rows with a loss
    "num_rows",  # without padding rows
    "num_infeasible",  # rows whose labels do not fit into their frames
    "num_bad",  # rows whose audio could not be read
    "valid_samples",
    "padded_samples",  # valid samples and their padding, without padding rows
    "gradient_norm_sum",  # over applied updates
    "num_clipped",
    "num_skipped_updates",  # loss or gradient not finite, or no row with a loss
    "num_updates",
)
# The first of them: an update whose loss is not finite would spoil them for the whole loop.
NUM_LOSS_STATISTICS = 2 + len(FRAME_SUMS)


def audio_secs_per_sec(sums: Sequence[float], *, samples_before: float, loop_secs: float) -> float:
    """Returns the training speed of a loop in this process.

    Args:
        sums: Values of `STATISTICS`.
        samples_before: Valid samples of the loop that another process trained on.
        loop_secs: Duration of the loop in this process, in seconds.
    """
    num_samples = sums[STATISTICS.index("valid_samples")] - samples_before
    return num_samples / SAMPLE_RATE / max(loop_secs, 1e-6)


def mean_loss(sums: Sequence[float]) -> float:
    """Returns the mean loss of the rows with a loss, NaN without any: 0 would look like a perfect loss."""
    total = dict(zip(STATISTICS, sums, strict=True))
    return total["loss_sum"] / (total["num_valid"] or math.nan)


def loop_metrics(sums: Sequence[float]) -> Mapping[str, float]:
    """Returns the metrics of a loop that follow from its sums alone, for metrics.jsonl.

    Args:
        sums: Values of `STATISTICS`.
    """
    total = dict(zip(STATISTICS, sums, strict=True))
    num_updates = max(total["num_updates"], 1.0)
    num_frames = total["num_frames"] or math.nan
    return {
        "loss": mean_loss(sums),
        "blank_ratio": total["num_blank_frames"] / num_frames,
        "mean_confidence": total["confidence_sum"] / num_frames,
        "labels_per_frame": total["num_labels"] / num_frames,
        "gradient_norm": total["gradient_norm_sum"] / max(total["num_updates"] - total["num_skipped_updates"], 1.0),
        "clipped_ratio": total["num_clipped"] / num_updates,
        "audio_secs": total["valid_samples"] / SAMPLE_RATE,
        "padding_ratio": 1.0 - total["valid_samples"] / max(total["padded_samples"], 1.0),
        **{name: total[name] for name in ("num_rows", "num_infeasible", "num_bad", "num_skipped_updates")},
    }
