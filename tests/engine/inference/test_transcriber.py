"""Files to text: which files, in which order, and what one bad file does."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from engine.inference.transcriber import SAMPLE_RATE, Transcriber, find_audio
from tests.engine_toys import toy_decoder

VOCAB = "_abcdefghij"


class OneTokenASecond:
    """Each second of the waveform is one frame whose token is the second's first sample."""

    def __call__(self, waveform, waveform_lengths, training=False, random=None):
        return tf.one_hot(tf.cast(waveform[:, ::SAMPLE_RATE], tf.int32), len(VOCAB))

    def output_lengths(self, waveform_lengths):
        return tf.cast(waveform_lengths, tf.int32) // SAMPLE_RATE


class Letters:
    num_tokens = len(VOCAB)

    def decode(self, ids):
        return "".join(VOCAB[i] for i in ids)


def load(path):
    """A text file of letters stands for audio of as many seconds."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if not text:
        raise ValueError("empty audio")
    return np.repeat([VOCAB.index(letter) for letter in text], SAMPLE_RATE).astype(np.float32)


def make_transcriber(batch_size=2):
    return Transcriber(
        model=OneTokenASecond(), decoder=toy_decoder, tokenizer=Letters(), load_waveform=load, batch_size=batch_size
    )


def write(folder, **texts):
    for name, text in texts.items():
        path = folder / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_texts_come_in_order_whatever_the_batch(tmp_path, batch_size):
    write(tmp_path, one="abc", two="d", three="efghij", four="ba")
    paths = [str(tmp_path / f"{name}.wav") for name in ("two", "one", "four", "three")]
    summary = make_transcriber(batch_size).transcribe_files(paths, str(tmp_path / "out.jsonl"))
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert records == [
        {"audio_filepath": path, "text": text, "duration": float(len(text))}
        for path, text in zip(paths, ["d", "abc", "ba", "efghij"], strict=True)
    ]
    assert (len(summary.records), summary.failures, summary.audio_secs) == (4, (), 12.0)


def test_a_bad_file_is_named_and_the_others_are_done(tmp_path):
    write(tmp_path, a="ab", b="", c="cd")
    paths = [str(tmp_path / f"{name}.wav") for name in "abc"]
    summary = make_transcriber().transcribe_files(paths, str(tmp_path / "out.jsonl"))
    texts = [json.loads(line)["text"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert texts == ["ab", "cd"]
    assert summary.failures == ((paths[1], "empty audio"),)
    assert len(summary.records) == 2


def test_folders_are_searched_to_the_bottom_and_nothing_comes_twice(tmp_path):
    write(tmp_path / "sub" / "deep", z="a")
    write(tmp_path / "sub", b="a", a="a")
    (tmp_path / "sub" / "notes.txt").write_text("no audio")
    found = find_audio([str(tmp_path / "sub" / "b.wav"), str(tmp_path / "sub")])
    names = [path[len(str(tmp_path / "sub")) + 1 :] for path in found]
    assert names == ["b.wav", "a.wav", "deep/z.wav"]


@pytest.mark.parametrize("inputs", [[], ["missing.wav"]])
def test_nothing_to_transcribe_is_one_line(inputs):
    with pytest.raises(ValueError, match="missing.wav: no such file|--inputs is empty"):
        find_audio(inputs)


def test_a_folder_without_audio_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no .flac, .wav"):
        find_audio([str(tmp_path)])
