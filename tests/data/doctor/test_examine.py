"""The doctor on corpora with planted faults, on clean ones, and on samples of them."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from data.audio.decoding import load_audio, normalize_waveform
from data.batches.datasets import EvalData, TrainData
from data.corpus.manifest import read_utterances
from data.doctor.examine import DatasetSpec, examine
from data.doctor.findings import CHECKS, Severity
from data.text.tokenizer import FACEBOOK_TOKENS, SPECIAL_TOKENS, CharTokenizer
from tests.helpers.data_toys import eval_data, train_data
from tests.helpers.planted_corpus import Clean, plant, speak_tones, write_audio

CORPORA = Path(__file__).parents[4] / "shared" / "corpora"
needs_corpora = pytest.mark.skipif(not CORPORA.is_dir(), reason="../shared/corpora is absent")
TOKENIZER = CharTokenizer(tokens=FACEBOOK_TOKENS)
LIMITS = {"min_duration_secs": 0.1, "max_duration_secs": 20.0}


def frames_of_base(num_samples: np.ndarray) -> np.ndarray:
    """The frames of the published models, 400 samples for the first and 320 for each more."""
    return np.maximum(0, (np.asarray(num_samples) - 400) // 320 + 1)


def make_set(name: str, *, policy: str = "resample", **fields: object) -> DatasetSpec:
    options = {"tokenizer": TOKENIZER, "text_normalization": "librispeech", "on_rate_mismatch": policy, **fields}

    def build(report: Callable[..., None]) -> TrainData | EvalData:
        if name:
            return eval_data(**options, batch_size=4, num_buckets=3, report=report)
        return train_data(**options, **LIMITS, global_batch_size=4, seed=0, num_buckets=3, report=report)

    return DatasetSpec(name=name, fields=fields, build=build, rows_at_once=lambda rows, samples: -(-rows // 2))


run = partial(examine, tokenizer=TOKENIZER, text_normalization="librispeech", frames_fn=frames_of_base, **LIMITS)


def named(examination, *, notes: bool = False) -> dict[tuple[str, str], set[str]]:
    return {
        (item.where, item.code): set(item.details)
        for item in examination.findings
        if notes or item.severity != Severity.NOTE
    }


def real_speech(split: str, num: int) -> list[Clean]:
    """The shortest utterances of a split of LibriSpeech, from 2 s on."""
    found = read_utterances(format="librispeech", input=CORPORA / "LibriSpeech", split=split)
    found = sorted((u for u in found if u.duration_secs >= 2), key=lambda u: u.num_samples)[:num]
    return [
        Clean(u.utterance_id, u.speaker_id, u.text, load_audio(u.audio_filepath), Path(u.audio_filepath)) for u in found
    ]


def planted_sets(folder: Path, policy: str) -> list[DatasetSpec]:
    make = partial(make_set, policy=policy)
    return [
        make("", format="librispeech", input=str(folder / "tree"), split="train"),
        make("files", format="jsonl", input=str(folder / "eval/manifest.jsonl")),
        make("shards", format="tfrecord", input=str(folder / "shards")),
        make("absent", format="jsonl", input=str(folder / "absent.jsonl")),
    ]


@pytest.fixture(scope="module", params=["tones", pytest.param("real", marks=needs_corpora)])
def planted(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "tones":
        train = speak_tones(48, speakers=3, seed=0, first_speaker=100)
        evaluation = speak_tones(20, speakers=2, seed=1, first_speaker=900)
    else:
        train, evaluation = real_speech("train-clean-5", 60), real_speech("test-clean", 20)
    return folder, plant(folder, train, evaluation)


@pytest.mark.parametrize("policy", ["resample", "refuse"])
def test_every_planted_fault_is_named_and_nothing_else(planted, policy):
    folder, expected = planted
    if policy == "refuse":
        expected = {
            (where, "wrong_rate" if code == "mixed_rates" else code): ids for (where, code), ids in expected.items()
        }
    found = run(sets=planted_sets(folder, policy))
    assert named(found) == expected
    assert found.num_errors + found.num_warnings == len(expected)
    told = {code for _, code in expected} | {"mixed_rates", "wrong_rate"}
    # What is about a whole set, a config or the machine has tests of its own.
    assert set(CHECKS) - told == {
        "resampled", "sampled", "memory", "unrelated_transcripts", "labels_fit_slow_only", "bad_segment",
        "frozen_random", "unused_gpu", "overlapping_segments", "segment_leak", "slow_segments",
        "wrong_duration", "lost_symbols", "markup", "missing_cells", "line_breaks", "read_otherwise", "unspaced_text",
        "rare_characters", "dropped_markup", "kept_digits", "suspect_transcript", "shared_utterances",
    }  # fmt: skip


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Thirty tones that train and ten that evaluate, as manifests; no speaker in common."""
    folder = tmp_path_factory.mktemp("clean")
    for split, num, speaker in (("train", 30, 100), ("dev", 10, 900)):
        lines = []
        for item in speak_tones(num, speakers=3, seed=speaker, first_speaker=speaker):
            write_audio(folder / split / f"{item.utterance_id}.wav", item.waveform)
            lines.append(
                f'{{"audio_filepath": "{item.utterance_id}.wav", "text": "{item.text}", "speaker": "{item.speaker}"}}\n'
            )
        (folder / split / "m.jsonl").write_text("".join(lines))
    return folder


def clean_sets(folder: Path) -> list[DatasetSpec]:
    return [
        make_set("", format="jsonl", input=str(folder / "train/m.jsonl")),
        make_set("dev", format="jsonl", input=str(folder / "dev/m.jsonl")),
    ]


def test_a_kept_head_changes_the_advice_for_unknown_characters(clean):
    fields = {"sets": clean_sets(clean), "tokenizer": CharTokenizer(tokens=[*SPECIAL_TOKENS, "|", "Z"])}
    for keeps_head, advice in ((True, "model.init_head=True keeps the head"), (False, "make a vocabulary with")):
        found = run(**fields, keeps_head=keeps_head)
        texts = [item["advice"] for item in found.to_json()["findings"] if item["code"] == "unknown_characters"]
        assert len(texts) == 2 and all(text.startswith(advice) for text in texts)
        assert f"To do: {advice}" in "\n".join(found.lines())


def test_weights_that_stay_random_are_an_error_of_the_config(clean):
    found = run(sets=clean_sets(clean), frozen_random="model.x=True, but nothing trained it; set model.x=False")
    assert named(found) == {("config", "frozen_random"): {"model"}} and found.num_errors == 1
    assert "model (model.x=True, but nothing trained it; set model.x=False)" in "\n".join(found.lines())


def test_gpus_that_are_not_used_are_a_warning(clean):
    found = run(sets=clean_sets(clean), device_faults=["this machine has 1 NVIDIA GPU, but TensorFlow sees none"])
    assert named(found) == {("machine", "unused_gpu"): {"this machine has 1 NVIDIA GPU, but TensorFlow sees none"}}
    assert found.num_errors == 0


def test_a_clean_corpus_gets_statistics_and_no_findings(clean):
    found = run(sets=clean_sets(clean), memory_fn=lambda rows, samples, training: 1000 * rows + 2**20 * training)
    assert named(found, notes=True) == {}
    train, dev = found.sets
    assert (train.name, train.num_utterances, train.num_speakers, train.num_listened) == ("train", 30, 3, 30)
    assert (dev.name, dev.num_utterances, dev.num_speakers) == ("eval dev", 10, 3)
    for histogram in [*train.histograms, *dev.histograms]:
        assert sum(histogram.counts) == (30 if histogram in train.histograms else 10)
    data = train_data(
        tokenizer=TOKENIZER, text_normalization="librispeech", format="jsonl", input=str(clean / "train/m.jsonl"),
        global_batch_size=4, seed=0, num_buckets=3,
    )  # fmt: skip
    assert train.hours == pytest.approx(data.duration_secs / 3600)
    assert found.plan is not None
    assert sum(shape.num_batches for shape in found.plan.shapes) == found.plan.updates_per_epoch == 8
    padded = sum(shape.padded_secs * shape.num_rows for shape in found.plan.shapes)
    assert found.plan.padding_ratio == pytest.approx(1 - data.duration_secs / padded)
    assert sum(s.padding_ratio * s.padded_secs * s.num_rows for s in found.plan.shapes) == pytest.approx(
        padded - data.duration_secs
    )
    assert [(item.what, item.predicted_bytes) for item in found.memory] == [
        ("training", 2000 + 2**20), ("evaluation dev", 2000),
    ]  # fmt: skip
    assert found.vocabulary is not None
    assert "Z" in found.vocabulary.unused and found.vocabulary.counts["E"] > 0
    assert found.lines()[-1] == "0 errors, 0 warnings"


def test_a_batch_larger_than_the_memory_is_a_warning(clean):
    found = run(sets=clean_sets(clean), memory_fn=lambda *_: 2**30, available_bytes=2**29)
    assert named(found) == {("config", "memory"): {"training", "evaluation dev"}}


def test_a_sample_is_listened_to_and_said_and_the_rest_is_checked_without_audio(clean):
    sets = clean_sets(clean)
    hours = 20 / 3600
    found = run(sets=sets, max_hours=hours)
    train = found.sets[0]
    assert 0 < train.num_listened < 30
    assert ("train", "sampled") in named(found, notes=True)
    assert found.num_errors == found.num_warnings == 0
    assert run(sets=sets, max_hours=hours).sets[0].num_listened == train.num_listened


def test_a_sample_still_finds_audio_that_leaks_with_its_text(clean, tmp_path):
    text = (clean / "train/m.jsonl").read_text().splitlines()[7]
    name = text.split('"')[3]
    write_audio(tmp_path / "other.wav", load_audio(clean / "train" / name))
    (tmp_path / "m.jsonl").write_text(text.replace(name, "other.wav") + "\n")
    sets = [clean_sets(clean)[0], make_set("dev", format="jsonl", input=str(tmp_path / "m.jsonl"))]
    found = run(sets=sets, max_hours=1 / 3600)
    assert named(found) == {("eval dev", "audio_leak"): {"other"}}


def test_evaluating_on_training_utterances_is_an_error_unless_allowed(clean):
    sets = [clean_sets(clean)[0], make_set("same", format="jsonl", input=str(clean / "train/m.jsonl"))]
    assert {code for _, code in named(run(sets=sets))} == {"id_leak"}
    assert named(run(sets=sets, allow_train_eval_overlap=True)) == {}


def test_evaluation_sets_over_the_same_utterances_are_examined_once(clean):
    train, dev = clean_sets(clean)
    found = run(sets=[train, dev, make_set("again", format="jsonl", input=str(clean / "dev/m.jsonl"))])
    assert [one.name for one in found.sets] == ["train", "eval dev, again"]
    assert [item.what for item in found.memory] == ["training", "evaluation dev", "evaluation again"]


@needs_corpora
def test_clean_real_speech_raises_no_alarm():
    root = CORPORA / "LibriSpeech"
    splits = [("", "dev-mini"), ("test", "test-clean")]
    sets = [make_set(name, format="librispeech", input=str(root), split=split) for name, split in splits]
    found = named(run(sets=sets))
    # Longer than the limit is no fault of the corpus.
    found.pop(("train", "too_long"), None)
    assert found == {}


@needs_corpora
def test_single_digits_at_8_khz_raise_no_alarm():
    manifest = str(CORPORA / "fsdd/manifest.jsonl")
    sets = [
        make_set("", format="jsonl", input=manifest, exclude_speakers=("yweweler",)),
        make_set("unseen", format="jsonl", input=manifest, speakers=("yweweler",)),
    ]
    found = run(sets=sets, speed_factors=(0.8, 1.0, 1.2))
    assert named(found) == {}
    assert {code for _, code in named(found, notes=True)} == {"resampled"}


def test_segments_are_trained_evaluated_and_examined_as_what_they_are(tmp_path):
    """Three recordings, each of two utterances one after the other; the second is silent in one of them."""
    items = speak_tones(6, speakers=1, seed=0, first_speaker=1)
    lines, parts = [], {}
    for number in range(3):
        first, second = items[2 * number].waveform, items[2 * number + 1].waveform * (number > 0)
        write_audio(tmp_path / f"rec{number}.wav", np.concatenate([first, second]))
        for index, (offset, part) in enumerate(((0, first), (len(first), second))):
            fields = {"audio_filepath": f"rec{number}.wav", "text": items[2 * number + index].text}
            fields |= {"offset": offset / 16_000, "duration": len(part) / 16_000, "utterance_id": f"{number}-{index}"}
            lines.append(json.dumps(fields))
            parts[f"{number}-{index}"] = part
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    train, dev = (make_set(name, format="jsonl", input=str(tmp_path / "m.jsonl")) for name in ("", "dev"))
    found = run(sets=[train, dev], allow_train_eval_overlap=True)
    assert named(found) == {("train", "silent_audio"): {"0-1"}, ("eval dev", "silent_audio"): {"0-1"}}
    assert found.sets[0].hours * 3600 == pytest.approx(sum(map(len, parts.values())) / 16_000)

    for data in (train.build(None), dev.build(None)):
        for index, name in enumerate(data.source.utterance_ids):
            np.testing.assert_allclose(data.source.read_waveform(index), parts[name], atol=1e-4)
    batch = next(iter(train.build(None).dataset(tf.distribute.InputContext(), 0)))
    for row, index in enumerate(batch["utterance_index"].numpy()):
        if index >= 0:
            name = train.build(None).source.utterance_ids[index]
            wanted = normalize_waveform(np.round(parts[name] * 32768) / 32768)
            heard = batch["waveform"][row, : batch["waveform_lengths"][row]].numpy()
            np.testing.assert_allclose(heard, wanted, atol=2e-3)
    evaluation = dev.build(None)
    flac, _ = soundfile.read(io.BytesIO(evaluation.read_flac(3)), dtype="float32")
    np.testing.assert_allclose(flac, parts[evaluation.source.utterance_ids[3]], atol=1e-4)

    # Without the offsets the same lines are whole recordings, and their durations contradict these.
    (tmp_path / "m.jsonl").write_text("\n".join(line.replace('"offset"', '"ignored"') for line in lines))
    assert ("train", "wrong_duration") in named(run(sets=[train]))


def test_rare_characters_of_a_vocabulary_made_of_the_texts_are_named(tmp_path):
    write_audio(tmp_path / "a.wav", speak_tones(1, speakers=1, seed=1, first_speaker=1)[0].waveform)
    lines = [{"audio_filepath": "a.wav", "text": "la " * 4000, "utterance_id": "long"}]
    lines += [{"audio_filepath": "a.wav", "text": "q", "utterance_id": "odd"}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def rare(tokenizer):
        data = train_data(
            tokenizer=tokenizer, text_normalization="unicode", format="jsonl", input=tmp_path / "m.jsonl",
            global_batch_size=1, seed=0,
        )  # fmt: skip
        fields = {"format": "jsonl", "input": str(tmp_path / "m.jsonl")}
        sets = [DatasetSpec(name="", fields=fields, build=lambda report: data, rows_at_once=lambda rows, samples: rows)]
        found = examine(sets=sets, tokenizer=data.tokenizer, text_normalization="unicode", frames_fn=lambda n: n // 320)
        return [dict(item.details) for item in found.findings if item.code == "rare_characters"]

    assert rare(None) == [{"q": "once, first odd"}]
    assert rare(CharTokenizer(tokens=(*SPECIAL_TOKENS, "|", *"alq"))) == []


def with_more(first, manifest, *, weight):
    """The first training corpus and another one, "calls", as the doctor gets them, and the data of both."""
    more = {"format": "jsonl", "input": str(manifest), "weight": weight}
    data = train_data(
        tokenizer=TOKENIZER, text_normalization="librispeech", global_batch_size=4, seed=0, more={"calls": more},
        **{**LIMITS, **first.fields},
    )  # fmt: skip
    both = dataclasses.replace(first, build=lambda report: data)
    return both, dataclasses.replace(both, corpus="calls", fields=more), data


def test_every_training_corpus_is_examined_by_itself_and_they_have_one_plan(clean, tmp_path):
    items = speak_tones(6, speakers=2, seed=5, first_speaker=500)
    lines = []
    for item in items:
        write_audio(tmp_path / f"{item.utterance_id}.wav", item.waveform)
        lines.append(
            f'{{"audio_filepath": "{item.utterance_id}.wav", "text": "{item.text} [LAUGHS]", "speaker": "9"}}\n'
        )
    # One of the utterances that evaluate, with another id.
    twin = next((clean / "dev").glob("*.wav"))
    (tmp_path / "twin.wav").write_bytes(twin.read_bytes())
    lines.append('{"audio_filepath": "twin.wav", "text": "A", "speaker": "9"}\n')
    (tmp_path / "m.jsonl").write_text("".join(lines))
    first, dev = clean_sets(clean)
    first, calls, data = with_more(first, tmp_path / "m.jsonl", weight=2.0)
    found = run(sets=[first, calls, dev])
    assert [one.name for one in found.sets] == ["train", "train calls", "eval dev"]
    assert [one.num_utterances for one in found.sets] == [30, 7, 10]
    assert found.plan.num_rows == data.rows_per_epoch
    assert [item.what for item in found.memory] == ["training", "evaluation dev"]
    planted = named(found)
    assert planted["train calls", "markup"] == {item.utterance_id for item in items}
    assert planted["eval dev", "audio_leak"] == {twin.stem}
    assert ("train", "markup") not in planted


def test_utterances_that_two_training_corpora_share_are_named_once(clean, tmp_path):
    again, twin, *_ = sorted((clean / "train").glob("*.wav"))
    (own,) = speak_tones(1, speakers=1, seed=6, first_speaker=600)
    write_audio(tmp_path / "own.wav", own.waveform)
    for path, name in ((again, again.name), (twin, "twin.wav")):
        (tmp_path / name).write_bytes(path.read_bytes())
    lines = [f'{{"audio_filepath": "{name}", "text": "A"}}\n' for name in (again.name, "twin.wav", "own.wav")]
    (tmp_path / "m.jsonl").write_text("".join(lines))
    first, _ = clean_sets(clean)
    first, calls, _ = with_more(first, tmp_path / "m.jsonl", weight=1.0)
    found = run(sets=[first, calls])
    (finding,) = [item for item in found.findings if item.code == "shared_utterances"]
    assert finding.where == "train calls" and set(finding.details) == {again.stem, "twin"}
    assert finding.details["twin"] == f"in train: the audio of {twin.stem}"
    assert finding.severity == "warning" and "id_leak" not in {item.code for item in found.findings}
