"""LibriSpeech trees, JSON-lines manifests and tables, whole and broken."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data.audio.decoding import load_audio
from data.common.errors import InputError
from data.corpus.faults import Fault
from data.corpus.manifest import (
    read_jsonl,
    read_librispeech,
    read_utterances,
    write_jsonl,
)
from data.corpus.sources import FileSource
from data.corpus.utterance import Utterance

CORPORA = Path(__file__).parents[4] / "shared" / "corpora"
needs_corpora = pytest.mark.skipif(not CORPORA.is_dir(), reason="../shared/corpora is absent")


def read_table(path: Path) -> list[Utterance]:
    return read_utterances(format=path.suffix[1:], input=path)


def write_audio(path: Path, num_samples: int = 1600, rate: int = 16000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.linspace(-0.5, 0.5, num_samples), rate)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two speakers; one chapter in WAV; a one-word utterance."""
    for speaker, chapter, suffix, lines in [
        ("9", "1", "flac", ["9-1-0000 HELLO WORLD", "9-1-0001 YES"]),
        ("10", "2", "wav", ["10-2-0000 IT'S ME"]),
    ]:
        folder = tmp_path / "dev" / speaker / chapter
        for index, line in enumerate(lines):
            write_audio(folder / f"{line.split()[0]}.{suffix}", 1600 + index, 16000)
        (folder / f"{speaker}-{chapter}.trans.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def write_lines(path: Path, *records: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_librispeech_tree_is_read_sorted_by_id(tree: Path) -> None:
    utterances = read_librispeech(tree, "dev")
    assert utterances == [
        Utterance("10-2-0000", str(tree / "dev/10/2/10-2-0000.wav"), "IT'S ME", 1600, 16000, "10"),
        Utterance("9-1-0000", str(tree / "dev/9/1/9-1-0000.flac"), "HELLO WORLD", 1600, 16000, "9"),
        Utterance("9-1-0001", str(tree / "dev/9/1/9-1-0001.flac"), "YES", 1601, 16000, "9"),
    ]
    assert read_librispeech(tree / "dev") == utterances
    assert utterances[0].duration_secs == 0.1


def test_files_that_macos_adds_are_no_part_of_a_tree(tree: Path) -> None:
    utterances = read_librispeech(tree, "dev")
    for name in ("9-1.trans.txt", "9-1-0000.flac", "9-1-0007.flac"):
        (tree / "dev/9/1" / f"._{name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X\xff" + bytes(100))
    assert read_librispeech(tree, "dev") == utterances


def test_a_pipe_in_a_tree_is_one_line(tree: Path) -> None:
    os.mkfifo(tree / "dev/9/1/9-1-0009.flac")
    with (tree / "dev/9/1/9-1.trans.txt").open("a") as file:
        file.write("9-1-0009 NOTHING\n")
    with pytest.raises(InputError, match=r"9-1-0009\.flac is not a file"):
        read_librispeech(tree, "dev")


def test_librispeech_without_the_split_lists_the_splits(tree: Path) -> None:
    with pytest.raises(InputError, match=r"no SPEAKER/CHAPTER/.*has the splits dev$"):
        read_librispeech(tree)
    with pytest.raises(InputError, match=r"no folder .*test: check the path; .* splits dev$"):
        read_librispeech(tree, "test")
    with pytest.raises(InputError, match="no folder"):
        read_librispeech(tree / "absent")


def test_transcript_without_audio_is_named_and_counted(tree: Path) -> None:
    (tree / "dev/9/1/9-1-0001.flac").unlink()
    with pytest.raises(InputError, match=r"1 of 3 transcripts .* no audio, first 9-1-0001"):
        read_librispeech(tree, "dev")


def test_audio_without_transcript_is_named_and_counted(tree: Path) -> None:
    write_audio(tree / "dev/9/1/9-1-0002.flac")
    write_audio(tree / "dev/9/7/9-7-0000.flac")
    with pytest.raises(InputError, match=r"2 of 5 audio files .*, first .*9-1-0002\.flac"):
        read_librispeech(tree, "dev")


def test_unreadable_audio_is_named_and_counted(tree: Path) -> None:
    (tree / "dev/9/1/9-1-0000.flac").write_bytes(b"x" * 100)
    (tree / "dev/9/1/9-1-0001.flac").write_bytes(b"")
    with pytest.raises(InputError, match=r"9-1-0000\.flac .*\(2 of 3 files fail\)"):
        read_librispeech(tree, "dev")


def test_a_repeated_transcript_line_is_refused(tree: Path) -> None:
    with (tree / "dev/9/1/9-1.trans.txt").open("a") as file:
        file.write("9-1-0001 YES\n")
    with pytest.raises(InputError, match=r"1 utterance ids occur more than once .*'9-1-0001'"):
        read_librispeech(tree, "dev")


def test_jsonl_paths_are_relative_to_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_audio(tmp_path / "corpus/clips/b.wav", 800, 8000)
    write_audio(tmp_path / "corpus/clips/a.flac", 1600, 16000)
    path = write_lines(
        tmp_path / "corpus/m.jsonl",
        {"audio_filepath": "clips/b.wav", "text": "five", "duration": 0.1, "speaker": 7},
        {
            "audio_filepath": str(tmp_path / "corpus/clips/a.flac"),
            "text": "",
            "utterance_id": "first",
            "speaker_id": "ann",
        },
    )
    wanted = [("b", "five", 800, 8000, "7"), ("first", "", 1600, 16000, "ann")]
    monkeypatch.chdir(tmp_path)
    for manifest in (path, Path("corpus/m.jsonl")):
        found = read_jsonl(manifest)
        assert [(u.utterance_id, u.text, u.num_samples, u.sample_rate, u.speaker_id) for u in found] == wanted
        assert Path(found[0].audio_filepath).samefile(tmp_path / "corpus/clips/b.wav")


def test_jsonl_split_selects_lines_or_a_file_of_a_folder(tmp_path: Path) -> None:
    for name in "abc":
        write_audio(tmp_path / f"{name}.wav")
    records = [
        {"audio_filepath": "a.wav", "text": "A", "split": "train"},
        {"audio_filepath": "b.wav", "text": "B", "split": "dev"},
        {"audio_filepath": "c.wav", "text": "C"},
    ]
    path = write_lines(tmp_path / "m.jsonl", *records)
    write_lines(tmp_path / "extra.jsonl", records[2])
    assert [u.text for u in read_jsonl(path)] == ["A", "B", "C"]
    assert [u.text for u in read_jsonl(path, "dev")] == ["B"]
    assert [u.text for u in read_jsonl(tmp_path, "extra")] == ["C"]
    with pytest.raises(InputError, match=r"no split 'test' in .*m\.jsonl: it has dev, train"):
        read_jsonl(path, "test")
    with pytest.raises(InputError, match="it names no splits"):
        read_jsonl(tmp_path / "extra.jsonl", "test")
    with pytest.raises(InputError, match=r"no manifest .*absent\.jsonl"):
        read_jsonl(tmp_path, "absent")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"audio_filepath": "a.wav"', r"m\.jsonl:2 is not JSON"),
        ("[1]", r"m\.jsonl:2 is not a JSON object"),
        ('{"text": "A"}', r"m\.jsonl:2 has no audio_filepath"),
        ('{"audio_filepath": "a.wav"}', r"m\.jsonl:2 has no text"),
        ('{"audio_filepath": "a.wav", "text": ["A"]}', r"m\.jsonl:2 has no text"),
        ('{"audio_filepath": "a.wav", "text": "A", "duration": true}', r":2 has duration True: give seconds"),
        ('{"audio_filepath": "absent.wav", "text": "A"}', r"no audio file .*absent\.wav"),
    ],
)
def test_bad_jsonl_lines_are_named(tmp_path: Path, line: str, reason: str) -> None:
    write_audio(tmp_path / "a.wav")
    (tmp_path / "m.jsonl").write_text("\n" + line + "\n")
    with pytest.raises(InputError, match=reason) as caught:
        read_jsonl(tmp_path / "m.jsonl")
    assert "\n" not in str(caught.value)


def test_equal_file_names_ask_for_ids(tmp_path: Path) -> None:
    records: list[dict[str, object]] = []
    for speaker in ("x", "y"):
        write_audio(tmp_path / speaker / "1.wav")
        records.append({"audio_filepath": f"{speaker}/1.wav", "text": "ONE"})
    with pytest.raises(InputError, match="give every utterance its own utterance_id"):
        read_jsonl(write_lines(tmp_path / "m.jsonl", *records))


def test_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(b'{"text": "\xe9"}')
    with pytest.raises(InputError, match=r"m\.jsonl is not UTF-8 text \(byte 10\)"):
        read_jsonl(tmp_path / "m.jsonl")


def test_csv_with_quotes_and_a_byte_order_mark(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav")
    path = tmp_path / "t.csv"
    path.write_text('\ufeffaudio_filepath,text,speaker\r\na.wav,"yes, ""no""\nmaybe",s1\r\n')
    (utterance,) = read_table(path)
    assert (utterance.text, utterance.speaker_id) == ('yes, "no"\nmaybe', "s1")
    assert utterance.utterance_id == "a"


def test_the_columns_of_audio_folders_are_known_and_any_other_can_be_named(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav")
    path = tmp_path / "metadata.csv"
    path.write_text("file_name,transcription,said\na.wav,One.,uno\n")
    (utterance,) = read_utterances(format="csv", input=path)
    assert (utterance.utterance_id, utterance.text) == ("a", "One.")
    (utterance,) = read_utterances(format="csv", input=path, text_column="said")
    assert utterance.text == "uno"
    with pytest.raises(InputError, match=r"no column 'heard' .* it has file_name, transcription, said"):
        read_utterances(format="csv", input=path, text_column="heard")
    lines = write_lines(tmp_path / "m.jsonl", {"audio_filepath": "a.wav", "text": "One.", "said": "uno"})
    (utterance,) = read_utterances(format="jsonl", input=lines, text_column="said")
    assert utterance.text == "uno"
    with pytest.raises(InputError, match=r"m\.jsonl:1 has no text, add it"):
        read_utterances(format="jsonl", input=lines, text_column="heard")


def test_common_voice_tsv_with_bare_quotes_and_a_clips_folder(tmp_path: Path) -> None:
    write_audio(tmp_path / "clips/cv_1.mp3", 8000)
    write_audio(tmp_path / "clips/cv_2.mp3", 8000)
    path = tmp_path / "train.tsv"
    path.write_text('client_id\tpath\tsentence\tup_votes\nab\tcv_1.mp3\t"Oui" dit-il.\t2\ncd\tcv_2.mp3\t"Non\t2\n')
    wanted = [("cv_1", '"Oui" dit-il.', "ab"), ("cv_2", '"Non', "cd")]
    for utterances in (
        read_table(path),
        read_utterances(format="tsv", input=path),
        read_utterances(format="tsv", input=tmp_path, split="train"),
    ):
        assert [(u.utterance_id, u.text, u.speaker_id) for u in utterances] == wanted


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("audio_filepath,text\na.wav\n", r"t\.csv:2 has too few or too many columns"),
        ("audio_filepath,text\na.wav,A,B\n", r"t\.csv:2 has too few or too many columns"),
        ('audio_filepath,text\na.wav,"A\n', r"t\.csv:\d is malformed"),
        ("file,text\na.wav,A\n", r"t\.csv:1 has no column audio_filepath or path, .*: file,text$"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, content: str, reason: str) -> None:
    write_audio(tmp_path / "a.wav")
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=reason):
        read_table(tmp_path / "t.csv")


def test_written_manifest_is_read_back(tree: Path) -> None:
    utterances = read_librispeech(tree, "dev")
    path = tree / "lists" / "dev.jsonl"
    write_jsonl(path, utterances)
    assert json.loads(path.read_text().splitlines()[1])["audio_filepath"] == ("../dev/9/1/9-1-0000.flac")
    again = read_jsonl(path)
    assert [u.audio_filepath for u in again] != [u.audio_filepath for u in utterances]
    for one, other in zip(utterances, again, strict=True):
        assert Path(one.audio_filepath).samefile(other.audio_filepath)
        assert (one.utterance_id, one.text, one.num_samples, one.speaker_id) == (
            other.utterance_id,
            other.text,
            other.num_samples,
            other.speaker_id,
        )


def test_speakers_are_selected_and_excluded(tree: Path) -> None:
    def ids(**kwargs: tuple[str, ...]) -> list[str]:
        found = read_utterances(format="librispeech", input=tree, split="dev", **kwargs)
        return [u.utterance_id for u in found]

    assert ids() == ["10-2-0000", "9-1-0000", "9-1-0001"]
    assert ids(speakers=("9",)) == ["9-1-0000", "9-1-0001"]
    assert ids(exclude_speakers=("9",)) == ["10-2-0000"]
    with pytest.raises(InputError, match=r"no speaker '8' in .*: it has 10, 9"):
        ids(exclude_speakers=("8",))
    with pytest.raises(InputError, match="no utterances left"):
        ids(speakers=("9",), exclude_speakers=("9",))


def test_empty_manifest_and_unknown_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("\n")
    with pytest.raises(InputError, match=r"no utterances left in .*m\.jsonl"):
        read_utterances(format="jsonl", input=tmp_path / "m.jsonl")
    with pytest.raises(InputError, match="unknown format 'xml': use one of librispeech, jsonl"):
        read_utterances(format="xml", input=tmp_path)


@needs_corpora
def test_real_librispeech_split() -> None:
    utterances = read_librispeech(CORPORA / "LibriSpeech", "dev-mini")
    assert len(utterances) == 40
    assert {u.speaker_id for u in utterances} == {"26", "27"}
    assert {u.sample_rate for u in utterances} == {16000}
    assert 0.11 < sum(u.duration_secs for u in utterances) / 3600 < 0.13


@needs_corpora
def test_real_digits_manifest_keeps_one_word_utterances() -> None:
    utterances = read_utterances(format="jsonl", input=CORPORA / "fsdd/manifest.jsonl", exclude_speakers=("yweweler",))
    assert len(utterances) == 2000
    assert len({u.text for u in utterances}) == 10
    assert {u.sample_rate for u in utterances} == {8000}
    assert utterances[0].num_samples == 2384


def test_a_report_hears_of_every_fault_of_a_tree_and_the_rest_is_read(tree: Path) -> None:
    folder = tree / "dev/9/1"
    with (folder / "9-1.trans.txt").open("a") as file:
        file.write("9-1-0001 YES\n9-1-0005 GONE\n9-1-0006 HOLLOW\n9-1-0007 BROKEN\n")
    write_audio(folder / "9-1-0008.flac")
    soundfile.write(folder / "9-1-0006.wav", np.zeros(0), 16000)
    (folder / "9-1-0007.flac").write_bytes(b"x" * 100)
    faults: list[Fault] = []
    found = read_utterances(format="librispeech", input=tree, split="dev", report=faults.append)
    assert [u.utterance_id for u in found] == ["10-2-0000", "9-1-0000", "9-1-0001"]
    assert {fault.code: list(fault.details) for fault in faults} == {
        "missing_audio": ["9-1-0005"],
        "missing_transcript": ["9-1-0008"],
        "duplicate_id": ["9-1-0001"],
        "empty_audio": ["9-1-0006"],
        "unreadable_audio": ["9-1-0007"],
    }


def test_a_report_hears_of_every_line_of_a_manifest(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav")
    path = write_lines(
        tmp_path / "m.jsonl",
        {"audio_filepath": "a.wav", "text": "A"},
        {"audio_filepath": "b.wav"},
        {"audio_filepath": "c.wav", "text": "C"},
    )
    with path.open("a") as file:
        file.write("{\n")
    faults: list[Fault] = []
    found = read_utterances(format="jsonl", input=path, report=faults.append)
    assert [u.utterance_id for u in found] == ["a"]
    assert {fault.code: list(fault.details) for fault in faults} == {
        "bad_record": [f"{path}:4"],
        "missing_transcript": ["b"],
        "missing_audio": ["c"],
    }


def test_a_broken_file_of_a_dropped_speaker_is_nobodys_business(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav")
    path = write_lines(
        tmp_path / "m.jsonl",
        {"audio_filepath": "a.wav", "text": "A", "speaker": "ann"},
        {"audio_filepath": "absent.wav", "text": "B", "speaker": "bob"},
    )
    found = read_utterances(format="jsonl", input=path, exclude_speakers=("bob",))
    assert [u.utterance_id for u in found] == ["a"]
    with pytest.raises(InputError, match="no audio file"):
        read_utterances(format="jsonl", input=path)


def write_recording(path: Path, rate: int = 16000) -> np.ndarray:
    """Four seconds of noise of two channels, float32 [T, 2] as written."""
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, (4 * rate, 2)).astype(np.float32)
    soundfile.write(path, samples, rate)
    return soundfile.read(path, dtype="float32")[0]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_an_offset_reads_a_part_of_the_recording(tmp_path: Path, suffix: str) -> None:
    whole = write_recording(tmp_path / f"rec.{suffix}")
    line = {"audio_filepath": f"rec.{suffix}", "text": "A"}
    path = write_lines(
        tmp_path / "m.jsonl",
        {**line, "offset": 0.0, "duration": 1.5},
        {**line, "offset": 1.5, "duration": 2.0},
        {**line, "offset": "3.5"},
        {**line, "offset": 0, "duration": 4.0, "utterance_id": "all"},
    )
    utterances = read_jsonl(path)
    assert [(u.utterance_id, u.start, u.num_samples) for u in utterances] == [
        ("rec", 0, 24_000), ("rec-0001500", 24_000, 32_000), ("rec-0003500", 56_000, 8_000), ("all", None, 64_000),
    ]  # fmt: skip
    source = FileSource(utterances=utterances)
    assert source.num_samples.tolist() == [24_000, 32_000, 8_000, 64_000]
    for index, part in enumerate((whole[:24_000], whole[24_000:56_000], whole[56_000:], whole)):
        np.testing.assert_allclose(source.read_recording(index)[0], part, atol=1e-6)
    mono = load_audio(tmp_path / f"rec.{suffix}")
    for index, part in enumerate((mono[:24_000], mono[24_000:56_000], mono[56_000:], mono)):
        np.testing.assert_allclose(source.read_waveform(index), part, atol=1e-6)
    write_jsonl(tmp_path / "again.jsonl", utterances)
    assert [(u.utterance_id, u.start, u.num_samples) for u in read_jsonl(tmp_path / "again.jsonl")] == [
        (u.utterance_id, u.start, u.num_samples) for u in utterances
    ]


def test_a_table_has_segments_too_at_the_files_own_rate(tmp_path: Path) -> None:
    write_recording(tmp_path / "rec.wav", 22_050)
    (tmp_path / "t.tsv").write_text("path\ttext\toffset\tduration\nrec.wav\tA\t1.0\t2.0\nrec.wav\tB\t3.0\t\n")
    first, second = read_table(tmp_path / "t.tsv")
    assert (first.start, first.num_samples, second.start, second.num_samples) == (22_050, 44_100, 66_150, 22_050)
    source = FileSource(utterances=[first, second])
    assert [len(source.read_waveform(index)) for index in (0, 1)] == [32_000, 16_000]


def test_a_segment_beyond_its_recording_is_a_fault_of_its_line(tmp_path: Path) -> None:
    write_recording(tmp_path / "rec.wav")
    line = {"audio_filepath": "rec.wav", "text": "A"}
    path = write_lines(tmp_path / "m.jsonl", {**line, "offset": 1}, {**line, "offset": 1990, "duration": 2255})
    faults: list[Fault] = []
    assert len(read_utterances(format="jsonl", input=path, report=faults.append)) == 1
    assert [(fault.code, list(fault.details)) for fault in faults] == [("bad_segment", ["rec-1990000"])]
    assert f"{path}:2 has a segment from 1990 s to 4245 s in a recording of 4 s" in faults[0].message


def test_durations_are_passed_over_or_compared_but_never_believed(tmp_path: Path) -> None:
    write_recording(tmp_path / "rec.wav")
    values = [None, "4.0", 4, float("nan"), "long", 3.5, "3.5", 4000]
    records = [{"audio_filepath": "rec.wav", "text": "A", "utterance_id": f"u{i}"} for i in range(len(values))]
    path = write_lines(tmp_path / "m.jsonl", *({**r, "duration": v} for r, v in zip(records, values, strict=True)))
    found = read_jsonl(path)
    assert [u.num_samples for u in found] == [64_000] * len(values)
    assert {u.utterance_id: u.duration_conflict for u in found if u.duration_conflict} == {
        "u5": "3.5 s listed, 4 s in the file",
        "u6": "3.5 s listed, 4 s in the file",
        "u7": "4000 s listed, 4 s in the file, milliseconds?",
    }


def test_nan_is_a_missing_value_and_no_word(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav")
    nan = float("nan")
    good = {"audio_filepath": "a.wav", "text": "A"}
    path = write_lines(
        tmp_path / "m.jsonl",
        {**good, "text": nan},
        {**good, "audio_filepath": nan},
        {**good, "speaker": nan, "speaker_id": "ann", "utterance_id": nan, "split": nan, "duration": nan},
        {**good, "utterance_id": "b", "text": float("inf")},
    )
    faults: list[Fault] = []
    (found,) = read_utterances(format="jsonl", input=path, report=faults.append)
    assert (found.utterance_id, found.speaker_id, found.text) == ("a", "ann", "A")
    assert [(fault.code, list(fault.details)) for fault in faults] == [
        ("missing_transcript", ["a"]), ("bad_record", [f"{path}:2"]), ("missing_transcript", ["b"]),
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"m\.jsonl:1 has no text, add it: .*NaN"):
        read_jsonl(path)


def test_nan_in_a_table_names_nobody_but_may_be_a_word(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_audio(tmp_path / f"{name}.wav")
    rows = ["path,text,speaker,utterance_id", "a.wav,nan,nan,NaN", "b.wav,NAN BREAD,Nan,", "nan,C,s,c"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    faults: list[Fault] = []
    found = read_utterances(format="csv", input=tmp_path / "t.csv", report=faults.append)
    assert [(u.utterance_id, u.text, u.speaker_id) for u in found] == [("a", "nan", ""), ("b", "NAN BREAD", "Nan")]
    assert [fault.code for fault in faults] == ["bad_record"]


def test_the_reason_is_told_where_no_line_can_be_used(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "m.jsonl", {"audio_filepath": "a.wav"}, {"audio_filepath": "b.wav"})
    with pytest.raises(InputError, match=r"no utterance of .* can be used: .*m\.jsonl:1 has no text") as caught:
        read_utterances(format="jsonl", input=path, report=lambda fault: None)
    assert caught.value.code == "missing_transcript"


def test_what_lies_near_absent_audio_and_manifests_is_named(tmp_path: Path, tree: Path) -> None:
    (tmp_path / "wav").mkdir()
    write_audio(tmp_path / "wav/a.flac")
    path = write_lines(tmp_path / "m.jsonl", {"audio_filepath": "clips/a.wav", "text": "A"})
    with pytest.raises(InputError, match=r"no audio file .*clips/a\.wav: check the path; .*wav/a\.flac lies near"):
        read_jsonl(path)
    with pytest.raises(InputError, match=r"no manifest .*M\.JSONL: give the path of a file; did you mean .*m\.jsonl"):
        read_jsonl(tmp_path / "M.JSONL")
    (tree / "dev/9/1/9-1-0001.flac").rename(tree / "dev/9/1/9-1-0001.ogg")
    with pytest.raises(InputError, match=r"first 9-1-0001: .*; .*9-1-0001\.ogg lies near, with another suffix"):
        read_librispeech(tree, "dev")


def test_audio_behind_a_strange_name_is_one_fault_among_good_ones(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav")
    names = ["a.wav", "b\0.wav", "c.http://127.0.0.1:1/x.wav", "d" * 5000]
    records = ({"audio_filepath": name, "text": "A", "utterance_id": name[:1]} for name in names)
    path = write_lines(tmp_path / "m.jsonl", *records)
    faults: list[Fault] = []
    assert [u.utterance_id for u in read_utterances(format="jsonl", input=path, report=faults.append)] == ["a"]
    assert {name for fault in faults for name in fault.details} == {"b", "c", "d"}


def test_one_channel_of_a_recording_is_listed_and_written_again(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, (1600, 2))
    soundfile.write(tmp_path / "two.wav", samples, 16000)
    where = {"audio_filepath": "two.wav", "text": "A"}
    records = [{**where, "utterance_id": "mix"}, {**where, "utterance_id": "left", "audio_channel": 0}]
    records.append({**where, "utterance_id": "right", "audio_channel": "1", "offset": 0.05, "duration": 0.02})
    utterances = read_jsonl(write_lines(tmp_path / "m.jsonl", *records))
    write_jsonl(tmp_path / "again.jsonl", utterances)
    assert read_jsonl(tmp_path / "again.jsonl") == utterances
    assert [utterance.channel for utterance in utterances] == [None, 0, 1]
    source, stored = FileSource(utterances=utterances), soundfile.read(tmp_path / "two.wav", dtype="float32")[0]
    assert np.array_equal(source.read_waveform(1), stored[:, 0])
    assert np.array_equal(source.read_waveform(2), stored[800:1120, 1])
    assert source.read_recording(1)[0].shape == (1600, 1)
    bad = write_lines(tmp_path / "bad.jsonl", {**where, "audio_channel": "left"})
    with pytest.raises(InputError, match=r"bad\.jsonl:1 has audio_channel left: give the number of a channel, from 0"):
        read_jsonl(bad)
