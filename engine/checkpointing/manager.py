"""Saves checkpoints at fixed updates and restores only those that are intact and match."""

from __future__ import annotations

import copy
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from common import storage
from common import workdir_layout as layout
from engine.checkpointing import manifest
from engine.checkpointing.background_save import BackgroundWork, CopyValues
from engine.checkpointing.compatibility import check_matches
from engine.common import files
from engine.workdir.folder import WorkdirError

# Assumed speed of a save before one was timed: a slow disk, with checksums on a busy processor.
_ASSUMED_BYTES_PER_SEC = 60e6
_SLOW_SAVE_SECS = 10.0  # longer saves are logged at the default verbosity


class _StateChanged(Exception):  # noqa: N818 - not an error: training went on
    """Abandons a save whose copy mixes the states before and after an update."""


class CheckpointManager(tf.train.CheckpointManager):
    """Saves at multiples of an interval and restores only intact, matching checkpoints; for `orbit.Controller`.

    TensorFlow's own manager counts the interval from its first save, so that a resumed run saves at other updates than
    an uninterrupted one. It silently restores a checkpoint of another model, fails on a damaged one, and starts from
    scratch when its list of checkpoints is lost.

    A background save continues after `save` has returned. Used as a context manager, the manager waits for it.
    """

    def __init__(
        self,
        *,
        checkpoint: tf.train.Checkpoint,
        directory: str | os.PathLike[str],
        global_step: tf.Variable,
        every_updates: int,
        keep: int,
        init_fn: Any = None,
        about: Mapping[str, Any] | None = None,
        check_origin: Callable[[str], None] = lambda path: None,
        in_background: bool = False,
        before_writing: Callable[[], None] = lambda: None,
    ) -> None:
        """Finds the newest intact checkpoint; restores nothing yet.

        Logs newer, damaged checkpoints and moves them away, and removes files that killed processes left half-written.
        Only the process that holds the workdir's lock may do this.

        Args:
            checkpoint: tf.train.Checkpoint(model=..., optimizer=..., global_step=..., ...) with all variables built;
                saved and restored as a whole.
            directory: Usually WORKDIR/checkpoints.
            global_step: Number of updates done; compared with the interval.
            every_updates: Interval of the saves. The controller asks at the end of each inner loop, so the loop's
                length should divide it.
            keep: Number of latest checkpoints to keep.
            init_fn: Called without arguments if there is nothing to restore.
            about: Fields that every checkpoint's manifest gets besides its checksums.
            check_origin: Called with the path to be restored; raises if the run may not continue from it.
            in_background: Whether saves at the interval copy all values to host memory and write them while training
                goes on (docs/decisions/0041).
            before_writing: Called before anything is written; raises if the folder no longer belongs to the run.

        Raises:
            ValueError: `every_updates` or `keep` is not positive.
            WorkdirError: There are checkpoints and all of them are damaged; nothing was changed.
        """
        if every_updates < 1 or keep < 1:
            raise ValueError(
                f"checkpoint.every_updates ({every_updates}) and checkpoint.keep ({keep}) must be at least 1"
            )
        _settle(os.fspath(directory))
        super().__init__(
            checkpoint,
            os.fspath(directory),
            max_to_keep=keep,
            step_counter=global_step,
            checkpoint_interval=every_updates,
            init_fn=init_fn,
        )
        self._global_step = global_step
        self._step_at_last_save = 0
        self._about = dict(about or {})
        self._check_origin = check_origin
        self._in_background = in_background
        self._before_writing = before_writing
        self._work = BackgroundWork("save")
        self._lock = threading.Lock()
        self._longest_save_secs = 0.0

    @property
    def expected_save_secs(self) -> float:
        """Upper estimate of a save's duration: 1.5 times the longest so far, or from the state's size."""
        if self._longest_save_secs:
            return 1.5 * self._longest_save_secs + 1.0
        parts = tf.train.TrackableView(self.checkpoint).descendants()
        sizes = (part.shape.num_elements() * part.dtype.size for part in parts if isinstance(part, tf.Variable))
        return sum(sizes) / _ASSUMED_BYTES_PER_SEC + 1.0

    def save(self, checkpoint_number=None, check_interval=True, options=None):
        """Saves if a multiple of the interval was passed since the last save, or unconditionally.

        Saves at the interval run in the background. A save without `check_interval` may be the run's last, so it and
        all saves before it are complete on return. No step is saved twice.

        Returns:
            The checkpoint's path; None if nothing was saved or the save continues in the background.

        Raises:
            OSError, tf.errors.OpError: This checkpoint or the last background save could not be written.
        """
        # A full disk ends the run after this loop, not at the next multiple of the interval.
        self._work.raise_error()
        step = int(self._global_step.numpy())
        interval = self.checkpoint_interval
        if check_interval and step // interval == self._step_at_last_save // interval:
            return None
        with self._lock:
            self._work.wait()
            options = copy.copy(options) if options is not None else tf.train.CheckpointOptions()
            if not (self._in_background and check_interval):
                path = self._save_whole(checkpoint_number, step, options)
                self._step_at_last_save = step
                return path

            def save(go_on: Callable[[], None]) -> None:
                start = time.monotonic()
                options.experimental_sharding_callback = CopyValues(go_on)
                if (path := self._save_whole(checkpoint_number, step, options)) is not None:
                    secs = time.monotonic() - start
                    level = logging.INFO if secs > _SLOW_SAVE_SECS else logging.DEBUG
                    logging.log(level, "saved checkpoint to %s, %.1f s after update %d", path, secs, step)

            self._step_at_last_save = step
            self._work.start(save)
            return None

    def save_from_beside(self, version: Callable[[], Any]) -> str | None:
        """Saves the state between two updates from another thread while the main thread is inside an update.

        Training may go on meanwhile. If it changes the state before all of it is copied, nothing is saved: the main
        thread is back then and saves by itself.

        Args:
            version: `Trainer.settled_version`.

        Returns:
            The checkpoint's path; None if nothing was saved.

        Raises:
            OSError, tf.errors.OpError: It could not be written.
        """
        # Two copies of the state at once could exceed the memory, hence only with background saves and one at a time.
        if not self._in_background:
            return None
        with self._lock:
            self._work.wait()
            before, step = version(), int(self._global_step.numpy())
            if before is None or step == self._step_at_last_save:
                return None

            def check() -> None:
                if version() != before:
                    raise _StateChanged

            options = tf.train.CheckpointOptions(experimental_sharding_callback=CopyValues(check))
            try:
                path = self._save_whole(step, step, options)
            except _StateChanged:
                return None
            self._step_at_last_save = step
            return path

    def _save_whole(self, checkpoint_number: Any, step: int, options: tf.train.CheckpointOptions) -> str | None:
        """Writes a checkpoint and its manifest, then removes the oldest one; returns the path."""

        def seal(path: str) -> None:
            manifest.write_manifest(path, {"step": step, **self._about})

        self._before_writing()
        # Before TensorFlow's callbacks, which list the checkpoint and remove the oldest one.
        options.experimental_write_callbacks = [seal, *(options.experimental_write_callbacks or ())]
        start, last = time.monotonic(), getattr(self, "_last_checkpoint_step", None)
        try:
            path = super().save(checkpoint_number, check_interval=False, options=options)
        except BaseException:
            # Half a checkpoint is useless, and the disk may be full.
            manifest.sweep(self.directory)
            self._last_checkpoint_step = last  # TensorFlow's manager sets it before it writes
            self._before_writing()  # a removed folder is the better explanation
            raise
        if path is not None:
            manifest.sweep(self.directory)
            self._longest_save_secs = max(self._longest_save_secs, time.monotonic() - start)
        return path

    def finish(self) -> None:
        """Waits for the save in progress.

        Not named `sync`: orbit's controller calls that before each evaluation, which need not wait.

        Raises:
            OSError, tf.errors.OpError: It could not be written.
        """
        self._work.wait()

    def __enter__(self) -> CheckpointManager:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Waits for the save in progress; after an error only logs its failure, after a second signal does nothing."""
        if kind is None:
            self.finish()
        elif issubclass(kind, Exception):
            try:
                self.finish()
            except Exception as other:
                logging.error("the checkpoint being saved could not be written either: %s", other)

    def restore_or_initialize(self):
        """Checks that the latest checkpoint matches, if there is one, and restores it.

        Returns:
            The path restored, or None.

        Raises:
            WorkdirError: The checkpoint is of other variables, or of other data; nothing was changed.
        """
        self.finish()
        if self.latest_checkpoint is not None:
            self._check_origin(self.latest_checkpoint)
            check_matches(self.checkpoint, self.latest_checkpoint)
        path = super().restore_or_initialize()
        self._step_at_last_save = int(self._global_step.numpy())
        return path


def _settle(directory: str) -> None:
    """Brings a folder into the state that TensorFlow's manager expects, its newest checkpoint intact.

    Raises:
        WorkdirError: All checkpoints are damaged.
    """
    manifest.sweep(directory)
    paths = layout.list_checkpoints(directory)
    damaged: list[tuple[str, str]] = []
    while paths and (damage := manifest.find_damage(paths[-1])):
        damaged.append((paths.pop(), damage))
    if damaged and not paths:
        raise WorkdirError(
            f"{directory}: all checkpoints are damaged ({'; '.join(damage for _, damage in damaged)}); restore a copy "
            "of one, or choose another workdir to start from scratch"
        )
    for path, damage in damaged:
        folder = manifest.set_aside(path)
        logging.error("%s is damaged: %s; moved to %s, continuing from %s", path, damage, folder, paths[-1])
    _write_list(storage.join(directory, layout.TENSORFLOW_LIST), paths)


def _write_list(path: str, checkpoints: Sequence[str]) -> None:
    """Writes TensorFlow's list of the checkpoints in a folder, or removes it if there are none."""
    if not checkpoints:
        storage.remove(path)
        return
    names = [os.path.basename(one) for one in checkpoints]
    lines = [f'model_checkpoint_path: "{names[-1]}"', *(f'all_model_checkpoint_paths: "{name}"' for name in names)]
    # Without a timestamp the manager never deletes the checkpoint.
    lines += [f"all_model_checkpoint_timestamps: {storage.state(one + '.index').mtime_ns / 1e9}" for one in checkpoints]
    files.write_text_atomic(path, "\n".join(lines) + "\n")
