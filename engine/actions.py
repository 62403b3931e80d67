"""What happens between train loops and after evaluations: plain callables for `orbit.Controller`.

An action gets the output of a train loop, {figure: value}, or of an evaluation, {set: {figure:
value}}, and always runs eagerly. The controller calls them before it saves a checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import tensorflow as tf
import tqdm
import tqdm.contrib

from engine import files
from engine.checkpoints import BestCheckpoint

Output = Mapping[str, Any]


class MetricsWriter:
    """Appends figures to metrics.jsonl: a line for a train loop, one per set for an evaluation."""

    def __init__(
        self, *, path: str | os.PathLike[str], global_step: tf.Variable, split: str = "train"
    ) -> None:
        """Keeps its arguments; the file is made with the first line.

        Args:
            path: Usually WORKDIR/metrics.jsonl.
            global_step: Goes into every line as `step`.
            split: Of flat outputs; for nested ones it is the name of the set.
        """
        self._path = path
        self._global_step = global_step
        self._split = split

    def __call__(self, output: Output) -> None:
        """Writes the output; scalars that are not finite become null."""
        step = int(self._global_step.numpy())
        flat = {name: value for name, value in output.items() if not isinstance(value, Mapping)}
        nested = {name: value for name, value in output.items() if isinstance(value, Mapping)}
        if flat:
            nested = {self._split: flat, **nested}
        for split, figures in nested.items():
            record = {name: _number(value) for name, value in figures.items()}
            files.append_jsonl(self._path, {"step": step, "split": split, **record})


def truncate_metrics(path: str | os.PathLike[str], step: int) -> int:
    """Removes the lines of updates that a resumed run will repeat; atomic.

    A process killed between two checkpoints leaves lines with a greater step than the checkpoint's,
    and perhaps half a line. Without this the file would hold them twice.

    Args:
        path: metrics.jsonl; need not exist.
        step: Update of the restored checkpoint; lines of this step stay.

    Returns:
        Number of lines removed, not counting half a line.
    """
    target = Path(path)
    if not target.exists():
        return 0
    records = files.read_jsonl(target)
    kept = [record for record in records if record.get("step", 0) <= step]
    text = "".join(files.json_line(record) for record in kept)
    # Compared as a whole, so that half a line goes too.
    if text != target.read_text(encoding="utf-8", errors="replace"):
        files.write_text_atomic(target, text)
    return len(records) - len(kept)


class ProgressBar:
    """One line on stderr: updates done, updates/s, time left, loss, audio-s/s, padding share.

    A context manager and a train action. Does nothing where stderr is not a terminal. While it is
    active, prints (the controller's, for instance) go above the bar instead of through it.
    """

    def __init__(
        self,
        *,
        global_step: tf.Variable,
        num_updates: int,
        file: TextIO | None = None,
        enabled: bool | None = None,
    ) -> None:
        """Keeps its arguments; the bar appears on entering the context.

        Args:
            global_step: Where the bar stands.
            num_updates: Where it ends.
            file: Where to draw; stderr if None.
            enabled: Whether to draw; None for only on a terminal.
        """
        self._global_step = global_step
        self._num_updates = num_updates
        self._file = file
        self._enabled = enabled
        self._bar: tqdm.tqdm | None = None
        self._contexts = contextlib.ExitStack()
        self._clock = time.monotonic()

    def __enter__(self) -> ProgressBar:
        file = sys.stderr if self._file is None else self._file
        enabled = file.isatty() if self._enabled is None else self._enabled
        self._bar = self._contexts.enter_context(
            tqdm.tqdm(
                total=self._num_updates,
                initial=int(self._global_step.numpy()),
                unit="update",
                file=file,
                disable=not enabled,
                dynamic_ncols=True,
            )
        )
        if enabled:
            self._contexts.enter_context(stdout_above_bar())
        self._clock = time.monotonic()
        return self

    def __exit__(self, *exception: object) -> None:
        self._contexts.close()
        self._bar = None

    def __call__(self, output: Output) -> None:
        """Moves the bar to the global step and shows the figures of the train loop.

        Uses `loss`, `audio_secs` (of the loop) and `padding_share` where the output has them.
        """
        if self._bar is None or self._bar.disable:
            return
        now = time.monotonic()
        elapsed_secs, self._clock = now - self._clock, now
        postfix = {}
        if "loss" in output:
            postfix["loss"] = f"{_number(output['loss']):.3f}"
        if "audio_secs" in output:
            postfix["audio-s/s"] = f"{_number(output['audio_secs']) / max(elapsed_secs, 1e-6):.1f}"
        if "padding_share" in output:
            postfix["padding"] = f"{100 * _number(output['padding_share']):.1f}%"
        self._bar.set_postfix(postfix, refresh=False)
        self._bar.update(int(self._global_step.numpy()) - self._bar.n)
        self._bar.refresh()

    def restart_clock(self, output: Output | None = None) -> None:
        """Leaves the time since the last call out of audio-s/s; an eval action."""
        del output
        self._clock = time.monotonic()


@contextlib.contextmanager
def stdout_above_bar() -> Iterator[None]:
    """Sends what is printed to stdout through tqdm, which draws its bars anew below it."""
    original = sys.stdout
    wrapper = tqdm.contrib.DummyTqdmFile(original)
    with contextlib.redirect_stdout(wrapper):
        try:
            yield
        finally:
            # A line without its end would wait in the wrapper, perhaps for ever.
            if getattr(wrapper, "_buf", None) and any(wrapper._buf):
                wrapper.write("\n")


class SaveBest:
    """Eval action that keeps the checkpoint with the best figure of one set."""

    def __init__(self, *, best: BestCheckpoint, key: Sequence[str] = ("dev", "wer")) -> None:
        """Keeps its arguments.

        Args:
            best: Saves, and remembers the best value over restarts.
            key: Way to the figure in the output: the set's name, then the figure's.
        """
        self._best = best
        self._key = tuple(key)

    def __call__(self, output: Output) -> None:
        """Saves if the figure is better than ever before.

        Raises:
            ValueError: The output has no such figure.
        """
        value: Any = output
        for position, name in enumerate(self._key):
            if not isinstance(value, Mapping) or name not in value:
                known = ", ".join(value) if isinstance(value, Mapping) else "no further names"
                way = "/".join(self._key[: position + 1])
                raise ValueError(
                    f"best checkpoint by {way}: not in the evaluation, which has {known}"
                )
            value = value[name]
        self._best.save_if_better(float(_number(value)), metric="/".join(self._key))


class PredictionsWriter:
    """Eval action: WORKDIR/eval/SET/predictions.jsonl of each set, worst utterance first."""

    def __init__(self, *, workdir: str | os.PathLike[str], evaluators: Mapping[str, Any]) -> None:
        """Keeps its arguments.

        Args:
            workdir: Folder of the run.
            evaluators: {set: evaluator with a `score`}.
        """
        self._workdir = Path(workdir)
        self._evaluators = evaluators

    def __call__(self, output: Output) -> None:
        """Writes the predictions of the evaluation that has just ended."""
        del output
        for name, evaluator in self._evaluators.items():
            path = self._workdir / "eval" / name / "predictions.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_jsonl_atomic(path, evaluator.score.predictions())


class BadRowGuard:
    """Train action: ends a run that meets too many unreadable rows."""

    def __init__(self, *, max_bad_share: float) -> None:
        """Keeps the largest share of rows, over the life of the process, that may be unreadable."""
        self._max_bad_share = max_bad_share
        self._num_bad = 0.0
        self._num_rows = 0.0

    def __call__(self, output: Output) -> None:
        """Counts the loop's rows.

        Raises:
            StopTraining: There are too many bad ones.
        """
        self._num_bad += float(_number(output.get("num_bad", 0.0)))
        self._num_rows += float(_number(output.get("num_rows", 0.0)))
        if self._num_bad > 0 and self._num_bad > self._max_bad_share * self._num_rows:
            raise StopTraining(
                f"{self._num_bad:.0f} of {self._num_rows:.0f} training rows could not be read, more than "
                f"data.max_bad_share={self._max_bad_share:g}; the log names them"
            )


class StopTraining(Exception):  # noqa: N818 - it reports a wish, not an error
    """Raised out of the controller's loop to end training in good order."""


class StopOnSignal:
    """Turns SIGTERM and SIGINT into a clean stop after the running train loop or evaluation.

    A context manager that installs the handlers (main thread only) and puts the old ones back, and
    an action for training and evaluation:

        with StopOnSignal() as stop:
            try:
                orbit.Controller(..., train_actions=[..., stop], eval_actions=[..., stop]).train(n)
            except StopTraining:
                controller.save_checkpoint()
        sys.exit(stop.exit_status)

    It should be the last action, so that the loop's figures are written. A second signal finds the
    old handlers again: normally it ends the process at once.

    Attributes:
        signal_number: The first signal received, or None.
    """

    def __init__(
        self, *, signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)
    ) -> None:
        """Keeps the signals to catch."""
        self.signal_number: int | None = None
        self._signals = tuple(signals)
        self._old_handlers: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come; for long work that can end early."""
        return self.signal_number is not None

    @property
    def exit_status(self) -> int:
        """Status for the process to end with: 143 after SIGTERM, 130 after SIGINT, 0 without."""
        return 0 if self.signal_number is None else 128 + self.signal_number

    def __enter__(self) -> StopOnSignal:
        for number in self._signals:
            self._old_handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore_handlers()

    def __call__(self, output: Output | None = None) -> None:
        """Raises StopTraining if a signal has come."""
        del output
        if self.signal_number is not None:
            name = signal.Signals(self.signal_number).name
            raise StopTraining(f"stopped by {name}")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal_number = number
        self._restore_handlers()
        name = signal.Signals(number).name
        # Not print: it may be interrupted in the middle of another print, which fails.
        line = f"\n{name}: stopping after this loop, then saving; once more to stop at once\n"
        os.write(2, line.encode("ascii"))

    def _restore_handlers(self) -> None:
        while self._old_handlers:
            number, handler = self._old_handlers.popitem()
            # None: installed by other code than Python's; it cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _number(value: Any) -> Any:
    """Returns a tensor or NumPy scalar as a Python number."""
    value = value.numpy() if hasattr(value, "numpy") else value
    return value.item() if hasattr(value, "item") else value
