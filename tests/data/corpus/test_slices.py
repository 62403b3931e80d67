"""Further fields of a manifest: carried along if they make groups, whatever the format; through shards and back."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
import soundfile

from data.batches.corpora import SubsetSource
from data.common.errors import InputError
from data.corpus.manifest import read_utterances
from data.corpus.slices import MAX_VALUES, decode_fields, encode_fields, select_fields
from data.corpus.sources import FileSource
from data.open_corpus import open_source
from data.shards.preparation import write_tfrecords
from data.text.tokenizer import load_tokenizer
from tests.helpers.data_toys import eval_data, make_utterances

ROWS = [
    {"accent": "scottish", "Gender": "f", "snr": 5, "noisy": True, "take": 0.1},
    {"accent": "irish", "Gender": "m", "snr": 10, "noisy": False, "take": 0.2},
    {"accent": None, "Gender": "", "snr": float("nan"), "tags": ["a"], "notes": "x" * 61, "take": 0.3},
]


@pytest.fixture
def folder(tmp_path):
    for number in range(len(ROWS)):
        soundfile.write(tmp_path / f"u{number}.wav", np.full(1600 + number, 0.1), 16_000)
    return tmp_path


@pytest.fixture
def tokenizer():
    return load_tokenizer()


def write_jsonl(folder, rows):
    lines = [
        {"audio_filepath": f"u{i}.wav", "text": f"word {i}", "speaker": "s", "split": "dev", **row}
        for i, row in enumerate(rows)
    ]
    (folder / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder / "m.jsonl")


def test_single_values_are_kept_as_text_and_the_rest_is_not(folder):
    found = read_utterances(format="jsonl", input=write_jsonl(folder, ROWS))
    assert dict(found[0].fields) == {"accent": "scottish", "Gender": "f", "snr": "5", "noisy": "true", "take": "0.1"}
    assert dict(found[2].fields) == {"take": "0.3"}


def test_a_table_has_fields_too(folder):
    (folder / "m.tsv").write_text("path\tsentence\tclient_id\taccents\nu0.wav\ta\tc\tirish\nu1.wav\tb\tc\t\n")
    found = read_utterances(format="tsv", input=str(folder / "m.tsv"))
    assert [one.fields for one in found] == [(("accents", "irish"),), ()]


def test_a_column_without_a_name_is_no_field(folder):
    (folder / "m.csv").write_text(",path,text,accent\n0,u0.wav,a,irish\n1,u1.wav,b,irish\n")  # as pandas writes it
    found = read_utterances(format="csv", input=str(folder / "m.csv"))
    assert [one.fields for one in found] == [(("accent", "irish"),)] * 2


def test_a_field_with_a_value_for_almost_every_utterance_makes_no_groups(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16_000)
    lines = [
        {"audio_filepath": "a.wav", "text": "a", "utterance_id": f"u{i}", "id": f"n{i}", "half": i % 2, "few": i % 50}
        for i in range(MAX_VALUES + 1)
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_utterances(format="jsonl", input=str(tmp_path / "m.jsonl"))
    assert {name for one in found for name, _ in one.fields} == {"half", "few"}
    assert found[0].fields is found[50].fields  # rows with the same values share them


def test_fields_are_chosen_by_name_in_any_case(folder):
    source = open_source(format="jsonl", input=write_jsonl(folder, ROWS))
    assert select_fields(source, ["accent", "GENDER"]) == {
        "u0": {"accent": "scottish", "gender": "f"},
        "u1": {"accent": "irish", "gender": "m"},
    }
    assert select_fields(source, ["*"])["u2"] == {"take": "0.3"}
    assert select_fields(source, []) == select_fields(object(), ["*"]) == {}
    part = SubsetSource(source=source, indices=np.array([1]))
    assert select_fields(part, ["accent"]) == {"u1": {"accent": "irish"}}


def test_shards_keep_the_fields_and_are_otherwise_the_same(folder):
    utterances = read_utterances(format="jsonl", input=write_jsonl(folder, ROWS))
    plain = read_utterances(format="jsonl", input=write_jsonl(folder, [{}] * 3))
    for name, rows in (("with", utterances), ("without", plain)):
        write_tfrecords(utterances=rows, output=folder / name, num_shards=2, num_workers=1)
    indexes = {name: json.loads((folder / name / "index.json").read_text()) for name in ("with", "without")}
    fields = indexes["with"].pop("fields")
    assert indexes["with"] == indexes["without"]
    assert fields["accent"] == {"values": ["", "irish", "scottish"], "numbers": [2, 1, 0]}
    source = open_source(format="tfrecord", input=str(folder / "with"))
    assert select_fields(source, ["*"]) == select_fields(FileSource(utterances=utterances), ["*"])
    assert select_fields(open_source(format="tfrecord", input=str(folder / "without")), ["*"]) == {}


def test_shards_of_an_older_version_gain_the_fields_without_being_written_again(folder):
    plain = read_utterances(format="jsonl", input=write_jsonl(folder, [{}] * 3))
    assert write_tfrecords(utterances=plain, output=folder / "out", num_shards=2, num_workers=1).num_written == 2
    times = [path.stat().st_mtime_ns for path in sorted((folder / "out").glob("*.tfrecord"))]
    utterances = read_utterances(format="jsonl", input=write_jsonl(folder, ROWS))
    assert write_tfrecords(utterances=utterances, output=folder / "out", num_shards=2, num_workers=1).num_written == 0
    assert [path.stat().st_mtime_ns for path in sorted((folder / "out").glob("*.tfrecord"))] == times
    assert select_fields(open_source(format="tfrecord", input=str(folder / "out")), ["accent"])["u1"] == {
        "accent": "irish"
    }


@pytest.mark.parametrize(
    "fields",
    [
        [],
        {"accent": 3},
        {"accent": {"values": ["a"], "numbers": [0]}},
        {"accent": {"values": ["a"], "numbers": [0, 1, 0]}},
        {"accent": {"values": [3], "numbers": [0, 0, 0]}},
        {"accent": {"values": ["a"], "numbers": [0, -1, 0]}},
    ],
)
def test_damaged_fields_of_an_index_are_one_line(folder, fields):
    utterances = read_utterances(format="jsonl", input=write_jsonl(folder, ROWS))
    write_tfrecords(utterances=utterances, output=folder / "out", num_shards=1, num_workers=1)
    path = folder / "out" / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fields": fields}))
    with pytest.raises(InputError, match="is not an index of shards .*fields"):
        open_source(format="tfrecord", input=str(folder / "out"))


def test_encoding_is_undone_for_any_utterances():
    rows = [(("a", "x"), ("b", "1")), (), (("b", "2"),)]
    assert decode_fields(encode_fields(rows), [2, 0, 1]) == [rows[2], rows[0], rows[1]]
    assert encode_fields([(), ()]) == {}


def test_rows_of_an_evaluation_set_have_the_fields_that_their_utterances_share(folder, tokenizer):
    manifest = write_jsonl(folder, [{"accent": "a", "gender": "f"}, {"accent": "b", "gender": "f"}, {"accent": "c"}])
    options = {"format": "jsonl", "input": manifest, "tokenizer": tokenizer, "text_normalization": "librispeech"}
    plain = eval_data(**options, batch_size=2)
    data = eval_data(**options, batch_size=2, slices=("accent", "gender"))
    assert plain.slices == {} and data.digest == plain.digest
    assert {data.utterance_ids[index]: fields for index, fields in data.slices.items()} == {
        "u0": {"accent": "a", "gender": "f"}, "u1": {"accent": "b", "gender": "f"}, "u2": {"accent": "c"},
    }  # fmt: skip
    joined = eval_data(**options, batch_size=2, slices=("accent", "gender"), concat_max_utterances=2)
    for index, name in joined.utterance_ids.items():
        if "+" in name:
            assert set(joined.slices.get(index, {})) <= {"gender"}
    assert joined.utterance_ids != data.utterance_ids


def test_references_are_those_of_the_stored_text_in_another_style(folder, tokenizer):
    manifest = write_jsonl(folder, [{"text": "I've 21 <noise> Cats, Sir!"}])
    data = eval_data(
        format="jsonl", input=manifest, tokenizer=tokenizer, text_normalization="librispeech", batch_size=1
    )
    assert list(data.references.values()) == ["I'VE NOISE CATS SIR"]
    style = "unicode+language=en+numbers+drop_markup+keep_case+keep_punctuation"
    assert data.references_in(style) == {0: "I've twenty-one Cats, Sir!"}


def test_utterances_made_by_hand_have_no_fields(tmp_path):
    assert FileSource(utterances=make_utterances(tmp_path)).fields == {}


def test_lists_of_kaldi_put_utterances_and_speakers_into_groups(folder):
    lists = {
        "wav.scp": [f"u{i} {folder}/u{i}.wav" for i in range(3)],
        "text": ["u0 a", "u1 b", "u2 c"],
        "utt2spk": ["u0 s", "u1 s", "u2 t"],
        "spk2gender": ["s f", "t m"],
        "utt2lang": ["u0 en", "u2 de"],
        "utt2num_frames": ["u0 10", "u1 11", "u2 12"],
        "utt2dur": ["u0 0.1", "u1 0.1", "u2 0.1"],
    }
    for name, lines in lists.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    found = read_utterances(format="kaldi", input=str(folder))
    assert {one.utterance_id: dict(one.fields) for one in found} == {
        "u0": {"gender": "f", "lang": "en"}, "u1": {"gender": "f"}, "u2": {"gender": "m", "lang": "de"},
    }  # fmt: skip


def test_supervisions_of_lhotse_have_fields_and_so_have_their_cuts(folder):
    cuts = []
    for number, (gender, custom) in enumerate([("f", {"accent": "irish"}), (None, {"text": "no", "take": [1]})]):
        recording = {
            "id": f"r{number}", "sampling_rate": 16_000, "num_samples": 1600 + number,
            "duration": (1600 + number) / 16_000,
            "sources": [{"type": "file", "channels": [0], "source": str(folder / f"u{number}.wav")}],
        }  # fmt: skip
        spoken = {"id": f"s{number}", "start": 0, "duration": 0.1, "text": "a", "gender": gender, "custom": custom}
        cuts.append({
            "id": f"c{number}", "start": 0, "duration": 0.1, "channel": 0, "type": "MonoCut", "recording": recording,
            "supervisions": [spoken], "custom": {"domain": "news"},
        })  # fmt: skip
    (folder / "cuts.jsonl").write_text("".join(json.dumps(cut) + "\n" for cut in cuts))
    found = read_utterances(format="lhotse", input=str(folder / "cuts.jsonl"))
    assert [dict(one.fields) for one in found] == [
        {"accent": "irish", "domain": "news", "gender": "f"},
        {"domain": "news"},
    ]
    assert [one.text for one in found] == ["a", "a"]


def test_columns_of_parquet_and_json_of_web_dataset_are_fields(folder):
    parquet, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    audio = [{"bytes": (folder / f"u{i}.wav").read_bytes(), "path": f"u{i}.wav"} for i in range(2)]
    table = {"audio": audio, "sentence": ["a", "b"], "gender": [0, 1], "locale": ["en", None], "score": [0.5, 0.5]}
    parquet.write_table(pa.table(table), folder / "t.parquet")
    found = read_utterances(format="parquet", input=str(folder / "t.parquet"))
    assert [dict(one.fields) for one in found] == [{"gender": "0", "locale": "en"}, {"gender": "1"}]
    with tarfile.open(folder / "s.tar", "w") as tar:
        for name, content in {
            "x.wav": audio[0]["bytes"], "x.txt": b"a", "x.json": b'{"accent": "irish", "duration": 0.1}',
        }.items():  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    found = read_utterances(format="webdataset", input=str(folder / "s.tar"))
    assert [dict(one.fields) for one in found] == [{"accent": "irish"}]
