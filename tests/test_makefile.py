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
    assert listed.keys() == set(phony.split()) - {"check-python", "ask-more"}


def test_what_pip_says_of_its_index_does_not_drown_the_installation(interpreter):
    done = make("install", f"VENV={interpreter.parents[1]}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["installing (about 3.6 GB, most of it TensorFlow)"]


@pytest.fixture
def installed(interpreter):
    """Extras that the stand-in was asked to install, one list for each installation."""
    log = Path(f"{interpreter}.log")
    interpreter.write_text(f'#!/bin/sh\ncase "$*" in *\'-m pip install\'*) echo "$*" >> {log} ;; esac\n')

    def read():
        lines = log.read_text().splitlines() if log.exists() else []
        return [re.search(r"\.\[(.*)\]", line)[1].split(",") for line in lines]

    return read


@pytest.mark.parametrize("given", ["gpu,serve", "gpu serve"])
def test_extras_are_added_to_what_is_needed_and_stay(interpreter, installed, given):
    venv, needed = f"VENV={interpreter.parents[1]}", ["quickstart", "test", "dev"]
    done = make("install", venv, f"EXTRAS={given}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["installing (about 3.6 GB, most of it TensorFlow) with gpu serve"]
    assert installed() == [[*needed, "gpu", "serve"]]
    # Nothing more to do, whoever asks; another extra comes to those that are there.
    for arguments in ([], ["EXTRAS=serve"], ["EXTRAS=gpu,serve"]):
        assert make("install", venv, *arguments).stdout == ""
    assert make("install", venv, "EXTRAS=lm").returncode == 0
    assert installed()[1:] == [[*needed, "gpu", "lm", "serve"]]


def test_extras_can_be_added_to_an_environment_that_exists(interpreter, installed):
    venv = f"VENV={interpreter.parents[1]}"
    assert make("install", venv).returncode == 0
    assert make("install", venv, "EXTRAS=gpu").returncode == 0
    assert [extras[3:] for extras in installed()] == [[], ["gpu"]]


def test_a_misspelled_extra_is_named_with_those_that_exist(interpreter, installed):
    done = make("install", f"VENV={interpreter.parents[1]}", "EXTRAS=gup,serve")
    assert done.returncode != 0 and installed() == []
    assert (
        "make install: EXTRAS=gup,serve: no extra gup; setup.cfg has quickstart lm numbers serve media" in done.stderr
    )
    assert not (interpreter.parents[1] / ".installed").exists()


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
