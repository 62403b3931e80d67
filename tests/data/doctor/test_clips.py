"""Audio of findings: the first utterances of each, cut, bounded, none where there is nothing to read."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from data.doctor.clips import collect_clips, collect_examples
from data.doctor.findings import find
from data.doctor.text_checks import Corpus
from data.text.tokenizer import FACEBOOK_TOKENS, CharTokenizer
from tests.helpers.augment_toys import write_white_corpus
from tests.helpers.data_toys import eval_data, train_data

SECS = {"a": 1.0, "b": 2.0, "c": 0.5, "d": 0.5, "long": 40.0, "broken": 1.0}


class Recordings:
    utterance_ids = list(SECS)

    def read_recording(self, index):
        name = self.utterance_ids[index]
        if name == "broken":
            raise ValueError("broken: cannot be decoded")
        rate = 8_000
        return np.full((round(SECS[name] * rate), 2), 0.25, dtype=np.float32), rate


@pytest.fixture
def corpus():
    return Corpus(name="train", source=Recordings(), labels=None)


def test_the_first_three_utterances_of_each_finding_are_heard_at_16_khz(corpus):
    findings = [
        *find("clipped_audio", "train", dict.fromkeys("abcd", "")),
        *find("unreadable_audio", "train", {"broken": "x"}),
        *find("bad_record", "train", {"m.jsonl:3": "not JSON"}),
        *find("clipped_audio", "eval absent", {"a": ""}),
        *find("too_long", "train", {"long": "40 s"}),
    ]
    clips = collect_clips(findings, [corpus])
    # The first of each finding come first.
    assert list(clips) == [("train", "a"), ("train", "long"), ("train", "b"), ("train", "c")]
    secs = {name: len(soundfile.read(io.BytesIO(content))[0]) / 16_000 for (_, name), content in clips.items()}
    assert secs == {"a": 1.0, "b": 2.0, "c": 0.5, "long": 30.0}


def test_an_utterance_with_two_findings_is_read_once_and_all_files_are_bounded(corpus):
    findings = [*find("clipped_audio", "train", {"a": "", "b": ""}), *find("mostly_silent", "train", {"a": ""})]
    clips = collect_clips(findings, [corpus])
    assert list(clips) == [("train", "a"), ("train", "b")]
    sizes = [len(content) for content in clips.values()]
    assert list(collect_clips(findings, [corpus], max_bytes=sum(sizes))) == list(clips)
    assert list(collect_clips(findings, [corpus], max_bytes=sum(sizes) - 1)) == [("train", "a")]
    assert collect_clips(findings, [corpus], max_bytes=min(sizes) - 1) == {}


def test_training_has_twenty_examples_of_its_augmentation_and_an_evaluation_set_three(tmp_path):
    manifest = write_white_corpus(tmp_path, count=6, num_samples=12_000)
    fields = {"format": "jsonl", "input": manifest, "text_normalization": "none",
              "tokenizer": CharTokenizer(tokens=FACEBOOK_TOKENS)}  # fmt: skip
    noise = {"noise_prob": 1.0}
    train = train_data(**fields, global_batch_size=2, seed=0, augment=noise)
    noisy, plain = eval_data(**fields, batch_size=2, augment=noise), eval_data(**fields, batch_size=2)
    examples = collect_examples([("train", train), ("noisy", noisy), ("plain", plain)])
    assert [example.where for example in examples] == ["train"] * 20 + ["noisy"] * 3
    size = sum(len(example.original) + len(example.altered) for example in examples[:7])
    assert collect_examples([("train", train), ("noisy", noisy)], max_bytes=size + 1000) == examples[:7]
