"""What transcripts ask of a model."""

from __future__ import annotations

import numpy as np

from data.text.labels import measure_labels, most_common_unknown
from data.text.tokenizer import FACEBOOK_TOKENS, CharTokenizer

TOKENIZER = CharTokenizer(tokens=FACEBOOK_TOKENS)


def test_labels_repeats_words_and_tokens_are_counted() -> None:
    labels = measure_labels(["Hello", "", "all  letters, too"], tokenizer=TOKENIZER, text_normalization="librispeech")
    assert labels.num_labels.tolist() == [5, 0, 15]
    # LL; LL, TT, OO: the last of one text and the first of the next are no neighbours.
    assert labels.num_repeats.tolist() == [1, 0, 3]
    assert labels.num_needed_frames.tolist() == [6, 0, 18]
    assert labels.num_words == 4
    counts = dict(zip(FACEBOOK_TOKENS, labels.token_counts.tolist(), strict=True))
    assert (counts["L"], counts["|"], counts["<unk>"], counts["Z"]) == (5, 2, 0, 0)
    assert labels.token_counts.sum() == 20


def test_chunks_do_not_show() -> None:
    texts = ["AB"] * 4095 + ["BB", "BA", "ÄÖ"]
    labels = measure_labels(texts, tokenizer=TOKENIZER, text_normalization="librispeech")
    assert np.flatnonzero(labels.num_repeats).tolist() == [4095, 4097]  # <unk> <unk> is a repeat as well
    assert labels.unknown == {4097: "ÄÖ"}
    assert labels.num_labels.sum() == 2 * len(texts)


def test_unknown_characters_are_named_by_how_many_texts_have_them() -> None:
    labels = measure_labels(["straße", "größe", "a"], tokenizer=TOKENIZER, text_normalization="none")
    assert labels.num_unknown.tolist() == [6, 5, 1]
    assert labels.unknown_ratio == 1.0
    assert labels.unknown[2] == "a"
    assert set(most_common_unknown(labels)[:4]) == {"a", "r", "ß", "e"}


def test_digits_count_only_where_the_style_drops_them() -> None:
    found = {
        style: measure_labels(["room 42", "room"], tokenizer=TOKENIZER, text_normalization=style).digits
        for style in ("librispeech", "unicode", "none")
    }
    assert found == {"librispeech": [0], "unicode": [], "none": []}


def test_what_the_style_reads_otherwise_is_counted_once_a_text() -> None:
    texts = ["it\u2019s \u2019\u2019", "5 % & 6", "it\u2019s"]
    labels = measure_labels(texts, tokenizer=TOKENIZER, text_normalization="librispeech")
    assert labels.reread == {"\u2019": ("'", 2, 0), "%": (" ", 1, 1), "&": (" ", 1, 1)}
    assert labels.lost_symbols == {1: "%&"}
    plain = measure_labels(texts, tokenizer=TOKENIZER, text_normalization="none")
    assert (plain.reread, plain.lost_symbols) == ({}, {})


def test_the_first_text_with_each_token_is_told() -> None:
    labels = measure_labels(["AB"] * 4096 + ["CA", "CB"], tokenizer=TOKENIZER, text_normalization="librispeech")
    first = dict(zip(FACEBOOK_TOKENS, labels.first_texts.tolist(), strict=True))
    assert (first["A"], first["B"], first["C"], first["Z"]) == (0, 0, 4096, -1)


def test_characters_that_have_no_label_are_counted_where_there_is_no_unknown_token() -> None:
    labels = measure_labels(
        ["AXB", "AB"], tokenizer=CharTokenizer(tokens=("A", "B", "|", "<pad>")), text_normalization="none"
    )
    assert labels.num_labels.tolist() == [2, 2]
    assert labels.num_unknown.tolist() == [1, 0] and labels.unknown == {0: "X"}
