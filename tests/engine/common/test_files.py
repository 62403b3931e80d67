"""Files that survive a kill: whole or not there, and lines that can be read back."""

from __future__ import annotations

import json
import os
import stat

import numpy as np
import pytest

from engine.common import files


def test_text_replaces_old_content_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "deep" / "note.txt"
    files.write_text_atomic(path, "old, and longer")
    files.write_text_atomic(path, "new ä")
    assert path.read_text(encoding="utf-8") == "new ä"
    assert os.listdir(path.parent) == ["note.txt"]


def test_file_is_as_readable_as_the_umask_allows(tmp_path):
    old = os.umask(0o022)
    try:
        files.write_text_atomic(tmp_path / "a", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_failed_write_keeps_old_content_and_cleans_up(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json_atomic(path, {"a": 1})

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        files.write_json_atomic(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_values_that_json_lacks_are_converted(tmp_path):
    path = tmp_path / "a.json"
    value = {
        "scalar": np.float32(0.5),
        "count": np.int64(3),
        "array": np.array([1.0, np.nan]),
        "nan": float("nan"),
        "double_inf": np.float64("inf"),
        "tuple": (1, 2),
        "set": {"b", "a"},
        "path": tmp_path,
        "flag": True,
        1: None,
    }
    files.write_json_atomic(path, value)
    assert json.loads(path.read_text()) == {
        "scalar": 0.5,
        "count": 3,
        "array": [1.0, None],
        "nan": None,
        "double_inf": None,
        "tuple": [1, 2],
        "set": ["a", "b"],
        "path": str(tmp_path),
        "flag": True,
        "1": None,
    }


def test_lines_are_appended_and_read_in_order(tmp_path):
    path = tmp_path / "runs" / "metrics.jsonl"
    files.append_jsonl(path, {"step": 1, "text": "two\nlines Ü"})
    files.append_jsonl(path, {"step": 2})
    assert path.read_bytes().count(b"\n") == 2
    assert files.read_jsonl(path) == [{"step": 1, "text": "two\nlines Ü"}, {"step": 2}]


def test_lines_are_replaced_as_a_whole(tmp_path):
    path = tmp_path / "eval" / "predictions.jsonl"
    files.write_jsonl_atomic(path, [{"a": 1}, {"a": 2}])
    files.write_jsonl_atomic(path, iter([{"a": np.int64(3)}]))
    assert path.read_text() == '{"a": 3}\n'
    assert os.listdir(path.parent) == ["predictions.jsonl"]


def test_line_separators_of_unicode_do_not_split_a_line(tmp_path):
    path = tmp_path / "a.jsonl"
    files.append_jsonl(path, {"text": "a\u2028b\x85c"})
    assert files.read_jsonl(path) == [{"text": "a\u2028b\x85c"}]


@pytest.mark.parametrize("tail", [b'{"step": 3, "lo', b'{"text": "\xc3'])
def test_last_line_cut_off_by_a_kill_is_left_out(tmp_path, tail):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + tail)
    assert files.read_jsonl(path) == [{"step": 1}, {"step": 2}]


def test_last_line_without_newline_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    assert files.read_jsonl(path) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize(
    "line", ["{broken", "[1]", '{"a": "\xff"}', '{"a": "\\ud800"}', "[" * 100_000, '{"a": ' + "9" * 5000 + "}"]
)
def test_broken_line_in_the_middle_is_an_error_with_its_number(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_bytes(f'{{"step": 1}}\n\n{line}\n{{"step": 2}}\n'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.jsonl, line 3: not a JSON object") as caught:
        files.read_jsonl(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
