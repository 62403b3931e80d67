"""Runs `--mode=verify_resume`: checks that an interrupted run equals an uninterrupted one bit by bit."""

from __future__ import annotations

import collections
import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from absl import logging
from ml_collections import ConfigDict

from common import storage
from engine.common import files
from engine.config import field_rules, recorded_run
from engine.resume_check.interruptions import Interruption, plan_moments, run_interrupted, run_straight
from engine.resume_check.run_comparison import Check, compare_runs


def run(*, config: ConfigDict, command: Sequence[str], workdir: str) -> int:
    """Trains once without and once with interruptions, in child processes, and compares the two runs.

    Empties WORKDIR/verify_resume and leaves both runs there; writes the outcome to WORKDIR/verify_resume.json.

    Args:
        config: The config, see configs/base.py and its group `verify_resume`.
        command: The command line of this process; flags appended to it override its own.
        workdir: The folder for both runs.

    Returns:
        0 if everything is bit-equal and every stop was in time, else 2.

    Raises:
        ValueError: A field is wrong, or a run failed.
    """
    fields = config.verify_resume
    field_rules.check_values({"verify_resume": fields.to_dict()})
    if storage.is_remote(workdir):
        raise ValueError(f"--workdir={workdir}: verify_resume kills processes on this machine; give a local folder")
    folder = Path(workdir) / "verify_resume"
    shutil.rmtree(folder, ignore_errors=True)
    num_updates = fields.num_updates or config.train.num_updates  # 0 = the updates of train.num_epochs
    length = _length_flags(config, num_updates)
    # On a GPU, two uninterrupted runs differ without it.
    needs_determinism = config.model.get("source", "native") == "native" and tf.config.list_physical_devices("GPU")
    determinism = ["--config.runtime.deterministic=True"] if needs_determinism else []

    def child(name: str) -> dict:
        extra = ["--mode=train_and_eval", f"--workdir={folder / name}", *length, *determinism]
        return {"command": [*command, *extra], "workdir": folder / name, "log": folder / f"{name}.log"}

    logging.info("training %s without interruption", f"{num_updates} updates" if num_updates else "all epochs")
    timeline = run_straight(**child("straight"))
    # With epochs, the run without interruptions has recorded its number of updates.
    planned = num_updates or recorded_run.read_run_field(str(folder / "straight"), "train", "num_updates", int)
    moments = plan_moments(
        count=fields.num_interruptions,
        signals=fields.signals,
        seed=fields.seed,
        num_updates=planned,
        log_every=config.train.log_every_updates,
        timeline=timeline,
    )
    logging.info("training again with %d interruptions; a start takes %.1f s", len(moments), timeline.startup_secs)
    interruptions = run_interrupted(
        **child("interrupted"), moments=moments, startup_secs=timeline.startup_secs, on_interruption=_log
    )
    checks = [
        *compare_runs(folder / "straight", folder / "interrupted"),
        _check_stops(interruptions, config.runtime.stop_within_secs),
    ]
    is_equal = not any(check.num_different for check in checks)
    outcome = {
        "equal": is_equal,
        "num_updates": planned,
        "seed": fields.seed,
        "timeline": dataclasses.asdict(timeline),
        "interruptions": [dataclasses.asdict(interruption) for interruption in interruptions],
        "checks": [dataclasses.asdict(check) for check in checks],
    }
    files.write_json_atomic(Path(workdir) / "verify_resume.json", outcome)
    print(f"\n{report(checks, interruptions)}\n\nwritten to {os.path.join(workdir, 'verify_resume.json')}")
    return 0 if is_equal else 2


def _length_flags(config: ConfigDict, num_updates: int) -> list[str]:
    """Returns the flags that make a run `num_updates` long; none for 0, which leaves the config's epochs."""
    if not num_updates:
        return []
    # A run refuses a number of updates beside a number of epochs.
    no_epochs = ["--config.train.num_epochs=0"] if config.train.get("num_epochs", 0.0) else []
    return [*no_epochs, f"--config.train.num_updates={num_updates}"]


def report(checks: Sequence[Check], interruptions: Sequence[Interruption]) -> str:
    """Returns the outcome as a table, with a line that counts the interruptions of each kind."""
    rows = [("compared", "values", "different", "first difference")]
    rows += [
        (check.name, str(check.num_compared), str(check.num_different), check.first_difference) for check in checks
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        f"{row[0].ljust(widths[0])}  {row[1].rjust(widths[1])}  {row[2].rjust(widths[2])}  {row[3]}".rstrip()
        for row in rows
    ]
    kinds = collections.Counter((item.moment.signal_name, item.moment.phase) for item in interruptions)
    counts = ", ".join(f"{count} x {name} in {phase}" for (name, phase), count in sorted(kinds.items()))
    lines += ["", f"{len(interruptions)} interruptions: {counts}"]
    same = not any(check.num_different for check in checks)
    lines.append("the same run, bit by bit" if same else "NOT the same run")
    return "\n".join(lines)


def _check_stops(interruptions: Sequence[Interruption], limit_secs: float) -> Check:
    """Checks that the processes that received a signal to stop did so in time."""
    asked = [item for item in interruptions if item.moment.signal_name != "SIGKILL"]
    late = [item for item in asked if limit_secs and item.secs > limit_secs]
    first = f"{late[0].secs:.1f} s after {late[0].moment.signal_name} at update {late[0].reached}" if late else ""
    return Check(
        name=f"stops within {limit_secs:g} s", num_compared=len(asked), num_different=len(late), first_difference=first
    )


def _log(interruption: Interruption) -> None:
    moment = interruption.moment
    logging.info(
        "%s in %s at update %d: status %d after %.2f s",
        moment.signal_name,
        moment.phase,
        interruption.reached,
        interruption.exit_status,
        interruption.secs,
    )
