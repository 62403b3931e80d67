"""Lines about training: rounded numbers, the unit that reads best, and a word where something is odd."""

from __future__ import annotations

import pytest

from engine.console.lines import duration, oddities, rounded, speed, update_line


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12.3456, "12.3"),
        (0.03149, "0.0315"),
        (0.0025, "0.0025"),
        (3e-5, "3e-5"),
        (2.54e-4, "2.5e-4"),
        (186.4, "186"),
        (48_213.0, "48,200"),
        (2.5e7, "2.5e7"),
        (0.0, "0"),
        (-1234.0, "-1,230"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert rounded(value) == text


@pytest.mark.parametrize(
    ("secs", "text"),
    [(0.4, "0 s"), (45, "45 s"), (180, "3 min"), (3 * 3600, "3.0 h"), (933_120, "10.8 days")],
)
def test_times_are_in_the_unit_that_reads_best(secs, text):
    assert duration(secs) == text


def test_speed_is_the_larger_number():
    assert speed(0.15) == "6.67 updates/s"
    assert speed(11.7) == "11.7 s/update"


def test_a_line_has_what_a_person_wants_to_know():
    metrics = {"loss": 12.414, "learning_rate": 2.5e-4, "gradient_norm": 22.4, "audio_secs_per_sec": 186.2}
    line = update_line(400, 1_600, metrics, secs_per_update=0.149, secs_left=178.8)
    assert line == ("update 400/1,600  25 %  loss 12.4  lr 2.5e-4  grad 22.4  186 audio-s/s  6.71 updates/s  ETA 3 min")
    assert update_line(1, 80_000, {}) == "update 1/80,000  0.0013 %"


def test_health_is_said_where_something_is_odd():
    fine = {"num_infeasible": 0.0, "num_bad": 0.0, "num_skipped_updates": 0.0, "input_stall_ratio": 0.05}
    assert oddities(fine) == []
    found = oddities({"num_infeasible": 3.0, "num_bad": 1.0, "num_skipped_updates": 2.0, "input_stall_ratio": 0.5})
    assert len(found) == 4
    assert found[0].startswith("3 rows left out") and found[3] == "waiting for data 50 % of the time"
