"""Vocabularies whose tokens are pieces of SentencePiece, or phones with spaces between them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import soundfile

from common.sentence_pieces import PIECES_FILE, train_pieces
from data import vocab
from data.common.errors import InputError
from data.text.labels import measure_labels
from data.text.tokenizer import CharTokenizer, load_tokenizer

TEXTS = ["the cat sat", "the bat sat on the mat", "a cat and a bat", "that mat"] * 20
PHONES = ["<pad>", "<s>", "</s>", "<unk>", "n", "t\u0283", "a\u02d0", "a"]


def write_model(path: Path, **options: object) -> Path:
    settings = {"vocab_size": 30, "model_type": "bpe", "minloglevel": 2, "hard_vocab_limit": False, **options}
    with open(path, "wb") as file:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXTS), model_writer=file, **settings)
    return path


def write_phones(folder: Path, **fields: object) -> CharTokenizer:
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(PHONES)}))
    config = {"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer", **fields}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return load_tokenizer(folder / "vocab.json")


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_pieces_split_as_the_library_does_and_keep_their_ids(tmp_path: Path, kind: str) -> None:
    path = write_model(tmp_path / "spm.model", model_type=kind)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokenizer = load_tokenizer(path)
    # No padding, so the blank stands behind the pieces.
    assert tokenizer.tokens[:-1] == tuple(processor.IdToPiece(index) for index in range(len(processor)))
    assert (tokenizer.tokens[-1], tokenizer.blank_id) == ("<blank>", len(processor))
    for text in TEXTS[:4]:
        assert tokenizer.encode(text) == processor.EncodeAsIds(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.num_labels(text) == len(tokenizer.encode(text))
    assert max(len(token) for token in tokenizer.tokens[3:-1]) > 2  # pieces, not characters
    assert tokenizer.decode([tokenizer.blank_id, *tokenizer.encode("the cat"), 0]) == "the cat"
    assert tokenizer.encode("the z")[-1] == tokenizer.unknown_id == processor.unk_id()
    assert tokenizer.unknown_characters("the z") == {"z"} and tokenizer.num_unknown("zat z") == 2
    with pytest.raises(ValueError, match="token id 99, wanted 0 to"):
        tokenizer.decode([99])


def test_a_saved_vocabulary_of_pieces_is_read_back_and_a_later_one_of_characters_too(tmp_path: Path) -> None:
    before = load_tokenizer(write_model(tmp_path / "spm.model", pad_id=3))
    assert before.blank_id == 3
    path = tmp_path / "run" / "vocab.json"
    before.save(path)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        PIECES_FILE, "tokenizer_config.json", "vocab.json",
    ]  # fmt: skip
    after = load_tokenizer(path)
    assert (after.tokens, after.blank_id, after.token_strings) == (before.tokens, 3, before.token_strings)
    assert after.encode(TEXTS[1]) == before.encode(TEXTS[1])
    # A run of characters in the same folder is not split into pieces.
    CharTokenizer(tokens=["<pad>", "<unk>", "|", "t", "h", "e"]).save(path)
    assert load_tokenizer(path).encode("the") == [3, 4, 5]


def test_a_model_that_is_missing_foreign_or_damaged_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "spm.model")
    path = tmp_path / "run" / "vocab.json"
    load_tokenizer(model).save(path)
    (path.parent / PIECES_FILE).write_bytes(write_model(tmp_path / "b.model", vocab_size=25).read_bytes())
    with pytest.raises(InputError, match="its pieces are not the tokens of .*vocab.json: copy the one that belongs"):
        load_tokenizer(path)
    (path.parent / PIECES_FILE).write_bytes(b"no model")
    with pytest.raises(InputError, match=f"{PIECES_FILE}: not a SentencePiece model; fetch it again"):
        load_tokenizer(path)
    (path.parent / PIECES_FILE).unlink()
    with pytest.raises(InputError, match="no such file, but tokenizer_config.json names it: copy it there"):
        load_tokenizer(path)
    with pytest.raises(InputError, match="pieces that are bytes, .*; train it without byte_fallback"):
        load_tokenizer(write_model(model, byte_fallback=True, vocab_size=300))
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(InputError, match=r"spm.model: needs sentencepiece; pip install 'earshot\[sentencepiece\]'"):
        load_tokenizer(model)


def test_a_vocabulary_of_pieces_is_made_from_a_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 16000)
    lines = [
        json.dumps({"audio_filepath": "a.wav", "text": text, "utterance_id": str(i)}) for i, text in enumerate(TEXTS)
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    argv = ["--format=jsonl", f"--input={tmp_path / 'm.jsonl'}", f"--output={tmp_path / 'vocab.json'}"]
    assert vocab.main([*argv, "--pieces=20", "--pieces_type=bpe"]) == 0
    assert "vocab.json: 20 tokens from 80 transcripts" in capsys.readouterr().out
    tokenizer = load_tokenizer(tmp_path / "vocab.json")
    assert (tokenizer.blank_id, tokenizer.unknown_id, tokenizer.num_tokens) == (0, 1, 20)
    assert tokenizer.decode(tokenizer.encode("THE CAT SAT")) == "THE CAT SAT"
    assert len(tokenizer.encode("THE CAT SAT")) < 11
    assert vocab.main([*argv, "--pieces=3"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--pieces=3: 3 pieces cannot be trained" in error


def test_training_pieces_twice_gives_the_same_model() -> None:
    first, second = (train_pieces(TEXTS, size=25, kind="unigram").content for _ in range(2))
    assert first == second


def test_labels_of_pieces_are_counted(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_model(tmp_path / "spm.model"))
    texts = ["the cat", "the z"]
    labels = measure_labels(texts, tokenizer=tokenizer, text_normalization="none")
    assert labels.num_labels.tolist() == [len(tokenizer.encode(text)) for text in texts]
    assert labels.num_unknown.tolist() == [0, 1] and labels.unknown == {1: "z"}


def test_phones_are_split_at_spaces_and_written_with_them(tmp_path: Path) -> None:
    tokenizer = write_phones(tmp_path)
    text = "n a\u02d0 t\u0283 a"
    assert tokenizer.encode(text) == [4, 6, 5, 7] and tokenizer.num_labels(text) == 4
    assert tokenizer.decode([0, 4, 6, 0, 5, 7]) == text
    assert tokenizer.encode("n x") == [4, 3] and tokenizer.unknown_characters("n x") == {"x"}
    tokenizer.save(tmp_path / "again" / "vocab.json")
    assert load_tokenizer(tmp_path / "again" / "vocab.json").encode(text) == [4, 6, 5, 7]
    # Another separator is read; transcripts are written with spaces, as transformers does.
    tokenizer = write_phones(tmp_path, phone_delimiter_token="-")
    assert tokenizer.encode("n-a\u02d0-a") == [4, 6, 7] and tokenizer.decode([4, 6]) == "n a\u02d0"


def test_digraphs_are_tokens_without_any_library(tmp_path: Path) -> None:
    tokenizer = CharTokenizer(tokens=["a", "[PAD]", "ch", "c", "h", "_"], special_tokens={
        "pad_token": "[PAD]", "word_delimiter_token": "_",
    })  # fmt: skip
    assert tokenizer.encode("ach cha") == [0, 2, 5, 2, 0] and tokenizer.decode([0, 2, 5, 2, 0]) == "ach cha"
    tokenizer.save(tmp_path / "vocab.json")
    assert load_tokenizer(tmp_path / "vocab.json").encode("ach") == [0, 2]


def test_case_and_punctuation_stay_when_asked(tmp_path: Path) -> None:
    tokenizer = CharTokenizer(tokens=["<pad>", "<unk>", "|", *"Hai,.?"])
    labels = measure_labels(["Hi, Ha. a?"], tokenizer=tokenizer, text_normalization="none")
    assert labels.num_unknown.tolist() == [0]
    assert tokenizer.decode(tokenizer.encode("Hi, Ha. a?")) == "Hi, Ha. a?"
