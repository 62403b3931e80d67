"""Several corpora of several formats train together: shares, names, messages, and the same batches after a resume."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from data.batches.corpora import JoinedSource
from data.common.errors import InputError
from data.open_corpus import open_source
from data.prepare import main as prepare
from tests.helpers.data_toys import eval_data, train_data

CONTEXT = tf.distribute.InputContext()


def write_corpus(folder, *, count, text, secs=0.5, seed=0):
    """A manifest of `count` utterances u0, u1 ... of the speakers 0 and 1."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(count):
        soundfile.write(folder / f"u{i}.wav", rng.uniform(-0.5, 0.5, round((secs + 0.1 * i) * 16_000)), 16_000)
        lines.append({"audio_filepath": f"u{i}.wav", "text": f"{text} {text}", "speaker": str(i % 2)})
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """{name: fields} of a large and a small manifest with the same ids, and of shards of the small one."""
    folder = tmp_path_factory.mktemp("corpora")
    large = write_corpus(folder / "large", count=12, text="large", seed=1)
    small = write_corpus(folder / "small", count=4, text="qix", seed=2)
    shards = write_shards(folder / "shards", small)
    return {
        "large": {"format": "jsonl", "input": large},
        "small": {"format": "jsonl", "input": small},
        "shards": {"format": "tfrecord", "input": shards},
    }


def write_shards(folder, manifest):
    assert prepare(["--format=jsonl", f"--input={manifest}", f"--output={folder}", "--num_shards=2"]) == 0
    return str(folder)


def make_train(corpora, first="large", more=("shards",), *, weights=(), **options):
    fields = {
        "global_batch_size": 2,
        "seed": 0,
        "tokenizer": None,
        "text_normalization": "librispeech",
        "more": {name: {**corpora[name], **options.pop(name, {})} for name in more},
        **corpora[first],
        **options,
    }
    for name, weight in zip(more, weights, strict=False):
        fields["more"][name]["weight"] = weight
    return train_data(**fields)


def test_two_formats_are_mixed_by_weight_and_every_row_is_the_audio_and_text_of_its_corpus(corpora):
    data = make_train(corpora, weights=(2.5,), normalize=False)
    assert data.num_utterances == 16 and list(data.corpora) == ["train", "shards"]
    assert data.passes["shards"] == pytest.approx(2.5 * data.passes["train"])
    rows = dict(zip(data.corpora, data.plan.corpus_rows, strict=True))
    assert sum(rows.values()) == data.rows_per_epoch
    sources = {"train": open_source(**corpora["large"]), "shards": open_source(**corpora["shards"])}
    seen = Counter()
    for update, batch in enumerate(data.dataset(CONTEXT, 0).take(data.updates_per_epoch)):
        ids = data.utterance_ids_of(update)
        for i, name in enumerate(ids):
            corpus, _, key = name.partition(":")
            source = sources[corpus]
            place = list(source.utterance_ids).index(key)
            wanted = source.read_waveform(place)
            np.testing.assert_array_equal(batch["waveform"][i, : batch["waveform_lengths"][i]], wanted)
            labels = batch["labels"][i, : batch["label_lengths"][i]].numpy()
            assert data.tokenizer.decode(labels) == source.texts[place].upper()
            seen[corpus] += 1
    assert seen == rows


def test_a_run_resumed_in_mid_epoch_has_the_batches_of_one_that_was_not(corpora):
    options = {"weights": (3.0, 0.4), "sampling_alpha": 0.5, "speed_factors": (0.9, 1.1), "global_batch_size": 4}

    def batches(start, count):
        data = make_train(corpora, more=("small", "shards"), **options)
        return [
            {key: value.numpy() for key, value in batch.items()} for batch in data.dataset(CONTEXT, start).take(count)
        ]

    straight = batches(0, 11)
    for start in (3, 7):
        for resumed, wanted in zip(batches(start, 11 - start), straight[start:], strict=True):
            for key, value in wanted.items():
                np.testing.assert_array_equal(resumed[key], value, err_msg=key)


def test_the_rows_of_each_corpus_are_counted_from_the_first_update_whatever_the_process_began_with(corpora):
    data = make_train(corpora, more=("small", "shards"), weights=(3.0, 0.4), max_batch_secs=8.0, row_multiple=1)
    counted = Counter()
    for update in range(30):
        assert data.corpus_rows(update) == {name: counted[name] for name in data.corpora}
        counted.update(name.partition(":")[0] for name in data.utterance_ids_of(update))
    assert make_train(corpora, more=()).corpus_rows(7) == {}


def test_as_they_are_two_corpora_are_one_that_comes_once_an_epoch(corpora):
    data = make_train(corpora, more=("small",))
    names = [name for update in range(data.updates_per_epoch) for name in data.utterance_ids_of(update)]
    assert sorted(names) == sorted([f"train:u{i}" for i in range(12)] + [f"small:u{i}" for i in range(4)])
    assert data.describe_corpora()[1] == (
        "corpus small: 4 utterances, 0.00 h, weight 1; 4 of the 16 rows of an epoch, 1 passes"
    )


def test_vocabulary_and_style_come_from_the_texts_of_all_corpora(corpora):
    data = make_train(corpora, more=("small",), text_normalization="auto")
    assert data.text_normalization == "unicode"
    assert set("largeqix") <= set(data.tokenizer.tokens)
    assert "q" not in make_train(corpora, more=(), text_normalization="auto").tokenizer.tokens


def test_speakers_of_two_corpora_that_are_called_alike_are_two(corpora):
    data = make_train(corpora, more=("small",), concat_max_utterances=3)
    assert set(data.source.speaker_ids) == {"train:0", "train:1", "small:0", "small:1"}
    rows = [name.split("+") for update in range(12) for name in data.utterance_ids_of(update)]
    assert {len({key.partition(":")[0] for key in row}) for row in rows} == {1}
    assert max(map(len, rows)) > 1


def test_each_corpus_is_limited_and_holds_out_by_itself(corpora):
    data = make_train(corpora, more=("small",), max_duration_secs=0.75, small={"held_out_ratio": 0.25})
    # The small one holds out a speaker with u0 and u2, or with u1 and u3.
    assert sorted(data.corpora["small"].source.utterance_ids) in (["u0", "u2"], ["u1"], ["u0"], ["u1", "u3"])
    assert {f"train:u{i}" for i in range(3, 12)} <= set(data.left_out_secs)
    assert data.num_left_out == len(data.left_out_secs)
    evaluation = eval_data(
        tokenizer=data.tokenizer,
        text_normalization="librispeech",
        batch_size=1,
        held_out_ratio=0.25,
        **corpora["small"],
    )
    assert not set(evaluation.utterance_ids.values()) & set(data.corpora["small"].source.utterance_ids)


def test_the_fingerprint_tells_corpora_apart_and_that_of_one_is_as_it_was(corpora):
    one, two = make_train(corpora, more=()), make_train(corpora, more=("small",))
    assert set(one.fingerprint) == {"num_utterances", "num_samples", "ids", "lengths", "texts"}
    assert one.fingerprint["ids"] == "ad2d62d7b2b3131f" and list(one.source.utterance_ids)[:2] == ["u0", "u1"]
    assert two.fingerprint["corpora"]["train"] == one.fingerprint
    assert two.fingerprint["num_utterances"] == 16 and two.fingerprint["ids"] != one.fingerprint["ids"]
    turned = make_train(corpora, first="small", more=("large",))
    assert turned.fingerprint["ids"] != two.fingerprint["ids"]


def test_a_recording_that_cannot_be_read_is_named_with_its_corpus(corpora, tmp_path, caplog):
    corpora = {**corpora, "broken": {"format": "jsonl", "input": write_corpus(tmp_path / "b", count=2, text="a")}}
    data = make_train(corpora, more=("broken",))
    (tmp_path / "b/u1.wav").write_bytes(b"")
    list(data.dataset(CONTEXT, 0).take(data.updates_per_epoch))
    assert [item.utterance_id for item in data.unreadable(data.updates_per_epoch)] == ["broken:u1"]
    assert "Utterance broken:u1 is left out" in caplog.text


def test_a_fault_of_an_utterance_names_its_corpus(corpora, tmp_path):
    path = write_corpus(tmp_path / "b", count=2, text="a")
    (tmp_path / "b/u1.wav").unlink()
    corpora = {**corpora, "broken": {"format": "jsonl", "input": path}}
    with pytest.raises(InputError, match=r"^data\.more_train\.broken: .*u1\.wav"):
        make_train(corpora, more=("broken",))
    with pytest.raises(InputError, match=r"^data\.train: .*u1\.wav"):
        make_train(corpora, first="broken", more=("large",))
    heard = []
    data = train_data(
        tokenizer=None, text_normalization="none", global_batch_size=1, seed=0, report=heard.append, **corpora["large"],
        more={"broken": corpora["broken"]},
    )  # fmt: skip
    assert [(fault.corpus, fault.code) for fault in heard] == [("broken", "missing_audio")]
    assert list(data.corpora["broken"].source.utterance_ids) == ["u0"]


def test_a_corpus_of_which_nothing_is_left_is_named(corpora):
    with pytest.raises(InputError, match=r"^data\.more_train\.small: .*every utterance is outside"):
        make_train(corpora, more=("small",), min_duration_secs=0.9)


def test_no_further_corpus_is_called_like_the_first(corpora):
    with pytest.raises(ValueError, match="must not have 'train'"):
        make_train({**corpora, "train": corpora["small"]}, more=("train",))


def test_the_joined_source_finds_recordings_and_segments_in_their_own_source(corpora):
    one, other = (open_source(**corpora[name]) for name in ("large", "small"))
    joined = JoinedSource({"a": one, "b": other})
    assert joined.utterance_ids[11:13] == ["a:u11", "b:u0"]
    assert joined.corpora_of(np.array([0, 11, 12, 15])).tolist() == [0, 0, 1, 1]
    for index, source, place in ((11, one, 11), (12, other, 0), (15, other, 3)):
        np.testing.assert_array_equal(joined.read_waveform(index), source.read_waveform(place))
        np.testing.assert_array_equal(joined.read_recording(index)[0], source.read_recording(place)[0])


def test_an_utterance_that_comes_more_than_once_in_an_epoch_is_altered_anew_and_resumes_alike(corpora):
    options = {"weights": (9.0,), "augment": {"noise_prob": 1.0, "silence_prob": 0.5}}

    def rows(start):
        data = make_train(corpora, more=("small",), **options)
        found = []
        for update, batch in enumerate(data.dataset(CONTEXT, start).take(data.updates_per_epoch - start), start):
            names = data.utterance_ids_of(update)
            found += [(name, batch["waveform"][i].numpy().tobytes()) for i, name in enumerate(names)]
        return found

    straight = rows(0)
    heard = [content for name, content in straight if name == "small:u0"]
    assert len(heard) > 2 and len(set(heard)) == len(heard)
    assert rows(3) == straight[6:]
