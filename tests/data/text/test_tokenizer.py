"""Transcript normalization and the character tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.common.errors import InputError
from data.text import tokenizer as text_module
from data.text.tokenizer import (
    FACEBOOK_TOKENS,
    CharTokenizer,
    build_vocab,
    choose_text_normalization,
    normalize_transcript,
)

LIBRISPEECH = Path(__file__).parents[4] / "shared" / "corpora" / "LibriSpeech"


def test_facebook_tokens_are_the_published_32() -> None:
    assert len(FACEBOOK_TOKENS) == 32
    assert " ".join(FACEBOOK_TOKENS) == ("<pad> <s> </s> <unk> | E T A O N I H S R D L U M W C F G Y P B V K ' X J Q Z")


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


SCRIPTS = (
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "\u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u4f60\u597d \u4e16\u754c",
    "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd",
    "x\u0323\u0302 a\u0328\u0301",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \uc548\ub155 \U00010428",
)


def test_any_script_goes_to_tokens_and_back(tmp_path: Path) -> None:
    texts = [normalize_transcript(text, "unicode") for text in SCRIPTS]
    CharTokenizer(tokens=build_vocab(texts)).save(tmp_path / "vocab.json")
    tokenizer = CharTokenizer.from_file(tmp_path / "vocab.json")
    assert all(len(token) == 1 for token in tokenizer.tokens[5:])
    for text in texts:
        assert tokenizer.unknown_characters(text) == set()
        ids = tokenizer.encode(text)
        assert len(ids) == len(text)  # a label is a code point: marks count for CTC
        assert tokenizer.decode(ids) == text


@given(st.text(max_size=40))
@example("\u2764\ufe0f")
@example("a\U000e0101\u0301")
def test_vocabulary_of_a_text_covers_it(raw: str) -> None:
    text = normalize_transcript(raw, "unicode")
    if not text:
        return
    tokenizer = CharTokenizer(tokens=build_vocab([text]))
    assert tokenizer.decode(tokenizer.encode(text)) == text


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
    assert text_module.has_digits("room 12")
    assert not text_module.has_digits("room twelve")


def test_tokenizer_goes_there_and_back() -> None:
    tokenizer = CharTokenizer(tokens=FACEBOOK_TOKENS)
    assert (tokenizer.num_tokens, tokenizer.blank_id) == (32, 0)
    assert tokenizer.encode("HE 'S") == [11, 5, 4, 27, 12]
    assert tokenizer.decode([11, 5, 4, 27, 12]) == "HE 'S"
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode([4, 4, 0, 1, 11, 4, 4, 3, 2, 11, 4]) == "H H"


def test_labels_are_counted_without_making_them() -> None:
    tokenizer = CharTokenizer(tokens=FACEBOOK_TOKENS)
    for text in ("", "A", "IT'S A \u00c9TUDE", "|"):
        assert tokenizer.num_labels(text) == len(tokenizer.encode(text))


def test_unknown_characters_become_unk_and_are_listed() -> None:
    tokenizer = CharTokenizer(tokens=FACEBOOK_TOKENS)
    assert tokenizer.encode("C\u00c9") == [19, 3]
    assert tokenizer.unknown_characters("C\u00c9 1") == {"\u00c9", "1"}
    assert tokenizer.unknown_characters("HE 'S") == set()


@pytest.mark.parametrize("index", [-1, 32])
def test_decode_refuses_ids_outside_the_vocabulary(index: int) -> None:
    with pytest.raises(ValueError, match=f"token id {index}, wanted 0 to 31"):
        CharTokenizer(tokens=FACEBOOK_TOKENS).decode([index])


def test_saved_vocabulary_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    CharTokenizer(tokens=FACEBOOK_TOKENS).save(path)
    assert json.loads(path.read_text())["|"] == 4
    assert CharTokenizer.from_file(path).tokens == FACEBOOK_TOKENS


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not valid JSON"),
        ('{"<pad>": ' + "[" * 100_000, "nested too deeply"),
        ('{"<pad>": 0, "\\ud800": 1}', "half of a surrogate pair"),
        ("[]", "not a JSON object"),
        ('{"<pad>": "0"}', "not an object"),
        ('{"<pad>": 0, "<unk>": 2, "|": 3}', "ids in .* are not 0 to 2"),
        ('{"|": 0, "A": 1, "<unk>": 2}', "CTC blank .* name it as pad_token in tokenizer_config.json .* keeps its id"),
        ('{"<pad>": 0, "<unk>": 1, "|": 2, "": 3}', "empty or repeated"),
    ],
)
def test_bad_vocabularies_are_named(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(content)
    with pytest.raises(InputError, match=reason) as caught:
        CharTokenizer.from_file(path)
    assert str(path) in str(caught.value)


def test_absent_vocabulary_and_repeated_token(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no vocabulary"):
        CharTokenizer.from_file(tmp_path / "vocab.json")
    with pytest.raises(InputError, match="'A' is empty or repeated"):
        CharTokenizer(tokens=("<pad>", "<unk>", "|", "A", "A"))


def write_vocab(folder: Path, tokens: str | list[str], **fields: object) -> Path:
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    if fields:
        (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    return folder / "vocab.json"


@pytest.mark.parametrize(
    ("tokens", "fields", "blank"),
    [
        ("A B | [UNK] [PAD]", {}, 4),
        ("| A B <unk> <pad>", {}, 4),
        ("A B <blank> | <unk>", {}, 2),
        ("<pad> A B | [UNK] <ctc>", {"pad_token": "<ctc>", "unk_token": "[UNK]"}, 5),
        ("A - B | <unk>", {"pad_token": {"content": "-"}}, 1),
    ],
)
def test_the_blank_is_what_the_vocabulary_says_and_every_id_stays(
    tmp_path: Path, tokens: str, fields: dict[str, object], blank: int
) -> None:
    names = tokens.split(" ")
    tokenizer = CharTokenizer.from_file(write_vocab(tmp_path, names, **fields))
    assert (tokenizer.blank_id, tokenizer.tokens) == (blank, tuple(names))
    assert tokenizer.token_strings[blank] == ""
    wanted = [names.index(token) for token in "A|B"]
    assert tokenizer.encode("A B") == wanted
    assert tokenizer.decode([blank, *wanted, blank]) == "A B"
    # Whatever it looks like, no text has the blank as a label.
    assert blank not in tokenizer.encode("A-B <pad>") and "-" in tokenizer.unknown_characters("A-B")
    # The roles travel with the file.
    (tmp_path / "run").mkdir()
    tokenizer.save(tmp_path / "run" / "vocab.json")
    again = CharTokenizer.from_file(tmp_path / "run" / "vocab.json")
    assert (again.blank_id, again.unknown_id, again.token_strings) == (
        blank,
        tokenizer.unknown_id,
        tokenizer.token_strings,
    )
    assert (tmp_path / "run" / "tokenizer_config.json").exists() == (blank in (1, 5))


def test_roles_of_an_older_vocabulary_at_the_same_place_do_not_stay(tmp_path: Path) -> None:
    path = write_vocab(tmp_path, ["<pad>", "[PAD]", "<unk>", "|", "A"], pad_token="[PAD]")
    assert CharTokenizer.from_file(path).blank_id == 1
    CharTokenizer(tokens=("<pad>", "[PAD]", "<unk>", "|", "A")).save(path)
    assert CharTokenizer.from_file(path).blank_id == 0
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(InputError, match="tokenizer_config.json is not valid JSON .* correct it or remove it"):
        CharTokenizer.from_file(path)
    CharTokenizer(tokens=("<pad>", "<unk>", "|")).save(path)
    assert CharTokenizer.from_file(path).num_tokens == 3


def test_a_space_may_be_the_word_delimiter(tmp_path: Path) -> None:
    path = write_vocab(tmp_path, ["A", " ", "B", "<unk>", "<pad>"], word_delimiter_token=" ")
    tokenizer = CharTokenizer.from_file(path)
    assert tokenizer.encode("A BA") == [0, 1, 2, 0]
    assert tokenizer.decode([0, 1, 1, 2, 4]) == "A B"
    assert tokenizer.token_strings == ("A", " ", "B", "", "") and tokenizer.unknown_characters("A B") == set()


def test_tokens_of_several_characters_are_labels_the_longest_first() -> None:
    tokenizer = CharTokenizer(tokens=("<pad>", "<unk>", "|", "s", "sh", "shch", "i"))
    assert tokenizer.encode("shchi sshi") == [5, 6, 2, 3, 4, 6]
    assert tokenizer.decode([5, 6, 2, 3, 4, 6]) == "shchi sshi"
    assert tokenizer.num_labels("shchi sshi") == 6
    assert tokenizer.encode("hi") == [1, 6] and tokenizer.unknown_characters("hi") == {"h"}


def test_without_a_token_for_the_unknown_or_for_spaces_these_have_no_label() -> None:
    tokenizer = CharTokenizer(tokens=("a", "<pad>", "b"))
    assert tokenizer.encode("a bxa") == [0, 2, 0]
    assert (tokenizer.num_labels("a bxa"), tokenizer.num_unknown("a bxa")) == (3, 2)
    assert tokenizer.unknown_characters("a bxa") == {" ", "x"}


def test_built_vocabulary_sorts_by_frequency_then_code_point() -> None:
    tokens = build_vocab(["BA B", "CA|", "B"])
    assert tokens == ("<pad>", "<s>", "</s>", "<unk>", "|", "B", "A", "C")
    with pytest.raises(InputError, match="no characters"):
        build_vocab(["", " "])


@pytest.mark.skipif(not LIBRISPEECH.is_dir(), reason="../shared/corpora is absent")
def test_real_librispeech_transcripts_are_already_normal_and_covered() -> None:
    tokenizer = CharTokenizer(tokens=FACEBOOK_TOKENS)
    paths = sorted(LIBRISPEECH.glob("*/*/*/*.trans.txt"))
    texts = [line.split(" ", 1)[1] for path in paths for line in path.read_text().splitlines()]
    assert len(texts) == 557
    for text in texts:
        assert normalize_transcript(text) == text
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_load_tokenizer_reads_a_file_or_takes_the_published_tokens(tmp_path: Path) -> None:
    assert text_module.load_tokenizer().tokens == FACEBOOK_TOKENS
    CharTokenizer(tokens=("<pad>", "<unk>", "|", "A")).save(tmp_path / "vocab.json")
    assert text_module.load_tokenizer(tmp_path / "vocab.json").num_tokens == 4


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
