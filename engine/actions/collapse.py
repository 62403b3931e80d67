"""Warns when training does not learn, and suggests what to try (docs/decisions/0037)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

# Ratio of the frames that the transcripts need a character in which must not be blank. A model that learns is far above
# it and one that only writes blanks far below, however much silence the recordings have.
_MIN_SPOKEN_RATIO = 0.2
# Both rates must be high: in a script without spaces a sentence is one word, and the WER stays near 100 % while the CER
# falls.
_MIN_WER, _MIN_CER = 0.95, 0.6
_MIN_DELETED_RATIO = 0.9  # of the words; above it, the hypotheses are almost empty
_MIN_WINDOW_UPDATES, _MAX_WINDOW_UPDATES = 300, 3_000

_WHAT_TO_TRY = (
    "try a lower train.learning_rate, a longer train.warmup_updates, train.clip_norm=1, lighter masks "
    "(model.mask_time_prob) or pretrained weights (model.init), and check by ear that transcripts belong to their audio"
)


class CollapseWatch:
    """Train action, with `after_evaluation` as eval action, that only warns.

    At first every CTC model writes only blanks: during warm-up, while its encoder is frozen, and for some hundred
    updates more. Only later updates count.
    """

    def __init__(self, *, global_step: tf.Variable, num_updates: int, first_updates: int, metric: str = "wer") -> None:
        """Starts watching at the first loop.

        Args:
            global_step: Number of updates done.
            num_updates: Number of updates of the run; a tenth of them, at least 300 and at most 3,000, without text
                cause a warning.
            first_updates: Number of first updates that do not count: warm-up, frozen encoder.
            metric: "wer", or "cer" to look at the characters alone.
        """
        self._metric = metric
        self._global_step = global_step
        self._first_updates = first_updates
        self._window = min(max(num_updates // 10, _MIN_WINDOW_UPDATES), _MAX_WINDOW_UPDATES)
        self._silent_since: int | None = None
        self._has_spoken = False
        self._is_warned = False

    def __call__(self, output: Mapping[str, Any]) -> None:
        """Checks the metrics of a train loop."""
        step = int(self._global_step.numpy())
        wanted, spoken = float(output["labels_per_frame"]), 1.0 - float(output["blank_ratio"])
        # NaN if no update had a loss. That is reported elsewhere and is not a collapse.
        if not spoken < _MIN_SPOKEN_RATIO * wanted:
            self._silent_since, self._is_warned = None, False
            self._has_spoken = self._has_spoken or step > self._first_updates + self._window
            return
        if self._silent_since is None:
            self._silent_since = step
        num_silent = step - max(self._silent_since, self._first_updates)
        if num_silent >= self._window and not self._is_warned:
            self._is_warned = True
            logging.warning(
                "training %s: for %d updates almost all frames have been blank (now %.1f %%), but the transcripts need "
                "a character in %.1f %% of them; %s",
                "has collapsed to blanks" if self._has_spoken else "has not begun to learn",
                num_silent,
                100 * output["blank_ratio"],
                100 * wanted,
                _WHAT_TO_TRY,
            )

    def after_evaluation(self, output: Mapping[str, Mapping[str, Any]]) -> None:
        """Checks the error rates of an evaluation."""
        step = int(self._global_step.numpy())
        if step < self._first_updates + self._window:
            return
        for name, metrics in output.items():
            by_words = self._metric == "wer"
            if metrics["cer"] < _MIN_CER or (by_words and metrics["wer"] < _MIN_WER):
                continue
            what, names = ("words", "deletions num_words") if by_words else ("characters", "char_deletions num_chars")
            num_deleted, total = (metrics[count] for count in names.split())
            deleted = num_deleted / max(total, 1)
            reason = "the model writes text, but not the spoken one"
            if deleted >= _MIN_DELETED_RATIO:
                reason = f"it misses {100 * deleted:.0f} % of the {what}: the model writes almost nothing"
            logging.warning(
                "after %d updates, %s still has %sa CER of %.0f %%: %s; %s",
                step,
                name,
                f"a WER of {100 * metrics['wer']:.0f} % and " if by_words else "",
                100 * metrics["cer"],
                reason,
                _WHAT_TO_TRY,
            )
