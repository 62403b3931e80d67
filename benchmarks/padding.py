"""Measures whether padding changes transcripts, with the same utterances and weights here and in the reference.

    python -m benchmarks.padding --folder=DIR --reference=REF/bin/python [--model=base] [--corpus=LIBRISPEECH]

REF is an environment with torch and transformers (see tests/golden/make_golden.py). Each network transcribes sixteen
utterances alone, in one batch padded to the longest, and padded with zeros to 246,000 samples. The table has the
largest difference of the logits of valid frames from those of the utterance alone, the number of greedy transcripts
that changed, and the number of changed characters. Results: docs/results/0110.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import jiwer
import numpy as np
import tensorflow as tf
import tf_keras

from data.audio.decoding import load_waveform
from data.corpus.manifest import read_librispeech
from data.text.tokenizer import load_tokenizer
from models.convert import to_hf
from models.ctc.greedy import greedy_decode
from models.wav2vec2.config import preset
from models.wav2vec2.model import Wav2Vec2ForCTC

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "tests" / "golden" / "padding_reference.py"
NUM_SAMPLES = 246_000
# Ways to batch the rows: name -> (samples of a row, 0 = the longest of the batch; rows at once).
WAYS = {"alone": (0, 1), "batch": (0, 16), "246000": (NUM_SAMPLES, 4)}
# A larger deviation than the published 0.02, so that random logits are as far apart as a trained model's.
HEAD_SCALE = 5.0


def choose_waveforms(corpus: Path, split: str) -> list[np.ndarray]:
    """Returns sixteen normalized waveforms with lengths from the shortest to half of 246,000 samples."""
    by_length = sorted(read_librispeech(corpus, split), key=lambda utterance: utterance.num_samples)
    by_length = [utterance for utterance in by_length if utterance.num_samples <= NUM_SAMPLES // 2]
    chosen = [by_length[i] for i in np.linspace(0, len(by_length) - 1, 16).astype(int)]
    return [load_waveform(utterance.audio_filepath) for utterance in chosen]


def compute(
    logits_of: Callable[[np.ndarray, np.ndarray], np.ndarray],
    num_frames: Callable[[int], int],
    waveforms: list[np.ndarray],
    way: str,
) -> list[np.ndarray]:
    """Returns the logits of each row's valid frames, with rows batched in one of the `WAYS`."""
    width, rows_at_once = WAYS[way]
    found = []
    for start in range(0, len(waveforms), rows_at_once):
        rows = waveforms[start : start + rows_at_once]
        size = width or max(map(len, rows))
        lengths = np.array([len(row) for row in rows])
        logits = logits_of(np.stack([np.pad(row, [0, size - len(row)]) for row in rows]), lengths)
        found += [logits[i, : num_frames(int(length))] for i, length in enumerate(lengths)]
    return found


def texts_of(logits: list[np.ndarray]) -> list[str]:
    """Returns the greedy text of each row."""
    tokenizer = load_tokenizer()
    texts = []
    for row in logits:
        tokens, counts = greedy_decode(tf.constant(row[np.newaxis]), tf.constant([len(row)]))
        texts.append(tokenizer.decode(tokens[0, : int(counts[0])].numpy().tolist()))
    return texts


def compare(alone: list[np.ndarray], other: list[np.ndarray]) -> dict[str, float | int]:
    """Returns the differences between two ways to batch the same rows."""
    before, after = texts_of(alone), texts_of(other)
    errors = jiwer.process_characters(before, after)
    return {
        "logits": max(float(np.abs(a - b).max()) for a, b in zip(alone, other, strict=True)),
        "texts": sum(a != b for a, b in zip(before, after, strict=True)),
        "characters": errors.substitutions + errors.deletions + errors.insertions,
        "of": sum(map(len, before)),
    }


def write_atomically(path: Path, rows: list[np.ndarray]) -> None:
    """Writes arrays of different lengths atomically."""
    temporary = path.with_suffix(".part.npz")
    np.savez(temporary, *rows)
    temporary.replace(path)


def read(path: Path) -> list[np.ndarray]:
    """Reads arrays from a file of `write_atomically`."""
    with np.load(path) as file:
        return [file[name] for name in file.files]


def main() -> None:
    """Prints one JSON object per line for each way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", required=True, help="keeps weights and logits: a call that was cut off goes on")
    parser.add_argument("--reference", default="", help="Python of an environment with torch and transformers")
    parser.add_argument("--model", default="base", help="a preset")
    parser.add_argument("--corpus", default="../shared/corpora/LibriSpeech", help="LibriSpeech tree")
    parser.add_argument("--split", default="train-clean-5")
    parser.add_argument("--masked_only", action="store_true", help="the reference with its attention mask alone")
    flags = parser.parse_args()
    folder = Path(flags.folder)
    waveforms = choose_waveforms(Path(flags.corpus), flags.split)
    tf_keras.utils.set_random_seed(0)
    model = Wav2Vec2ForCTC(config=preset(flags.model))
    model.head.kernel.assign(model.head.kernel * HEAD_SCALE)

    def ours(rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return model(rows, tf.constant(lengths)).numpy()

    folder.mkdir(parents=True, exist_ok=True)
    for way in WAYS:
        if not (folder / f"ours-{way}.npz").is_file():
            write_atomically(folder / f"ours-{way}.npz", compute(ours, model.config.num_frames, waveforms, way))
    alone = read(folder / "ours-alone.npz")
    spread = float(np.mean([row.std() for row in alone]))
    print(json.dumps({"model": flags.model, "logits_std": round(spread, 2), "text": texts_of(alone)[3][:40]}))
    for way in list(WAYS)[1:]:
        found = read(folder / f"ours-{way}.npz")
        print(json.dumps({"network": "ours", "way": way, **compare(alone, found)}), flush=True)
    if not flags.reference:
        return
    if not (folder / "hf").is_dir():
        model.save_pretrained(folder / "ours")
        to_hf(input=folder / "ours", output=folder / "hf")
        write_atomically(folder / "waveforms.npz", waveforms)
    arguments = [f"--folder={folder}", f"--ways={json.dumps(WAYS)}", f"--without_mask={int(not flags.masked_only)}"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    subprocess.run([flags.reference, RECIPE, *arguments], env=environment, check=True)
    theirs = read(folder / "reference-alone.npz")
    differences = [float(np.abs(a - b).max()) for a, b in zip(alone, theirs, strict=True)]
    print(json.dumps({"network": "reference", "way": "alone, against ours", "logits": max(differences)}))
    for name in [f"{way}{mask}" for way in list(WAYS)[1:] for mask in ("", "+mask")]:
        if (folder / f"reference-{name}.npz").is_file():
            found = read(folder / f"reference-{name}.npz")
            print(json.dumps({"network": "reference", "way": name, **compare(theirs, found)}))


if __name__ == "__main__":
    main()
