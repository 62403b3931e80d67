"""TensorFlow Serving's JSON, there and back."""

from __future__ import annotations

import functools
import json
import time
import tracemalloc

import numpy as np
import pytest

from engine.inference.serving import tf_serving_json
from engine.inference.serving.tf_serving_json import TooLargeError, format_answer
from tests.helpers.hostile_requests import json_bombs

parse_request = functools.partial(tf_serving_json.parse_request, max_rows=8, max_samples=480_000)


def parse(**request):
    return parse_request(json.dumps(request).encode())


def test_rows_of_any_length_with_and_without_their_lengths():
    found = parse(
        signature_name="serving_default",
        instances=[{"waveform": [0.5, -1, 0.25], "lengths": 2}, {"waveform": [1.0]}, [0.0, 0.125]],
    )
    assert found.by_rows
    assert found.waveform.tolist() == [[0.5, -1.0, 0.25], [1.0, 0.0, 0.0], [0.0, 0.125, 0.0]]
    assert found.lengths.tolist() == [2, 1, 2]
    assert (found.waveform.dtype, found.lengths.dtype) == (np.float32, np.int32)


def test_columns():
    found = parse(inputs={"waveform": [[0.5, 0.25], [1, 0]], "lengths": [2, 1]})
    assert not found.by_rows
    assert (found.waveform.tolist(), found.lengths.tolist()) == ([[0.5, 0.25], [1.0, 0.0]], [2, 1])
    assert parse(inputs=[[0.5, 0.25]]).lengths.tolist() == [2]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not valid JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b"\xff\xfe{}", "the body is not UTF-8 text"),
        (b"[]", "no object"),
        (b"{}", 'either "instances"'),
        (b'{"instances": [], "inputs": {}}', 'either "instances"'),
        (b'{"instances": []}', "no rows"),
        (b'{"instances": 3}', "no list"),
        (b'{"instances": [[0]], "signature_name": "train"}', "signature_name is 'train'"),
        (b'{"instances": [{"wave": [0]}]}', "unknown input 'wave'"),
        (b'{"instances": [{"lengths": 1}]}', "there is no waveform"),
        (b'{"instances": [["0"]]}', "instance 0: waveform must be a list of numbers"),
        (b'{"instances": [[true]]}', "list of numbers"),
        (b'{"instances": [[1e39]]}', "list of numbers"),
        (b'{"instances": [[1e11]]}', "list of numbers"),
        (b'{"instances": [[null]]}', "list of numbers"),
        (b'{"instances": [[[0]]]}', "list of numbers"),
        (b'{"instances": [{"b64": "AAAA"}]}', "unknown input 'b64'"),
        (b'{"instances": [{"waveform": {"b64": "AAAA"}}]}', "list of numbers"),
        (b'{"instances": [[' + b"9" * 5000 + b"]]}", "too many digits"),
        (b'{"signature_name": "\\ud800", "instances": [[0]]}', "half of a surrogate pair"),
        (b'{"signature_name": [[1]], "instances": [[0]]}', "signature_name is a JSON array"),
        (b'{"instances": [{"waveform": [0], "lengths": null}]}', "lengths is null"),
        (b'{"instances": [{"waveform": [0], "lengths": NaN}]}', "lengths is NaN"),
        (b'{"instances": [[1' + b"0" * 400 + b"]]}", "list of numbers"),
        (b'{"instances": [[NaN]]}', "instance 0: waveform must be a list of numbers"),
        (b'{"instances": [{"waveform": [0], "lengths": 2}]}', "row 0: lengths is 2, wanted a whole number from 0 to 1"),
        (b'{"instances": [{"waveform": [0], "lengths": true}]}', "lengths is True"),
        (b'{"inputs": {"waveform": [[0]], "lengths": [1, 1]}}', "list of 1 whole numbers"),
        (b'{"inputs": {"waveform": 3}}', "no list of rows"),
    ],
)
def test_a_bad_request_is_named(body, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_request(body)
    assert len(str(caught.value)) < 200


def test_answers_are_rows_or_columns():
    outputs = {
        "text": np.array(["zwölf".encode(), b""], object),
        "tokens": np.array([[b"A", b""], [b"", b""]], object),
        "logits": np.arange(4, dtype=np.float32).reshape(2, 1, 2) / 2,
    }
    assert json.loads(json.dumps(format_answer(outputs, by_rows=True))) == {
        "predictions": [
            {"text": "zwölf", "tokens": ["A", ""], "logits": [[0.0, 0.5]]},
            {"text": "", "tokens": ["", ""], "logits": [[1.0, 1.5]]},
        ]
    }
    assert format_answer(outputs, by_rows=False)["outputs"]["text"] == ["zwölf", ""]


@pytest.mark.parametrize("name", json_bombs(0))
def test_a_bomb_is_refused_before_it_takes_memory_or_time(name):
    body = json_bombs(4_000_000)[name]
    tracemalloc.start()
    try:
        begin = time.process_time()
        with pytest.raises(ValueError) as caught:
            tf_serving_json.parse_request(body, max_rows=8, max_samples=16_000)
        assert time.process_time() - begin < 1.5
        assert tracemalloc.get_traced_memory()[1] < 10 * len(body)
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("request_fields", "message"),
    [
        ({"instances": [[0.5]] * 9}, "9 rows of 0.0 s, and 8 of 1 s are allowed"),
        ({"instances": [[0.0] * 16_001]}, "1 rows of 1.0 s, and 8 of 1 s are allowed"),
        ({"inputs": {"waveform": [[0.0] * 16_001, []]}}, "2 rows of 1.0 s, and 8 of 1 s are allowed"),
        ({"instances": [[]] * 100}, "101 arrays or objects"),
        ({"instances": [[0.0] * 17_000] * 8}, "values, and 8 rows of 1 s are allowed"),
    ],
)
def test_too_much_is_told_apart_from_what_is_wrong(request_fields, message):
    with pytest.raises(TooLargeError, match=message):
        tf_serving_json.parse_request(json.dumps(request_fields).encode(), max_rows=8, max_samples=16_000)


def test_as_much_as_is_allowed_is_read():
    row = [{"waveform": [0.25] * 16_000, "lengths": 16_000}] * 8
    found = tf_serving_json.parse_request(json.dumps({"instances": row}).encode(), max_rows=8, max_samples=16_000)
    assert found.waveform.shape == (8, 16_000)
    columns = {"waveform": [[0.25] * 16_000] * 8, "lengths": [16_000] * 8}
    found = tf_serving_json.parse_request(json.dumps({"inputs": columns}).encode(), max_rows=8, max_samples=16_000)
    assert found.lengths.tolist() == [16_000] * 8
