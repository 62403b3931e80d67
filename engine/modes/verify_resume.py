"""`--mode=verify_resume`: is a run that is stopped and killed the same run as one that is left alone?"""

from __future__ import annotations

import collections
import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from common import storage
from engine.common import files
from engine.config import builders
from engine.resume_check.interruptions import Interruption, plan_moments, run_interrupted, run_straight
from engine.resume_check.run_comparison import Check, compare_runs

_SIGNALS = ("SIGTERM", "SIGINT", "SIGKILL")


def run(*, config: ConfigDict, command: Sequence[str], workdir: str) -> int:
    """Trains once straight and once with interruptions, in processes of their own, and compares the two.

    Leaves both runs in WORKDIR/verify_resume, which it empties first, and the outcome in WORKDIR/verify_resume.json.

    Args:
        config: As configs/base.py; see its group `verify_resume`.
        command: The command line of this process; what is appended to it wins.
        workdir: Where to work.

    Returns:
        0 if everything is bit-equal and every stop came in time, else 2.

    Raises:
        ValueError: A field is wrong, or a run failed.
    """
    fields = config.verify_resume
    num_updates = fields.num_updates or config.train.num_updates  # 0 = as many as the epochs have
    # Given beside the config's epochs a number would be refused.
    in_updates = ["--config.train.num_epochs=0"] if config.train.get("num_epochs", 0.0) else []
    in_updates += [f"--config.train.num_updates={num_updates}"]
    unknown = [name for name in fields.signals if name not in _SIGNALS]
    if unknown or not fields.signals:
        raise ValueError(f"verify_resume.signals must be among {', '.join(_SIGNALS)}, got {list(fields.signals)}")
    if fields.num_interruptions < 1:
        raise ValueError(f"verify_resume.num_interruptions must be at least 1, got {fields.num_interruptions}")
    if storage.is_remote(workdir):
        raise ValueError(f"--workdir={workdir}: verify_resume kills processes on this machine; give a local folder")
    folder = Path(workdir) / "verify_resume"
    shutil.rmtree(folder, ignore_errors=True)

    def child(name: str) -> dict:
        extra = ["--mode=train_and_eval", f"--workdir={folder / name}", *(in_updates if num_updates else ())]
        return {"command": [*command, *extra], "workdir": folder / name, "log": folder / f"{name}.log"}

    logging.info("training %s without interruption", f"{num_updates} updates" if num_updates else "all epochs")
    timeline = run_straight(**child("straight"))
    # The run has counted them.
    planned = num_updates or builders.read_run_field(str(folder / "straight"), "train", "num_updates", int)
    moments = plan_moments(
        count=fields.num_interruptions,
        signals=fields.signals,
        seed=fields.seed,
        num_updates=planned,
        log_every=config.train.log_every_updates,
        timeline=timeline,
    )
    logging.info("training them again, ended %d times; a start takes %.1f s", len(moments), timeline.startup_secs)
    interruptions = run_interrupted(
        **child("interrupted"), moments=moments, startup_secs=timeline.startup_secs, on_interruption=_log
    )
    checks = [
        *compare_runs(folder / "straight", folder / "interrupted"),
        _check_stops(interruptions, config.runtime.stop_within_secs),
    ]
    is_equal = not any(check.num_different for check in checks)
    files.write_json_atomic(
        Path(workdir) / "verify_resume.json",
        {
            "equal": is_equal,
            "num_updates": planned,
            "seed": fields.seed,
            "timeline": dataclasses.asdict(timeline),
            "interruptions": [dataclasses.asdict(interruption) for interruption in interruptions],
            "checks": [dataclasses.asdict(check) for check in checks],
        },
    )
    print(f"\n{report(checks, interruptions)}\n\nwritten to {os.path.join(workdir, 'verify_resume.json')}")
    return 0 if is_equal else 2


def report(checks: Sequence[Check], interruptions: Sequence[Interruption]) -> str:
    """Returns the outcome as a table, with a line for each kind of interruption."""
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
    """Whether the processes that were asked to stop did so in time."""
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
