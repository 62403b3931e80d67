"""Notices a training that does not learn and says so in plain words, with what to try (docs/decisions/0037)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

# Frames with a character in them, as a share of those that the transcripts ask for. A model that has begun to learn is
# far above, one that writes nothing but blanks far below, however much silence there is in the recordings.
_MIN_SPOKEN_SHARE = 0.2
# Both must be high. Where a script has no spaces, a sentence is one word: the WER stays near 100 % while the CER falls.
_MIN_WER, _MIN_CER = 0.95, 0.6
_MIN_DELETED_SHARE = 0.9  # of words; where it is more, the hypotheses are all but empty
_MIN_WINDOW_UPDATES, _MAX_WINDOW_UPDATES = 300, 3_000

_WHAT_TO_TRY = (
    "try a lower train.learning_rate or a longer train.warmup_updates, train.clip_norm=1, lighter masks "
    "(model.mask_time_prob), or weights to start from (model.init); and listen to some utterances: do their "
    "transcripts belong to them?"
)


class CollapseWatch:
    """Train action, with `after_evaluation` as eval action: warnings, never a stop.

    At its start every CTC model writes blanks only, for as long as its learning rate warms up and its encoder is
    frozen, and for some hundred updates more. Only what comes after counts.
    """

    def __init__(self, *, global_step: tf.Variable, num_updates: int, first_updates: int) -> None:
        """Keeps its arguments.

        Args:
            global_step: Counts the updates.
            num_updates: Of the whole run; a tenth of them, but at least 300 and at most 3,000, without text in them are
                too many.
            first_updates: Updates of which nothing is expected: warm-up, frozen encoder.
        """
        self._global_step = global_step
        self._first_updates = first_updates
        self._window = min(max(num_updates // 10, _MIN_WINDOW_UPDATES), _MAX_WINDOW_UPDATES)
        self._silent_since: int | None = None
        self._has_spoken = False
        self._is_warned = False

    def __call__(self, output: Mapping[str, Any]) -> None:
        """Looks at a train loop."""
        step = int(self._global_step.numpy())
        wanted, spoken = float(output["labels_per_frame"]), 1.0 - float(output["blank_share"])
        # Not a number where no update had a loss: that is said elsewhere, and is no silence.
        if not spoken < _MIN_SPOKEN_SHARE * wanted:
            self._silent_since, self._is_warned = None, False
            self._has_spoken = self._has_spoken or step > self._first_updates + self._window
            return
        if self._silent_since is None:
            self._silent_since = step
        num_silent = step - max(self._silent_since, self._first_updates)
        if num_silent >= self._window and not self._is_warned:
            self._is_warned = True
            what = "has collapsed to blanks" if self._has_spoken else "has not begun to learn"
            logging.warning(
                "training %s: for %d updates all but no frame has been anything but blank (now %.1f %% are), where the "
                "transcripts need a character in %.1f %% of them; %s",
                what,
                num_silent,
                100 * output["blank_share"],
                100 * wanted,
                _WHAT_TO_TRY,
            )

    def after_evaluation(self, output: Mapping[str, Mapping[str, Any]]) -> None:
        """Looks at an evaluation's error rates."""
        step = int(self._global_step.numpy())
        if step < self._first_updates + self._window:
            return
        for name, figures in output.items():
            if figures["wer"] < _MIN_WER or figures["cer"] < _MIN_CER:
                continue
            deleted = figures["deletions"] / max(figures["num_words"], 1)
            if deleted >= _MIN_DELETED_SHARE:
                reason = f"{100 * deleted:.0f} % of its words have no counterpart: the model writes next to nothing"
            else:
                reason = "the model writes text, but not what is said"
            logging.warning(
                "after %d updates, at a CER of %.0f %%, the WER of %s is still %.0f %%: %s; %s",
                step,
                100 * figures["cer"],
                name,
                100 * figures["wer"],
                reason,
                _WHAT_TO_TRY,
            )
