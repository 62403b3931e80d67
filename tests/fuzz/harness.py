"""Runs `python -m tests.fuzz` in a process of its own, and goes on behind a case that ends it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a number of mutated inputs.

    Attributes:
        failures: One line each, with the command that repeats it.
        peak_bytes: Most memory of the process.
    """

    failures: list[str]
    peak_bytes: int


def run_cases(*, seed: int, count: int, timeout_secs: float, targets: str = "") -> Outcome:
    """Runs cases 0 to `count` - 1.

    Args:
        seed: Of the mutations.
        count: Inputs; the targets take turns.
        timeout_secs: Of all together.
        targets: Names, with commas; "" = all.
    """
    failures, peak, first = [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder, "note")
        while first < count:
            command = [
                sys.executable, "-m", "tests.fuzz", f"--seed={seed}", f"--first={first}", f"--count={count - first}",
                f"--note={note}", f"--targets={targets}",
            ]  # fmt: skip
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_secs, check=False)
            ended = False
            for line in done.stdout.splitlines():
                found = json.loads(line)
                if "done" in found:
                    ended, peak = True, max(peak, found["peak_bytes"])
                else:
                    failures.append(_describe(found, seed, targets))
            if ended:
                break
            if not note.exists():
                raise RuntimeError(f"the harness did not start: {done.stderr[-3000:]}")
            number, name = note.read_text().split()
            found = {
                "case": int(number), "target": name, "file": "", "fault": f"ended the process ({done.returncode})",
                "message": done.stderr[-300:], "trace": [],
            }  # fmt: skip
            failures.append(_describe(found, seed, targets))
            first = int(number) + 1
            note.unlink()
    return Outcome(failures, peak)


def _describe(found: dict, seed: int, targets: str) -> str:
    more = f" --targets={targets}" if targets else ""
    again = f"python -m tests.fuzz --seed={seed}{more} --first={found['case']} --count=1 --keep=FOLDER"
    return (
        f"{found['target']} {found['file']}: {found['fault']}: {found['message']!r} at {' '.join(found['trace'])}; "
        f"again: {again}"
    )
