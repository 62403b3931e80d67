"""TensorFlow Serving's JSON of a prediction: both forms of a request to arrays, arrays to both forms of an answer.

https://www.tensorflow.org/tfx/serving/api_rest: {"instances": [...]}, one object a row, is answered by {"predictions":
[...]}; {"inputs": {...}}, one array a name, by {"outputs": {...}}. `lengths` may be left out here, and rows may differ
in length: TensorFlow Serving itself wants both given and padded, and whoever does that is understood too.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SIGNATURE = "serving_default"
INPUTS = ("waveform", "lengths")


@dataclasses.dataclass(frozen=True)
class PredictRequest:
    """Rows to recognize.

    Attributes:
        waveform: float32 [B, T].
        lengths: int32 [B], valid samples of each row.
        by_rows: Whether it came as instances, and wants predictions.
    """

    waveform: np.ndarray
    lengths: np.ndarray
    by_rows: bool


def parse_request(body: bytes) -> PredictRequest:
    """Reads the body of a request.

    Raises:
        ValueError: One line for who sent it.
    """
    try:
        request = json.loads(body, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("the body is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"the body is no JSON: {error}") from error
    if not isinstance(request, dict):
        raise ValueError('the body is no object; send {"instances": [{"waveform": [...]}]}')
    signature = request.get("signature_name") or SIGNATURE
    if signature != SIGNATURE:
        raise ValueError(f"signature_name is {signature!r}, and there is but {SIGNATURE!r}")
    if ("instances" in request) == ("inputs" in request):
        raise ValueError('give either "instances" (a list of rows) or "inputs" (an object of columns)')
    by_rows = "instances" in request
    rows, lengths = _from_instances(request["instances"]) if by_rows else _from_inputs(request["inputs"])
    if not rows:
        raise ValueError("there are no rows")
    waveform = np.zeros([len(rows), max(map(len, rows))], np.float32)
    for index, row in enumerate(rows):
        waveform[index, : len(row)] = row
    for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        if isinstance(length, bool) or not isinstance(length, int) or not 0 <= length <= len(row):
            raise ValueError(f"row {index}: lengths is {length!r}, wanted a whole number from 0 to {len(row)}")
    return PredictRequest(waveform, np.array(lengths, np.int32), by_rows)


def format_answer(outputs: Mapping[str, np.ndarray], *, by_rows: bool) -> dict[str, Any]:
    """Returns the object that answers a request.

    Args:
        outputs: Arrays [B, ...] by name; strings as bytes.
        by_rows: As `PredictRequest.by_rows`.
    """
    columns = {name: _to_json(array) for name, array in outputs.items()}
    if not by_rows:
        return {"outputs": columns}
    num_rows = len(next(iter(columns.values())))
    return {"predictions": [{name: column[row] for name, column in columns.items()} for row in range(num_rows)]}


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that JSON knows")


def _from_instances(instances: Any) -> tuple[list[np.ndarray], list[Any]]:
    if not isinstance(instances, list):
        raise ValueError('"instances" is no list')
    rows: list[np.ndarray] = []
    lengths: list[Any] = []
    for index, instance in enumerate(instances):
        where = f"instance {index}"
        fields = instance if isinstance(instance, dict) else {"waveform": instance}
        _check_names(fields, where)
        rows.append(_to_row(fields["waveform"], where))
        lengths.append(fields.get("lengths", len(rows[-1])))
    return rows, lengths


def _from_inputs(inputs: Any) -> tuple[list[np.ndarray], list[Any]]:
    columns = inputs if isinstance(inputs, dict) else {"waveform": inputs}
    _check_names(columns, "inputs")
    if not isinstance(columns["waveform"], list):
        raise ValueError("inputs: waveform is no list of rows")
    rows = [_to_row(row, f"row {index}") for index, row in enumerate(columns["waveform"])]
    lengths = columns.get("lengths", [len(row) for row in rows])
    if not isinstance(lengths, list) or len(lengths) != len(rows):
        raise ValueError(f"inputs: lengths must be a list of {len(rows)} whole numbers, one for each row of waveform")
    return rows, lengths


def _check_names(fields: Mapping[str, Any], where: str) -> None:
    unknown = sorted(set(fields) - set(INPUTS))
    if unknown:
        raise ValueError(f"{where}: unknown input {unknown[0]!r}; the inputs are {' and '.join(INPUTS)}")
    if "waveform" not in fields:
        raise ValueError(f"{where}: there is no waveform")


def _to_row(values: Any, where: str) -> np.ndarray:
    """float32 [T] of a list of numbers."""
    # By type: NumPy would take "1" and true for numbers.
    if isinstance(values, list) and set(map(type, values)) <= {int, float}:
        try:
            with np.errstate(over="ignore"):
                row = np.array(values, np.float64).astype(np.float32)
        except OverflowError:  # a whole number of hundreds of digits
            row = np.array([np.inf], np.float32)
        if np.isfinite(row).all():
            return row
    raise ValueError(f"{where}: waveform must be a list of numbers, samples at 16 kHz in [-1, 1]")


def _to_json(array: np.ndarray) -> Sequence[Any]:
    if array.dtype != object:
        return array.tolist()
    return [_to_json(row) if isinstance(row, np.ndarray) else row.decode("utf-8") for row in array]
