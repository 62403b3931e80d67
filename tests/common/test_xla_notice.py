"""XLA's notice of itself does not reach the terminal, whatever is compiled first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BATCH = "tf.zeros([2, 5, 4]), tf.constant([5, 4]), tf.constant([[1, 2], [3, 0]]), tf.constant([2, 1])"


@pytest.mark.slow  # a process for each, because XLA says it once
@pytest.mark.parametrize(
    "first",
    [
        "from models.ctc.loss import ctc_loss\nfor backend in ('xla', 'blocks'):\n    ctc_loss(BATCH, backend=backend)",
        "from tests.engine.training.test_trainer import make_trainer, train\ntrain(make_trainer(jit_compile=True))",
    ],
)
def test_the_first_compilation_prints_nothing(first):
    program = "from common.tensorflow_environment import set_tensorflow_defaults\nset_tensorflow_defaults()\n"
    program += f"import tensorflow as tf\n{first.replace('BATCH', BATCH)}"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
