"""Names offered beside a wrong one."""

from __future__ import annotations

import pytest

from common.nearest import name_nearest, nearest_names


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("workdri", ["workdir", "mode", "weights"], ["workdir"]),
        ("lr", ["num_updates", "learning_rate", "seed"], ["learning_rate"]),
        ("updates", ["num_updates", "log_every_updates", "seed"], ["num_updates", "log_every_updates"]),
        ("TRAIN", ["train", "eval"], ["train"]),
        ("xyz", ["train", "eval"], []),
        ("a", ["num_updates", "seed"], []),
    ],
)
def test_names_that_are_alike_come_best_first(name, known, found):
    assert nearest_names(name, known) == found


def test_a_name_like_no_other_is_answered_with_all_of_them():
    assert name_nearest("trian", ["train", "eval"]) == "; did you mean train?"
    assert name_nearest("xyz", ["train", "eval"]) == "; there is train, eval"
    assert name_nearest("xyz", []) == ""
