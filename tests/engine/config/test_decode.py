"""Which fields of config.decode hold."""

import json
import random

import pytest

from configs.base import get_decode
from engine.config.decode import choose_decode, give_decode, read_decode_file
from tests.fuzz.mutations import mutate_json

KNOWN = get_decode().to_dict()


def test_what_is_given_wins_over_what_is_recorded_over_what_is_default(tmp_path):
    (tmp_path / "tuned.json").write_text(json.dumps({"lm_weight": 2, "hot_words": ["A"], "tuning": {"wer": 0.1}}))
    path = str(tmp_path / "tuned.json")
    given = give_decode({"method": "lexicon", "lm_weight": 0.5}, known=KNOWN, path=path, hot_words=["B", "C"])
    assert given == {"method": "lexicon", "lm_weight": 2.0, "hot_words": ("B", "C")}
    chosen = choose_decode(KNOWN, {"lm_weight": 9.0, "beam_size": 7}, given)
    assert chosen == {**KNOWN, **given, "beam_size": 7}
    assert choose_decode(KNOWN, {}, {}) == KNOWN


@pytest.mark.parametrize(
    ("fields", "recorded", "method"),
    [({}, {}, "beam"), ({"method": "greedy"}, {}, "beam"), ({}, {"method": "lexicon"}, "lexicon")],
)
def test_hot_words_need_a_search(fields, recorded, method):
    given = give_decode(fields, known=KNOWN, path="", hot_words=["B"])
    assert choose_decode(KNOWN, recorded, given)["method"] == method


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a readable JSON file"),
        ("{", "not a readable JSON file"),
        ("[]", "not an object"),
        ('{"lm_wieght": 1}', "has no field 'lm_wieght'; it has beam_size, "),
        ('{"beam_size": 2.5}', "beam_size=2.5: wanted int"),
        ('{"beam_size": true}', "beam_size=True: wanted int"),
        ("[" * 100_000, "nested too deeply"),
        ('{"lm_weight": 1' + "0" * 400 + "}", "lm_weight=1000.*: wanted float"),
        ('{"lm_weight": NaN}', "lm_weight=nan: wanted float"),
        ('{"beam_size": 9223372036854775808}', "beam_size=9223372036854775808: wanted int"),
        ('{"method": {"a": 1}}', "method=a JSON object: wanted str"),
        ('{"hot_words": ["\\ud800"]}', "half of a surrogate pair"),
        (b'{"method": "\xff"}', "not UTF-8 text"),
        ('{"hot_words": "A"}', "hot_words='A': wanted a list of words"),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "decode.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"--decode={path}.*{message}".replace("[", r"\[")):
        read_decode_file(str(path), KNOWN)


def test_any_damage_is_read_or_refused_in_one_line(tmp_path):
    path, fields = tmp_path / "decode.json", {**KNOWN, "hot_words": ["A"], "tuning": {"trials": [{"wer": 0.5}]}}
    refused = 0
    for seed in range(300):
        path.write_bytes(mutate_json(random.Random(seed), fields))
        try:
            found = read_decode_file(str(path), KNOWN)
            assert all(type(found[name]) is type(KNOWN[name]) for name in found)
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"--decode={path}") and "\n" not in str(error) and len(str(error)) < 500
    assert 100 < refused < 290
