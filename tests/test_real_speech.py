"""Real recordings of ../shared/corpora: what synthetic speech and random numbers cannot show. Minutes, so `slow`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.corpus.manifest import read_librispeech, write_jsonl

ROOT = Path(__file__).resolve().parents[1]
LIBRISPEECH = ROOT.parent / "shared/corpora/LibriSpeech"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not LIBRISPEECH.is_dir(), reason="../shared/corpora/LibriSpeech is not here"),
]


def run(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def metrics(workdir: Path, split: str) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


def test_base_takes_five_updates_at_full_size_and_its_loss_falls(tmp_path):
    run(f"--config=configs/librispeech_sample.py:{LIBRISPEECH}", "--mode=train", f"--workdir={tmp_path / 'run'}")
    lines = metrics(tmp_path / "run", "train")
    losses = [line["loss"] for line in lines]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert all(np.isfinite(losses))
    assert losses[-1] < losses[0]
    assert all(line["num_rows"] == 2 and line["num_skipped_updates"] == 0 for line in lines)


def test_a_small_model_learns_sixteen_utterances_by_heart(tmp_path):
    utterances = read_librispeech(LIBRISPEECH, "train-clean-5")
    shortest = sorted(utterances, key=lambda utterance: (utterance.duration_secs, utterance.utterance_id))[:16]
    manifest = tmp_path / "manifest.jsonl"
    write_jsonl(manifest, shortest)
    run(f"--config=configs/overfit.py:{os.fspath(manifest)}", f"--workdir={tmp_path / 'run'}")
    last = metrics(tmp_path / "run", "same")[-1]
    assert last["num_utterances"] == 16
    assert last["num_words"] == sum(len(utterance.text.split()) for utterance in shortest)
    assert (last["wer"], last["cer"]) == (0.0, 0.0)
