"""An interpreter that cannot run Earshot is told so in a line, before pip begins."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common import interpreter

ROOT = Path(__file__).resolve().parents[2]


def test_the_interpreter_of_the_tests_has_no_fault():
    assert interpreter.find_fault() == ""


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        ({"version": (3, 10, 13)}, "is Python 3.10, for which TensorFlow 2.20 has no wheels; take CPython 3.11"),
        ({"version": (3, 14, 0)}, "is Python 3.14, for which"),
        ({"version": (2, 7, 18)}, "is Python 2.7, for which"),
        ({"description": "3.11.11 (0253c85bf5f8) [PyPy 7.3.19 with GCC 10.2.1]"}, "is PyPy, for which"),
        ({"pointer_bytes": 4}, "is a 32-bit Python, for which"),
        ({"is_free_threaded": True}, "is a free-threaded Python, for which"),
        ({"platform": "x86_64-pc-linux-musl"}, "is a Python for musl instead of glibc, for which"),
    ],
)
def test_an_interpreter_without_wheels_is_named(facts, fault):
    assert interpreter.find_fault(**{"version": (3, 12, 1), **facts}).startswith(fault)


@pytest.mark.parametrize(
    ("module", "fault"),
    [
        ("venv", "has no venv or ensurepip; on Debian and Ubuntu: apt install python3.12-venv"),
        ("ensurepip", "has no venv or ensurepip; on Debian and Ubuntu: apt install python3.12-venv"),
        ("_ssl", "was built without _ssl; take another build of Python 3.12"),
    ],
)
def test_an_interpreter_without_a_module_that_pip_needs_is_named(module, fault):
    assert interpreter.find_fault(version=(3, 12, 1), has_module=lambda name: name != module) == fault


def test_as_a_script_it_is_silent_and_0_or_one_line_and_1():
    script = str(ROOT / "common/interpreter.py")
    assert subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout == ""
    broken = (
        f"import sys, runpy; sys.version = 'PyPy'; sys.argv = ['x']; runpy.run_path({script!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (1, 1, "")
    assert done.stdout.startswith(f"{sys.executable} is PyPy")


def test_old_interpreters_can_read_it():
    source = (ROOT / "common/interpreter.py").read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 4))
    assert source.isascii()
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.AnnAssign | ast.arg)
                and (isinstance(node, ast.JoinedStr | ast.AnnAssign) or node.annotation)]  # fmt: skip


def test_the_metadata_names_the_same_versions():
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    low, high = interpreter.LOWEST, interpreter.HIGHEST
    assert f"python_requires = >={low[0]}.{low[1]},<{high[0]}.{high[1] + 1}\n" in setup
    classified = [int(minor) for minor in re.findall(r"Python :: 3\.(\d+)$", setup, flags=re.MULTILINE)]
    assert classified == list(range(low[1], high[1] + 1))
