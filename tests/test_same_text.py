"""One text wherever the model runs: checkpoint, other formats, exports, HTTP; through the commands, as processes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import same_text
from data.synthetic import write_synthetic_corpus

ROOT = Path(__file__).resolve().parents[1]
NUM_RECORDINGS = 12


@pytest.fixture
def untrained(tmp_path) -> Path:
    """A run whose weights are random: it hears other letters in every recording, and blanks are rare."""
    corpus = write_synthetic_corpus(
        output=tmp_path / "corpus", num_train=4, num_eval=NUM_RECORDINGS, num_train_speakers=2, num_eval_speakers=2
    )
    fields = {
        "num_updates": 1, "warmup_updates": 0, "hold_updates": 0, "learning_rate": 1e-9, "global_batch_size": 4,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "run.py", f"--config=configs/debug.py:{corpus}", f"--workdir={tmp_path / 'run'}",
         "--mode=train", *(f"--config.train.{name}={value}" for name, value in fields.items())],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return tmp_path


@pytest.mark.slow
def test_the_text_is_the_same_from_every_form_and_over_http_beside_bad_clients(untrained, capfd):
    flags = [f"--checkpoint={untrained / 'run'}", f"--inputs={untrained / 'corpus/eval'}", "--rounds=2"]
    status = same_text.main(flags)
    said = capfd.readouterr().out
    assert status == 0, said
    ways = dict(re.findall(r"^(\S.*?) +(\d+ of \d+) the same$", said, flags=re.MULTILINE))
    wanted = [
        "Hugging Face and back", "SavedModel", "tflite_float32", "onnx", "HTTP from the workdir, under siege, 1",
        "HTTP from the workdir, under siege, 2", "TensorFlow Serving's JSON from the workdir",
        "HTTP from the SavedModel", "TensorFlow Serving's JSON from the SavedModel",
    ]  # fmt: skip
    assert ways == dict.fromkeys(wanted, f"{NUM_RECORDINGS} of {NUM_RECORDINGS}")
    num_words, num_texts = re.search(r"(\d+) words, (\d+) different texts", said).groups()
    assert int(num_words) >= NUM_RECORDINGS and int(num_texts) > NUM_RECORDINGS / 2
    assert "exit status 143" in said
