"""What training refuses before its first update, and what it only says."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from data.common.errors import InputError
from data.corpus.sources import Span
from data.doctor.preflight import check_before_training
from data.text.tokenizer import FACEBOOK_TOKENS, CharTokenizer

SENTENCE = "THE QUICK BROWN FOX"


def make_data(texts, *, secs=2.0, prefix="t", speakers=None):
    source = SimpleNamespace(
        utterance_ids=[f"{prefix}{i}" for i in range(len(texts))],
        texts=texts,
        speaker_ids=speakers or [""] * len(texts),
        num_samples=np.full(len(texts), round(secs * 16_000)),
        sample_rates=np.full(len(texts), 16_000),
    )
    return SimpleNamespace(source=source, corpora={"train": SimpleNamespace(source=source)}, made_vocab=False)


def check(train, **options):
    options = {"eval_data": {}, "text_normalization": "librispeech", **options}
    return check_before_training(
        train_data=train, tokenizer=CharTokenizer(tokens=FACEBOOK_TOKENS), frames_fn=lambda n: n // 320, **options
    )


def test_clean_data_passes_in_silence(caplog):
    evaluation = {"dev": make_data([SENTENCE] * 3, prefix="e", speakers=["zoe"] * 3)}
    with caplog.at_level(logging.WARNING):
        assert check(make_data([SENTENCE] * 20, speakers=["ann"] * 20), eval_data=evaluation) == []
    assert caplog.text == ""


def test_a_vocabulary_of_the_other_case_is_refused():
    with pytest.raises(InputError, match=r"84\.2 % of the characters .* not in the vocabulary \(.*data\.vocab"):
        check(make_data([SENTENCE.lower()] * 20), text_normalization="none")


def test_a_rare_foreign_letter_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        (finding,) = check(make_data([SENTENCE] * 19 + ["MÜLLER"]))
    assert finding.code == "unknown_characters"
    assert "t19 (Ü)" in caplog.text


def test_a_kept_head_keeps_its_vocabulary(caplog):
    foreign, rare = make_data([SENTENCE.lower()] * 20), make_data([SENTENCE] * 19 + ["MÜLLER"])
    with pytest.raises(
        InputError, match=r"model\.init_head=True keeps the head .* choose data\.text_normalization"
    ) as kept:
        check(foreign, text_normalization="none", keeps_head=True)
    assert "make a vocabulary" not in str(kept.value) and str(kept.value).endswith("--mode=doctor lists them all")
    with caplog.at_level(logging.WARNING):
        check(rare, keeps_head=True)
    assert "t19 (Ü). To do: model.init_head=True keeps the head" in caplog.text
    assert "make a vocabulary" not in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        check(rare)
    assert "t19 (Ü). To do: make a vocabulary with python -m data.vocab" in caplog.text


def test_transcripts_that_mostly_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"3 of 20 training utterances .* more labels than frames, first t17"):
        check(make_data([SENTENCE] * 17 + [SENTENCE * 10] * 3))
    assert [item.code for item in check(make_data([SENTENCE] * 18 + [SENTENCE * 10] * 2))] == ["labels_do_not_fit"]


def test_transcripts_of_nothing_but_digits_are_refused():
    with pytest.raises(InputError, match="20 of 20 training utterances have no text"):
        check(make_data(["1 2 3"] * 20))


def test_evaluating_on_training_utterances_must_be_allowed():
    train = make_data([SENTENCE] * 20, speakers=["ann"] * 20)
    same = {"same": make_data([SENTENCE] * 2)}
    with pytest.raises(InputError, match=r"eval same: 2: .*same id.*t0 .*data\.allow_train_eval_overlap"):
        check(train, eval_data=same)
    findings = check(train, eval_data=same, allow_train_eval_overlap=True)
    assert [(item.code, item.severity) for item in findings] == [("id_leak", "note")]


def test_a_speaker_on_both_sides_is_a_warning(caplog):
    train = make_data([SENTENCE] * 20, speakers=["ann"] * 20)
    with caplog.at_level(logging.WARNING):
        check(train, eval_data={"dev": make_data([SENTENCE], prefix="e", speakers=["ann"])})
    assert "ann (1 utterances)" in caplog.text


def test_a_duration_that_contradicts_its_file_is_a_warning_of_training_and_evaluation(caplog):
    train, dev = make_data([SENTENCE] * 20), make_data([SENTENCE], prefix="e")
    train.source.duration_conflicts = {"t3": "2.2 s listed, 4.2 s in the file"}
    dev.source.duration_conflicts = {"e0": "1 s listed, 2 s in the file"}
    with caplog.at_level(logging.WARNING):
        findings = check(train, eval_data={"dev": dev})
    assert [(item.code, item.where) for item in findings] == [
        ("wrong_duration", "train"), ("wrong_duration", "eval dev"),
    ]  # fmt: skip
    assert "t3 (2.2 s listed, 4.2 s in the file)" in caplog.text


def test_markup_is_a_warning_of_training(caplog):
    with caplog.at_level(logging.WARNING):
        (finding,) = check(make_data([SENTENCE] * 19 + [f"{SENTENCE} <PERIOD>"]))
    assert finding.code == "markup" and "t19 (<PERIOD>)" in caplog.text


@pytest.mark.parametrize("made_vocab", [True, False])
def test_rare_characters_are_a_warning_of_a_vocabulary_that_was_made_of_the_texts(caplog, made_vocab):
    train = make_data([SENTENCE] * 600 + [f"{SENTENCE} JAZZ"])
    train.made_vocab = made_vocab
    with caplog.at_level(logging.WARNING):
        found = check(train)
    assert [item.code for item in found] == ["rare_characters"] * made_vocab
    assert ("J (once, first t600)" in caplog.text) == made_vocab


def several(**corpora):
    """Training data of several corpora with the same ids, whose first is called train."""
    parts = {name: one.corpora["train"] for name, one in corpora.items()}
    return SimpleNamespace(source=None, corpora=parts, made_vocab=False)


def test_of_several_corpora_each_is_checked_by_itself_and_named():
    good, small = make_data([SENTENCE] * 200), make_data([SENTENCE.lower()] * 3)
    with pytest.raises(InputError, match=r"of the characters of the training set calls are not in the vocabulary"):
        check(several(train=good, calls=small), text_normalization="none")
    with pytest.raises(InputError, match=r"3 of 3 training utterances of calls have no text .* first t0"):
        check(several(train=good, calls=make_data([""] * 3)))


def test_an_evaluation_set_is_looked_for_in_every_corpus_by_its_own_ids(caplog):
    good, other = make_data([SENTENCE] * 20), make_data([SENTENCE] * 3, prefix="x", speakers=["ann"] * 3, secs=2.5)
    dev = {"dev": make_data([SENTENCE] * 2, prefix="x", secs=2.5)}
    with pytest.raises(InputError, match=r"eval dev: 2: .*same id.*x0"):
        check(several(train=good, calls=other), eval_data=dev)
    with caplog.at_level(logging.WARNING):
        check(several(train=good, calls=other), eval_data={"dev": make_data([SENTENCE], prefix="e", speakers=["ann"])})
    assert "ann (1 utterances)" in caplog.text


def test_utterances_that_two_training_corpora_share_are_one_warning(caplog):
    first, copy = make_data([SENTENCE] * 20), make_data([SENTENCE] * 3)
    named_alike, other = make_data([SENTENCE] * 3, secs=2.5), make_data([SENTENCE] * 3, prefix="x")
    with caplog.at_level(logging.WARNING):
        found = check(several(train=first, copy=copy, alike=named_alike, other=other))
    assert [(item.code, item.where, item.count) for item in found] == [("shared_utterances", "train copy", 3)]
    (line,) = caplog.messages
    assert line.startswith("train copy: 3: utterances that an earlier training corpus has, too: t0 (in train: 2.00 s)")


def test_overlapping_segments_of_one_recording_in_two_training_corpora_are_named(caplog):
    first, second = make_data([SENTENCE] * 2), make_data([SENTENCE] * 2, prefix="x", secs=3.0)
    rate = 16_000
    first.source.spans = [Span("/r.wav", None, start * rate, 2 * rate, rate) for start in (0, 10)]
    second.source.spans = [Span("/r.wav", None, start * rate, 3 * rate, rate) for start in (5, 11)]
    with caplog.at_level(logging.WARNING):
        (finding,) = check(several(train=first, more=second))
    assert finding.details == {"x1": "in train: 1.00 s of it are in t1"}
