"""The synthetic corpus: layout, determinism, unheard voices, telephone band, interrupted making."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data import synthetic
from data.common.errors import InputError
from data.synthesis.phrases import DIGITS

SMALL = {"num_train": 12, "num_eval": 4, "num_train_speakers": 4, "num_eval_speakers": 2}


def make(output: Path, **changed) -> Path:
    return synthetic.write_synthetic_corpus(output=output, **{**SMALL, **changed})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("corpus") / "small", num_train=60, num_eval=12)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_split(folder: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Utterance id -> (text, waveform), by the rules of LibriSpeech's layout."""
    utterances = {}
    for path in sorted(folder.glob("*/*/*.trans.txt")):
        speaker, chapter = path.parent.parent.name, path.parent.name
        assert path.name == f"{speaker}-{chapter}.trans.txt"
        for number, line in enumerate(path.read_text().splitlines()):
            utterance_id, text = line.split(" ", 1)
            assert utterance_id == f"{speaker}-{chapter}-{number:04d}"
            audio = path.parent / f"{utterance_id}.flac"
            assert soundfile.info(audio).subtype == "PCM_16"
            waveform, rate = soundfile.read(audio, dtype="float32")
            assert rate == 22050
            utterances[utterance_id] = (text, waveform)
    assert len(utterances) == len(list(folder.rglob("*.flac")))
    return utterances


def share_above_band(waveforms: list[np.ndarray]) -> float:
    above = total = 0.0
    for waveform in waveforms:
        power = np.abs(np.fft.rfft(waveform)) ** 2
        above += power[int(len(power) * 4200 / 11025) :].sum()
        total += power.sum()
    return above / total


def test_layout_texts_and_counts(corpus):
    for split, count, speakers in (("train", 60, 4), ("eval", 12, 2)):
        utterances = read_split(corpus / split)
        assert len(utterances) == count
        assert len({name.split("-")[0] for name in utterances}) == speakers
        for text, _ in utterances.values():
            assert re.fullmatch(r"[A-Z']+( [A-Z']+)*", text)
    assert any(len(text.split()) == 1 for text, _ in read_split(corpus / "train").values())


def test_no_file_is_empty_clipped_faint_or_of_odd_length(corpus):
    for split in ("train", "eval"):
        peaks = []
        for text, waveform in read_split(corpus / split).values():
            duration_secs = len(waveform) / synthetic.SAMPLE_RATE
            assert 0.2 + 0.12 * len(text.split()) < duration_secs < 1.0 + 0.9 * len(text.split())
            peaks.append(np.abs(waveform).max())
            assert np.sqrt(np.mean(waveform**2)) > 0.05 * peaks[-1]
        assert min(peaks) > 0.09 and max(peaks) < 0.91
        assert max(peaks) > 2 * min(peaks), "the level should vary"


def test_corpus_json_states_parameters_and_true_durations(corpus):
    described = json.loads((corpus / "corpus.json").read_text())
    assert described["num_train"] == 60 and described["seed"] == 0
    for split in ("train", "eval"):
        num_samples = sum(len(waveform) for _, waveform in read_split(corpus / split).values())
        assert described["duration_secs"][split] == pytest.approx(num_samples / 22050)
    listed = [line.split(" | ") for line in (corpus / "SPEAKERS.TXT").read_text().splitlines()]
    assert [row[2] for row in listed] == ["train"] * 4 + ["eval"] * 2
    assert {row[0] for row in listed if row[2] == "eval"} == {path.name for path in (corpus / "eval").iterdir()}


def test_same_parameters_give_the_same_bytes_and_another_seed_gives_others(tmp_path):
    first, second = digests(make(tmp_path / "a")), digests(make(tmp_path / "b"))
    assert first == second
    other = digests(make(tmp_path / "c", seed=1))
    audio = {digest for name, digest in first.items() if name.endswith(".flac")}
    assert len(audio) == 16
    assert audio.isdisjoint(other.values())


def test_eval_does_not_depend_on_the_parameters_of_train(tmp_path):
    one = make(tmp_path / "a")
    other = make(tmp_path / "b", num_train=3, num_train_speakers=2, telephone_ratio=0.0)
    assert digests(one / "eval") == digests(other / "eval")


def test_only_telephone_chapters_of_train_are_band_limited(corpus):
    chapters: dict[str, list[np.ndarray]] = {"1": [], "2": []}
    for utterance_id, (_, waveform) in read_split(corpus / "train").items():
        chapters[utterance_id.split("-")[1]].append(waveform)
    assert 12 <= len(chapters["2"]) <= 36  # 40 % of 60
    assert share_above_band(chapters["2"]) < 1e-5
    assert share_above_band(chapters["1"]) > 1e-3
    evaluation = read_split(corpus / "eval")
    assert {utterance_id.split("-")[1] for utterance_id in evaluation} == {"1"}
    assert share_above_band([waveform for _, waveform in evaluation.values()]) > 1e-3


@pytest.mark.parametrize(("ratio", "chapter"), [(0.0, "1"), (1.0, "2")])
def test_telephone_ratios_of_none_and_of_all(tmp_path, ratio, chapter):
    folder = make(tmp_path / "a", telephone_ratio=ratio)
    assert {path.name for path in (folder / "train").glob("*/*")} == {chapter}
    assert {path.name for path in (folder / "eval").glob("*/*")} == {"1"}


@pytest.mark.parametrize(("ratio", "are_digits"), [(0.0, True), (1.0, False)])
def test_sentence_ratios_of_none_and_of_all(tmp_path, ratio, are_digits):
    folder = make(tmp_path / "a", sentence_ratio=ratio)
    for split in ("train", "eval"):
        texts = [text for text, _ in read_split(folder / split).values()]
        assert texts and {text.split()[0] in DIGITS for text in texts} == {are_digits}


def test_telephone_keeps_length_time_and_low_band():
    rng = np.random.default_rng(0)
    time_secs = np.arange(30001) / synthetic.SAMPLE_RATE
    low = np.sin(2 * np.pi * 700 * time_secs).astype(np.float32)
    high = np.sin(2 * np.pi * 6000 * time_secs).astype(np.float32)
    heard = synthetic.over_the_telephone(low + high, rng)
    assert heard.shape == low.shape and heard.dtype == np.float32
    assert np.corrcoef(heard, high)[0, 1] < 0.01
    spectrum = np.abs(np.fft.rfft(heard))
    assert abs(np.argmax(spectrum) * synthetic.SAMPLE_RATE / len(heard) - 700) < 2


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_evaluation_voices_are_never_heard_in_training(seed):
    train = synthetic.make_speakers(split="train", num_speakers=120, seed=seed)
    evaluation = synthetic.make_speakers(split="eval", num_speakers=12, seed=seed)
    assert {s.variant for s in train}.isdisjoint({s.variant for s in evaluation})
    assert len({s.voice for s in train}) == 120 and len({s.voice for s in evaluation}) == 12
    assert len({s.speaker_id for s in train + evaluation}) == 132
    for speakers, variants in (
        (train, synthetic.TRAIN_VARIANTS),
        (evaluation, synthetic.EVAL_VARIANTS),
    ):
        for sex in "FM":
            chosen = [s.variant for s in speakers if s.sex == sex]
            assert len(chosen) == len(speakers) / 2
            assert set(chosen) == set(variants[sex]), "every variant is heard"
    assert {s.accent for s in train} == set(synthetic.ACCENTS)


def test_too_many_speakers_are_refused():
    assert len(synthetic.make_speakers(split="eval", num_speakers=32, seed=0)) == 32
    with pytest.raises(InputError, match="33 eval speakers requested, wanted 1 to 32"):
        synthetic.make_speakers(split="eval", num_speakers=33, seed=0)


def test_a_finished_corpus_is_reused_and_one_with_other_parameters_refused(tmp_path, monkeypatch):
    folder = make(tmp_path / "a")
    before = digests(folder)

    def fail(**_):
        raise AssertionError("spoken twice")

    monkeypatch.setattr(synthetic, "write_split", fail)
    assert make(tmp_path / "a") == folder
    with pytest.raises(InputError, match="num_train 12 not 13.*seed 0 not 5|seed 0 not 5.*12 not 13"):
        make(tmp_path / "a", num_train=13, seed=5)
    assert digests(folder) == before


def test_a_corpus_of_an_earlier_version_is_reused(tmp_path):
    path = make(tmp_path / "a") / "corpus.json"
    described = json.loads(path.read_text().replace("telephone_ratio", "telephone_share"))
    del described["sentence_ratio"]
    path.write_text(json.dumps(described))
    made = path.stat().st_mtime_ns
    make(tmp_path / "a")
    assert path.stat().st_mtime_ns == made
    with pytest.raises(InputError, match=r"telephone_ratio 0\.\d+ not 0\.9"):
        make(tmp_path / "a", telephone_ratio=0.9)


def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="no readable corpus.json"):
        make(tmp_path / "a")
    assert (tmp_path / "a" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "b").mkdir()  # an empty folder is as good as none
    assert len(read_split(make(tmp_path / "b") / "train")) == 12


def test_interrupted_making_leaves_nothing_and_is_done_anew(tmp_path, monkeypatch):
    write_split = synthetic.write_split

    def interrupted(*, split, **arguments):
        if split == "eval":
            raise KeyboardInterrupt
        return write_split(split=split, **arguments)

    monkeypatch.setattr(synthetic, "write_split", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert len(read_split(make(tmp_path / "a") / "eval")) == 4


def test_remains_of_killed_processes_are_cleared_and_those_of_living_ones_kept(tmp_path):
    dead = tmp_path / f".a.partial-{2**22 + 1}"  # Linux gives no number above 2**22
    ours = tmp_path / f".a.partial-{os.getpid()}"
    living = tmp_path / f".a.partial-{os.getppid()}"
    for folder in (dead, ours, living):
        folder.mkdir()
        (folder / "half.flac").write_bytes(b"half")
    make(tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [living.name, "a"]


def test_a_faster_process_wins_and_the_slower_one_uses_its_corpus(tmp_path, monkeypatch):
    finished = make(tmp_path / "finished")
    before = digests(finished)
    write_split = synthetic.write_split

    def slow(*, split, **arguments):
        duration_secs = write_split(split=split, **arguments)
        if split == "eval":
            finished.rename(tmp_path / "a")
        return duration_secs

    monkeypatch.setattr(synthetic, "write_split", slow)
    assert make(tmp_path / "a") == tmp_path / "a"
    assert digests(tmp_path / "a") == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    "wrong", [{"num_train": 0}, {"num_eval": 0}, {"seed": -1}, {"telephone_ratio": 1.5}, {"sentence_ratio": -0.1}]
)
def test_parameters_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(InputError, match="wanted num_train"):
        make(tmp_path / "a", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_fewer_utterances_than_speakers(tmp_path):
    folder = make(tmp_path / "a", num_train=3, num_eval=1)
    assert len(list((folder / "train").iterdir())) == 3
    assert len(list((folder / "eval").iterdir())) == 1


def test_command_makes_a_corpus_and_states_its_length(tmp_path, capsys):
    output = tmp_path / "deep" / "corpus"
    arguments = [f"--output={output}", "--num_train=2", "--num_eval=2", "--seed=3"]
    assert synthetic.main(arguments) == 0
    assert f"{output / 'eval'}: 0.1 minutes of speech" in capsys.readouterr().out
    assert len(read_split(output / "train")) == 2


def test_command_ends_with_status_2_and_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    assert synthetic.main([f"--output={tmp_path / 'a'}", "--num_train=2"]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "pip install espeakng-loader" in message
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    assert synthetic.main([f"--output={tmp_path / 'file'}"]) == 2
    assert "remove it or choose another output" in capsys.readouterr().err
