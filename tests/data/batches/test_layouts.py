"""One corpus as a JSON-lines manifest, a Kaldi data folder and Lhotse's cuts: the same plan, batches and shards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from data.corpus.manifest import read_utterances
from data.shards.preparation import write_tfrecords
from data.text.tokenizer import FACEBOOK_TOKENS, CharTokenizer
from tests.helpers.data_toys import contents, eval_data, train_data

RATE = 8_000
SUFFIXES = ("wav", "flac", "ogg")
NUM_SEGMENTS = 5


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Three recordings of ten seconds, of which each has five segments."""
    root = tmp_path_factory.mktemp("layouts")
    (root / "kaldi").mkdir()
    written: dict[str, list[str]] = {name: [] for name in ("wav.scp", "segments", "text", "utt2spk")}
    manifest, cuts = [], []
    for number, suffix in enumerate(SUFFIXES):
        talk, file = f"talk{number}", f"talk{number}.{suffix}"
        soundfile.write(root / file, np.random.default_rng(number).normal(0, 0.1, 10 * RATE), RATE)
        written["wav.scp"].append(f"{talk} {file}")
        for place in range(NUM_SEGMENTS):
            name, start, secs = f"{talk}-{place}", 0.25 + 1.9 * place, round(1.0 + 0.13 * place + 0.01 * number, 2)
            text = "WORD " * (place + 1) + "AB"[number % 2]
            manifest.append({"audio_filepath": file, "offset": start, "duration": secs, "text": text})
            manifest[-1] |= {"utterance_id": name, "speaker": talk}
            written["segments"].append(f"{name} {talk} {start:.2f} {start + secs:.2f}")
            written["text"].append(f"{name} {text}")
            written["utt2spk"].append(f"{name} {talk}")
            spoken = {"id": name, "start": 0.0, "duration": secs, "channel": 0, "text": text, "speaker": talk}
            recording = {"id": talk, "sampling_rate": RATE, "num_samples": 10 * RATE, "duration": 10.0}
            recording["sources"] = [{"type": "file", "channels": [0], "source": file}]
            times = {"start": start, "duration": secs, "channel": 0}
            cuts.append({"id": name, **times, "supervisions": [spoken], "recording": recording, "type": "MonoCut"})
    for name, records in (("train.jsonl", manifest), ("cuts.jsonl", cuts)):
        (root / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    for name, lines in written.items():
        (root / "kaldi" / name).write_text("".join(f"{line}\n" for line in lines))
    return root


LAYOUTS = {"kaldi": "kaldi", "lhotse": "cuts.jsonl"}
OPTIONS = {"tokenizer": CharTokenizer(tokens=FACEBOOK_TOKENS), "text_normalization": "librispeech"}


def batches(data, start: int, count: int) -> list[dict[str, np.ndarray]]:
    dataset = data.dataset(tf.distribute.InputContext(), start)
    return list(dataset.take(count).as_numpy_iterator())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_trains_and_evaluates_as_the_manifest_does_bit_for_bit(corpus, layout):
    made = []
    for format, path in (("jsonl", "train.jsonl"), (layout, LAYOUTS[layout])):
        fields = {**OPTIONS, "format": format, "input": str(corpus / path)}
        data = train_data(**fields, global_batch_size=4, seed=3, concat_max_utterances=2, speed_factors=(0.9, 1.0))
        made.append((data, eval_data(**fields, batch_size=4)))
    (ours, our_eval), (theirs, their_eval) = made
    assert ours.fingerprint == theirs.fingerprint and our_eval.digest == their_eval.digest
    count = 2 * ours.updates_per_epoch
    run = batches(ours, 0, count)
    resumed = batches(theirs, count // 2, count - count // 2)  # another process, whose files are not open yet
    for one, other in zip(run[count // 2 :], resumed, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_has_the_shards_of_the_manifest(corpus, layout, tmp_path):
    for name, format, path in (("ours", "jsonl", "train.jsonl"), ("theirs", layout, LAYOUTS[layout])):
        utterances = read_utterances(format=format, input=corpus / path)
        write_tfrecords(utterances=utterances, output=tmp_path / name, num_shards=2, num_workers=1, progress=False)
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")
