"""Identifies the run that a workdir belongs to, so that no run reads or overwrites the files of another.

The id of a run is in WORKDIR/run.json and in the manifest of each of its checkpoints (docs/decisions/0065).
"""

from __future__ import annotations

import dataclasses
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

# Results of a run, in the order in which they are moved away.
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
# Files that a run starts with; replaced if the run has no results. The file with the run's id is moved last.
_BEGINNINGS = (
    layout.FINISHED_FILE,
    layout.STOPPED_FILE,
    layout.ENVIRONMENT_FILE,
    layout.VOCAB_FILE,
    layout.CONFIG_FILE,
    layout.RUN_FILE,
)


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """Notices when the workdir of a running training is removed, moved or given to another run.

    An action of train loops and evaluations.

    Attributes:
        workdir: Folder of the run.
        run_id: Id of the run; "" on workers that write nothing.
        global_step: Number of updates done.
    """

    workdir: str
    run_id: str
    global_step: tf.Variable

    def __call__(self, output: object = None) -> None:
        """Checks that the workdir still belongs to the run.

        Raises:
            WorkdirError: It does not. Nothing may be written any more: it would create half a workdir.
        """
        del output
        try:
            found = read_run_id(self.workdir)
        except FileNotFoundError:  # just removed
            found = ""
        except OSError:
            return  # perhaps temporary; the next write reports it if it lasts
        if found == self.run_id:
            return
        step = int(self.global_step.numpy())
        what = f"now belongs to run {found}" if found else "has been removed or moved (it has no run.json)"
        raise WorkdirError(
            f"{self.workdir}: the folder {what} while this process was writing to it, so it stops at update {step}; "
            "updates since the last checkpoint are lost; if the folder was moved, --workdir=NEW_PLACE continues from "
            "the newest checkpoint in it"
        )


def begin_run(workdir: str, *, is_fresh: bool, keep: str = "") -> str:
    """Assigns a workdir to the run that starts or continues in it; call with the workdir's lock.

    Args:
        workdir: Folder of the run.
        is_fresh: Whether there is no checkpoint to continue from. The run then gets a new id, and files of an earlier
            run are moved to a workdir of their own, WORKDIR/earlier_runs/NUMBER.
        keep: Checkpoint to start from; must not be among the files to move.

    Returns:
        The id of the run.

    Raises:
        WorkdirError: `keep` is among the files to move.
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
    """Assigns a folder of results to a run; moves the results of another run away.

    Args:
        folder: Folder of the results.
        run_id: Id of the run; "" if unknown.
    """
    if (found := read_run_id(folder)) and found != run_id:
        aside = set_aside(folder, _present(folder))
        logging.warning("%s has results of another run, %s; moved them to %s", folder, found, aside)
    if run_id and run_id != found:
        files.write_json_atomic(storage.join(folder, layout.RUN_FILE), {"run_id": run_id})


def find_run_id(workdir: str) -> str:
    """Returns the id of a workdir's run, or the one of its newest checkpoint if that was copied there alone."""
    paths = layout.list_checkpoints(storage.join(workdir, layout.CHECKPOINTS_FOLDER))
    return read_run_id(workdir) or (layout.run_id_of(paths[-1]) if paths else "")


def evaluation_folder(workdir: str, checkpoint: str) -> str:
    """Returns the folder for the evaluation of a checkpoint.

    It is the workdir for what stands for the run: its best and its newest checkpoint. Any other one, of this run or of
    another, has a folder of its own in the workdir.

    Args:
        workdir: Value of --workdir.
        checkpoint: Value of --checkpoint; "" = the workdir's own.
    """
    if not checkpoint:
        return workdir
    config = layout.find_above(checkpoint, layout.CONFIG_FILE)
    home = storage.parent(config) if config else storage.absolute(checkpoint)
    own_id, found = read_run_id(workdir), layout.find_checkpoint(checkpoint)
    if storage.real(home) == storage.real(workdir) and not (own_id and found and _is_foreign(found, own_id)):
        current = [layout.find_checkpoint(workdir, prefer_best=prefer_best) for prefer_best in (True, False)]
        if not found or storage.real(found) in [storage.real(path) for path in current if path]:
            return workdir
        place = storage.real(found).removeprefix(storage.real(workdir) + "/")
        place = place.removeprefix(f"{layout.CHECKPOINTS_FOLDER}/")
        folder = storage.join(workdir, layout.OTHERS_FOLDER, _as_name(place))
        logging.info("%s is neither the best nor the newest checkpoint: writing its evaluation to %s", found, folder)
        return folder
    name = _as_name(home.rstrip("/").rpartition("/")[2]) or "checkpoint"
    digest = hashlib.sha256(storage.real(home).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    folder = storage.join(workdir, layout.OTHERS_FOLDER, f"{name}-{digest}")
    logging.info("%s is from another run than %s: writing its evaluation to %s", checkpoint, workdir, folder)
    return folder


def _as_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)


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
            f"{keep} (model.init) is from an earlier run in the same workdir, {workdir}; choose another --workdir"
        )
    folder = set_aside(workdir, _present(workdir))
    logging.warning(
        "%s: no checkpoint to continue from, so a new run begins; moved the files of an earlier run to %s: %s",
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
        logging.warning("%s belongs to another run than this one, %s; moved it to %s", found[-1], run_id, folder)


def _is_foreign(checkpoint: str, run_id: str) -> bool:
    return layout.run_id_of(checkpoint) not in ("", run_id)


def _holds_something(path: str) -> bool:
    """Returns whether a path is a non-empty file or a folder with such a file in it or below."""
    if not storage.is_dir(path):
        return storage.is_file(path) and storage.state(path).num_bytes > 0
    return any(_holds_something(storage.join(path, name)) for name in storage.list_names(path))
