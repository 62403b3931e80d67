"""Vocabulary and preprocessing settings of a Hugging Face folder."""

from __future__ import annotations

import json

import pytest

from models.hugging_face import files
from models.wav2vec2 import vocab_file
from models.wav2vec2.config import preset


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "|", "A", "B", "C"]


def read(folder, *, num_rows=8, **config):
    return files.folder_vocabulary(folder, num_rows=num_rows, config=config)


def write_vocab(folder, tokens, **fields):
    """A vocab.json, and a tokenizer_config.json of the fields."""
    write(folder / "vocab.json", {token: index for index, token in enumerate(tokens)})
    if fields:
        write(folder / "tokenizer_config.json", fields)
    return folder


def test_added_tokens_join_the_vocabulary_in_the_order_of_ids(tmp_path):
    write(tmp_path / "vocab.json", {"é": 2, "<pad>": 0, "|": 1})
    assert list(read(tmp_path, num_rows=3).ids) == ["<pad>", "|", "é"]
    write(tmp_path / "added_tokens.json", {"</s>": 4, "<s>": 3})
    assert read(tmp_path, num_rows=5).ids == {"<pad>": 0, "|": 1, "é": 2, "<s>": 3, "</s>": 4}
    # A head that is made fresh has a row for each of them.
    assert len(read(tmp_path, num_rows=0).ids) == 5
    # Newer folders have them in tokenizer_config.json, and added_tokens.json is not looked at.
    decoder = {"3": {"content": "<s>", "special": True}, "4": {"content": "X"}}
    write(tmp_path / "tokenizer_config.json", {"added_tokens_decoder": decoder})
    assert list(read(tmp_path, num_rows=5).ids) == ["<pad>", "|", "é", "<s>", "X"]


@pytest.mark.parametrize("where", ["added_tokens.json", "tokenizer_config.json", "vocab.json"])
def test_tokens_without_a_logit_are_left_out_and_noted_and_the_head_stays(tmp_path, where):
    tokens = ["<pad>", "<unk>", "|", "A", "B", "C", "D", "E"]
    write_vocab(tmp_path, [*tokens, *(["<s>", "</s>"] if where == "vocab.json" else [])])
    if where == "added_tokens.json":
        write(tmp_path / where, {"<s>": 8, "</s>": 9})
    elif where == "tokenizer_config.json":
        added = {"0": "<pad>", "8": "<s>", "9": "</s>"}
        write(tmp_path / where, {"added_tokens_decoder": {key: {"content": name} for key, name in added.items()}})
    found = read(tmp_path, pad_token_id=0)
    assert list(found.ids) == tokens
    assert found.notes == ("left out, because the head has no row for them: '<s>', '</s>'",)
    assert "bos_token" not in found.special


@pytest.mark.parametrize(
    ("tokens", "fields", "pad_token_id", "blank"),
    [
        (TOKENS, {}, None, 0),
        (["[PAD]", *TOKENS[1:]], {"pad_token": "<pad>"}, 0, 0),
        ([*TOKENS[1:], "[PAD]"], {"pad_token": "[PAD]"}, 7, 7),
        ([*TOKENS[1:], "<ctc>"], {"pad_token": {"content": "<ctc>", "lstrip": False}}, None, 7),
        # Nothing but the id says it.
        ([*TOKENS[1:], "<ctc>"], {}, 7, 7),
        (["-", *TOKENS[1:]], {}, 0, 0),
        # Where files disagree the tokenizer's count, then config.json, then usual names.
        ([*TOKENS[:7], "[PAD]"], {"pad_token": "[PAD]"}, 0, 7),
        ([*TOKENS[:7], "<ctc>"], {}, 7, 7),
        (TOKENS, {}, 31, 0),
    ],
)
def test_the_blank_is_what_the_files_say(tmp_path, tokens, fields, pad_token_id, blank):
    write_vocab(tmp_path, tokens, **fields)
    found = read(tmp_path, pad_token_id=pad_token_id)
    assert (found.blank_id, list(found.ids)) == (blank, tokens)
    assert f"the blank is {tokens[blank]!r} (id {blank})" in found.describe()
    agree = pad_token_id in (None, blank) and not ("<pad>" in tokens and tokens[blank] != "<pad>")
    assert bool(found.notes) != agree
    if found.notes:
        assert "the blank is" in found.notes[0] and "\n" not in found.notes[0]


def test_no_blank_and_ids_that_are_none_are_refused(tmp_path):
    write_vocab(tmp_path, [*TOKENS[1:], "D"])
    for pad_token_id in (None, 8, -1):
        with pytest.raises(ValueError, match="vocab.json: no token is the CTC blank; name it as pad_token"):
            read(tmp_path, pad_token_id=pad_token_id)
    for pad_token_id, shown in ((True, "true"), ("0", '"0"'), ([], "a JSON array"), (0.5, "0.5")):
        with pytest.raises(ValueError, match=rf"config.json: pad_token_id is {shown}, not a whole number"):
            read(tmp_path, pad_token_id=pad_token_id)


def test_special_tokens_map_overrules_older_tokenizer_configs_alone(tmp_path):
    write_vocab(tmp_path, [*TOKENS[:6], "[PAD]", " "], pad_token="<pad>", word_delimiter_token=" ")
    write(tmp_path / "special_tokens_map.json", {"pad_token": {"content": "[PAD]"}, "unk_token": "<unk>"})
    found = read(tmp_path)
    assert found.special["pad_token"] == "[PAD]" and found.special["word_delimiter_token"] == " "
    assert found.notes == (
        "pad_token is '[PAD]' in special_tokens_map.json, which is used, and '<pad>' in tokenizer_config.json",
    )
    write(tmp_path / "tokenizer_config.json", {"pad_token": "<pad>", "added_tokens_decoder": {}})
    assert read(tmp_path).special["pad_token"] == "<pad>"


def test_wrong_sizes_are_refused_by_name(tmp_path):
    write_vocab(tmp_path, TOKENS)
    for num_rows in (7, 9):
        with pytest.raises(ValueError, match=f"8 tokens, but the head has {num_rows}; fetch the files"):
            read(tmp_path, num_rows=num_rows)


def test_phones_are_tokens_with_a_separator_between_them(tmp_path):
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "n", "t\u0283", "a\u02d0"]
    fields = {"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer", "word_delimiter_token": None}
    for given, separator in (({}, " "), ({"phone_delimiter_token": "-"}, "-")):
        write_vocab(tmp_path, tokens, **fields, **given)
        found = read(tmp_path, num_rows=7)
        assert (found.separator, found.special.get("word_delimiter_token")) == (separator, None)
        assert f"phones with {separator!r} between them" in found.describe()
        assert "give transcripts as phones" in files.text_notes(tmp_path, found)[0]
        written = files.tokenizer_fields(found)
        assert (written["tokenizer_class"], written["phone_delimiter_token"]) == (fields["tokenizer_class"], separator)
    write_vocab(tmp_path, tokens, word_delimiter_token=None)
    assert read(tmp_path, num_rows=7, tokenizer_class=fields["tokenizer_class"]).separator == " "
    write_vocab(tmp_path, tokens, **fields, phone_delimiter_token=3)
    with pytest.raises(ValueError, match="'phone_delimiter_token' is 3, not the name of a token"):
        read(tmp_path, num_rows=7)


def test_a_token_that_is_called_the_blank_is_it_where_the_tokenizer_names_padding(tmp_path):
    write_vocab(tmp_path, ["<blank>", "<pad>", "</s>", "<unk>", "|", "a"], pad_token="<pad>")
    found = read(tmp_path, num_rows=6, pad_token_id=0)
    assert (found.blank_id, found.special["pad_token"]) == (0, "<blank>")
    assert found.notes == (
        "the blank is '<blank>' (id 0), as pad_token_id of config.json says; the tokenizer's files name '<pad>'",
    )
    assert read(tmp_path, num_rows=6, pad_token_id=1).blank_id == 1


def test_case_and_punctuation_of_the_tokens_are_noted(tmp_path):
    for tokens, style in ((["a", "B"], "none"), (["a", "."], "none"), (["a", "b"], "unicode"), (["A", "."], "")):
        write_vocab(tmp_path, [*TOKENS[:5], *tokens])
        notes = files.case_notes(read(tmp_path, num_rows=7))
        assert [f"text_normalization={style}" in note for note in notes] == ([True] if style else [])
    # <pad> is no text where another token is the blank.
    write_vocab(tmp_path, ["<s>", "<pad>", "</s>", "<unk>", "|", "A", "B"], pad_token="<s>")
    assert files.case_notes(read(tmp_path, num_rows=7)) == []


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"pad_token": 3}', '{"a": ' + "[" * 100_000, "\xff", '{"\\ud800": 1}'])
def test_a_damaged_file_of_the_tokenizer_is_one_line(tmp_path, file, content):
    write_vocab(tmp_path, TOKENS)
    (tmp_path / file).write_bytes(content.encode("latin-1"))
    if file == "added_tokens.json" and "pad_token" in content:
        assert "pad_token" not in read(tmp_path, num_rows=8).ids
        return
    with pytest.raises(ValueError, match=file) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("decoder", [[], {"x": {"content": "a"}}, {"1": "a"}, {"1": {"content": 3}}, {"9" * 5000: {}}])
def test_a_damaged_added_tokens_decoder_is_one_line(tmp_path, decoder):
    write_vocab(tmp_path, TOKENS, added_tokens_decoder=decoder)
    with pytest.raises(ValueError, match="tokenizer_config.json: 'added_tokens_decoder' is"):
        read(tmp_path)


def test_no_vocabulary_is_none(tmp_path):
    assert read(tmp_path) is None
    with pytest.raises(FileNotFoundError, match="no such file"):
        vocab_file.read_vocab(tmp_path / "vocab.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        (["<pad>"], "not a JSON object"),
        ({"<pad>": "0"}, "not an object"),
        ({"eng": {"<pad>": 0}}, "of one language"),
        ({"<pad>": 0, "a": 2}, "ids are not 0 to 1"),
        ({"<pad>": 0, "a": 0}, "ids are not 0 to 1"),
        ({"<pad>": -1}, "not an object"),
        ({"<pad>": True}, "not an object"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_one_line(tmp_path, content, message):
    path = write(tmp_path / "vocab.json", content)
    with pytest.raises(ValueError, match=message) as caught:
        vocab_file.read_vocab(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_feature_extractor_says_whether_waveforms_are_normalized(tmp_path):
    assert files.read_preprocessing(tmp_path)[0] is True
    assert "assumed" in files.read_preprocessing(tmp_path)[1]
    for normalizes in (True, False):
        fields = files.preprocessor_fields(preset("base", normalize_waveform=normalizes))
        write(tmp_path / "preprocessor_config.json", fields)
        found, line = files.read_preprocessing(tmp_path)
        assert found is normalizes and ("do_normalize=false" in line) == (not normalizes)
    # transformers 5 nests it, and takes that one.
    write(tmp_path / "processor_config.json", {"feature_extractor": {"do_normalize": True}})
    found, line = files.read_preprocessing(tmp_path)
    assert found is True and line.endswith(
        "by processor_config.json; preprocessor_config.json disagrees and is ignored"
    )
    write(tmp_path / "processor_config.json", {"processor_class": "Wav2Vec2Processor"})  # of before
    assert files.read_preprocessing(tmp_path)[0] is False
    write(tmp_path / "processor_config.json", {"feature_extractor": {}})
    write(tmp_path / "preprocessor_config.json", {"sampling_rate": 8000})
    assert files.read_preprocessing(tmp_path)[0] is True


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sampling_rate": 8000}, "sampling_rate is 8000; only 16000 is supported"),
        ({"sampling_rate": "16000"}, 'sampling_rate is "16000"; only 16000'),
        ({"sampling_rate": None}, "sampling_rate is null; only 16000"),
        ({"feature_size": 2}, "feature_size is 2; only 1"),
        ({"do_normalize": "no"}, 'do_normalize is "no"; only true or false'),
        ({"feature_extractor_type": "WhisperFeatureExtractor"}, 'feature_extractor_type is "Whisper'),
    ],
)
def test_another_feature_extractor_is_refused_by_name(tmp_path, fields, message, nested):
    name = "processor_config.json" if nested else "preprocessor_config.json"
    write(tmp_path / name, {"feature_extractor": fields} if nested else fields)
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        files.read_preprocessing(tmp_path)


@pytest.mark.parametrize("name", ["processor_config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", ["[", "[]", '{"feature_extractor": ' + "[" * 100_000, '{"feature_extractor": 3}'])
def test_a_damaged_file_of_the_feature_extractor_is_one_line(tmp_path, name, content):
    write(tmp_path / name, content)
    if name == "preprocessor_config.json" and content.endswith("3}"):
        assert files.read_preprocessing(tmp_path)[0] is True
        return
    with pytest.raises(ValueError, match=name) as caught:
        files.read_preprocessing(tmp_path)
    assert "\n" not in str(caught.value)


def test_only_layer_norm_models_want_an_attention_mask():
    assert files.preprocessor_fields(preset("large_lv60"))["return_attention_mask"] is True
    assert files.preprocessor_fields(preset("large"))["return_attention_mask"] is False


def test_the_tokenizer_names_the_special_tokens_that_exist(tmp_path):
    write_vocab(tmp_path, ["[PAD]", "<unk>", "_"], word_delimiter_token="_")
    vocabulary = files.read_vocabulary(tmp_path / "vocab.json")
    fields = files.tokenizer_fields(vocabulary)
    assert (fields["pad_token"], fields["unk_token"], fields["word_delimiter_token"]) == ("[PAD]", "<unk>", "_")
    assert "bos_token" not in fields
    assert files.special_tokens_map(vocabulary) == {"pad_token": "[PAD]", "unk_token": "<unk>"}


def test_what_is_done_otherwise_to_text_is_noted(tmp_path):
    write_vocab(tmp_path, TOKENS, do_lower_case=True)
    (tmp_path / "language_model").mkdir()
    notes = files.text_notes(tmp_path, read(tmp_path))
    assert ["do_lower_case" in notes[0], "decode.lm" in notes[1]] == [True, True]
    write_vocab(tmp_path, [*TOKENS[:5], "a", "b", "c"])
    assert "text_normalization=unicode" in files.text_notes(tmp_path, read(tmp_path))[1]


MEL = {"feature_extractor_type": "SeamlessM4TFeatureExtractor", "feature_size": 80, "num_mel_bins": 80, "stride": 2}


def test_a_spectrogram_is_taken_for_what_the_model_computes_itself(tmp_path):
    assert files.read_preprocessing(tmp_path, "log_mel")[0] is False
    write(tmp_path / "preprocessor_config.json", {**MEL, "sampling_rate": 16_000})
    normalizes, line = files.read_preprocessing(tmp_path, "log_mel")
    assert normalizes is False and "part of the model" in line
    with pytest.raises(ValueError, match="feature_extractor_type is .SeamlessM4TFeatureExtractor.; only Wav2Vec2"):
        files.read_preprocessing(tmp_path)
    # What we write is what transformers loads, and what we read.
    write(tmp_path / "preprocessor_config.json", files.preprocessor_fields(preset("w2v_bert_base")))
    assert files.read_preprocessing(tmp_path, "log_mel")[0] is False


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_mel_bins": 128}, "num_mel_bins is 128; only 80 is supported"),
        ({"stride": 1}, "stride is 1; only 2 is supported"),
        ({"sampling_rate": 8_000}, "sampling_rate is 8000"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor"}, "only SeamlessM4TFeatureExtractor is supported"),
    ],
)
def test_a_spectrogram_of_other_channels_is_refused_by_name(tmp_path, fields, message):
    write(tmp_path / "preprocessor_config.json", {**MEL, **fields})
    with pytest.raises(ValueError, match=message):
        files.read_preprocessing(tmp_path, "log_mel")
