"""Batches hold what the plan says: the right samples, labels, lengths, weights and order."""

from __future__ import annotations

import gc
import inspect
import itertools
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data.batches.pipeline import BATCH_DTYPES, BatchMaker, build_dataset
from data.batches.unreadable import UnreadableUtterances
from data.common.errors import InputError
from data.open_corpus import open_source
from data.text.tokenizer import FACEBOOK_TOKENS, CharTokenizer
from tests.helpers.data_toys import batch_plan

ROOT = Path(__file__).parents[3]
LIBRISPEECH = ROOT.parent / "shared" / "corpora" / "LibriSpeech"
TOKENIZER = CharTokenizer(tokens=FACEBOOK_TOKENS)
WORDS = ["one", "two", "It's", "a cat", "Zebra, no!", "be"]


class MemorySource:
    """Noise with an offset and a length of its own for each utterance."""

    def __init__(self, lengths, texts=None):
        generator = np.random.default_rng(len(lengths))
        noise = [0.1 * generator.standard_normal(length) for length in lengths]
        self.waveforms = [(0.01 * i + one).astype(np.float32) for i, one in enumerate(noise)]
        self.utterance_ids = [f"utterance-{index}" for index in range(len(lengths))]
        self.texts = texts or [WORDS[index % len(WORDS)] for index in range(len(lengths))]
        self.speaker_ids = [""] * len(lengths)
        self.num_samples = np.array(lengths, dtype=np.int64)
        self.bad = {}

    def read_waveform(self, index):
        result = self.bad.get(index, self.waveforms[index])
        if isinstance(result, Exception):
            raise result
        return result


def make_plan(source, **changed):
    arguments = {"global_batch_size": 4, "seed": 3, "bucket_boundaries": 3}
    return batch_plan(num_samples=source.num_samples, **{**arguments, **changed})


def make_dataset(source, plan, **changed):
    arguments = {
        "tokenizer": TOKENIZER,
        "text_normalization": "librispeech",
        "num_parallel_calls": 2,
        "prefetch": 4,
        **changed,
    }
    names = inspect.signature(build_dataset).parameters.keys() & arguments.keys()
    of_dataset = {name: arguments.pop(name) for name in names}
    return build_dataset(BatchMaker(source=source, plan=plan, **arguments), **of_dataset)


def one_epoch(source, plan, **changed):
    dataset = make_dataset(source, plan, num_updates=plan.updates_per_epoch, **changed)
    return list(dataset.as_numpy_iterator())


def normalized(waveform):
    waveform = waveform.astype(np.float64)
    return (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)


def test_an_epoch_holds_every_utterance_once_with_its_samples_and_labels():
    lengths = [1000 + 337 * index for index in range(13)]
    source = MemorySource(lengths)
    plan, seen = make_plan(source), []
    batches = one_epoch(source, plan)
    for position, batch in enumerate(batches):
        assert {key: value.dtype for key, value in batch.items()} == BATCH_DTYPES
        assert batch["waveform"].shape == (4, plan.batch(position).padded_samples)
        for i, index in enumerate(batch["utterance_index"]):
            length, num_labels = batch["waveform_lengths"][i], batch["label_lengths"][i]
            assert not batch["waveform"][i, length:].any()
            assert not batch["labels"][i, num_labels:].any()
            seen.append(index)
            if index == -1:
                assert batch["weight"][i] == length == num_labels == 0
                continue
            assert (batch["weight"][i], length) == (1.0, lengths[index])
            wanted = normalized(source.waveforms[index])
            np.testing.assert_allclose(batch["waveform"][i, :length], wanted, atol=2e-6)
            text = ["ONE", "TWO", "IT'S", "A CAT", "ZEBRA NO", "BE"][index % 6]
            assert TOKENIZER.decode(batch["labels"][i, : len(text)]) == text
            assert num_labels == len(text)
    assert sorted(seen) == [-1, -1, -1, *range(13)] and seen[-3:] == [-1, -1, -1]


def test_a_model_that_hears_recordings_as_they_are_gets_them_so():
    source = MemorySource([800, 500])
    for batch in one_epoch(source, make_plan(source, concat_max_utterances=2, concat_gap_samples=5), normalize=False):
        columns = (batch[key] for key in ("utterance_index", "waveform_lengths", "waveform"))
        for index, length, row in zip(*columns, strict=True):
            wanted = source.waveforms[index] if index >= 0 else np.zeros(0)
            np.testing.assert_array_equal(row[: len(wanted)], wanted)
            assert not row[max(length, len(wanted)) :].any()


def test_labels_are_the_published_vocabularys_ids():
    source = MemorySource([100], ["It's a Z."])
    batch = one_epoch(source, make_plan(source, global_batch_size=1))[0]
    # I T ' S | A | Z
    assert batch["labels"].tolist() == [[10, 6, 27, 12, 4, 7, 4, 31]]
    # Ids that need more than a byte.
    characters = [chr(0x4E00 + index) for index in range(400)]
    large = CharTokenizer(tokens=[*FACEBOOK_TOKENS, *characters])
    source = MemorySource([100], ["".join(characters)])
    batch = one_epoch(source, make_plan(source), tokenizer=large, text_normalization="none")[0]
    assert batch["labels"][0].tolist() == list(range(32, 432))


def test_concatenated_rows_have_gaps_and_are_normalized_once():
    texts = ["one", "two", "...", "be"]
    source = MemorySource([50, 60, 70, 80], texts)
    plan = make_plan(source, global_batch_size=1, concat_max_utterances=4, concat_gap_samples=7)
    sizes = set()
    for update in range(plan.updates_per_epoch * 6):
        members = plan.batch(update).rows[0].members
        dataset = make_dataset(source, plan, start_update=update)
        batch = next(dataset.as_numpy_iterator())
        pieces = [source.waveforms[members[0]]]
        for index in members[1:]:
            pieces += [np.zeros(7, np.float32), source.waveforms[index]]
        wanted = normalized(np.concatenate(pieces))
        assert batch["waveform_lengths"].tolist() == [len(wanted)]
        np.testing.assert_allclose(batch["waveform"][0, : len(wanted)], wanted, atol=2e-6)
        # The transcript without any letters adds no second delimiter.
        text = " ".join(texts[index].upper() for index in members if index != 2)
        assert TOKENIZER.decode(batch["labels"][0, : len(text)]) == text
        assert batch["label_lengths"].tolist() == [len(text)]
        assert batch["utterance_index"].tolist() == [members[0]]
        sizes.add(len(members))
    assert sizes == {1, 2}


@pytest.mark.parametrize(("speed", "samples", "hertz"), [(0.9, 17778, 360.0), (1.1, 14546, 440.0)])
def test_speed_changes_length_and_pitch(speed, samples, hertz):
    source = MemorySource([16000])
    source.waveforms[0] = np.sin(2 * np.pi * 400 * np.arange(16000) / 16000).astype(np.float32)
    plan = make_plan(source, global_batch_size=1, speed_factors=(speed,))
    batch = one_epoch(source, plan)[0]
    assert batch["waveform_lengths"].tolist() == [samples] == plan.row_samples(0).tolist()
    waveform = batch["waveform"][0, :samples]
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(samples)))
    assert np.argmax(spectrum) * 16000 / samples == pytest.approx(hertz, abs=1.0)
    assert waveform.std() == pytest.approx(1.0, abs=1e-3)


def test_concatenated_rows_at_several_speeds_have_the_planned_lengths():
    source = MemorySource([1000 + 13 * index for index in range(24)])
    speeds = (0.9, 1.0, 1.1)
    plan = make_plan(source, speed_factors=speeds, concat_max_utterances=3, concat_gap_samples=11)
    lengths = np.concatenate([batch["waveform_lengths"] for batch in one_epoch(source, plan)])
    assert lengths[lengths > 0].tolist() == plan.row_samples(0).tolist()


@pytest.mark.parametrize("start", [1, 3, 4, 9])
def test_any_start_continues_as_if_never_stopped(start):
    source = MemorySource([900 + 31 * index for index in range(14)])
    plan, fresh = (make_plan(source, speed_factors=(0.9, 1.0)) for _ in range(2))
    whole = make_dataset(source, plan, num_updates=12, num_replicas=2)
    part = {"start_update": start, "num_updates": 12 - start, "num_replicas": 2}
    resumed = list(make_dataset(source, fresh, **part).as_numpy_iterator())
    np.testing.assert_equal(resumed, list(whole.as_numpy_iterator())[2 * start :])


def test_an_endless_dataset_crosses_into_the_next_epoch():
    source = MemorySource([900 + 31 * index for index in range(10)])
    dataset = make_dataset(source, make_plan(source))
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    batches = list(itertools.islice(dataset.as_numpy_iterator(), 9))
    epochs = np.reshape([batch["utterance_index"] for batch in batches], (3, 12))
    assert np.sort(epochs).tolist() == [[-1, -1, *range(10)]] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    parts = {"tokenizer": TOKENIZER, "text_normalization": "librispeech"}
    maker = BatchMaker(source=source, plan=make_plan(source), **parts)
    np.testing.assert_equal(batches, [maker.make(update) for update in range(9)])


def test_memory_stays_flat_over_epochs():
    def resident_mb():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

    source = MemorySource([60_000 + 300 * index for index in range(40)])
    plan = make_plan(source, max_batch_samples=700_000, speed_factors=(0.9, 1.1))
    iterator = make_dataset(source, plan).as_numpy_iterator()
    marks, samples = [], 0
    for num_batches in (4, 16):  # epochs
        for _ in range(num_batches * plan.updates_per_epoch):
            samples += next(iterator)["waveform"].size
        gc.collect()
        marks.append(resident_mb())
    # Sixteen epochs of waveforms are 190 MB and more; four have filled what is kept ready.
    assert 4 * samples / 1e6 > 200
    assert marks[1] - marks[0] < 40


@pytest.mark.parametrize(("num_local", "num_rows"), [(2, 2), (3, 2), (1, 4), (5, 1)])
def test_hosts_and_replicas_share_the_rows_out(num_local, num_rows):
    """Eight rows: two replicas of ten, and one of six, have none."""
    source = MemorySource([900 + 31 * index for index in range(21)])
    plan = make_plan(source, global_batch_size=8)
    whole = one_epoch(source, plan)
    pod = {"num_replicas": 2 * num_local, "num_input_pipelines": 2}
    hosts = [one_epoch(source, plan, input_pipeline_id=host, **pod) for host in range(2)]
    assert [len(elements) for elements in hosts] == [num_local * plan.updates_per_epoch] * 2
    for update, expected in enumerate(whole):
        shares = [share for host in hosts for share in host[num_local * update : num_local * (update + 1)]]
        assert {len(share["weight"]) for share in shares} == {num_rows}
        joined = {key: np.concatenate([share[key] for share in shares]) for key in BATCH_DTYPES}
        np.testing.assert_equal({key: x[:8] for key, x in joined.items()}, expected)
        assert not joined["weight"][8:].any() and not joined["waveform"][8:].any()
        assert set(joined["utterance_index"][8:]) <= {-1}
    dataset = make_dataset(source, plan, **pod)
    assert dataset.element_spec["weight"].shape.as_list() == [num_rows]


def test_batches_by_seconds_have_a_number_of_rows_for_every_bucket_and_are_the_same_on_16_hosts():
    source = MemorySource([400 + 13 * index for index in range(200)])
    arguments = {"max_batch_samples": 128_000, "row_multiple": 16, "speed_factors": (0.9, 1.1)}
    arguments |= {"bucket_boundaries": [1600, 2400, 4000]}
    plan = make_plan(source, **arguments)
    assert plan.bucket_rows == (80, 48, 32)
    count = 3 * plan.updates_per_epoch
    whole = list(make_dataset(source, plan, num_updates=count).as_numpy_iterator())
    assert {batch["waveform"].shape for batch in whole} == {(80, 1600), (48, 2400), (32, 4000)}
    assert make_dataset(source, plan).element_spec["weight"].shape.as_list() == [None]
    for num_hosts, start in ((16, 2), (4, 1)):
        hosts = [
            BatchMaker(source=source, plan=make_plan(source, **arguments), tokenizer=TOKENIZER,
                       text_normalization="librispeech", num_replicas=num_hosts)
            for _ in range(num_hosts)
        ]  # fmt: skip
        for update in range(start, count):
            shares = [maker.make(update, host) for host, maker in enumerate(hosts)]
            joined = {key: np.concatenate([share[key] for share in shares]) for key in BATCH_DTYPES}
            np.testing.assert_equal(joined, whole[update])


def test_the_order_does_not_depend_on_who_finishes_first():
    source, threads = MemorySource([500] * 16), set()

    def read_unevenly(index):
        time.sleep(0.02 * (index % 4))
        threads.add(threading.get_ident())
        return source.waveforms[index]

    source.read_waveform = read_unevenly
    plan = make_plan(source, global_batch_size=1)
    batches = one_epoch(source, plan, num_parallel_calls=4)
    found = [tuple(batch["utterance_index"]) for batch in batches]
    assert found == [plan.batch(update).rows[0].members for update in range(16)]
    assert len(threads) > 1


BAD = [InputError("no such file"), RuntimeError("psf_fseek() failed"), OSError(5, "I/O error")]
BAD += [np.ones(3, np.float32), np.full(600, np.nan, np.float32)]


@pytest.mark.parametrize("bad", BAD, ids=["input", "library", "system", "length", "not finite"])
def test_an_unreadable_utterance_has_weight_0_and_is_logged_once(bad, caplog):
    source = MemorySource([600] * 6)
    source.bad[4] = bad
    plan, found = make_plan(source, global_batch_size=3), UnreadableUtterances()
    dataset = make_dataset(source, plan, num_updates=6, unreadable=found)
    for batch in dataset.as_numpy_iterator():
        is_bad = batch["utterance_index"] == 4
        assert batch["weight"].tolist() == np.where(is_bad, 0.0, 1.0).tolist()
        assert batch["waveform_lengths"].tolist() == np.where(is_bad, 0, 600).tolist()
        for key in ("waveform", "labels", "label_lengths"):
            assert not batch[key][is_bad].any() and np.isfinite(batch[key]).all()
    assert caplog.text.count("utterance-4") == 1
    first = next(u for u in range(6) if any(4 in row.members for row in plan.batch(u).rows))
    assert [(item.update, item.utterance_id) for item in found.before(6)] == [(first, "utterance-4")]
    assert found.before(first) == []


def test_one_unreadable_member_takes_its_concatenated_row_out():
    source = MemorySource([600] * 6)
    source.bad[4] = InputError("gone")
    plan = make_plan(source, concat_max_utterances=3)
    for update, batch in enumerate(one_epoch(source, plan)):
        rows = [row.members for row in plan.batch(update).rows]
        assert batch["weight"].tolist() == [float(4 not in row and row != ()) for row in rows]
        assert batch["utterance_index"].tolist() == [(row or [-1])[0] for row in rows]


def test_an_unreadable_utterance_can_end_the_run_and_a_programming_error_does():
    source = MemorySource([600] * 6)
    source.bad[4] = InputError("no audio file x.flac")
    with pytest.raises(tf.errors.InvalidArgumentError, match="utterance-4: no audio file x.flac"):
        one_epoch(source, make_plan(source), on_bad="raise")
    source.bad[4] = AttributeError("a programming error")
    with pytest.raises(tf.errors.OpError, match="a programming error"):
        one_epoch(source, make_plan(source))


def test_silence_and_empty_transcripts_are_rows_like_others():
    source = MemorySource([600] * 2, ["", "..."])
    source.waveforms = [np.zeros(600, np.float32)] * 2
    batch = one_epoch(source, make_plan(source, global_batch_size=2))[0]
    assert batch["weight"].tolist() == [1, 1] and batch["waveform_lengths"].tolist() == [600, 600]
    assert batch["label_lengths"].tolist() == [0, 0] and batch["labels"].tolist() == [[0], [0]]
    assert not batch["waveform"].any()


def test_the_bucket_alone_decides_the_shapes():
    texts = ["be", "a", "cat", "a", "zebras", "a"]
    source = MemorySource([500, 600, 1500, 1600, 2500, 2600], texts)

    def shapes(boundaries, speeds=(1.0,), **changed):
        boundaries = {"bucket_boundaries": boundaries, "global_batch_size": 1}
        plan = make_plan(source, speed_factors=speeds, **boundaries)
        spec = make_dataset(source, plan, **changed).element_spec
        assert {spec[key].shape[0] for key in BATCH_DTYPES} == {1}
        batches = one_epoch(source, plan, **changed)
        found = {(batch["waveform"].shape[1], batch["labels"].shape[1]) for batch in batches}
        return (spec["waveform"].shape[1], spec["labels"].shape[1]), found

    assert shapes([2600]) == ((2600, 6), {(2600, 6)})
    assert shapes([600, 1600, 2600]) == ((None, None), {(600, 2), (1600, 3), (2600, 6)})
    assert shapes([600, 2600], max_label_length=9) == ((None, 9), {(600, 9), (2600, 9)})
    # At twice the speed the longest transcript comes down into the smaller bucket.
    assert shapes([1300, 2600], (1.0, 2.0)) == ((None, 6), {(1300, 6), (2600, 6)})


def test_labels_that_cannot_fit_are_refused_before_the_first_batch():
    source = MemorySource([500] * 3, ["be", "cats", "zebra"])
    with pytest.raises(InputError, match="may need 5 labels, max_label_length is 4"):
        make_dataset(source, make_plan(source), max_label_length=4)
    joined = make_plan(source, concat_max_utterances=2)
    with pytest.raises(InputError, match="may need 10 labels"):
        make_dataset(source, joined, max_label_length=9)
    assert make_dataset(source, joined, max_label_length=10).element_spec["labels"].shape[1] == 10


def test_arguments_that_do_not_fit_are_refused():
    source = MemorySource([500] * 4)
    for words, changed in {
        "num_replicas=0 must be >= 1": {"num_replicas": 0},
        "num_input_pipelines=4": {"num_replicas": 2, "num_input_pipelines": 4},
        "input_pipeline_id=1": {"num_replicas": 2, "input_pipeline_id": 1},
        "start_update=-1": {"start_update": -1},
        "on_bad is 'ignore'": {"on_bad": "ignore"},
        "'latin'": {"text_normalization": "latin"},
    }.items():
        with pytest.raises(ValueError, match=words):
            make_dataset(source, make_plan(source), **changed)
    with pytest.raises(ValueError, match="other utterances"):
        make_dataset(source, make_plan(MemorySource([500, 500, 500, 501])))


def test_a_graph_sees_the_same_batches():
    source = MemorySource([900 + 31 * index for index in range(10)])
    dataset = make_dataset(source, make_plan(source), num_updates=3)

    def add(total, batch):
        lengths = tf.cast(batch["waveform_lengths"], tf.int64)
        return total + tf.reduce_sum(lengths * (batch["utterance_index"] + 1))

    total = tf.function(lambda: dataset.reduce(tf.constant(0, tf.int64), add))()
    assert int(total) == sum((900 + 31 * index) * (index + 1) for index in range(10))


MIRRORED = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.data.batches.test_pipeline import MemorySource, make_dataset, make_plan

source = MemorySource([900 + 31 * index for index in range(10)])
plan = make_plan(source)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
dataset = strategy.distribute_datasets_from_function(
    lambda context: make_dataset(source, plan, num_updates=6, num_replicas=2)
)
for update, batch in enumerate(dataset):
    values = strategy.experimental_local_results(batch["utterance_index"])
    wanted = [(row.members or [-1])[0] for row in plan.batch(update).rows]
    assert [value.numpy().tolist() for value in values] == [wanted[:2], wanted[2:]], update
assert update == 5
print("as planned")
"""


def test_mirrored_replicas_get_their_own_shares():
    # In a process of its own: logical devices can be set before TensorFlow starts only.
    command = [sys.executable, "-c", MIRRORED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "as planned", done.stderr[-2000:]


@pytest.mark.skipif(not LIBRISPEECH.is_dir(), reason=f"no real speech at {LIBRISPEECH}")
def test_real_speech_arrives_whole():
    source = open_source(format="librispeech", input=LIBRISPEECH, split="dev-mini")
    batches = one_epoch(source, make_plan(source, global_batch_size=8), on_bad="raise")
    indices = np.concatenate([batch["utterance_index"] for batch in batches])
    assert sorted(indices[indices >= 0]) == list(range(40))
    for batch in batches:
        for i, index in enumerate(batch["utterance_index"].tolist()):
            waveform = batch["waveform"][i, : batch["waveform_lengths"][i]]
            labels = batch["labels"][i, : batch["label_lengths"][i]]
            assert len(waveform) == (source.num_samples[index] if index >= 0 else 0)
            assert index < 0 or waveform.std() == pytest.approx(1, abs=0.01)
            assert TOKENIZER.decode(labels) == (source.texts[index] if index >= 0 else "")
