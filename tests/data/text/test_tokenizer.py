"""The character tokenizer and its vocabulary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data.common.errors import InputError
from data.text.normalization import normalize_transcript
from data.text.tokenizer import FACEBOOK_TOKENS, CharTokenizer, build_vocab, build_word_vocab, load_tokenizer

LIBRISPEECH = Path(__file__).parents[4] / "shared" / "corpora" / "LibriSpeech"


def test_facebook_tokens_are_the_published_32() -> None:
    assert len(FACEBOOK_TOKENS) == 32
    assert " ".join(FACEBOOK_TOKENS) == ("<pad> <s> </s> <unk> | E T A O N I H S R D L U M W C F G Y P B V K ' X J Q Z")


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


def test_a_vocabulary_of_words_has_each_word_as_a_token(tmp_path: Path) -> None:
    tokens = build_word_vocab(["TWO ONE", "ONE", " ", "TWO <s> ZERO"])
    assert tokens == ("<pad>", "<s>", "</s>", "<unk>", "ONE", "TWO", "ZERO")
    CharTokenizer(tokens=tokens, separator=" ").save(tmp_path / "vocab.json")
    tokenizer = load_tokenizer(tmp_path / "vocab.json")
    assert tokenizer.encode("ZERO ONE TEN ONE") == [6, 4, 3, 4]
    assert tokenizer.decode([6, 0, 4, 3, 4]) == "ZERO ONE ONE"
    with pytest.raises(InputError, match="no words"):
        build_word_vocab(["", " "])


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
    assert load_tokenizer().tokens == FACEBOOK_TOKENS
    CharTokenizer(tokens=("<pad>", "<unk>", "|", "A")).save(tmp_path / "vocab.json")
    assert load_tokenizer(tmp_path / "vocab.json").num_tokens == 4
