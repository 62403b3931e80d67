"""Progress as a tqdm bar with rate and time left, silent where nobody watches."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import tensorflow as tf
import tqdm
import tqdm.contrib


def progress_bar(
    *, total: int, description: str, unit: str, initial: int = 0, quiet: bool = False
) -> tqdm.tqdm:
    """Returns a bar on standard error, disabled unless that is a terminal.

    Args:
        total: Steps in all.
        description: What is going on.
        unit: Name of a step.
        initial: Steps already done, by an earlier process.
        quiet: Whether to draw nothing, whoever watches.
    """
    return tqdm.tqdm(
        total=total,
        desc=description,
        unit=unit,
        initial=initial,
        disable=quiet or not _is_terminal(sys.stderr),
        dynamic_ncols=True,
        leave=False,
    )


def _is_terminal(file: TextIO | None) -> bool:
    """Tells whether somebody watches; nobody does where the stream was closed before the program began."""
    return file is not None and file.isatty()


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
        enabled = _is_terminal(file) if self._enabled is None else self._enabled
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

    def __call__(self, output: Mapping[str, Any]) -> None:
        """Moves the bar to the global step and shows the figures of the train loop.

        Uses `loss`, `audio_secs` (of the loop) and `padding_share` where the output has them.
        """
        if self._bar is None or self._bar.disable:
            return
        now = time.monotonic()
        elapsed_secs, self._clock = now - self._clock, now
        postfix = {}
        if "loss" in output:
            postfix["loss"] = f"{float(output['loss']):.3f}"
        if "audio_secs" in output:
            postfix["audio-s/s"] = f"{float(output['audio_secs']) / max(elapsed_secs, 1e-6):.1f}"
        if "padding_share" in output:
            postfix["padding"] = f"{100 * float(output['padding_share']):.1f}%"
        self._bar.set_postfix(postfix, refresh=False)
        self._bar.update(int(self._global_step.numpy()) - self._bar.n)
        self._bar.refresh()

    def restart_clock(self, output: Mapping[str, Any] | None = None) -> None:
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
