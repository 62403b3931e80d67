"""What TensorFlow is told before it starts, unless the user has said otherwise."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from common.tensorflow_environment import set_tensorflow_defaults

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("TF_CPP_MIN_LOG_LEVEL", "TF_USE_LEGACY_KERAS", "TF_FORCE_GPU_ALLOW_GROWTH")


def test_gpu_memory_grows_unless_the_user_has_decided_otherwise(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, "")  # restored after the test
        monkeypatch.delenv(name)
    set_tensorflow_defaults(log_level="2")
    assert [os.environ[name] for name in NAMES] == ["2", "1", "true"]
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    set_tensorflow_defaults()
    assert [os.environ[name] for name in NAMES] == ["2", "1", "false"]


@pytest.mark.parametrize("program", ["run.py", "models/convert.py", "data/prepare.py", "benchmarks/protocol.py"])
def test_every_program_that_may_use_a_gpu_sets_it_before_tensorflow_starts(program):
    text = (ROOT / program).read_text(encoding="utf-8")
    call = re.search(r"^ *(set_tensorflow_defaults)\(", text, flags=re.M)
    assert call
    if program == "run.py":  # at the import, before anything that imports TensorFlow
        assert text[call.start() - 1] == "\n" and call.start() < text.index("_MODE = ")
