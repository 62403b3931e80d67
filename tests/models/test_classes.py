"""Folders as transformers saves them from each class and in each format: they convert, with the reference's logits."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.reference import reference_python
from models import convert
from models.wav2vec2.model import Wav2Vec2ForCTC

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "tests" / "golden" / "make_classes.py"
# Folder -> largest difference of the logits: that of rounded weights, or of float32 arithmetic.
FORMATS = {"Wav2Vec2ForCTC": 2e-6, "sharded": 2e-6, "zip": 2e-6, "old": 2e-6, "shards": 2e-6} | {
    "float16": 2e-3,
    "bfloat16": 2e-2,
}

pytestmark = pytest.mark.slow


def test_every_class_and_format_converts(tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    made = subprocess.run(
        [reference_python(), RECIPE, f"--output={tmp_path / 'hf'}"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-2000:]
    folders = sorted(path for path in (tmp_path / "hf").iterdir() if path.is_dir())
    assert len(folders) >= 45 and FORMATS.keys() <= {folder.name for folder in folders}
    waveform, logits = (np.load(tmp_path / "hf" / f"{name}.npy") for name in ("waveform", "logits"))
    for folder in folders:
        output = tmp_path / "ours" / folder.name
        report = convert.from_hf(input=folder, output=output)
        has_head = folder.name in FORMATS or folder.name.endswith("ForCTC")
        assert list(report.fresh) == ([] if has_head else ["lm_head.weight", "lm_head.bias"]), folder.name
        assert bool(report.dropped) == ("For" in folder.name and not has_head), folder.name
        if folder.name in FORMATS:
            model = Wav2Vec2ForCTC.from_pretrained(output)
            found = model(tf.constant(waveform), tf.constant([waveform.shape[1]])).numpy()
            np.testing.assert_allclose(found, logits, rtol=0, atol=FORMATS[folder.name], err_msg=folder.name)
