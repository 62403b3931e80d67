"""The command line where memory is used up: one line, status 2, and the largest batch that is foreseen."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from absl import flags

import run as program
from configs.base import get_config
from engine.config import memory

ROOT = Path(__file__).resolve().parents[1]
# A command that needs 256 TiB.
GREEDY = """
import runpy, sys
sys.argv = sys.argv[1:]
from engine.modes import transcribe
import tensorflow as tf
transcribe.run = lambda **fields: tf.zeros([2**46])
runpy.run_path("run.py", run_name="__main__")
"""


def test_a_command_that_runs_out_of_memory_ends_with_one_line_and_status_2(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    (tmp_path / "a.wav").touch()
    arguments = [
        "run.py", "--mode=transcribe", f"--checkpoint={tmp_path}/run", f"--inputs={tmp_path}/a.wav",
        f"--output={tmp_path}/o.txt",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", GREEDY, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr[-2000:]
    line = done.stderr.splitlines()[-1]
    assert re.match(r"error: out of memory on this machine \(.* did not fit\); lower --window_secs, or end", line)
    assert "Traceback" not in done.stderr


def test_a_training_says_how_many_rows_are_foreseen(tmp_path, monkeypatch):
    flags.FLAGS.mark_as_parsed()
    monkeypatch.setattr(memory, "available_memory", lambda: 80 * 2**30)
    config = get_config()
    (tmp_path / "config.json").write_text(json.dumps({"model": {"architecture": {}}}))
    config.model.preset = "base"
    command = program._Command("train", config, str(tmp_path), {}, {})
    said = program._advise(command, False)
    rows = re.search(r"train.microbatch_rows \(the doctor foresees at most (\d+) rows of 20 s in 80.0 GiB\), set", said)
    assert rows and 8 < int(rows[1]) < 200
    evaluating = program._advise(command, True)
    found = re.search(r"eval.batch_size \(the doctor foresees at most (\d+) rows", evaluating)
    assert found and int(found[1]) > int(rows[1])
