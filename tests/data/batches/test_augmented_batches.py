"""Augmented batches are the same on any number of replicas and hosts, and after a resume; off, nothing changes."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from data.augmentation.augmenter import Augmenter
from data.augmentation.draws import TRAINING
from data.augmentation.options import KINDS, AugmentOptions
from data.batches.pipeline import BatchMaker, build_dataset
from data.batches.row_padding import RowPadding
from data.batches.rows import Mixture
from data.batches.unreadable import UnreadableUtterances
from data.text.tokenizer import FACEBOOK_TOKENS, CharTokenizer
from tests.helpers.augment_toys import ToySource, decibels, white
from tests.helpers.data_toys import batch_plan, eval_data, train_data

TOKENIZER = CharTokenizer(tokens=FACEBOOK_TOKENS)
ALL = {f"{kind}_prob": 0.5 for kind in KINDS}
LENGTHS = [3000 + 411 * index for index in range(17)]
CONTEXT = tf.distribute.InputContext()


def make_maker(*, num_replicas=1, plan_fields=None, unreadable=None, **fields):
    source = ToySource(LENGTHS)
    augmenter = Augmenter(options=AugmentOptions(**fields), source=source, seed=5, purpose=TRAINING)
    padding = None
    if augmenter.max_silence_samples:
        most = augmenter.max_silence_samples
        padding = RowPadding(most, lambda *which: augmenter.silence_samples(*which).sum(axis=1))
    plan = batch_plan(
        **{
            "num_samples": source.num_samples, "global_batch_size": 6, "seed": 5, "bucket_boundaries": 3,
            "padding": padding, **(plan_fields or {}),
        }
    )  # fmt: skip
    maker = BatchMaker(
        source=source, plan=plan, tokenizer=TOKENIZER, text_normalization="none", num_replicas=num_replicas,
        augmenter=augmenter, unreadable=unreadable,
    )  # fmt: skip
    return maker, plan


def rows_of(batches):
    return [
        (int(index), waveform[:length].copy())
        for batch in batches
        for index, waveform, length in zip(
            batch["utterance_index"], batch["waveform"], batch["waveform_lengths"], strict=True
        )
    ]


def assert_same(found, wanted):
    assert [index for index, _ in found] == [index for index, _ in wanted]
    for (_, a), (_, b) in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


PLANS = {
    "alone": {},
    "concatenated, at three speeds": {
        "concat_max_utterances": 3, "concat_gap_samples": 50, "speed_factors": (0.9, 1.0, 1.1),
    },
    "by seconds": {"max_batch_samples": 120_000, "row_multiple": 3},
    "of a corpus five times an epoch and one in part, concatenated, at two speeds": {
        "mixture": Mixture(sizes=(5, 12), passes=(5.0, 0.4)), "concat_max_utterances": 2, "speed_factors": (0.9, 1.1),
    },
}  # fmt: skip


@pytest.mark.parametrize("plan_fields", PLANS.values(), ids=PLANS)
def test_replicas_and_resume_change_no_sample(plan_fields):
    maker, plan = make_maker(plan_fields=plan_fields, **ALL)
    num_updates = 2 * plan.updates_per_epoch + 1
    whole = [rows_of([maker.make(update)]) for update in range(num_updates)]
    three, _ = make_maker(plan_fields=plan_fields, num_replicas=3, **ALL)
    for update in range(num_updates):
        assert_same(rows_of(three.make(update, replica) for replica in range(3)), whole[update])
    # A new process that goes on in mid-epoch, with batches made in parallel, on the second of three hosts.
    start = plan.updates_per_epoch // 2 + 1
    resumed, _ = make_maker(plan_fields=plan_fields, num_replicas=3, **ALL)
    dataset = build_dataset(
        resumed, num_input_pipelines=3, input_pipeline_id=1, start_update=start, num_updates=num_updates - start,
        num_parallel_calls=3, prefetch=2,
    )  # fmt: skip
    for update, batch in enumerate(dataset.as_numpy_iterator(), start=start):
        share = len(whole[update]) // 3
        assert_same(rows_of([batch]), whole[update][share : 2 * share])


@pytest.mark.parametrize("plan_fields", PLANS.values(), ids=PLANS)
def test_rows_are_as_long_as_the_plan_says(plan_fields):
    maker, plan = make_maker(plan_fields=plan_fields, silence_prob=0.7, silence_secs=(0.0, 0.2))
    longest = 0
    update = 0
    for epoch in range(3):
        lengths = []
        while plan.locate(update)[0] == epoch:
            batch = maker.make(update)
            assert batch["waveform"].shape[1] in plan.bucket_boundaries
            lengths += batch["waveform_lengths"][batch["weight"] > 0].tolist()
            update += 1
        assert lengths == plan.row_samples(epoch).tolist()
        longest = max(longest, *lengths)
    assert longest <= plan.max_row_samples <= plan.bucket_boundaries[-1]


def test_passes_of_one_epoch_hear_the_same_utterance_differently():
    maker, plan = make_maker(
        plan_fields={"mixture": Mixture(sizes=(1, 16), passes=(4.0, 0.5))}, noise_prob=1.0, silence_prob=1.0
    )
    rows = rows_of(maker.make(update) for update in range(plan.updates_per_epoch))
    heard = [waveform for index, waveform in rows if index == 0]
    assert len(heard) == 4
    assert len({len(waveform) for waveform in heard}) == 4


def test_epochs_hear_the_same_utterances_differently():
    maker, plan = make_maker(noise_prob=1.0)
    epochs = []
    for epoch in range(2):
        updates = range(epoch * plan.updates_per_epoch, (epoch + 1) * plan.updates_per_epoch)
        epochs.append(dict(rows_of(maker.make(update) for update in updates)))
    assert epochs[0].keys() == epochs[1].keys() == {-1, *range(len(LENGTHS))}
    for index in range(len(LENGTHS)):
        assert epochs[0][index].shape == epochs[1][index].shape
        assert not np.allclose(epochs[0][index], epochs[1][index])


@pytest.fixture
def manifest(tmp_path):
    lines = []
    for index in range(6):
        soundfile.write(tmp_path / f"u{index}.wav", white(4000 + 500 * index, seed=index), 16_000)
        lines.append({"audio_filepath": f"u{index}.wav", "text": "a b", "speaker": "s"})
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def make_train(manifest, **fields):
    return train_data(
        format="jsonl", input=manifest, tokenizer=TOKENIZER, text_normalization="none", global_batch_size=3, seed=0,
        **fields,
    )  # fmt: skip


def make_eval(manifest, **fields):
    return eval_data(
        format="jsonl", input=manifest, tokenizer=TOKENIZER, text_normalization="none", batch_size=3, **fields
    )


def batches_of(data):
    dataset = data.dataset(CONTEXT) if hasattr(data, "digest") else data.dataset(CONTEXT, 0).take(4)
    return list(dataset.as_numpy_iterator())


def test_probabilities_of_zero_change_neither_samples_nor_digests(manifest):
    off = {f"{kind}_prob": 0.0 for kind in KINDS}
    for make in (make_train, make_eval):
        plain, with_fields = make(manifest), make(manifest, augment={**off, "noise_snr_db": (1.0, 2.0)})
        assert with_fields.augmenter is None
        assert_same(rows_of(batches_of(with_fields)), rows_of(batches_of(plain)))
    assert make_eval(manifest).digest == make_eval(manifest, augment=off).digest
    assert make_train(manifest).fingerprint == make_train(manifest, augment=off).fingerprint


def test_an_evaluation_set_is_altered_alike_each_time_and_its_digest_says_how(manifest):
    ten_db = {"noise_prob": 1.0, "noise_snr_db": (10.0, 10.0)}
    plain, noisy = make_eval(manifest, normalize=False), make_eval(manifest, normalize=False, augment=ten_db)
    first = rows_of(batches_of(noisy))
    assert_same(rows_of(batches_of(noisy)), first)
    assert_same(rows_of(batches_of(make_eval(manifest, normalize=False, augment=ten_db))), first)
    for (_, altered), (_, clean) in zip(first, rows_of(batches_of(plain)), strict=True):
        ratio = np.square(clean).mean() / np.square(altered - clean).mean()
        assert decibels(ratio) == pytest.approx(10.0, abs=0.01)
    louder = make_eval(manifest, augment={**ten_db, "noise_snr_db": (5.0, 5.0)})
    assert len({plain.digest, noisy.digest, louder.digest}) == 3
    # The report plays what the model hears.
    index, heard = first[0]
    played, rate = soundfile.read(io.BytesIO(noisy.read_flac(index)), dtype="float32")
    assert rate == 16_000
    np.testing.assert_allclose(played, heard, atol=1e-4)


def test_the_length_of_an_altered_row_counts_its_silence(manifest):
    data = make_eval(manifest, augment={"silence_prob": 1.0, "silence_secs": (0.25, 0.25)})
    for batch in batches_of(data):
        for index, length in zip(batch["utterance_index"], batch["waveform_lengths"], strict=True):
            if index >= 0:
                assert length == 4000 + 500 * index + 8000
                assert data.duration_secs[int(index)] == pytest.approx(length / 16_000)


def test_a_damaged_noise_is_counted_and_named_and_no_row_is_lost(manifest, tmp_path):
    noises = tmp_path / "noises"
    noises.mkdir()
    soundfile.write(noises / "good.wav", white(1000), 16_000)
    (noises / "bad.wav").write_bytes(b"RIFF")
    data = make_train(manifest, augment={"noise_prob": 1.0, "noise_source": str(noises)})
    batches = batches_of(data)
    assert all(batch["weight"].all() for batch in batches)
    assert [item.utterance_id for item in data.unreadable(before_update=100)] == ["bad.wav"]


def test_rows_count_as_unreadable_when_no_noise_is_left(manifest, tmp_path):
    noise = tmp_path / "only"
    noise.mkdir()
    soundfile.write(noise / "a.wav", white(1000), 16_000)
    data = make_train(manifest, augment={"noise_prob": 1.0, "noise_source": str(noise)})
    (noise / "a.wav").unlink()
    batch = next(iter(data.dataset(CONTEXT, 0)))
    assert not batch["weight"].numpy().any()
    reasons = {item.utterance_id: item.reason for item in data.unreadable(before_update=1)}
    assert "a.wav" in reasons and len(reasons) == 4
    assert all("no noise can be read" in reason for name, reason in reasons.items() if name != "a.wav")


def test_other_noises_or_strengths_are_other_training_data(manifest, tmp_path):
    prints = [
        make_train(manifest, augment=augment).fingerprint.get("augment")
        for augment in ({}, {"noise_prob": 0.5}, {"noise_prob": 0.6}, {"noise_prob": 0.5, "gain_db": (1.0, 2.0)})
    ]
    assert prints[0] is None and prints[1] == prints[3] != prints[2]


def test_unreadable_noises_are_collected_once():
    unreadable = UnreadableUtterances()
    maker, _ = make_maker(unreadable=unreadable, babble_prob=1.0)
    maker._source.bad = dict.fromkeys(range(8), ValueError("damaged"))
    maker.make(0)
    maker.make(1)
    names = [item.utterance_id for item in unreadable.before(10)]
    assert len(names) == len(set(names)) > 0
