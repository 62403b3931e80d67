"""Reads both forms of TensorFlow Serving's JSON request into arrays, and writes arrays as both forms of its answer.

https://www.tensorflow.org/tfx/serving/api_rest: {"instances": [...]}, one object a row, is answered by {"predictions":
[...]}; {"inputs": {...}}, one array a name, by {"outputs": {...}}. `lengths` may be left out here, and rows may differ
in length: TensorFlow Serving itself wants both given and padded, and whoever does that is understood too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.json_files import describe, parse_json
from engine.inference.transcriber import SAMPLE_RATE

SIGNATURE = "serving_default"
INPUTS = ("waveform", "lengths")
# Beyond any scale in use, integers of 32 bits included; the square of it still fits float32.
_LARGEST_SAMPLE = 1e10
# Arrays, objects and names that a request may have beside those of its rows.
_SPARE = 16
_WHOLE_ROW = object()  # the length of a row whose sender gives none


class TooLargeError(ValueError):
    """Raised for a request of more or longer rows than are allowed; the message is one line for the sender."""


@dataclasses.dataclass(frozen=True)
class PredictRequest:
    """The rows of a prediction request.

    Attributes:
        waveform: float32 [B, T].
        lengths: int32 [B], valid samples of each row.
        by_rows: Whether the request came as instances and wants predictions.
    """

    waveform: np.ndarray
    lengths: np.ndarray
    by_rows: bool


def parse_request(body: bytes, *, max_rows: int, max_samples: int) -> PredictRequest:
    """Reads the body of a request.

    Args:
        body: The request, JSON in UTF-8.
        max_rows: Most rows of a request.
        max_samples: Most samples of a row.

    Raises:
        TooLargeError: There are more; raised before memory is taken for them.
        ValueError: The body cannot be used; one line for the sender.
    """
    _check_outline(body, max_rows, max_samples)
    request = parse_json(body, "the body")
    if not isinstance(request, dict):
        raise ValueError('the body is no object; send {"instances": [{"waveform": [...]}]}')
    _check_signature(request.get("signature_name") or SIGNATURE)
    if ("instances" in request) == ("inputs" in request):
        raise ValueError('give either "instances" (a list of rows) or "inputs" (an object of columns)')
    by_rows = "instances" in request
    rows, lengths = _from_instances(request["instances"]) if by_rows else _from_inputs(request["inputs"])
    if not rows:
        raise ValueError("there are no rows")
    waveform, num_samples = _to_waveform(rows, max_rows, max_samples)
    pairs = enumerate(zip(lengths, num_samples, strict=True))
    checked = [_to_length(length, num, index) for index, (length, num) in pairs]
    return PredictRequest(waveform, np.array(checked, np.int32), by_rows)


def format_answer(outputs: Mapping[str, np.ndarray], *, by_rows: bool) -> dict[str, Any]:
    """Returns the object that answers a request.

    Args:
        outputs: Arrays [B, ...] by name; strings as bytes.
        by_rows: Whether the request came as instances and wants predictions.
    """
    columns = {name: _to_json(array) for name, array in outputs.items()}
    if not by_rows:
        return {"outputs": columns}
    num_rows = len(next(iter(columns.values())))
    return {"predictions": [{name: column[row] for name, column in columns.items()} for row in range(num_rows)]}


def _check_outline(body: bytes, max_rows: int, max_samples: int) -> None:
    """Refuses a body of more parts than any request needs, by counting bytes.

    The parser would hold the interpreter for seconds and make gigabytes of objects out of a few megabytes of brackets.
    """
    num_arrays = max(body.count(b"["), body.count(b"{"))
    if num_arrays > max_rows + _SPARE or body.count(b":") > 2 * max_rows + _SPARE:
        raise TooLargeError(
            f"the body has {num_arrays:,} arrays or objects: it is nested too deep, or has more than the {max_rows} "
            "rows that are allowed here; send fewer"
        )
    num_values = body.count(b",")
    if num_values > max_rows * (max_samples + 2) + _SPARE:
        raise TooLargeError(
            f"the body has {num_values:,} values, and {max_rows} rows of {max_samples / SAMPLE_RATE:g} s are allowed "
            "here; send fewer, or long recordings as files to /v1/transcribe"
        )


_Rows = list[tuple[str, Any]]
"""(where it stands, samples as they came) of each row."""


def _check_signature(signature: Any) -> None:
    if signature != SIGNATURE:
        name = repr(signature) if isinstance(signature, str) and len(signature) < 100 else describe(signature)
        raise ValueError(f"signature_name is {name}, which is unknown; this model only has {SIGNATURE!r}")


def _from_instances(instances: Any) -> tuple[_Rows, list[Any]]:
    if not isinstance(instances, list):
        raise ValueError('"instances" is no list')
    rows: _Rows = []
    lengths: list[Any] = []
    for index, instance in enumerate(instances):
        where = f"instance {index}"
        fields = instance if isinstance(instance, dict) else {"waveform": instance}
        _check_names(fields, where)
        rows.append((where, fields["waveform"]))
        lengths.append(fields.get("lengths", _WHOLE_ROW))
    return rows, lengths


def _from_inputs(inputs: Any) -> tuple[_Rows, list[Any]]:
    columns = inputs if isinstance(inputs, dict) else {"waveform": inputs}
    _check_names(columns, "inputs")
    if not isinstance(columns["waveform"], list):
        raise ValueError("inputs: waveform is no list of rows")
    rows = [(f"row {index}", row) for index, row in enumerate(columns["waveform"])]
    lengths = columns.get("lengths", [_WHOLE_ROW] * len(rows))
    if not isinstance(lengths, list) or len(lengths) != len(rows):
        raise ValueError(f"inputs: lengths must be a list of {len(rows)} whole numbers, one for each row of waveform")
    return rows, lengths


def _check_names(fields: Mapping[str, Any], where: str) -> None:
    unknown = sorted(set(fields) - set(INPUTS))
    if unknown:
        raise ValueError(f"{where}: unknown input {unknown[0][:100]!r}; the inputs are {' and '.join(INPUTS)}")
    if "waveform" not in fields:
        raise ValueError(f"{where}: there is no waveform")


def _to_waveform(rows: _Rows, max_rows: int, max_samples: int) -> tuple[np.ndarray, list[int]]:
    """Returns the padded rows, float32 [B, T], and the samples that came for each of them."""
    longest = max((len(values) for _, values in rows if isinstance(values, list)), default=0)
    if len(rows) > max_rows or longest > max_samples:
        raise TooLargeError(
            f"{len(rows)} rows of {longest / SAMPLE_RATE:.1f} s, and {max_rows} of {max_samples / SAMPLE_RATE:g} s are "
            "allowed here; send fewer, or long recordings as files to /v1/transcribe"
        )
    waveform = np.zeros([len(rows), longest], np.float32)
    num_samples = []
    for index, (where, values) in enumerate(rows):
        row = _to_row(values, where)
        waveform[index, : len(row)] = row
        num_samples.append(len(row))
    return waveform, num_samples


def _to_length(length: Any, num_samples: int, index: int) -> int:
    """Returns the valid samples of a row, all of them if its sender gives no length."""
    if length is _WHOLE_ROW:
        return num_samples
    if isinstance(length, bool) or not isinstance(length, int) or not 0 <= length <= num_samples:
        shown = length if isinstance(length, bool) else describe(length)
        raise ValueError(f"row {index}: lengths is {shown}, wanted a whole number from 0 to {num_samples}")
    return length


def _to_row(values: Any, where: str) -> np.ndarray:
    """float32 [T] of a list of numbers."""
    # By type: NumPy would take "1" and true for numbers.
    if isinstance(values, list) and set(map(type, values)) <= {int, float}:
        try:
            with np.errstate(over="ignore"):
                row = np.array(values, np.float64).astype(np.float32)
        except OverflowError:  # a whole number of hundreds of digits
            row = np.array([np.inf], np.float32)
        if (np.abs(row) <= _LARGEST_SAMPLE).all():  # neither NaN nor infinite
            return row
    raise ValueError(f"{where}: waveform must be a list of numbers, samples at 16 kHz in [-1, 1]")


def _to_json(array: np.ndarray) -> Sequence[Any]:
    if array.dtype != object:
        return array.tolist()
    return [_to_json(row) if isinstance(row, np.ndarray) else row.decode("utf-8") for row in array]
