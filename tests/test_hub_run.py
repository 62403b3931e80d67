"""model.source=hub through the command line: export, fine-tune, transcribe, export again; and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from models import hub_export
from models.wav2vec2.config import preset
from models.wav2vec2.model import Wav2Vec2ForCTC

ROOT = Path(__file__).resolve().parents[1]
FSDD = ROOT.parent / "shared/corpora/fsdd"
SIZE = 8_000
NARROW = {
    "conv_dim": (32,) * 3, "hidden_size": 32, "num_heads": 2, "num_layers": 1, "intermediate_size": 64,
    "pos_conv_groups": 4, "layer_drop": 0.0, "mask_time_prob": 0.0,
}  # fmt: skip


def run(module: list[str], *arguments: str, status: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run([sys.executable, *module, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def losses(workdir: Path) -> list[float]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["split"] == "train"]


@pytest.fixture(scope="module")
def tones(tmp_path_factory) -> Path:
    """Letters as tones: eight recordings of half a second or less."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    lines = []
    for i, text in enumerate(("A", "B", "AB", "BA", "A", "B", "AB", "BA")):
        pieces = [np.sin(2 * np.pi * (300 if letter == "A" else 1_500) * np.arange(3_600) / 16_000) for letter in text]
        waveform = np.concatenate(pieces) * 0.3 + rng.normal(size=3_600 * len(text)) * 0.01
        soundfile.write(folder / f"{i}.wav", waveform, 16_000)
        lines.append(json.dumps({"audio_filepath": f"{i}.wav", "text": text, "utterance_id": str(i)}))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("saved")
    Wav2Vec2ForCTC(config=preset("tiny", **NARROW)).save_pretrained(root / "model")
    assert hub_export.main([f"--input={root / 'model'}", f"--output={root / 'hub'}", f"--num_samples={SIZE}"]) == 0
    return root / "hub"


def tutorial(handle: Path, manifest: Path, workdir: Path) -> list[str]:
    return [
        f"--config={ROOT}/configs/hub_tutorial.py:{handle}",
        f"--workdir={workdir}",
        "--mode=train",
        "--config.data.train.format=jsonl",
        f"--config.data.train.input={manifest}",
        "--config.data.train.split=",
    ]


def test_export_fine_tune_resume_transcribe_and_export_again(saved_model, tones, tmp_path):
    workdir = tmp_path / "run"
    flags = [
        *tutorial(saved_model, tones / "manifest.jsonl", workdir),
        f"--config.data.max_duration_secs={SIZE / 16_000}",
        f"--config.data.bucket_boundaries_samples=({SIZE},)",
        "--config.train.log_every_updates=10",
        "--config.checkpoint.every_updates=10",
        "--config.train.learning_rate=3e-3",
        "--config.runtime.num_virtual_devices=2",
        "--strategy=mirrored",
        "--config.train.num_updates=60",
    ]
    done = run(["run.py"], *flags)
    report = done.stdout + done.stderr
    assert "encoder/layers 0 " in report
    (head,) = [line.split() for line in report.splitlines() if line.split()[:1] == ["head"]]
    assert head == ["head", f"{33 * 32:,}", "fresh"]
    assert [line for line in report.splitlines() if "feature_encoder 0-2" in line and line.endswith("  loaded")]
    found = losses(workdir)
    assert len(found) == 6
    assert found[-1] < 0.5 * found[0]

    again = run(["run.py"], *flags)
    assert "restored" in again.stdout + again.stderr
    output = tmp_path / "out.jsonl"
    # Longer than the signature: windows.
    run(["run.py"], "--mode=transcribe", f"--checkpoint={workdir}", f"--inputs={tones}", f"--output={output}")
    assert len(output.read_text().splitlines()) == 8
    arguments = [f"--input={saved_model}", f"--checkpoint={workdir / 'checkpoints'}", f"--output={tmp_path / 'again'}"]
    assert hub_export.main(arguments) == 0
    assert os.path.getsize(tmp_path / "again/saved_model.pb") > 0


def test_a_model_of_rows_of_any_length_trains_in_microbatches(tones, tmp_path):
    handle = tmp_path / "any"
    Wav2Vec2ForCTC(config=preset("tiny", num_layers=1)).save_pretrained(tmp_path / "model")
    arguments = [f"--input={tmp_path / 'model'}", f"--output={handle}", "--num_samples=0"]
    assert hub_export.main(arguments) == 0
    flags = [
        *tutorial(handle, tones / "manifest.jsonl", tmp_path / "run"),
        "--config.data.bucket_boundaries_samples=(48000,96000)",
        "--config.data.max_duration_secs=6.0",
        "--config.train.global_batch_size=4",
        "--config.train.num_updates=1",
        "--config.train.log_every_updates=1",
    ]
    run(["run.py"], *flags)
    assert len(losses(tmp_path / "run")) == 1


def test_what_is_wrong_is_one_line_and_leaves_no_config(saved_model, tones, tmp_path):
    manifest = tones / "manifest.jsonl"
    for handle, message in (
        (tmp_path, "no saved_model.pb there (model.hub_handle)"),
        (saved_model, "data.max_duration_secs=15.375: this model trains on rows of at most 8000 samples; set 0.5 or"),
    ):
        done = run(["run.py"], *tutorial(handle, manifest, tmp_path / "run"), status=2)
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert message in line
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "run/config.json").exists()


@pytest.mark.slow
@pytest.mark.skipif(not FSDD.is_dir(), reason="../shared/corpora/fsdd is not here")
def test_the_tutorials_recipe_learns_from_spoken_digits(tmp_path):
    model = Wav2Vec2ForCTC(
        config=preset("base", hidden_size=96, num_layers=2, num_heads=4, intermediate_size=192, conv_dim=(64,) * 7)
    )
    model.save_pretrained(tmp_path / "model")
    run(["-m", "models.hub_export"], f"--input={tmp_path / 'model'}", f"--output={tmp_path / 'hub'}")
    run(
        ["run.py"],
        *tutorial(tmp_path / "hub", FSDD / "manifest.jsonl", tmp_path / "run"),
        # The recipe's 5e-5 suits published weights: from random ones it moves the loss from 56.3 to 55.5 in 40 updates.
        "--config.train.learning_rate=1e-3",
        "--config.train.num_updates=40",
        "--config.train.log_every_updates=10",
    )
    found = losses(tmp_path / "run")
    assert len(found) == 4
    assert found[-1] < 0.7 * found[0]
