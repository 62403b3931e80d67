"""Transcripts in the styles of normalization: scripts, digits, options, and the style that fits a corpus."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.text.normalization import choose_text_normalization, has_digits, normalize_transcript


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("Hello,  world!", "HELLO WORLD"),
        ("don\u2019t `bout rock \u00b4n\u2018 roll", "DON'T 'BOUT ROCK 'N' ROLL"),
        ("a well-known \u201cword\u201d \u2014 yes", "A WELL KNOWN WORD YES"),
        ("' lone ''", "LONE"),
        ("Stra\u00dfe \ufb01ne caf\u00e9 cafe\u0301", "STRASSE FINE CAF\u00c9 CAF\u00c9"),
        ("so\u00adft\ufeff", "SOFT"),
        ("\u0149t", "'NT"),
        ("room 12 b", "ROOM B"),
        ("ONE", "ONE"),
        ("\t \n", ""),
    ],
)
def test_librispeech_style(raw: str, wanted: str) -> None:
    assert normalize_transcript(raw) == wanted


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("Hello,  World! It\u2019s 'quoted' 5\u20ac", "hello world it's quoted 5"),
        ("STRASSE stra\u00dfe", "strasse stra\u00dfe"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940\u0964", "\u0939\u093f\u0928\u094d\u0926\u0940"),
        ("rock'n'roll -- a_b", "rock'n'roll a b"),
        ("\uff11\uff12", "12"),
        # Danda and digits; joiners
        (
            "\u0928\u092e\u0938\u094d\u0924\u0947, \u0915\u094d\u200d\u092f\u093e\u0964 \u0967\u0968",
            "\u0928\u092e\u0938\u094d\u0924\u0947 \u0915\u094d\u092f\u093e \u0967\u0968",
        ),
        # Arabic: vowel marks stay; comma, question mark, tatweel and direction marks go
        (
            "\u200f\u0645\u064e\u0631\u0652\u062d\u0640\u0640\u0628\u064b\u0627\u060c "
            "\u0643\u064a\u0641\u061f \u0640\u0640\u200e",
            "\u0645\u064e\u0631\u0652\u062d\u0628\u064b\u0627 \u0643\u064a\u0641",
        ),
        # Persian half-space joins
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.", "\u0645\u06cc\u062e\u0648\u0627\u0647\u0645"),
        ("\u4f60\u597d\uff0c\u4e16\u754c\uff01", "\u4f60\u597d \u4e16\u754c"),
        ("\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd!", "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd"),
        # Katakana of half width; its middle dot parts words
        ("\uff7a\uff70\uff8b\uff70\u30fb\u6771\u4eac", "\u30b3\u30fc\u30d2\u30fc \u6771\u4eac"),
        # Marks that compose and one that cannot; Vietnamese, Yoruba
        ("e\u0301 a\u0328\u0301 x\u0323", "\u00e9 \u0105\u0301 x\u0323"),
        ("TI\u1ebeNG \u1eb8\u0300k\u1ecd\u0301", "ti\u1ebfng \u1eb9\u0300k\u1ecd\u0301"),
        # Turkish capitals; final sigma; Georgian and Deseret capitals
        ("\u0130stanbul", "istanbul"),
        ("\u039f\u0394\u03a5\u03a3\u03a3\u0395\u03a5\u03a3", "\u03bf\u03b4\u03c5\u03c3\u03c3\u03b5\u03c5\u03c2"),
        ("\u1c97\u1c91 \U00010400", "\u10d7\u10d1 \U00010428"),
        # Emoji leave no variation selector, keycap or lone mark behind
        ("ok \u2764\ufe0f 1\ufe0f\u20e3 \U0001f469\u200d\U0001f467 \u263a\u0301 yes", "ok 1 yes"),
    ],
)
def test_unicode_style(raw: str, wanted: str) -> None:
    assert normalize_transcript(raw, "unicode") == wanted


def test_none_style_changes_nothing_and_others_are_refused() -> None:
    assert normalize_transcript(" As  is\u2019", "none") == " As  is\u2019"
    with pytest.raises(ValueError, match="text normalization is 'whisper'"):
        normalize_transcript("a", "whisper")


@settings(max_examples=400, deadline=None)
@example("\u01f0\u0345\u1fb3", "librispeech")
@example("A\u2060\u0301", "unicode")
@example("\u0130\u03a3.\u03a3", "unicode")
@given(st.text(), st.sampled_from(["librispeech", "unicode"]))
def test_normalization_is_idempotent_and_collapsed(raw: str, style: str) -> None:
    once = normalize_transcript(raw, style)
    assert normalize_transcript(once, style) == once
    assert once == " ".join(once.split())


@given(st.text(st.characters(max_codepoint=127)), st.sampled_from(["librispeech", "unicode"]))
@example("'tis rock'n'roll, isn't it? `ok` '' 7\x1f7\x00", "unicode")
@example("'tis rock'n'roll, isn't it? `ok` '' 7\x1f7\x00", "librispeech")
def test_ascii_takes_a_short_way_to_the_same_words(raw: str, style: str) -> None:
    # A word that is no ASCII sends the whole text the long way.
    word = normalize_transcript("\u00e9", style)
    assert normalize_transcript(f"{raw} \u00e9", style) == f"{normalize_transcript(raw, style)} {word}".strip()


def test_digits_are_found() -> None:
    assert has_digits("room 12")
    assert not has_digits("room twelve")


@pytest.mark.parametrize(
    ("texts", "style"),
    [
        (["HELLO, WORLD!", "DON\u2019T \u2014 STOP"], "librispeech"),
        (["HELLO", "hello"], "unicode"),
        (["HABARI", "ROOM 12"], "unicode"),
        (["\u0928\u092e\u0938\u094d\u0924\u0947 \u0967\u0968"], "unicode"),
        (["GROSS", "GR\u00d6SSE"], "unicode"),
        (["...", ""], "unicode"),
        ([], "unicode"),
    ],
)
def test_the_style_that_loses_nothing_of_a_corpus_is_chosen(texts: list[str], style: str) -> None:
    assert choose_text_normalization(texts) == style


@given(st.lists(st.text(max_size=20), max_size=5))
def test_the_chosen_style_drops_no_letter_and_no_digit(texts: list[str]) -> None:
    style = choose_text_normalization(texts)
    assert choose_text_normalization(reversed(texts)) == style
    for text in texts if style == "librispeech" else ():
        kept = normalize_transcript(text, style)
        assert [c for c in kept if c.isalnum()] == [c for c in text if c.isalnum()]


@pytest.mark.parametrize(
    ("raw", "style", "wanted"),
    [
        ("Yes, Sir! It's 5 %.", "unicode+keep_case", "Yes Sir It's 5"),
        ("Yes, Sir! It's 5 %.", "unicode+keep_punctuation", "yes, sir! it's 5 %."),
        ("Yes, Sir!", "unicode+keep_case+keep_punctuation", "Yes, Sir!"),
        ("  Bonjour !  ", "unicode+keep_punctuation", "bonjour !"),
        ("?! ...", "unicode+keep_punctuation", ""),
        ("D\u2019accord \u2013 oui", "unicode+keep_case+keep_punctuation", "D'accord \u2013 oui"),
    ],
)
def test_case_and_punctuation_can_be_kept(raw: str, style: str, wanted: str) -> None:
    assert normalize_transcript(raw, style) == wanted
    assert normalize_transcript(wanted, style) == wanted


_OPTIONED = [
    "librispeech+drop_markup", "librispeech+language=tr", "librispeech+language=lt", "unicode+keep_case",
    "unicode+keep_punctuation", "unicode+keep_case+keep_punctuation+drop_markup=<>",
    "unicode+language=az+keep_punctuation",
    "unicode+language=lt", "librispeech+numbers", "none+language=en+numbers+drop_markup", "unicode+language=de+numbers",
]  # fmt: skip


@given(raw=st.text(max_size=30), style=st.sampled_from(_OPTIONED))
@settings(max_examples=400, deadline=None)
def test_every_style_with_options_is_idempotent(raw: str, style: str) -> None:
    once = normalize_transcript(raw, style)
    assert normalize_transcript(once, style) == once


@pytest.mark.parametrize("style", ["auto", "auto+language=tr", "unicode+bogus", "x"])
def test_a_style_that_nobody_chose_is_refused(style: str) -> None:
    with pytest.raises(ValueError, match="text normalization is '"):
        normalize_transcript("a", style)


@pytest.mark.parametrize(
    ("texts", "style", "chosen"),
    [
        (["HELLO"], "auto+drop_markup", "librispeech+drop_markup"),
        (["HELLO <noise>"], "auto+drop_markup", "librispeech+drop_markup"),
        (["HELLO <noise>"], "auto", "unicode"),
        (["ROOM 42"], "auto+language=en+numbers", "librispeech+language=en+numbers"),
        (["Room 42"], "auto+language=en+numbers", "unicode+language=en+numbers"),
        (["HELLO"], "auto+keep_case", "unicode+keep_case"),
    ],
)
def test_auto_chooses_for_the_texts_as_its_options_leave_them(texts: list[str], style: str, chosen: str) -> None:
    assert choose_text_normalization(texts, style) == chosen
