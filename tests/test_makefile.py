"""The targets of the Makefile, with a stand-in for the interpreter of its environment."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# As pip where an index has a mirror that is not there; -qq leaves errors alone.
NOISY_PYTHON = """#!/bin/sh
case "$*" in
*"-m pip install"*)
  case "$*" in *" -qq "*) ;; *) for i in $(seq 200); do echo "WARNING: Location $i is ignored" >&2; done ;; esac
  if [ -e "$0.fails" ]; then echo "ERROR: No matching distribution found for tensorflow" >&2; exit 1; fi ;;
esac
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def interpreter(tmp_path):
    path = tmp_path / "venv/bin/python"
    path.parent.mkdir(parents=True)
    path.write_text(NOISY_PYTHON)
    path.chmod(0o755)
    return path


def make(*arguments):
    # Under `make test` this would be a make within a make, which names its folder.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def test_plain_make_lists_every_target_with_a_sentence():
    done = make()
    assert done.returncode == 0 and done.stdout == make("help").stdout
    listed = dict(re.findall(r"^make (\S+) +(.+\.)$", done.stdout, flags=re.MULTILINE))
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert listed.keys() == set(phony.split()) - {"check-python"}


def test_what_pip_says_of_its_index_does_not_drown_the_installation(interpreter):
    done = make("install", f"VENV={interpreter.parents[1]}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["installing (about 3.6 GB, most of it TensorFlow)"]


def test_a_failed_installation_keeps_what_pip_said_and_what_to_do(interpreter):
    Path(f"{interpreter}.fails").touch()
    done = make("install", f"VENV={interpreter.parents[1]}")
    assert done.returncode != 0
    assert "ERROR: No matching distribution found for tensorflow" in done.stderr
    assert "make install: pip failed (its message is above); check the network" in done.stderr
    assert not (interpreter.parents[1] / ".installed").exists()


def test_the_quickstart_ends_with_what_came_out(interpreter):
    lines = make("-n", "quickstart", f"VENV={interpreter.parents[1]}").stdout.splitlines()
    (done,) = (number for number, line in enumerate(lines) if '"done: ' in line)
    assert "--mode=transcribe" in lines[done - 3] or "--mode=transcribe" in "".join(lines[done - 4 : done])
    assert "word error rate" in "".join(lines[done:])
    assert "runs/quickstart/report.html" in lines[-4]
    assert all("run.py" in line for line in lines[-3:])
