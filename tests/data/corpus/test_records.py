"""Records of manifests and tables, and the line of every fault."""

from __future__ import annotations

import gzip
from functools import partial
from pathlib import Path

import pytest

from data.common.errors import InputError
from data.corpus.faults import Fault, refuse
from data.corpus.records import excerpt, read_json_records, read_table_records, read_text

OBJECT = '{"audio_filepath": "a.wav", "text": "A"}'


def read_table(path: Path, content: str, delimiter: str = ",") -> tuple[list[tuple[str, str]], list[str]]:
    """(line and text of each row that is read, message of each fault), without the path."""
    path.write_text(content)
    faults: list[Fault] = []
    records = read_table_records(str(path), delimiter, faults.append)
    cut = len(str(path)) + 1
    return [(r.place[cut:], str(r.fields["text"])) for r in records], [fault.message[cut:] for fault in faults]


@pytest.mark.parametrize(
    "content",
    [
        f"[\n {OBJECT},\n {OBJECT}\n]\n",
        f"[{OBJECT}, {OBJECT}]",
        f"\ufeff\n[{OBJECT},\n{OBJECT}]\n",
        '[\n {\n  "text": "A"\n },\n',
    ],
)
def test_a_json_array_is_one_complaint(tmp_path: Path, content: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"m\.json is one JSON array; write one object a line \(line \d: \[") as caught:
        read_json_records(str(path), lambda fault: pytest.fail(fault.message))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("times", [1, 3])
def test_pretty_printed_objects_are_one_complaint(tmp_path: Path, times: int) -> None:
    path = tmp_path / "m.json"
    path.write_text('{\n  "audio_filepath": "a.wav",\n  "text": "A"\n}\n' * times)
    with pytest.raises(InputError, match=r"m\.json is JSON spread over several lines; write one object a line"):
        read_json_records(str(path), lambda fault: pytest.fail(fault.message))


def test_a_bad_first_line_does_not_make_a_document_of_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"text": "A\n' + f"{OBJECT}\n" * 2 + "[1]\n")
    faults: list[Fault] = []
    assert [record.place for record in read_json_records(str(path), faults.append)] == [f"{path}:2", f"{path}:3"]
    assert list(faults[0].details) == [f"{path}:1"] and faults[0].message.endswith('correct the line: {"text": "A')
    assert faults[1].message == f"{path}:4 is not a JSON object, correct the line: [1]"


def test_a_file_of_another_format_is_one_complaint(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("audio_filepath,text\n" + "a.wav,A\n" * 98)
    with pytest.raises(InputError, match=r"m\.jsonl:1 is not JSON .*: audio_filepath,text \(so are all its 99 lines"):
        read_json_records(str(path), lambda fault: pytest.fail(fault.message))


@pytest.mark.parametrize(
    "line",
    ['{"a": ' + "[" * 100_000, '{"a": ' + "9" * 5_000 + "}", '{"audio_filepath": "\\ud800", "text": "A"}'],
    ids=["deep", "digits", "surrogate"],
)
def test_json_that_python_cannot_take_is_a_fault_of_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(f"{OBJECT}\n{line}\n{OBJECT}\n")
    faults: list[Fault] = []
    assert len(read_json_records(str(path), faults.append)) == 2
    assert [list(fault.details) for fault in faults] == [[f"{path}:2"]]
    assert len(faults[0].message) < 300 and "\n" not in faults[0].message


def test_an_open_quotation_mark_is_named_where_it_opens_and_swallows_nothing(tmp_path: Path) -> None:
    head, rows = "audio_filepath,text,speaker\n", [f'u{i}.wav,"YES, {i}",s\n' for i in range(4)]
    # To the end of the file: nothing closes it.
    found, faults = read_table(tmp_path / "t.csv", head + rows[0] + 'u.wav,"OPEN,s\n' + "b.wav,B,s\nc.wav,C,s\n")
    assert found == [("2", "YES, 0"), ("4", "B"), ("5", "C")]
    assert faults == ['3 is malformed (unexpected end of data), close or double the quotation mark: u.wav,"OPEN,s']
    # To the next quotation mark, at which parsing stops.
    found, faults = read_table(tmp_path / "t.csv", head + rows[0] + 'u.wav,"OPEN,s\n' + rows[1] + rows[2])
    assert found == [("2", "YES, 0"), ("4", "YES, 1"), ("5", "YES, 2")]
    assert len(faults) == 1 and faults[0].startswith("3 is malformed") and faults[0].endswith('u.wav,"OPEN,s')
    # To a quotation mark that ends a cell: a row over three lines with too few columns.
    found, faults = read_table(tmp_path / "t.csv", head + 'u.wav,"OPEN,s\nv.wav,V,s\nw.wav,SAY IT"\n' + rows[3])
    assert found == [("3", "V"), ("5", "YES, 3")]
    assert [fault.split(",")[0] for fault in faults] == [
        "2 has too few or too many columns", "4 has too few or too many columns",
    ]  # fmt: skip
    # In the second of two cells of several lines.
    found, faults = read_table(tmp_path / "t.csv", head + 'u.wav,"TWO\nLINES","OPEN\nv.wav,V,s\n')
    assert found == [("4", "V")] and faults[0].startswith("3 is malformed")


def test_a_cell_of_two_lines_is_one_row(tmp_path: Path) -> None:
    found, faults = read_table(tmp_path / "t.csv", 'audio_filepath,text\na.wav,"yes, ""no""\nmaybe"\n\nb.wav,B\n')
    assert (found, faults) == ([("2", 'yes, "no"\nmaybe'), ("5", "B")], [])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("file,text\na.wav,A\n", "1 has no column audio_filepath or path, with commas between the columns: file,text"),
        ("\npath,text\n", "1 has no column audio_filepath or path, with commas between the columns: an empty line"),
        ("path;text\na.wav;A\n", "1 has no column audio_filepath or path, with commas between the columns: path;text"),
        ("path,words\na.wav,A\n", "1 has no column text or sentence, .*: path,words"),
        ("path,text,text\na.wav,A,B\n", "1 has the column text twice: path,text,text"),
    ],
)
def test_a_header_is_one_complaint_about_the_first_line(tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"t\.csv:{reason}$"):
        read_table(tmp_path / "t.csv", content)


def test_spaces_in_a_header_and_bare_quotes_between_tabs(tmp_path: Path) -> None:
    assert read_table(tmp_path / "t.csv", "path, text\na.wav,A\n") == ([("2", "A")], [])
    assert read_table(tmp_path / "t.tsv", 'path\ttext\na.wav\t"A\n', "\t") == ([("2", '"A')], [])


def test_text_in_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"path,text\na.wav,ONE\nb.wav,caf\xe9\n")
    with pytest.raises(InputError, match=r"is not UTF-8 text \(byte 29\), convert it, line 3: b\.wav,caf.$"):
        read_text(str(path))
    path.write_bytes("path,text\n".encode("utf-16"))
    with pytest.raises(InputError, match=r"is not UTF-8 text \(byte 0\) but UTF-16, convert it$"):
        read_text(str(path))


def test_an_excerpt_is_short_and_printable() -> None:
    assert excerpt("a\tb\x1b[2J" + "x" * 100) == "a b [2J" + "x" * 73 + "..."
    assert excerpt(" short ") == "short"


def test_the_default_report_refuses_at_the_first_fault(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(f"{OBJECT}\n{{\n")
    with pytest.raises(InputError, match=r"m\.jsonl:2 is not JSON"):
        read_json_records(str(path), refuse)


@pytest.mark.parametrize("format", ["jsonl", "csv", "tsv"])
def test_a_list_may_be_compressed_under_any_name(tmp_path: Path, format: str) -> None:
    delimiter = {"csv": ",", "tsv": "\t"}.get(format, "")
    text = f"path{delimiter}text\na.wav{delimiter}hello\n" if delimiter else '{"path": "a.wav", "text": "hello"}\n'
    path = tmp_path / f"list.{format}"
    path.write_bytes(gzip.compress(text.encode()))
    read = partial(read_table_records, str(path), delimiter) if delimiter else partial(read_json_records, str(path))
    (record,) = read(refuse)
    assert record.fields == {"path": "a.wav", "text": "hello"}
    for content in (path.read_bytes()[:-4], path.read_bytes()[:12] + b"xxxx" + path.read_bytes()[16:], b"\x1f\x8b"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"list\.{format} is damaged"):
            read(refuse)
