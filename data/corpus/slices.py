"""Keeps the fields of a manifest that put utterances into groups, such as accent, gender or domain."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from data.corpus.columns import OWN_FIELDS
from data.corpus.utterance import Fields, Row

MAX_VALUES = 50  # of a field that makes groups; a field with more says something about single utterances
_MOST_CHARACTERS = 60  # of a value
EVERY = "*"  # stands for every field


class GroupFields:
    """Reads the fields of many records that may make groups, and forgets those with too many different values.

    groups = GroupFields()
    rows = [row._replace(fields=groups.read(record.fields)) for row, record in found]
    rows = keep_few_valued(rows)
    """

    def __init__(self) -> None:
        self._values: dict[str, set[str]] = {}
        self._shared: dict[Fields, Fields] = {}

    def read(self, record: Mapping[str, object]) -> Fields:
        """Returns the short single values of a record as text, without its own keys and without empty ones."""
        found = []
        for name, value in record.items():
            if name in OWN_FIELDS or not name:  # such as the index that pandas writes
                continue
            known = self._values.setdefault(name, set())
            # The first value too many is kept: by it, `keep_few_valued` finds what to drop from the rows before.
            if len(known) <= MAX_VALUES and (text := _as_text(value)):
                known.add(text)
                found.append((name, text))
        fields = tuple(sorted(found)) if found else ()
        return self._shared.setdefault(fields, fields)


def keep_few_valued(rows: Sequence[Row]) -> list[Row]:
    """Returns rows with the fields that have at most 50 different values; rows with the same values share them."""
    if not any(row.fields for row in rows):
        return list(rows)
    few = _find_few_valued(rows)
    shared: dict[Fields, Fields] = {}
    kept = (tuple(item for item in row.fields if item[0] in few) for row in rows)
    return [row._replace(fields=shared.setdefault(fields, fields)) for row, fields in zip(rows, kept, strict=True)]


def _find_few_valued(rows: Sequence[Row]) -> set[str]:
    """Returns the names of the fields that have at most 50 different values."""
    values: dict[str, set[str]] = {}
    for row in rows:
        for name, text in row.fields:
            known = values.setdefault(name, set())
            if len(known) <= MAX_VALUES:  # one too many is enough to tell
                known.add(text)
    return {name for name, known in values.items() if len(known) <= MAX_VALUES}


def cut_fields(cut: Mapping[str, Any], supervision: Mapping[str, Any]) -> dict[str, object]:
    """Returns the fields of one of Lhotse's supervisions, and of its cut, that may make groups."""
    custom = [one.get("custom") for one in (cut, supervision)]
    found = {name: value for one in custom if isinstance(one, dict) for name, value in one.items()}
    found |= {name: supervision[name] for name in ("language", "gender") if name in supervision}
    return {name: value for name, value in found.items() if name not in OWN_FIELDS}


def select_fields(source: object, names: Collection[str]) -> dict[str, dict[str, str]]:
    """Returns utterance id -> the named fields of its manifest, in lower case; without utterances that have none.

    Args:
        source: A source; those of shards and files know such fields.
        names: Names of fields; upper and lower case are the same, "*" stands for every field.
    """
    wanted = {name.lower() for name in names}
    fields: Mapping[str, Fields] = getattr(source, "fields", {}) if wanted else {}
    found = {
        utterance_id: {name.lower(): text for name, text in pairs if EVERY in wanted or name.lower() in wanted}
        for utterance_id, pairs in fields.items()
    }
    return {utterance_id: selected for utterance_id, selected in found.items() if selected}


def shared_fields(fields: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Returns the fields that all utterances of a row have with the same value."""
    first, *others = fields
    return {name: text for name, text in first.items() if all(other.get(name) == text for other in others)}


def encode_fields(fields: Sequence[Fields]) -> dict[str, Any]:
    """Returns the fields of N utterances for an index: name -> its values, and the number of each utterance's value."""
    rows = [dict(pairs) for pairs in fields]
    encoded = {}
    for name in sorted({name for row in rows for name in row}):
        values = sorted({row.get(name, "") for row in rows})
        number_of = {text: number for number, text in enumerate(values)}
        encoded[name] = {"values": values, "numbers": [number_of[row.get(name, "")] for row in rows]}
    return encoded


def decode_fields(encoded: Mapping[str, Any], indices: Sequence[int]) -> list[Fields]:
    """Returns the fields of the utterances at `indices` out of what `encode_fields` made."""
    shared: dict[Fields, Fields] = {}
    rows = (
        tuple((name, text) for name, one in encoded.items() if (text := one["values"][one["numbers"][index]]))
        for index in indices
    )
    return [shared.setdefault(row, row) for row in rows]


def _as_text(value: object) -> str:
    """Returns a value as text; "" for lists and objects, long or empty text, and numbers that are not finite."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    text = " ".join(str(value).split())
    return text if len(text) <= _MOST_CHARACTERS else ""
