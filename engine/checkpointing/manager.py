"""Checkpoints: saved at fixed updates, restored only where they match, and the best one kept."""

from __future__ import annotations

import copy
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from common import storage
from common import workdir_layout as layout
from common.json_files import MalformedFileError, field, optional_field
from engine.checkpointing import manifest
from engine.checkpointing.background_save import BackgroundWork, CopyValues
from engine.checkpointing.compatibility import check_matches, open_checkpoint
from engine.common import files
from engine.workdir.folder import WorkdirError

# What a save is taken to write a second before one was timed: a slow disk, with the sums made on a busy processor.
_ASSUMED_BYTES_PER_SEC = 60e6
_SLOW_SAVE_SECS = 10.0  # from here on a save is worth a line


class _StateChanged(Exception):  # noqa: N818 - nothing is wrong, the training has gone on
    """Ends a save whose copy is of no moment between two updates."""


class CheckpointManager(tf.train.CheckpointManager):
    """Saves at multiples of an interval, restores only what is whole and matches; for `orbit.Controller`.

    TensorFlow's own manager saves at the first opportunity and counts the interval from there, so
    that a resumed run saves at other updates than an uninterrupted one; it restores a checkpoint of
    another model without a word, falls over a damaged one, and begins anew where its list of them
    is lost.

    A save in the background goes on after `save` has returned. Whoever ends the training waits for
    it; a context manager does so.
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
        optional: Collection[str] = (),
        in_background: bool = False,
        before_writing: Callable[[], None] = lambda: None,
    ) -> None:
        """Looks for the newest checkpoint that is whole; nothing is restored yet.

        Newer ones that are damaged are named in the log and set aside, and what killed processes
        left half-written is removed: only the process that holds the workdir's lock may do this.

        Args:
            checkpoint: tf.train.Checkpoint(model=..., optimizer=..., global_step=..., ...), all of
                it built. Saved and restored as a whole.
            directory: Usually WORKDIR/checkpoints.
            global_step: Counts the updates; compared with the interval.
            every_updates: Save once whenever a multiple of this has been reached. The controller
                asks at the end of each inner loop, so the loop's length should divide it.
            keep: Number of latest checkpoints to keep.
            init_fn: Called without arguments when there is nothing to restore.
            about: What every checkpoint's manifest says besides its sums.
            check_origin: Called with the path to be restored; raises if the run may not go on from it.
            optional: Parts of `checkpoint` that an older version did not save.
            in_background: Whether saves at the interval copy all values to host memory and write them beside the
                training (docs/decisions/0041).
            before_writing: Called before anything is written; raises where the folder is not the run's any more.

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
        self._optional = tuple(optional)
        self._in_background = in_background
        self._before_writing = before_writing
        self._work = BackgroundWork("save")
        self._lock = threading.Lock()
        self._longest_save_secs = 0.0

    @property
    def expected_save_secs(self) -> float:
        """How long a save may take: half as long again as the longest so far; before the first, by the state's size."""
        if self._longest_save_secs:
            return 1.5 * self._longest_save_secs + 1.0
        parts = tf.train.TrackableView(self.checkpoint).descendants()
        sizes = (part.shape.num_elements() * part.dtype.size for part in parts if isinstance(part, tf.Variable))
        return sum(sizes) / _ASSUMED_BYTES_PER_SEC + 1.0

    def save(self, checkpoint_number=None, check_interval=True, options=None):
        """Saves if a multiple of the interval was passed since the last save, or unconditionally.

        In the background goes what the interval asks for; a save without `check_interval` is one after which the run
        may end, and is whole on return, like any save before it.

        Returns:
            The checkpoint's path; None if nothing was saved, or is whole only later. Never two saves at one step.

        Raises:
            OSError, tf.errors.OpError: It could not be written, or the last one in the background could not.
        """
        # A disk that was full for the last checkpoint ends the run after this loop, not at the next multiple.
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
        """Saves the state between two updates from another thread, while the training's own cannot: it is in an update.

        The training may go on meanwhile. Where it changes the state before all of it is copied, nothing is saved: then
        its thread has come back, and saves by itself.

        Args:
            version: `Trainer.settled_version`.

        Returns:
            The checkpoint's path; None if nothing was saved.

        Raises:
            OSError, tf.errors.OpError: It could not be written.
        """
        # A save in the background has a copy of its own to write: two at once would need the memory twice.
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
        """Writes, sums up and counts a checkpoint, then removes the oldest; returns its path."""

        def seal(path: str) -> None:
            manifest.write_manifest(path, {"step": step, **self._about})

        self._before_writing()
        # Before TensorFlow's own, which puts the checkpoint on its list and removes the oldest.
        options.experimental_write_callbacks = [seal, *(options.experimental_write_callbacks or ())]
        start, last = time.monotonic(), getattr(self, "_last_checkpoint_step", None)
        try:
            path = super().save(checkpoint_number, check_interval=False, options=options)
        except BaseException:
            # Half a checkpoint helps nobody, least of all on a disk that is full.
            manifest.sweep(self.directory)
            self._last_checkpoint_step = last  # TensorFlow's manager counts it as saved before it is
            self._before_writing()  # where the folder was removed meanwhile, that is what to say
            raise
        if path is not None:
            manifest.sweep(self.directory)
            self._longest_save_secs = max(self._longest_save_secs, time.monotonic() - start)
        return path

    def finish(self) -> None:
        """Waits for the save under way.

        Not `sync`: that is what orbit's controller calls before each evaluation, which need not wait.

        Raises:
            OSError, tf.errors.OpError: It could not be written.
        """
        self._work.wait()

    def __enter__(self) -> CheckpointManager:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Waits for the save under way; after an error the error counts, after a second signal nothing."""
        if kind is None:
            self.finish()
        elif issubclass(kind, Exception):
            try:
                self.finish()
            except Exception as other:
                logging.error("the save under way failed too: %s", other)

    def restore_or_initialize(self):
        """Restores the latest checkpoint if there is one, and checks first that it matches.

        Returns:
            The path restored, or None.

        Raises:
            WorkdirError: The checkpoint is of other variables, or of other data; nothing was changed.
        """
        self.finish()
        if self.latest_checkpoint is not None:
            self._check_origin(self.latest_checkpoint)
            check_matches(self.checkpoint, self.latest_checkpoint, optional=self._optional)
        path = super().restore_or_initialize()
        self._step_at_last_save = int(self._global_step.numpy())
        return path


def _settle(directory: str) -> None:
    """Brings a folder into the state that TensorFlow's manager expects, its newest checkpoint whole.

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
            f"{directory}: no checkpoint there can be used ({'; '.join(damage for _, damage in damaged)}); bring back a"
            " copy of one, or choose another workdir to begin anew"
        )
    for path, damage in damaged:
        folder = manifest.set_aside(path)
        logging.error("%s is damaged: %s; moved to %s, going on from %s", path, damage, folder, paths[-1])
    state = storage.join(directory, "checkpoint")
    if paths:
        names = [os.path.basename(path) for path in paths]
        lines = [f'model_checkpoint_path: "{names[-1]}"', *(f'all_model_checkpoint_paths: "{name}"' for name in names)]
        # Without its time the manager takes a checkpoint for one to be kept for ever.
        lines += [f"all_model_checkpoint_timestamps: {storage.state(path + '.index').mtime_ns / 1e9}" for path in paths]
        files.write_text_atomic(state, "\n".join(lines) + "\n")
    else:
        storage.remove(state)


class BestCheckpoint:
    """Keeps exactly one checkpoint, the one with the best value; the value outlives the process.

    The folder holds the checkpoint and `best.json` with the metric's name, its value, the step and which weights. The
    checkpoint's manifest says of which run it is and has a digest of the set that was evaluated.
    """

    def __init__(
        self,
        *,
        checkpoint: tf.train.Checkpoint,
        directory: str | os.PathLike[str],
        global_step: tf.Variable,
        higher_is_better: bool = False,
        run_id: str = "",
    ) -> None:
        """Reads what an earlier process left in `directory`.

        Args:
            checkpoint: What to save; with an attribute `model` for `restore_model`.
            directory: Usually WORKDIR/best.
            global_step: Numbers the checkpoint.
            higher_is_better: Whether larger values are better; not so for error rates.
            run_id: Of the run, for the manifest.

        Raises:
            WorkdirError: best.json is damaged.
        """
        for path in layout.list_checkpoints(directory):
            if damage := manifest.find_damage(path):
                folder = manifest.set_aside(path)
                logging.error("%s is damaged: %s; moved to %s, the next evaluation is the best", path, damage, folder)
        self._manager = tf.train.CheckpointManager(checkpoint, os.fspath(directory), max_to_keep=1)
        self._directory = os.fspath(directory)
        self._record_path = storage.join(directory, layout.BEST_FILE)
        self._global_step = global_step
        self._higher_is_better = higher_is_better
        self._run_id = run_id
        self._record: dict[str, Any] | None = None
        self._set_digest = ""
        # Without its checkpoint a value is of no use: the next one is the best.
        if paths := layout.list_checkpoints(directory):
            self._record = read_best_record(directory)
            self._set_digest = str((layout.read_manifest(paths[-1]) or {}).get("set_digest", ""))

    @property
    def value(self) -> float | None:
        """Best value so far, or None."""
        return None if self._record is None else float(self._record["value"])

    def is_better(self, value: float, *, than: float) -> bool:
        """Returns whether one value is strictly better than another; NaN never is, and anything is better than it."""
        return value == value and (than != than or (value > than if self._higher_is_better else value < than))

    def save_if_better(self, value: float, *, metric: str, weights: str = "raw", set_digest: str = "") -> bool:
        """Saves if `value` is strictly better than the best one of the same metric; NaN never is.

        Args:
            value: Value that the variables of this moment have reached.
            metric: Its name. A value of another metric is not compared with, but replaced.
            weights: "raw" or "ema": what the variables are at this moment; stands in best.json.
            set_digest: What tells the evaluated set from others of its name; a value of another set is not compared
                with either. "" = unknown, which is like any.

        Returns:
            Whether it saved.
        """
        if value != value:
            return False
        record = self._record or {}
        is_same_set = not set_digest or self._set_digest in ("", set_digest)
        if record.get("metric") == metric and is_same_set and not self.is_better(value, than=float(record["value"])):
            return False
        if record.get("metric") == metric and not is_same_set:
            logging.warning(
                "%s: the evaluation set of %s is another one than at update %s, so its %.4g does not count any more",
                self._record_path, metric, record.get("step"), record["value"],
            )  # fmt: skip
        step = int(self._global_step.numpy())
        path = self._manager.save(checkpoint_number=step)
        about = {"step": step, "metric": metric, "value": float(value)}
        known = {"run_id": self._run_id, "set_digest": set_digest}
        manifest.write_manifest(path, {**about, **{name: text for name, text in known.items() if text}})
        for other in layout.list_checkpoints(self._directory):
            if other != path:  # not on TensorFlow's list, which may have been lost
                storage.remove(f"{other}.index")
        manifest.sweep(self._directory)
        # The value comes last: killed in between, the old value stands and the same evaluation,
        # when it is repeated, saves again.
        self._record = {"metric": metric, "value": float(value), "step": step, "weights": weights}
        self._set_digest = set_digest
        files.write_json_atomic(self._record_path, self._record)
        return True


def read_best_record(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Returns what best.json says in a folder of the best checkpoint, None where there is none.

    Raises:
        WorkdirError: It is damaged.
    """
    path = storage.join(folder, layout.BEST_FILE)
    if not storage.is_file(path):
        return None
    try:
        record = layout.read_object(path)
        for name, kind in {"metric": str, "value": float}.items():
            field(record, name, kind, path)
        optional_field(record, "weights", str, path, "raw")
    except MalformedFileError as error:
        raise WorkdirError(f"{error}; remove the file") from error
    return record


def find_checkpoint(path_or_workdir: str | os.PathLike[str], *, prefer_best: bool = True) -> str:
    """Returns the path (without .index) of a checkpoint, as `common.workdir_layout.find_checkpoint`.

    Raises:
        WorkdirError: There is no checkpoint.
        MalformedFileError: run.json is damaged.
    """
    if found := layout.find_checkpoint(path_or_workdir, prefer_best=prefer_best):
        return found
    raise WorkdirError(
        f"{os.fspath(path_or_workdir)}: no checkpoint there; give a workdir with {layout.BEST_FOLDER}/ or "
        f"{layout.CHECKPOINTS_FOLDER}/, a folder of checkpoints, or a checkpoint's path without .index"
    )


def step_of(path: str) -> int:
    """Returns the update at which a checkpoint was saved, 0 if it does not say.

    Args:
        path: As `find_checkpoint` returns it.

    Raises:
        WorkdirError: The file is unreadable.
    """
    reader = open_checkpoint(path)
    key = "global_step/.ATTRIBUTES/VARIABLE_VALUE"
    if reader.has_tensor(key):
        return int(reader.get_tensor(key))
    # Without the counter in it (the best weights alone), it is still numbered by the update.
    number = path.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def restore_model(
    model: tf.Module,
    path_or_workdir: str | os.PathLike[str],
    *,
    prefer_best: bool = True,
    leave_out: Sequence[str] = (),
) -> str:
    """Restores the weights of `model` alone, to evaluate or as a start; call in `strategy.scope()`.

    Args:
        model: A built model, saved as the attribute `model` of the checkpoint.
        path_or_workdir: See `find_checkpoint`.
        prefer_best: See `find_checkpoint`.
        leave_out: Attributes of the model that keep their values, such as a head for another
            alphabet; the checkpoint may have them or not.

    Returns:
        The path that was used.

    Raises:
        WorkdirError: There is no checkpoint or it is of another model; nothing was changed.
    """
    path = find_checkpoint(path_or_workdir, prefer_best=prefer_best)
    parts = tf.train.TrackableView.children(model)
    wanted = {name: part for name, part in parts.items() if name not in leave_out}
    unknown = [name for name in leave_out if name not in parts]
    if unknown:
        raise ValueError(f"the model has no part {unknown[0]!r}; it has {', '.join(sorted(parts))}")
    # Stands for the model, without what is left out.
    checkpoint = tf.train.Checkpoint(model=tf.train.Checkpoint(**wanted))
    if damage := manifest.find_damage(path):
        raise WorkdirError(f"{path} is damaged: {damage}; take another checkpoint, or a copy of this one")
    check_matches(checkpoint, path, leave_out=[f"model/{name}" for name in leave_out])
    # The optimizer's part stays unread, on purpose.
    checkpoint.read(path).expect_partial()
    return path
