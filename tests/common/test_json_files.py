import json

import pytest

from common.json_files import MalformedFileError, field, optional_field, parse_json, parse_object, read_object


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a": "\xff"}', "f.json is not UTF-8 text (byte 7): convert it to UTF-8"),
        ('{"a": 1,}', "f.json is not valid JSON ("),
        ('{"a": 1}\n{"a": 2}\n', "line 2, column 1"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        # The parser takes it, and a reader that walks through it by recursion does not.
        ('{"a": ' * 400 + "1" + "}" * 400, "nested too deeply"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "nested too deeply"),
        ('{"a": ' + "9" * 5_000 + "}", "too many digits"),
        ('{"a": ["\\ud800"]}', "half of a surrogate pair in '\\ud800'"),
        ('{"\\uDFFF": 1}', "half of a surrogate pair"),
        ("[1]", "f.json is a JSON array, not a JSON object"),
        ("null", "f.json is null, not a JSON object"),
    ],
)
def test_damaged_content_is_one_line_with_its_place(content, expected):
    with pytest.raises(MalformedFileError) as info:
        parse_object(content, "f.json")
    message = str(info.value)
    assert expected in message
    assert message.startswith("f.json") and "\n" not in message and len(message) < 200


def test_valid_content_is_as_json_reads_it():
    content = {"a": [1, 2.5, None, True, {"b": "ä \U0001f600"}]}
    assert parse_json(json.dumps(content), "f") == content
    deep = [content] * 200 + ["[" * 200, json.loads("[" * 99 + "]" * 99)]
    assert parse_json(json.dumps(deep), "f") == deep
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(content, ensure_ascii=False).encode(), "f") == content


def test_file_is_named(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(MalformedFileError, match=r"x\.json is not valid JSON"):
        read_object(tmp_path / "x.json")
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1.5, int),
        (True, int),
        (2**63, int),
        ("1", int),
        (float("nan"), float),
        (10**400, float),
        (True, float),
        (None, str),
        (1, str),
        (1, bool),
        ({}, list),
        ([], dict),
    ],
)
def test_field_of_another_type_is_refused(value, kind):
    with pytest.raises(MalformedFileError, match="^f.json: 'k' is .*, not "):
        field({"k": value}, "k", kind, "f.json")


def test_field_of_the_right_type_is_returned():
    record = {"i": 3, "f": 2, "s": "x", "l": [1], "d": {}, "b": False}
    assert field(record, "i", int, "f") == 3
    assert field(record, "f", float, "f") == 2.0
    assert field(record, "s", str, "f") == "x"
    assert field(record, "l", list, "f") == [1]
    assert field(record, "b", bool, "f") is False
    assert optional_field(record, "absent", int, "f", 7) == 7
    with pytest.raises(MalformedFileError, match="f has no 'absent'"):
        field(record, "absent", int, "f")
