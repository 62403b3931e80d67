"""TensorFlow Serving's JSON, there and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from engine.inference.predict_json import format_answer, parse_request


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
        (b"{", "no JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b"\xff\xfe{}", "no JSON"),
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
        (b'{"instances": [[1' + b"0" * 400 + b"]]}", "list of numbers"),
        (b'{"instances": [[NaN]]}', "NaN is not a number"),
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
