"""Which run a workdir belongs to: a fresh start sets aside what an earlier one left, and nothing reads another's.

The id of a run lies in WORKDIR/run.json and in the manifest of each of its checkpoints (docs/decisions/0065).
"""

from __future__ import annotations

import hashlib
import re
import uuid

import tensorflow as tf
from absl import logging

from common import storage
from common import workdir_layout as layout
from common.workdir_layout import read_run_id
from engine.common import files
from engine.workdir.folder import WorkdirError

# What a run makes; in this order it is set aside, so that what names the run goes last.
_RESULTS = (
    layout.BEST_FOLDER,
    layout.CHECKPOINTS_FOLDER,
    layout.CONTINUOUS_FOLDER,
    layout.EVAL_FOLDER,
    layout.METRICS_FILE,
    layout.TENSORBOARD_FOLDER,
    layout.REPORT_FILE,
    layout.COMPARISON_FILE,
    layout.SKIPPED_FILE,
    layout.DECODE_FILE,
)
# What it starts with. Of a run that made nothing these are replaced.
_BEGINNINGS = (
    layout.FINISHED_FILE,
    layout.STOPPED_FILE,
    layout.ENVIRONMENT_FILE,
    layout.VOCAB_FILE,
    layout.CONFIG_FILE,
    layout.RUN_FILE,
)


class RunFiles:
    """The files of a run under way: notices when its workdir is removed, moved away or given to another run."""

    def __init__(self, workdir: str, run_id: str, global_step: tf.Variable) -> None:
        """Keeps its arguments.

        Args:
            workdir: Of the run.
            run_id: As `begin_run` returned it.
            global_step: Updates done.
        """
        self._workdir = workdir
        self._run_id = run_id
        self._global_step = global_step

    def __call__(self, output: object = None) -> None:
        """Looks whether the workdir is still there; an action of a train loop and of an evaluation.

        Raises:
            WorkdirError: It is not: nothing may be written any more, or half a workdir would lie there.
        """
        del output
        try:
            found = read_run_id(self._workdir)
        except FileNotFoundError:  # gone just now
            found = ""
        except OSError:
            return  # a moment's fault of the storage: the next write says so if it lasts
        if found == self._run_id:
            return
        step = int(self._global_step.numpy())
        what = f"belongs to run {found} now" if found else "has been removed or moved away (no run.json there)"
        raise WorkdirError(
            f"{self._workdir}: the folder {what} while this process was writing to it, so it stops at update {step}; "
            "the updates since the last checkpoint are lost, and the checkpoints too unless they lie elsewhere now: "
            "then --workdir=THERE goes on from the newest"
        )


def begin_run(workdir: str, *, is_fresh: bool, keep: str = "") -> str:
    """Gives a workdir to the run that starts or continues in it; only the process that holds the lock may.

    Args:
        workdir: Of the run.
        is_fresh: Whether there is no checkpoint to continue from. The run gets a new id then, and what an earlier one
            left is set aside in a workdir of its own, WORKDIR/earlier_runs/NUMBER.
        keep: Checkpoint to start from; must not be among what is set aside.

    Returns:
        The id of the run.

    Raises:
        WorkdirError: `keep` lies in what would be set aside.
    """
    if is_fresh:
        _set_aside_earlier(workdir, keep)
        run_id = ""
    else:
        run_id = find_run_id(workdir)
        _set_aside_foreign_best(workdir, run_id)
    if not run_id or not storage.is_file(storage.join(workdir, layout.RUN_FILE)):
        run_id = run_id or uuid.uuid4().hex[:16]
        files.write_json_atomic(storage.join(workdir, layout.RUN_FILE), {"run_id": run_id})
    return run_id


def claim_output(folder: str, run_id: str) -> None:
    """Gives a folder of results to a run; what another run has there is set aside.

    Args:
        folder: Of the results.
        run_id: Of the run that they are of; "" = not known.
    """
    if (found := read_run_id(folder)) and found != run_id:
        aside = set_aside(folder, _present(folder))
        logging.warning("%s holds results of another run, %s; they are set aside in %s", folder, found, aside)
    if run_id and run_id != found:
        files.write_json_atomic(storage.join(folder, layout.RUN_FILE), {"run_id": run_id})


def find_run_id(workdir: str) -> str:
    """Returns the id of a workdir's run, or that of its newest checkpoint, which may have been copied there alone."""
    paths = layout.list_checkpoints(storage.join(workdir, layout.CHECKPOINTS_FOLDER))
    return read_run_id(workdir) or (layout.run_id_of(paths[-1]) if paths else "")


def evaluation_folder(workdir: str, checkpoint: str) -> str:
    """Returns where the evaluation of a checkpoint leaves its files: the workdir, or a folder in it for another run's.

    Args:
        workdir: Of --workdir.
        checkpoint: Of --checkpoint; "" = the workdir's own.
    """
    if not checkpoint:
        return workdir
    config = layout.find_above(checkpoint, layout.CONFIG_FILE)
    home = storage.parent(config) if config else storage.absolute(checkpoint)
    own_id, found = read_run_id(workdir), layout.find_checkpoint(checkpoint)
    if storage.real(home) == storage.real(workdir) and not (own_id and found and _is_foreign(found, own_id)):
        return workdir
    name = re.sub(r"[^\w.-]+", "_", home.rstrip("/").rpartition("/")[2]) or "checkpoint"
    digest = hashlib.sha256(storage.real(home).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    folder = storage.join(workdir, layout.OTHERS_FOLDER, f"{name}-{digest}")
    logging.info("%s is not of the run in %s: its evaluation goes to %s", checkpoint, workdir, folder)
    return folder


def set_aside(workdir: str, names: tuple[str, ...]) -> str:
    """Moves files and folders of a workdir into a new folder WORKDIR/earlier_runs/NUMBER, and returns its path."""
    parent = storage.join(workdir, layout.EARLIER_FOLDER)
    taken = [int(name) for name in storage.list_names(parent) if name.isdecimal()]
    folder = storage.join(parent, str(max(taken, default=0) + 1))
    storage.make_dirs(folder)
    for name in names:
        storage.move(storage.join(workdir, name), storage.join(folder, name))
    return folder


def _set_aside_earlier(workdir: str, keep: str) -> None:
    results = tuple(name for name in _RESULTS if _holds_something(storage.join(workdir, name)))
    if not results:
        return
    inside = storage.real(workdir) + "/"
    left = storage.real(keep).removeprefix(inside).partition("/")[0] if keep else ""
    if keep and storage.real(keep).startswith(inside) and left in results:
        raise WorkdirError(
            f"{keep} (model.init) is of an earlier run in this very workdir, {workdir}; choose another --workdir"
        )
    folder = set_aside(workdir, _present(workdir))
    logging.warning(
        "%s: no checkpoint to continue from, so a new run begins; what an earlier one left is set aside in %s: %s",
        workdir,
        folder,
        ", ".join(results),
    )


def _present(workdir: str) -> tuple[str, ...]:
    return tuple(name for name in (*_RESULTS, *_BEGINNINGS) if storage.exists(storage.join(workdir, name)))


def _set_aside_foreign_best(workdir: str, run_id: str) -> None:
    found = layout.list_checkpoints(storage.join(workdir, layout.BEST_FOLDER))
    if run_id and found and _is_foreign(found[-1], run_id):
        folder = set_aside(workdir, (layout.BEST_FOLDER,))
        logging.warning("%s belongs to another run than this one, %s; set aside in %s", found[-1], run_id, folder)


def _is_foreign(checkpoint: str, run_id: str) -> bool:
    return layout.run_id_of(checkpoint) not in ("", run_id)


def _holds_something(path: str) -> bool:
    """Returns whether there is a file that is not empty, or a folder with a file in it or below."""
    if not storage.is_dir(path):
        return storage.is_file(path) and storage.state(path).num_bytes > 0
    return any(_holds_something(storage.join(path, name)) for name in storage.list_names(path))
