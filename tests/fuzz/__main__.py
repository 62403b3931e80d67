"""Runs mutated inputs through their readers; the side of `tests.fuzz.harness` that may crash.

python -m tests.fuzz --seed=1 --count=1000            all targets in turn; a failure is a line of JSON
python -m tests.fuzz --seed=1 --first=417 --count=1 --keep=FOLDER     one of them again, and its input
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

from tests.fuzz.mutations import PATHS
from tests.fuzz.targets import Target, build_targets, damage, files_of

HANG_SECS = 10.0
MEMORY_BYTES = 2 * 2**30
# What a reader may raise, by the name of its class; subclasses are looked at one by one.
_ALLOWED = (
    "CorpusError", "InputError", "MalformedFileError", "ValueError", "WorkdirError", "TooLargeError",
    "FileNotFoundError", "NotADirectoryError", "IsADirectoryError", "PermissionError", "OSError",
)  # fmt: skip
_LONGEST_MESSAGE = 2000


class _Hang(BaseException):
    """A reader took too long."""


def judge(error: BaseException, folder: Path, target: Target) -> str:
    """Returns what is wrong with the way in which a reader gave up, "" where nothing is."""
    name, message = type(error).__name__, str(error)
    if name not in _ALLOWED:
        return name
    if "\n" in message:
        return "a message of several lines"
    if len(message) > _LONGEST_MESSAGE:
        return "a message too long"
    if (
        target.names_the_file
        and not any(path in message for path in (str(folder), *PATHS))
        and not any(path.name in message for path in folder.rglob("*"))
    ):
        return "a message without a file"
    return ""


def run_case(number: int, seed: int, names: list[str], targets: dict[str, Target], folders: dict[str, Path]) -> Any:
    """Runs one case; returns None or what failed."""
    name = names[number % len(names)]
    target, folder = targets[name], folders[name]
    rng = random.Random(f"{seed} {number}")
    path = rng.choice(files_of(folder, target))
    sound = path.read_bytes()
    path.write_bytes(damage(rng, target, path))
    fault = ""
    try:
        signal.setitimer(signal.ITIMER_REAL, HANG_SECS)
        faulthandler.dump_traceback_later(3 * HANG_SECS, exit=True)  # stuck where no signal is looked at
        try:
            target.read(folder)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        if fault := judge(error, folder, target):
            trace = [
                f"{frame.filename.rsplit('/', 2)[-1]}:{frame.lineno}"
                for frame in traceback.extract_tb(error.__traceback__)
            ]
            return {
                "case": number,
                "target": name,
                "file": path.name,
                "fault": fault,
                "message": str(error)[:300],
                "trace": trace[-4:],
            }
    finally:
        path.write_bytes(sound)
    return None


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="tests.fuzz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--targets", default="", help="names, with commas; all without")
    parser.add_argument("--keep", default="", help="folder for the mutated inputs of the last case")
    parser.add_argument("--note", default="", help="file that names the case under way")
    flags = parser.parse_args()
    targets = build_targets()
    names = flags.targets.split(",") if flags.targets else list(targets)
    root = Path(tempfile.mkdtemp(prefix="earshot-fuzz-"))
    answers = os.fdopen(os.dup(1), "w")
    # What readers print and log is not what is looked at.
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        if not flags.keep:
            os.dup2(nowhere.fileno(), 2)
    folders = {}
    for name in names:
        folders[name] = root / name
        folders[name].mkdir()
        targets[name].make(folders[name])
        try:
            targets[name].read(folders[name])  # what is imported late is there from now on
        except Exception as error:
            found = {"case": names.index(name), "target": name, "file": "", "fault": "sound inputs are refused"}
            print(json.dumps({**found, "message": str(error)[:300], "trace": []}), file=answers, flush=True)

    def hang(number: int, frame: object) -> None:
        raise _Hang(f"longer than {HANG_SECS:g} s")

    signal.signal(signal.SIGALRM, hang)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.RLIM_INFINITY))
    try:
        for number in range(flags.first, flags.first + flags.count):
            if flags.note:
                Path(flags.note).write_text(f"{number} {names[number % len(names)]}")
            found = run_case(number, flags.seed, names, targets, folders)
            if found:
                print(json.dumps(found), file=answers, flush=True)
        # Not getrusage: what it tells begins with the memory of the process that started this one.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
        print(json.dumps({"done": True, "peak_bytes": peak}), file=answers, flush=True)
    finally:
        if flags.keep:
            name = names[(flags.first + flags.count - 1) % len(names)]
            rng = random.Random(f"{flags.seed} {flags.first + flags.count - 1}")
            path = rng.choice(files_of(folders[name], targets[name]))
            path.write_bytes(damage(rng, targets[name], path))
            shutil.copytree(folders[name], flags.keep, dirs_exist_ok=True)
        shutil.rmtree(root, ignore_errors=True)
    sys.stdout.flush()
    os._exit(0)  # the server's thread


if __name__ == "__main__":
    main()
