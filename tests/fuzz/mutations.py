"""Damages bytes, JSON values and lines of text in the ways that users, disks and attackers do; all from a seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

# What a value may turn into. Written as they are: json.dumps has no word for some of them.
_LITERALS = (
    "null", "true", "false", "0", "-1", "1", "-0.0", "1e999", "-1e999", "NaN", "Infinity", "-Infinity", "1e308",
    "5e-324",
    "9" * 20, "9" * 400, "9" * 5000, "0." + "9" * 5000, "2.5", '""', '"x"', '"0"', '"nan"', '"\\ud800"', '"\\udfff"',
    '"\\u0000"', '"a\\nb"', '"' + "x" * 10_000 + '"', '"../../etc/passwd"', '"/dev/zero"', '"gs://b/x"',
    '"file\\u2028"',
    "[]", "{}", "[null]", '{"": 0}', '[[[["x"]]]]', "[" * 60 + "]" * 60, "[" * 700 + "]" * 700,
    "[" * 30_000 + "]" * 30_000,
    '{"a":' * 700 + "1" + "}" * 700, '{"__class__": "x"}', '["a", 1, null, {}]', "9223372036854775808",
    "4294967296", "-2147483649",
)  # fmt: skip
# What a damaged file may name.
PATHS = ("../../etc/passwd", "/dev/zero", "gs://b/x")
_MARK = "\x00mutated\x00"


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """Returns the content after one to three changes of bytes: flips, cuts, copies, splices, other encodings."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = rng.choice(_BYTE_CHANGES)(rng, content)
    return content


def mutate_json(rng: random.Random, value: Any) -> bytes:
    """Returns JSON text of a value after one or two changes of its types, numbers, texts, keys or depth."""
    value = copy.deepcopy(value)
    literals: list[str] = []
    for _ in range(rng.choice((1, 1, 2))):
        places = _places(value)
        if not places:
            break
        _change_place(rng, *rng.choice(places), literals)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    for number, literal in enumerate(literals):
        for written in (json.dumps(_MARK + str(number)), json.dumps(_MARK + str(number), ensure_ascii=False)):
            text = text.replace(written, literal)
    content = text.encode("utf-8", "surrogatepass")
    return mutate_bytes(rng, content) if rng.random() < 0.1 else content


def _change_place(rng: random.Random, owner: Any, key: Any, literals: list[str]) -> None:
    """Changes one value or key; adds to `literals` the text that is to replace its mark."""
    change = rng.randrange(8)
    if change == 0:
        del owner[key]
    elif change == 1 and isinstance(owner, dict):
        owner[rng.choice(("", "x", "step", key + " ", key.upper(), "a.b", "\u2028", "0"))] = owner.pop(key)
    elif change == 2 and isinstance(owner[key], list) and owner[key]:
        owner[key] = owner[key] * rng.choice((2, 50))
    elif change == 3 and isinstance(owner[key], (int, float)) and not isinstance(owner[key], bool):
        owner[key] = rng.choice((-owner[key], owner[key] * 2**31, owner[key] + 0.5, owner[key] * 1000, str(owner[key])))
    elif change == 4:
        owner[key] = rng.choice(([owner[key]], {"x": owner[key]}))
    else:
        literals.append(rng.choice(_LITERALS))
        owner[key] = _MARK + str(len(literals) - 1)


def mutate_lines(rng: random.Random, records: list[dict[str, Any]]) -> bytes:
    """Returns JSON lines of which one is damaged, comes twice, is missing or stands elsewhere."""
    lines = [json.dumps(record).encode() for record in records]
    number = rng.randrange(len(lines))
    change = rng.randrange(6)
    if change == 0:
        lines[number:number] = [lines[number]]
    elif change == 1:
        rng.shuffle(lines)
        lines[number] = mutate_bytes(rng, lines[number])
    elif change == 2:
        lines = [b"[" + b",".join(lines) + b"]"]
    else:
        lines[number] = mutate_json(rng, records[number])
    content = b"\n".join(lines) + rng.choice((b"\n", b"\n", b"", b"\r\n"))
    return mutate_bytes(rng, content) if rng.random() < 0.2 else content


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        item = stack.pop()
        pairs = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
        for key, child in list(pairs)[:50]:
            found.append((item, key))
            stack.append(child)
    return found


def _flip(rng: random.Random, content: bytes) -> bytes:
    if not content:
        return content
    changed = bytearray(content)
    # Heads decide more than samples do: half of the flips go there.
    for _ in range(rng.choice((1, 1, 4, 32))):
        place = rng.randrange(min(len(changed), 200)) if rng.random() < 0.5 else rng.randrange(len(changed))
        changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(rng: random.Random, content: bytes) -> bytes:
    place = rng.randrange(min(len(content), 200) + 1)
    value = rng.choice(
        (b"\xff" * 4, b"\x00" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x01\x00\x00\x00")
    )
    return content[:place] + value + content[place + len(value) :]


def _truncate(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.choice((0, 1, len(content) // 2, len(content) - 1, rng.randrange(len(content) + 1)))]


def _lose_head(rng: random.Random, content: bytes) -> bytes:
    return content[rng.randrange(min(len(content), 64) + 1) :]


def _duplicate(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content) + 1)
    end = min(len(content), start + rng.choice((1, 16, 4096)))
    return content[:end] + content[start:end] * rng.choice((1, 1, 20)) + content[end:]


def _cut_out(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + content[start + rng.choice((1, 2, 16, 4096)) :]


def _splice(rng: random.Random, content: bytes) -> bytes:
    one, other = rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)
    return content[:one] + content[other:]


def _insert(rng: random.Random, content: bytes) -> bytes:
    place = rng.randrange(len(content) + 1)
    piece = rng.choice(
        (b"\x00", b"\n", b"\r", b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", b'"', b"{", b"[" * 500, rng.randbytes(8))
    )
    return content[:place] + piece + content[place:]


def _encode(rng: random.Random, content: bytes) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037")), "replace")


_BYTE_CHANGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flip, _flip, _overwrite, _truncate, _truncate, _lose_head, _duplicate, _cut_out, _splice, _insert, _encode,
)  # fmt: skip
