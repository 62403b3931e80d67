"""A corpus as trainer and evaluator see it: real files, filters, references."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from data.batches.corpora import SubsetSource
from data.common.errors import InputError
from data.open_corpus import open_source
from data.text.tokenizer import FACEBOOK_TOKENS, CharTokenizer
from tests.helpers.data_toys import eval_data, train_data
from tests.helpers.planted_corpus import speak_tones, write_audio

TOKENIZER = CharTokenizer(tokens=FACEBOOK_TOKENS)
SECS = {"a1": 1.0, "a2": 0.5, "a3": 2.0, "b1": 0.05, "b2": 1.5}
CONTEXT = tf.distribute.InputContext()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    lines = []
    for i, (name, secs) in enumerate(SECS.items()):
        rng = np.random.default_rng(i)
        soundfile.write(folder / f"{name}.wav", rng.uniform(-0.5, 0.5, round(secs * 16_000)), 16_000)
        text = f"text {name[0]}"
        lines.append({"audio_filepath": f"{name}.wav", "text": text, "duration": secs, "speaker": name[0]})
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def make_train(manifest, **options):
    options = {
        "global_batch_size": 2,
        "seed": 0,
        "tokenizer": TOKENIZER,
        "text_normalization": "librispeech",
        **options,
    }
    return train_data(format="jsonl", input=manifest, **options)


def test_training_leaves_out_what_is_too_short_or_too_long_and_counts_it(manifest):
    data = make_train(manifest, min_duration_secs=0.1, max_duration_secs=1.5)
    assert (data.num_utterances, data.num_left_out, data.updates_per_epoch) == (3, 2, 2)
    assert data.duration_secs == pytest.approx(3.0)
    assert sorted(data.source.utterance_ids) == ["a1", "a2", "b2"]
    assert data.left_out_secs == {"b1": 0.05, "a3": 2.0}
    channels, rate = data.source.read_recording(2)
    assert (channels.shape, rate) == ((24_000, 1), 16_000)


def test_a_rare_long_row_does_not_count_as_the_length_of_the_rows(manifest):
    assert make_train(manifest).row_secs == 2.0  # of few rows the longest
    assert make_train(manifest, concat_max_utterances=3, concat_gap_secs=2.0).row_secs == 3.5  # a1, 2 s, a2
    lines = []
    for number in range(200):
        secs = 2.0 if number == 7 else 0.2 + number / 10_000
        segment = {"audio_filepath": "a3.wav", "offset": 0.0, "duration": secs}
        lines.append({**segment, "text": "A", "utterance_id": f"u{number}"})
    path = Path(manifest).with_name("rare.jsonl")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert make_train(str(path)).row_secs == pytest.approx(0.219, abs=0.001)


def test_limits_that_leave_nothing_are_refused(manifest):
    with pytest.raises(InputError, match="max_duration_secs=0.01"):
        make_train(manifest, max_duration_secs=0.01)


@pytest.mark.parametrize("concat_max_utterances", [1, 2])
def test_the_ids_of_an_update_are_those_of_its_rows(manifest, concat_max_utterances):
    data = make_train(manifest, global_batch_size=3, concat_max_utterances=concat_max_utterances)
    dataset = data.dataset(CONTEXT, 0).take(2 * data.updates_per_epoch)
    for update, batch in enumerate(dataset):
        index = batch["utterance_index"].numpy()
        first_members = [name.split("+")[0] for name in data.utterance_ids_of(update)]
        assert first_members == [data.source.utterance_ids[i] for i in index[index >= 0]]
    epoch = [name for update in range(data.updates_per_epoch) for name in data.utterance_ids_of(update)]
    assert sorted("+".join(epoch).split("+")) == sorted(SECS)
    assert any("+" in name for name in epoch) == (concat_max_utterances > 1)


def test_training_batches_hold_every_utterance_once_an_epoch(manifest):
    data = make_train(manifest)
    seen = []
    for batch in data.dataset(CONTEXT, 0).take(data.updates_per_epoch):
        index = batch["utterance_index"].numpy()
        seen += index[index >= 0].tolist()
        for row, length in zip(index, batch["waveform_lengths"].numpy(), strict=True):
            assert length == (data.source.num_samples[row] if row >= 0 else 0)
    assert sorted(seen) == [0, 1, 2, 3, 4]


def test_training_data_can_start_anywhere(manifest):
    data = make_train(manifest)
    whole = [batch["utterance_index"].numpy().tolist() for batch in data.dataset(CONTEXT, 0).take(9)]
    late = [batch["utterance_index"].numpy().tolist() for batch in data.dataset(CONTEXT, 5).take(4)]
    assert late == whole[5:]


def test_evaluation_has_every_row_with_id_and_normalized_reference(manifest):
    data = eval_data(
        tokenizer=TOKENIZER, text_normalization="librispeech", format="jsonl", input=manifest, batch_size=2
    )
    assert sorted(data.utterance_ids.values()) == sorted(SECS)
    assert set(data.references.values()) == {"TEXT A", "TEXT B"}
    assert {data.utterance_ids[index]: name for index, name in data.speaker_ids.items()} == {n: n[0] for n in SECS}
    assert {data.utterance_ids[index]: secs for index, secs in data.duration_secs.items()} == SECS
    batches = list(data.dataset(CONTEXT))
    assert len(batches) == data.num_batches == 3
    seen = np.concatenate([batch["utterance_index"].numpy() for batch in batches])
    assert sorted(seen.tolist()) == [-1, 0, 1, 2, 3, 4]


def test_concatenated_evaluation_rows_join_texts_and_ids_of_one_speaker(manifest):
    data = eval_data(
        tokenizer=TOKENIZER, text_normalization="librispeech", format="jsonl", input=manifest, batch_size=2,
        concat_max_utterances=3, concat_gap_secs=0.25, speakers=("a",),
    )  # fmt: skip
    # Groups of 1, then 2 of the three utterances.
    assert sorted(data.references.values()) == ["TEXT A", "TEXT A TEXT A"]
    assert sorted(name for names in data.utterance_ids.values() for name in names.split("+")) == ["a1", "a2", "a3"]
    (index,) = (index for index, name in data.utterance_ids.items() if "+" in name)
    assert data.duration_secs[index] == 0.25 + sum(SECS[name] for name in data.utterance_ids[index].split("+"))
    # What a browser plays is the row, sample by sample.
    heard, rate = soundfile.read(io.BytesIO(data.read_flac(index)), dtype="float32")
    first, second = (data.source.read_waveform(data.source.utterance_ids.index(name))
                     for name in data.utterance_ids[index].split("+"))  # fmt: skip
    assert rate == 16_000 and data.speaker_ids[index] == "a"
    np.testing.assert_allclose(heard, np.concatenate([first, np.zeros(4_000), second]), atol=1 / 32_000)


def test_normalization_is_the_callers_choice_in_training_and_in_evaluation(manifest):
    fields = {"tokenizer": TOKENIZER, "text_normalization": "librispeech", "format": "jsonl", "input": manifest}
    for normalize in (True, False):
        train = make_train(manifest, normalize=normalize)
        data = eval_data(**fields, batch_size=1, normalize=normalize)
        for corpus, batches in ((train, train.dataset(CONTEXT, 0).take(3)), (data, data.dataset(CONTEXT))):
            for batch in batches:
                for index, row in zip(batch["utterance_index"].numpy(), batch["waveform"].numpy(), strict=True):
                    if index >= 0:
                        raw = corpus.source.read_waveform(int(index))
                        assert np.array_equal(row[: len(raw)], raw) == (not normalize)


def test_subset_renumbers(manifest):
    source = open_source(format="jsonl", input=manifest)
    subset = SubsetSource(source=source, indices=np.array([4, 0]))
    assert subset.utterance_ids == ["b2", "a1"]
    assert subset.num_samples.tolist() == [24_000, 16_000]
    np.testing.assert_array_equal(subset.read_waveform(1), source.read_waveform(0))


def test_training_batches_by_seconds_keep_to_the_limit(manifest):
    data = make_train(manifest, max_batch_secs=4.0, row_multiple=2, num_buckets=3)
    batches = list(data.dataset(CONTEXT, 0).take(data.updates_per_epoch))
    shapes = [tuple(batch["waveform"].shape) for batch in batches]
    assert all(rows % 2 == 0 and rows * samples <= 4 * 16_000 for rows, samples in shapes)
    assert data.plan.bucket_rows[0] > data.plan.bucket_rows[-1] == 2
    seen = np.concatenate([batch["utterance_index"].numpy() for batch in batches])
    assert sorted(seen[seen >= 0].tolist()) == list(range(5)) and data.rows_per_epoch == 5
    with pytest.raises(InputError, match="max_batch_secs=3 holds 1 rows"):
        make_train(manifest, max_batch_secs=3.0, row_multiple=2)


def test_training_names_what_it_could_not_read_up_to_an_update(manifest, monkeypatch):
    data = make_train(manifest)
    read = data.source.read_waveform
    monkeypatch.setattr(data.source, "read_waveform", lambda index: read(index) if index != 2 else np.zeros(3))
    update = next(u for u in range(3) if any(2 in row.members for row in data.plan.batch(u).rows))
    list(data.dataset(CONTEXT, 0).take(3))
    assert data.unreadable(update) == []
    ((found, name, reason),) = data.unreadable(update + 1)
    assert (found, name) == (update, "a3") and "3 samples, 32000 were planned" in reason


def test_training_makes_its_tokenizer_and_style_of_the_texts_it_is_given(manifest):
    data = make_train(manifest, tokenizer=None, text_normalization="auto")
    assert (data.text_normalization, data.made_vocab) == ("unicode", True)
    assert data.tokenizer.tokens[4:] == ("|", "t", "e", "x", "a", "b")
    batch = next(iter(data.dataset(CONTEXT, 0)))
    assert 3 not in batch["labels"].numpy()  # nothing is unknown
    words = make_train(manifest, tokenizer=None, text_normalization="auto", vocab_units="words").tokenizer
    assert words.tokens[4:] == ("text", "a", "b") and words.decode([4, 6]) == "text b"
    given = make_train(manifest)
    assert (given.text_normalization, given.made_vocab, given.tokenizer) == ("librispeech", False, TOKENIZER)


def test_what_training_holds_out_is_what_an_evaluation_of_the_same_ratio_has(manifest):
    train = make_train(manifest, held_out_ratio=0.1)
    held_out = eval_data(
        tokenizer=TOKENIZER,
        text_normalization="librispeech",
        format="jsonl",
        input=manifest,
        batch_size=2,
        held_out_ratio=0.1,
    )
    # Of two speakers the one with fewer utterances.
    assert (set(train.source.speaker_ids), set(held_out.source.speaker_ids)) == ({"a"}, {"b"})
    assert sorted([*train.source.utterance_ids, *held_out.utterance_ids.values()]) == sorted(SECS)


def test_an_evaluation_set_has_another_digest_where_its_rows_or_their_references_differ(tmp_path):
    items = speak_tones(4, speakers=1, seed=1, first_speaker=1)
    for item in items:
        write_audio(tmp_path / f"{item.utterance_id}.wav", item.waveform)

    def digest(texts, **fields):
        lines = [
            {"audio_filepath": f"{item.utterance_id}.wav", "text": text, "speaker": "s"}
            for item, text in zip(items, texts, strict=False)
        ]
        (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        given = {"text_normalization": "librispeech", "batch_size": 2, **fields}
        tokenizer = CharTokenizer(tokens=FACEBOOK_TOKENS)
        return eval_data(tokenizer=tokenizer, format="jsonl", input=str(tmp_path / "m.jsonl"), **given).digest

    texts = [item.text for item in items]
    assert digest(texts) == digest([text.lower() for text in texts]) == digest(texts, batch_size=3)
    others = [digest([*texts[:3], "OTHER"]), digest(texts[:3]), digest(texts, concat_max_utterances=4)]
    assert len({digest(texts), *others}) == 4
