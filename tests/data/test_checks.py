"""The checks that need no audio, each on utterances made for it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from data import checks
from data.checks import Corpus
from data.text import FACEBOOK_TOKENS, CharTokenizer

TOKENIZER = CharTokenizer(tokens=FACEBOOK_TOKENS)


def make(texts, secs, *, name="train", ids=None, speakers=None, rates=None, speeds=(1.0,), style="librispeech"):
    source = SimpleNamespace(
        utterance_ids=ids or [f"u{i}" for i in range(len(texts))],
        texts=texts,
        speaker_ids=speakers or [""] * len(texts),
        num_samples=np.round(np.array(secs) * 16_000).astype(np.int64),
        sample_rates=np.array(rates or [16_000] * len(texts)),
    )
    return Corpus.measure(name, source, tokenizer=TOKENIZER, text_style=style, speed_factors=speeds)


def codes(findings):
    return {item.code: dict(item.details) for item in findings}


def frames(num_samples):
    """50 a second, the first after 80 samples more."""
    return np.maximum(0, (num_samples - 80) // 320)


def test_texts_that_cannot_be_learned_are_told_apart():
    corpus = make(["HELLO", " ", "...", "MÜLLER", "ROOM 42", "42"], [1] * 6)
    assert codes(checks.check_texts(corpus)) == {
        "empty_text": {"u1": "", "u2": "'...'", "u5": "'42'"},
        "unknown_characters": {"u3": "Ü"},
        "lost_digits": {"u4": "'ROOM 42'"},
    }


def test_labels_and_repeats_must_fit_the_frames_exactly():
    # HELLO needs five labels and one blank.
    secs = [(6 * 320 + 80) / 16_000, (6 * 320 + 79) / 16_000]
    found = codes(checks.check_fit(make(["HELLO", "HELLO"], secs), frames))
    assert found == {"labels_do_not_fit": {"u1": "5 labels, 1 repeats, 5 frames"}}


def test_too_short_for_one_frame_never_fits():
    assert list(codes(checks.check_fit(make(["", "A"], [0.01, 0.01]), frames))["labels_do_not_fit"]) == ["u0", "u1"]


def test_what_fits_at_slow_speeds_only_is_a_warning():
    secs = (7 * 320 + 80) / 16_000
    assert checks.check_fit(make(["HELLO"], [secs]), frames) == []
    found = codes(checks.check_fit(make(["HELLO"], [secs], speeds=(0.8, 1.0, 1.25)), frames))
    assert found == {"labels_fit_slow_only": {"u0": "5 labels, 1 repeats, 5 frames"}}


def test_the_odd_rate_out_is_named():
    corpus = make(["A"] * 4, [1] * 4, rates=[16_000, 8_000, 16_000, 44_100])
    assert codes(checks.check_sample_rates(corpus)) == {
        "mixed_rates": {"u1": "8,000 Hz, not 16,000", "u3": "44,100 Hz, not 16,000"}
    }
    telephone = make(["A"] * 2, [1] * 2, rates=[8_000, 8_000])
    assert list(codes(checks.check_sample_rates(telephone))) == ["resampled"]


def read_aloud(rng, num, *, longest=120):
    """Texts and durations as of reading: fifteen characters a second, a tenth more or less, pauses at the ends."""
    lengths = rng.integers(5, longest, num)
    return ["A B" * (n // 3) + "C" * (n % 3) for n in lengths], (lengths / 15 * rng.lognormal(0, 0.12, num) + 0.4)


def test_a_swapped_pair_of_transcripts_stands_out_of_reading():
    texts, secs = read_aloud(np.random.default_rng(0), 200)
    assert checks.check_speaking_rates(make(texts, secs)) == []
    lengths = np.array([len(text) for text in texts])
    longest, shortest = int(lengths.argmax()), int(lengths.argmin())
    texts[longest], texts[shortest] = texts[shortest], texts[longest]
    found = codes(checks.check_speaking_rates(make(texts, secs)))
    assert {name: set(details) for name, details in found.items()} == {"speaking_rate": {f"u{longest}", f"u{shortest}"}}


def test_single_words_of_any_speed_are_plausible():
    rng = np.random.default_rng(1)
    texts = [str(word) for word in rng.choice(["ONE", "TWO", "THREE", "SEVEN"], 500)]
    assert checks.check_speaking_rates(make(texts, rng.lognormal(np.log(0.42), 0.33, 500))) == []


def test_a_list_shifted_by_one_line_is_one_error():
    texts, secs = read_aloud(np.random.default_rng(2), 200)
    found = codes(checks.check_speaking_rates(make(texts[1:] + texts[:1], secs)))
    assert "unrelated_transcripts" in found
    assert "rank correlation" in found["unrelated_transcripts"]["all"]


def test_a_handful_is_too_little_to_judge_rates_by():
    assert checks.check_speaking_rates(make(["A"] * 5, [0.1, 0.1, 0.1, 0.1, 60])) == []


def test_left_out_utterances_are_told_by_the_limit_they_miss():
    found = codes(checks.check_durations("train", {"a": 0.05, "b": 31.0}, min_secs=0.1, max_secs=20.0))
    assert found == {"too_short": {"a": "0.05 s, limit 0.1 s"}, "too_long": {"b": "31.00 s, limit 20 s"}}


def test_an_id_leaks_only_with_its_audio():
    train = make(["A", "B", "C"], [1, 2, 3], ids=["x", "y", "z"])
    evaluation = make(["A", "B", "C"], [1, 2.5, 3], ids=["x", "y", "other"], name="eval dev")
    assert codes(checks.check_ids(train, evaluation)) == {
        "id_leak": {"x": "1.00 s"},
        "shared_id": {"y": "2.50 s, 2.00 s in train"},
    }


def test_speakers_leak_by_utterances_that_did_not_leak_themselves():
    train = make(["A"] * 3, [1] * 3, speakers=["ann", "bob", ""])
    evaluation = make(["A"] * 4, [1] * 4, ids=list("abcd"), speakers=["ann", "ann", "bob", ""], name="eval dev")
    assert codes(checks.check_speakers(train, evaluation, {"c"})) == {"speaker_leak": {"ann": "2 utterances"}}
    assert checks.check_speakers(train, evaluation, {"a", "b", "c"}) == []


def test_ranks_share_their_mean_among_ties():
    assert checks._ranks(np.array([3, 1, 3, 2])).tolist() == pytest.approx([3.5, 1.0, 3.5, 2.0])
