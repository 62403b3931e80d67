"""Examples are altered utterances from all over a corpus, the same each time; damaged ones are left out."""

from __future__ import annotations

import io

import numpy as np
import soundfile

from data.augmentation.examples import make_examples
from data.common.errors import InputError
from tests.helpers.augment_toys import ToySource, decibels, make_augmenter


def test_examples_hold_original_and_altered_audio_and_say_what_was_done():
    source = ToySource([16_000] * 30)
    augmenter = make_augmenter(source, noise_prob=0.5, noise_snr_db=(10.0, 10.0))
    examples = make_examples(source, augmenter, where="train", count=5, max_secs=0.5)
    assert make_examples(source, augmenter, where="train", count=5, max_secs=0.5) == examples
    assert len({example.utterance_id for example in examples}) == len(examples) == 5
    for example in examples:
        original, altered = (soundfile.read(io.BytesIO(content))[0] for content in (example.original, example.altered))
        assert len(original) == len(altered) == 8000
        ratio = decibels(np.square(original).mean() / np.square(altered - original).mean())
        assert abs(ratio - 10.0) < 0.1 and example.what.endswith("at 10.0 dB") and example.where == "train"


def test_few_utterances_come_again_in_the_next_epoch_and_bad_ones_are_left_out():
    source = ToySource([4000] * 3)
    source.bad[1] = InputError("damaged")
    examples = make_examples(source, make_augmenter(source, gain_prob=1.0), count=6)
    assert [example.utterance_id for example in examples].count("utterance-0") == 3
    assert {example.utterance_id for example in examples} == {"utterance-0", "utterance-2"}
    assert len({example.what for example in examples}) == 6


def test_an_improbable_kind_has_as_many_examples_as_are_found():
    source = ToySource([400] * 50)
    assert make_examples(source, make_augmenter(source, gain_prob=1e-9), count=5) == []
