"""What a row gets depends on its key alone; kinds are as frequent as their probability says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from data.augmentation.draws import EVALUATION, TRAINING
from data.augmentation.options import KINDS
from tests.helpers.augment_toys import ToySource, make_augmenter, white

ALL = {f"{kind}_prob": 0.5 for kind in KINDS}


def test_a_row_is_altered_alike_in_any_order_and_by_any_number_of_threads():
    source = ToySource()
    rows = [(epoch, index) for epoch in range(4) for index in range(5)]

    def alter(augmenter, row):
        return augmenter.apply(white(9000, seed=row[1]), epoch=row[0], members=(row[1],))

    one, other = (make_augmenter(source, **ALL) for _ in range(2))
    wanted = [alter(one, row) for row in rows]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda row: alter(other, row), reversed(rows)))[::-1]
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_epochs_seeds_rows_and_purposes_differ():
    waveform = white(9000)
    found = [
        make_augmenter(seed=seed, purpose=purpose, noise_prob=1.0).apply(waveform, epoch=epoch, members=(index,))
        for seed, purpose, epoch, index in (
            (0, TRAINING, 0, 0), (1, TRAINING, 0, 0), (0, EVALUATION, 0, 0), (0, TRAINING, 1, 0), (0, TRAINING, 0, 1),
        )
    ]  # fmt: skip
    assert not any(np.allclose(found[a], found[b]) for a in range(5) for b in range(a))


def test_the_first_member_is_the_key_of_a_row():
    augmenter = make_augmenter(noise_prob=1.0)
    waveform = white(9000)
    found = [augmenter.apply(waveform, epoch=0, members=members) for members in ((1,), (1, 2), (2, 1))]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_as_frequent_as_its_probability_and_independent_of_the_others(kind):
    source = ToySource([400] * 100)
    alone, among = (
        make_augmenter(source, **{f"{kind}_prob": 0.3}),
        make_augmenter(source, **{**ALL, f"{kind}_prob": 0.3}),
    )
    words = {
        "silence": "of silence", "room": "room", "noise": ("noise", "hum"), "babble": "talkers",
        "equalizer": "equalizer", "low_pass": "above", "gain": "gain", "clip": "clipped", "telephone": "telephone",
    }[kind]  # fmt: skip
    words = (words,) if isinstance(words, str) else words
    count = 0
    for index in range(100):
        notes: list[str] = []
        altered = alone.apply(white(400), epoch=0, members=(index,), notes=notes)
        assert len(notes) <= 1 and bool(notes) == (altered.shape != (400,) or not np.array_equal(altered, white(400)))
        others: list[str] = []
        among.apply(white(400), epoch=0, members=(index,), notes=others)
        assert notes == [note for note in others if any(word in note for word in words)]
        count += len(notes)
    assert 18 <= count <= 42


def test_a_gain_is_exact_and_lengths_are_kept():
    augmenter = make_augmenter(gain_prob=1.0, gain_db=(-20.0, -20.0))
    waveform = white(5000)
    np.testing.assert_allclose(augmenter.apply(waveform, epoch=0, members=(0,)), waveform / 10, rtol=1e-6)
    for kind in set(KINDS) - {"silence"}:
        for num_samples in (1, 17, 5000):
            altered = make_augmenter(**{f"{kind}_prob": 1.0}).apply(white(num_samples), epoch=0, members=(0,))
            assert (altered.shape, altered.dtype) == ((num_samples,), np.float32) and np.isfinite(altered).all()


def test_silence_is_within_its_range_and_as_long_as_announced():
    augmenter = make_augmenter(silence_prob=0.5, silence_secs=(0.1, 0.3))
    assert augmenter.max_silence_samples == 2 * 4800
    samples = np.concatenate([augmenter.silence_samples(epoch) for epoch in range(40)])
    is_silent = samples.any(axis=1)
    assert 70 < is_silent.sum() < 130 and len(is_silent) == 200
    assert 1600 <= samples[is_silent].min() < 1900 and 4500 < samples.max() <= 4800
    for index in range(5):
        before, after = augmenter.silence_samples(3)[index].tolist()
        np.testing.assert_array_equal(augmenter.silence_samples(3, index, index + 1), [[before, after]])
        altered = augmenter.apply(white(100), epoch=3, members=(index,))
        np.testing.assert_array_equal(altered, np.pad(white(100), (before, after)))
    assert make_augmenter(noise_prob=1.0).max_silence_samples == 0


def test_a_row_draws_its_own_silence_and_not_that_of_the_whole_corpus():
    augmenter = make_augmenter(ToySource([400] * 1000), silence_prob=1.0)
    counts = []
    draw = augmenter._draws.uniform

    def count_and_draw(*key, count, start=0):
        counts.append(count)
        return draw(*key, count=count, start=start)

    augmenter._draws.uniform = count_and_draw
    for epoch in range(50):  # a batch of several corpora has rows of as many passes over a small one
        augmenter.apply(white(400), epoch=epoch, members=(17 * epoch,))
    assert sum(counts) == 50 * 3


def test_the_digest_follows_strengths_and_names_but_not_places(tmp_path):
    digests = []
    for place, names in (("one", "ab"), ("two", "ab"), ("three", "abc")):
        (tmp_path / place).mkdir()
        for name in names:
            soundfile.write(tmp_path / place / f"{name}.wav", white(100), 16_000)
        (tmp_path / place / "list.txt").write_text("".join(f"{name}.wav\n" for name in names))
        digests.append([
            make_augmenter(noise_prob=1.0, noise_source=str(source)).digest()
            for source in (tmp_path / place, tmp_path / place / "list.txt")
        ])  # fmt: skip
    assert digests[0] == digests[1]
    assert all(first != third for first, third in zip(digests[0], digests[2], strict=True))
    assert make_augmenter(noise_prob=1.0).digest() != make_augmenter(noise_prob=0.5).digest()
