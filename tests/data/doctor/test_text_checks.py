"""The checks that need no audio, each on utterances made for it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from data.doctor import text_checks
from data.doctor.text_checks import Corpus
from data.text.tokenizer import FACEBOOK_TOKENS, CharTokenizer

TOKENIZER = CharTokenizer(tokens=FACEBOOK_TOKENS)


def make(texts, secs, *, name="train", ids=None, speakers=None, rates=None, speeds=(1.0,), style="librispeech"):
    source = SimpleNamespace(
        utterance_ids=ids or [f"u{i}" for i in range(len(texts))],
        texts=texts,
        speaker_ids=speakers or [""] * len(texts),
        num_samples=np.round(np.array(secs) * 16_000).astype(np.int64),
        sample_rates=np.array(rates or [16_000] * len(texts)),
    )
    return Corpus.measure(name, source, tokenizer=TOKENIZER, text_normalization=style, speed_factors=speeds)


def codes(findings):
    return {item.code: dict(item.details) for item in findings}


def frames(num_samples):
    """50 a second, the first after 80 samples more."""
    return np.maximum(0, (num_samples - 80) // 320)


def test_texts_that_cannot_be_learned_are_told_apart():
    corpus = make(["HELLO", " ", "...", "MÜLLER", "ROOM 42", "42"], [1] * 6)
    assert codes(text_checks.check_texts(corpus)) == {
        "empty_text": {"u1": "", "u2": "'...'", "u5": "'42'"},
        "unknown_characters": {"u3": "Ü"},
        "lost_digits": {"u4": "'ROOM 42'"},
    }


def test_labels_and_repeats_must_fit_the_frames_exactly():
    # HELLO needs five labels and one blank.
    secs = [(6 * 320 + 80) / 16_000, (6 * 320 + 79) / 16_000]
    found = codes(text_checks.check_fit(make(["HELLO", "HELLO"], secs), frames))
    assert found == {"labels_do_not_fit": {"u1": "5 labels, 1 repeats, 5 frames"}}


def test_too_short_for_one_frame_never_fits():
    assert list(codes(text_checks.check_fit(make(["", "A"], [0.01, 0.01]), frames))["labels_do_not_fit"]) == [
        "u0",
        "u1",
    ]


def test_what_fits_at_slow_speeds_only_is_a_warning():
    secs = (7 * 320 + 80) / 16_000
    assert text_checks.check_fit(make(["HELLO"], [secs]), frames) == []
    found = codes(text_checks.check_fit(make(["HELLO"], [secs], speeds=(0.8, 1.0, 1.25)), frames))
    assert found == {"labels_fit_slow_only": {"u0": "5 labels, 1 repeats, 5 frames"}}


def test_the_odd_rate_out_is_named():
    corpus = make(["A"] * 4, [1] * 4, rates=[16_000, 8_000, 16_000, 44_100])
    assert codes(text_checks.check_sample_rates(corpus)) == {
        "mixed_rates": {"u1": "8,000 Hz, not 16,000", "u3": "44,100 Hz, not 16,000"}
    }
    telephone = make(["A"] * 2, [1] * 2, rates=[8_000, 8_000])
    assert list(codes(text_checks.check_sample_rates(telephone))) == ["resampled"]


def read_aloud(rng, num, *, longest=120):
    """Texts and durations as of reading: fifteen characters a second, a tenth more or less, pauses at the ends."""
    lengths = rng.integers(5, longest, num)
    return ["A B" * (n // 3) + "C" * (n % 3) for n in lengths], (lengths / 15 * rng.lognormal(0, 0.12, num) + 0.4)


def test_a_swapped_pair_of_transcripts_stands_out_of_reading():
    texts, secs = read_aloud(np.random.default_rng(0), 200)
    assert text_checks.check_speaking_rates(make(texts, secs)) == []
    lengths = np.array([len(text) for text in texts])
    longest, shortest = int(lengths.argmax()), int(lengths.argmin())
    texts[longest], texts[shortest] = texts[shortest], texts[longest]
    found = codes(text_checks.check_speaking_rates(make(texts, secs)))
    assert {name: set(details) for name, details in found.items()} == {"speaking_rate": {f"u{longest}", f"u{shortest}"}}


def test_single_words_of_any_speed_are_plausible():
    rng = np.random.default_rng(1)
    texts = [str(word) for word in rng.choice(["ONE", "TWO", "THREE", "SEVEN"], 500)]
    assert text_checks.check_speaking_rates(make(texts, rng.lognormal(np.log(0.42), 0.33, 500))) == []


def test_a_list_shifted_by_one_line_is_one_error():
    texts, secs = read_aloud(np.random.default_rng(2), 200)
    found = codes(text_checks.check_speaking_rates(make(texts[1:] + texts[:1], secs)))
    assert "unrelated_transcripts" in found
    assert "rank correlation" in found["unrelated_transcripts"]["all"]


def test_a_handful_is_too_little_to_judge_rates_by():
    assert text_checks.check_speaking_rates(make(["A"] * 5, [0.1, 0.1, 0.1, 0.1, 60])) == []


def test_left_out_utterances_are_told_by_the_limit_they_miss():
    found = codes(text_checks.check_durations("train", {"a": 0.05, "b": 31.0}, min_secs=0.1, max_secs=20.0))
    assert found == {"too_short": {"a": "0.05 s, limit 0.1 s"}, "too_long": {"b": "31.00 s, limit 20 s"}}


def test_an_id_leaks_only_with_its_audio():
    train = make(["A", "B", "C"], [1, 2, 3], ids=["x", "y", "z"])
    evaluation = make(["A", "B", "C"], [1, 2.5, 3], ids=["x", "y", "other"], name="eval dev")
    assert codes(text_checks.check_ids(train, evaluation)) == {
        "id_leak": {"x": "1.00 s"},
        "shared_id": {"y": "2.50 s, 2.00 s in train"},
    }


def test_speakers_leak_by_utterances_that_did_not_leak_themselves():
    train = make(["A"] * 3, [1] * 3, speakers=["ann", "bob", ""])
    evaluation = make(["A"] * 4, [1] * 4, ids=list("abcd"), speakers=["ann", "ann", "bob", ""], name="eval dev")
    assert codes(text_checks.check_speakers(train, evaluation, {"c"})) == {"speaker_leak": {"ann": "2 utterances"}}
    assert text_checks.check_speakers(train, evaluation, {"a", "b", "c"}) == []


def test_ranks_share_their_mean_among_ties():
    assert text_checks._ranks(np.array([3, 1, 3, 2])).tolist() == pytest.approx([3.5, 1.0, 3.5, 2.0])


@pytest.mark.parametrize(
    ("text", "code", "detail"),
    [
        ("AS I SAID <COMMA> YES <PERIOD>", "markup", "<COMMA> <PERIOD>"),
        ("well [laughter] <unk> (um) {noise}", "markup", "[laughter] <unk> (um) {noise}"),
        ("\uff08\u7b11\uff09 \u597d", "markup", "(\u7b11)"),
        ("nan", "missing_cells", "'nan'"),
        (" NaN ", "missing_cells", "' NaN '"),
        ("FIFTY % OF 5 \u20ac AT AT&T", "lost_symbols", "% & \u20ac"),
        ("HALF OR \u00bd", "lost_symbols", "\u00bd"),
        ("HELLO,s1\na.wav,YES", "line_breaks", "'HELLO,s1\\na.wav,YES'"),
    ],
)
def test_texts_that_are_not_what_is_said_are_named(text, code, detail):
    corpus = make([text, "HELLO, NAN: 3 < 4 > 2 NONE"], [1, 1], style="unicode" if code == "markup" else "librispeech")
    found = codes(text_checks.check_texts(corpus))
    for other in ("unknown_characters", "lost_digits"):
        found.pop(other, None)
    assert found == {code: {"u0": detail}}


def test_digits_of_a_style_that_keeps_them_lose_no_symbol_twice():
    assert "lost_symbols" not in codes(text_checks.check_texts(make(["\u00b2"], [1])))
    assert "lost_digits" in codes(text_checks.check_texts(make(["A \u00b2"], [1])))


def test_characters_that_are_read_otherwise_are_named_once_with_what_they_become():
    texts = ["IT\u2019S", "IT\u2019S CAFE\u0301", "\uff21\u00a0B", "WELL-KNOWN", "SO\u00adFT \ufb01 \u00df", "it's"]
    (finding,) = text_checks.check_writing(make(texts, [1] * len(texts)))
    assert (finding.code, finding.severity) == ("read_otherwise", "note")
    assert dict(finding.details) == {
        "\u2019": "read as '; 2 texts, first u0",
        "E U+0045 + U+0301 COMBINING ACUTE ACCENT": "read as \u00c9; 1 text, first u1",
        "\uff21": "read as A; 1 text, first u2",
        "\ufb01": "read as FI; 1 text, first u4",
        "\u00df": "read as SS; 1 text, first u4",
        "U+00A0 NO-BREAK SPACE": "dropped, a space in its place; 1 text, first u2",
        "-": "dropped, a space in its place; 1 text, first u3",
        "U+00AD SOFT HYPHEN": "dropped; 1 text, first u4",
    }
    assert list(finding.details)[0] == "\u2019"


def test_without_a_style_the_word_delimiter_alone_is_read_otherwise_and_the_rest_unknown():
    corpus = make(["A|B", "IT\u2019S", "CAFE\u0301", "A\u00a0B"], [1] * 4, style="none")
    assert codes(text_checks.check_writing(corpus)) == {
        "read_otherwise": {"|": "dropped, a space in its place; 1 text, first u0"}
    }
    assert codes(text_checks.check_texts(corpus))["unknown_characters"] == {
        "u1": "\u2019", "u2": "U+0301 COMBINING ACUTE ACCENT", "u3": "U+00A0 NO-BREAK SPACE",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "is_unspaced"),
    [
        ("\u4eca\u5929\u5929\u6c14\u5f88\u597d\u6211\u4eec\u53bb\u516c\u56ed\u73a9", True),
        ("\u4eca\u5929 \u5929\u6c14 \u5f88\u597d \u6211\u4eec \u53bb \u516c\u56ed", False),
        ("\u4eca\u65e5\u306f\u3068\u3066\u3082\u3044\u3044\u5929\u6c17\u3067\u3059\u306d", True),
        ("\u0e27\u0e31\u0e19\u0e19\u0e35\u0e49\u0e2d\u0e32\u0e01\u0e32\u0e28\u0e14\u0e35\u0e21\u0e32\u0e01", True),
        ("\u0e27\u0e31\u0e19 \u0e19\u0e35\u0e49 \u0e2d\u0e32\u0e01\u0e32\u0e28 \u0e14\u0e35", False),
        ("\u5de6\u8fb9", False),  # a command of one word
        ("\u0440\u0435\u043d\u0442\u0433\u0435\u043d\u043e\u044d\u043b\u0435\u043a\u0442\u0440\u043e", False),
        ("\uc548\ub155\ud558\uc138\uc694 \ubc18\uac11\uc2b5\ub2c8\ub2e4", False),
        ("ANTIDISESTABLISHMENTARIANISM", False),
    ],
)
def test_text_without_spaces_between_words_is_told_with_what_it_means(text, is_unspaced):
    found = [
        item for item in text_checks.check_writing(make([text] * 3, [3] * 3, style="unicode")) if item.code[0] == "u"
    ]
    assert [item.code for item in found] == ["unspaced_text"] * is_unspaced
    if is_unspaced:
        assert "CER" in found[0].line() and "WER 100 %" in found[0].line()


def test_durations_that_contradict_the_files_are_named():
    corpus = make(["A", "B"], [1, 1])
    assert text_checks.check_listed_durations(corpus) == []
    corpus.source.duration_conflicts = {"u1": "9 s listed, 1 s in the file"}
    assert codes(text_checks.check_listed_durations(corpus)) == {
        "wrong_duration": {"u1": "9 s listed, 1 s in the file"}
    }


def test_a_character_that_a_long_set_has_once_or_twice_is_named_with_its_utterance():
    texts = ["HELLO WORLD"] * 999 + ["QUIZ", "ZOO", "\u00c4"]
    corpus = make(texts, [5] * len(texts))
    assert codes(text_checks.check_rare_characters(corpus, TOKENIZER)) == {
        "rare_characters": {
            "I": "once, first u999", "Q": "once, first u999", "U": "once, first u999", "Z": "twice, first u999",
        }
    }  # fmt: skip
    few = make(texts[-100:], [5] * 100)
    assert text_checks.check_rare_characters(few, TOKENIZER) == []


def test_the_style_decides_what_digits_and_markup_are():
    texts = ["ROOM 42 <noise>", "YES <noise> [laughter]", "(UM) NO"]

    def found(style):
        corpus = make(texts, [1] * 3, style=style)
        every = codes([*text_checks.check_texts(corpus), *text_checks.check_writing(corpus)])
        names = ("lost_digits", "kept_digits", "markup", "dropped_markup")
        return {name: list(every[name].items()) for name in names if name in every}

    markup = [("u0", "<noise>"), ("u1", "<noise> [laughter]"), ("u2", "(UM)")]
    assert found("librispeech") == {"lost_digits": [("u0", "'ROOM 42 <noise>'")], "markup": markup}
    assert found("unicode") == {"kept_digits": [("u0", "'ROOM 42 <noise>'")], "markup": markup}
    assert found("librispeech+numbers+drop_markup=<>[]") == {
        "markup": [("u2", "(UM)")],
        "dropped_markup": [("<noise>", "2 texts, first u0"), ("[laughter]", "1 text, first u1")],
    }


def test_the_advice_about_digits_and_markup_is_an_option_of_the_style():
    corpus = make(["ROOM 42 <noise>"], [1])
    advice = {item.code: item.line() for item in text_checks.check_texts(corpus)}
    assert "--config.data.text_normalization=librispeech+numbers" in advice["lost_digits"]
    assert "+drop_markup" in advice["markup"]


def test_characters_within_dropped_markup_are_not_read_otherwise():
    corpus = make(["YES <noise>"], [1], style="unicode+drop_markup")
    assert "read_otherwise" not in codes(text_checks.check_writing(corpus))
