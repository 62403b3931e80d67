"""Lexicons: the words, and their spelling."""

import gzip

import pytest

from models.search.lexicon import Spelling, read_words
from tests.helpers.models_lm import ARPA, PIECES, encode


def test_words_come_from_the_lexicon_or_else_from_the_unigrams(tmp_path):
    arpa, packed, lexicon = tmp_path / "lm.arpa", tmp_path / "lm.arpa.gz", tmp_path / "words.txt"
    arpa.write_text(ARPA)
    packed.write_bytes(gzip.compress(ARPA.encode()))
    lexicon.write_text("DOG D O G |\n\nCAT\nDOG\n")
    assert read_words("", str(arpa)) == read_words("", str(packed)) == ["THE", "CAT", "CAR"]
    assert read_words(str(lexicon), str(arpa)) == ["DOG", "CAT"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file .decode.lm"),
        (b"hello\n", "not an ARPA file, it has no"),
        (b"\xff\xfe\x00mmap", "not an ARPA file; for a binary model set decode.lexicon"),
        (b"\\1-grams:\n-1.0\t<s>\n\\end\\\n", "holds no words"),
        (b"\\1-grams:\nnonsense\n", "'nonsense' is not a unigram"),
    ],
)
def test_what_is_no_arpa_file_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "lm.arpa"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_words("", str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_spelling():
    spelling = Spelling(PIECES)
    assert spelling.delimiter_id == 4
    assert spelling.spell("CAT") == tuple(encode("CAT"))
    assert spelling.spell("CAFÉ") is None
    assert spelling.spell_hot_words(["CAT"]) == [tuple(encode("CAT"))]
    # Where tokens begin alike the longest is taken, as in labels.
    assert Spelling([" ", "S", "SH", "I", "P"]).spell("SHIPS") == (2, 3, 4, 1)
    for word in ("cat", "TWO WORDS", ""):
        with pytest.raises(ValueError, match="decode.hot_words: "):
            spelling.spell_hot_words([word])
    with pytest.raises(ValueError, match="no space between words"):
        Spelling(["", "A", "B"])
    with pytest.raises(ValueError, match="made of words, pieces or phones, .* set decode.method=greedy or beam"):
        Spelling(["", " ", " THE", "S"])
