"""Runs training in child processes, interrupts them at chosen moments and restarts them until one finishes."""

from __future__ import annotations

import dataclasses
import random
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.workdir_layout import CHECKPOINTS_FOLDER, METRICS_FILE, checkpoint_number, list_checkpoints
from engine.workdir.records import TRAIN_SPLIT, read_metrics_if_any

PHASES = ("start-up", "update", "save", "evaluation")
# Relative frequency of each phase; a save is so short that random moments would rarely hit one.
_PHASE_WEIGHTS = (3, 5, 3, 2)
_POLL_SECS = 0.002
_FINISHED = 0  # exit status


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Durations of the phases of an uninterrupted run.

    Attributes:
        startup_secs: Time from the start of the process to its first line in metrics.jsonl.
        loop_secs: Median time between two lines of training.
        evaluation_secs: Median time from a line of training to the evaluation after it; 0 without any.
        evaluated: Updates that were evaluated.
    """

    startup_secs: float
    loop_secs: float
    evaluation_secs: float
    evaluated: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Moment:
    """A planned interruption of a process.

    Attributes:
        signal_name: SIGTERM, SIGINT or SIGKILL.
        phase: One of `PHASES`.
        update: Update whose line in metrics.jsonl to wait for, or a later one if the process starts later; unused in
            the start-up.
        delay_secs: Time to wait after that.
    """

    signal_name: str
    phase: str
    update: int
    delay_secs: float


@dataclasses.dataclass(frozen=True)
class Interruption:
    """An interruption that was carried out.

    Attributes:
        moment: The planned moment.
        reached: Last update in metrics.jsonl when the signal was sent; 0 = none.
        exit_status: Exit status of the process; negative for a signal that it did not handle.
        secs: Time from the signal to the end of the process.
    """

    moment: Moment
    reached: int
    exit_status: int
    secs: float


def plan_moments(
    *, count: int, signals: Sequence[str], seed: int, num_updates: int, log_every: int, timeline: Timeline
) -> list[Moment]:
    """Draws moments from all of a run, in the order in which the run reaches them.

    Args:
        count: Number of moments.
        signals: Names of the signals, used in turn.
        seed: Seed of the draw; the same seed and timeline give the same moments.
        num_updates: Number of updates of the run.
        log_every: Number of updates between lines in metrics.jsonl.
        timeline: Durations of the uninterrupted run.
    """
    draw = random.Random(seed)
    drawn = []
    for _ in range(count):
        phase = draw.choices(PHASES, _PHASE_WEIGHTS)[0]
        if phase == "evaluation" and not timeline.evaluated:
            phase = "update"
        # Not in the last loop, where the run might end before the moment.
        update = draw.randint(0, max(num_updates - 2 * log_every, 0))
        longest = {
            "start-up": timeline.startup_secs,
            "update": timeline.loop_secs,
            "save": 0.02,
            "evaluation": timeline.evaluation_secs,
        }[phase]
        if phase == "evaluation":
            update = draw.choice(timeline.evaluated)
        drawn.append((update, phase, draw.uniform(0.0, longest)))
    drawn.sort(key=lambda item: item[0])
    return [
        Moment(signal_name=signals[i % len(signals)], phase=phase, update=update, delay_secs=round(delay, 4))
        for i, (update, phase, delay) in enumerate(drawn)
    ]


class Child:
    """Runs one process of a training and observes its progress."""

    def __init__(self, *, command: Sequence[str], workdir: Path, log: Path) -> None:
        """Starts the process and appends its output to `log`."""
        self._workdir = workdir
        self._log = log
        saved = list_checkpoints(workdir / CHECKPOINTS_FOLDER)
        self._restored = (checkpoint_number(saved[-1]) or 0) if saved else 0
        # Lines past the checkpoint are from an earlier process; this one will replace the file.
        self._stale_inode = self._inode() if self.trained() > self._restored else None
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def lines(self) -> list[dict[str, Any]]:
        """Returns the lines of metrics.jsonl."""
        path = self._workdir / METRICS_FILE
        return read_metrics_if_any(path)

    def trained(self) -> int:
        """Returns the last update with a line of training; 0 = none."""
        return max((line["step"] for line in self.lines() if line["split"] == TRAIN_SPLIT), default=0)

    def has_trained_to(self, update: int) -> bool:
        """Returns whether this process itself has written a line of training for `update` or a later one."""
        if self._stale_inode is not None and self._inode() == self._stale_inode:
            return False
        return self.trained() >= max(update, self._restored + 1)

    def _inode(self) -> int:
        path = self._workdir / METRICS_FILE
        return path.stat().st_ino if path.exists() else 0

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        """Waits until `condition` holds or the process has ended; returns whether it still runs."""
        while self.process.poll() is None:
            if condition():
                return True
            time.sleep(_POLL_SECS)
        return False

    def is_saving(self) -> bool:
        """Returns whether a checkpoint is being written."""
        return any((self._workdir / CHECKPOINTS_FOLDER).glob("*_temp"))

    def interrupt(self, moment: Moment) -> Interruption | None:
        """Waits for the moment and sends its signal; returns None if the process ended before."""
        if moment.phase == "evaluation" and moment.update <= self._restored:
            # That evaluation is over, and another one may not follow.
            moment = dataclasses.replace(moment, phase="update")
        if moment.phase != "start-up" and not self.wait_for(lambda: self.has_trained_to(moment.update)):
            return None
        if moment.phase == "save" and not self.wait_for(self.is_saving):
            return None
        end = time.monotonic() + moment.delay_secs
        self.wait_for(lambda: time.monotonic() >= end)
        if self.process.poll() is not None:
            return None
        reached, start = self.trained(), time.monotonic()
        self.process.send_signal(signal.Signals[moment.signal_name])
        status = self.process.wait()
        return Interruption(moment=moment, reached=reached, exit_status=status, secs=round(time.monotonic() - start, 3))

    def require(self, *wanted: int) -> None:
        """Checks the exit status of the process, which has ended.

        Raises:
            ValueError: It is none of `wanted`; quotes the end of the output.
        """
        if self.process.returncode not in wanted:
            tail = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise ValueError(
                f"a run ended with status {self.process.returncode} instead of {' or '.join(map(str, wanted))}: "
                f"{' '.join(tail)} (see {self._log})"
            )


def run_straight(*, command: Sequence[str], workdir: Path, log: Path) -> Timeline:
    """Runs a training without interruption and returns the durations of its phases.

    Raises:
        ValueError: The run failed.
    """
    start = time.monotonic()
    arrivals: list[tuple[dict[str, Any], float]] = []

    def note_arrivals() -> bool:
        for line in child.lines()[len(arrivals) :]:
            arrivals.append((line, time.monotonic() - start))
        return False

    with Child(command=command, workdir=workdir, log=log) as child:
        child.wait_for(note_arrivals)
        note_arrivals()
        child.require(_FINISHED)
    training = [(line["step"], secs) for line, secs in arrivals if line["split"] == TRAIN_SPLIT]
    if not training:
        raise ValueError(f"{workdir}: the run wrote no line of training to {METRICS_FILE}")
    at = dict(training)
    loops = [b - a for (_, a), (_, b) in zip(training, training[1:], strict=False)]
    evaluations = {
        line["step"]: secs - at[line["step"]]
        for line, secs in arrivals
        if line["split"] != TRAIN_SPLIT and line["step"] in at
    }
    return Timeline(
        startup_secs=training[0][1],
        loop_secs=statistics.median(loops or [training[0][1]]),
        evaluation_secs=statistics.median(evaluations.values()) if evaluations else 0.0,
        evaluated=tuple(sorted(evaluations)),
    )


def run_interrupted(
    *,
    command: Sequence[str],
    workdir: Path,
    log: Path,
    moments: Sequence[Moment],
    startup_secs: float,
    on_interruption: Callable[[Interruption], None] = lambda interruption: None,
) -> list[Interruption]:
    """Runs a training that is interrupted at each of `moments` and restarted.

    If the run ends before a moment, a restarted process is interrupted during its start-up instead.

    Args:
        command: Command that starts and continues the run.
        workdir: Folder of the run.
        log: File for the output.
        moments: Moments in the order of the run.
        startup_secs: Duration of the start-up, in seconds.
        on_interruption: Called with each interruption.

    Raises:
        ValueError: A process ended with another status than its signal asks for.
    """
    done: list[Interruption] = []
    for moment in moments:
        interruption = None
        while interruption is None:
            with Child(command=command, workdir=workdir, log=log) as child:
                interruption = child.interrupt(moment)
                number = signal.Signals[moment.signal_name]
                if interruption is None:
                    child.require(_FINISHED)
                    moment = dataclasses.replace(
                        moment, phase="start-up", delay_secs=round(min(moment.delay_secs, startup_secs / 4), 4)
                    )
                else:
                    # Killed before our handler was installed, stopped by it, or finished just before the signal.
                    child.require(-number, 128 + number, _FINISHED)
        done.append(interruption)
        on_interruption(interruption)
    with Child(command=command, workdir=workdir, log=log) as child:
        child.wait_for(lambda: False)
        child.require(_FINISHED)
    return done
