"""Curves: what is drawn where, gaps, peaks, axes."""

from __future__ import annotations

import pytest

from engine.report.curves import HEIGHT, WIDTH, draw, series_of


def test_points_lie_where_their_values_are():
    figure = draw("x", {"train": [(0, 0.0), (50, 4.0), (100, 2.0)]})
    assert figure.y_ticks == [(HEIGHT, "0"), (127.5, "1"), (85.0, "2"), (42.5, "3"), (0.0, "4")]
    assert figure.x_ticks == [(0.0, "0"), (105.0, "25"), (210.0, "50"), (315.0, "75"), (WIDTH, "100")]
    assert figure.lines[0].segments == ["0,170 210,0 420,85"]
    assert figure.lines[0].marks[1] == (210.0, 0.0, "train, update 50: 4")
    assert not figure.is_log


def test_a_value_that_is_not_finite_breaks_the_line():
    points = [(1, 1.0), (2, 1.0), (3, None), (4, 1.0), (5, 1.0)]
    assert len(draw("x", {"train": points}).lines[0].segments) == 2
    assert draw("x", {"train": [(1, None)], "dev": []}) is None


def test_values_far_apart_are_drawn_on_a_logarithmic_axis():
    figure = draw("x", {"train": [(1, 100.0), (2, 0.1)]})
    assert figure.is_log
    assert [label for _, label in figure.y_ticks] == ["0.1", "1", "10", "100"]
    assert [y for _, y, _ in figure.lines[0].marks] == [0.0, HEIGHT]


@pytest.mark.parametrize("value", [0.0, 3e-5, 7.0])
def test_one_value_is_a_figure_too(value):
    figure = draw("x", {"dev": [(400, value)]})
    ((x, y, label),) = figure.lines[0].marks
    assert x == WIDTH and 0 <= y <= HEIGHT and label.startswith("dev, update 400: ")


def test_many_points_become_few_and_no_peak_is_lost():
    points = [(i, 1.0) for i in range(10_000)]
    points[7_777] = (7_777, 9.0)
    figure = draw("x", {"train": points})
    assert len(figure.lines[0].segments[0].split()) <= 400
    assert f"{round(WIDTH * 7_777 / 9_999, 1):g},17" in figure.lines[0].segments[0]


def test_the_last_line_of_an_update_counts():
    lines = [
        {"step": 2, "split": "dev", "wer": 0.5},
        {"step": 1, "split": "dev", "wer": 0.75},
        {"step": 2, "split": "dev", "wer": 0.25},
        {"step": 3, "split": "dev"},
        {"step": 3, "split": "train", "wer": 0.1},
    ]
    assert series_of(lines, "dev", "wer", factor=100.0) == [(1, 75.0), (2, 25.0)]


@pytest.mark.parametrize("value", [1e308, -1e308, 3.4e38, 5e-324, 1e-45, 0, None])
def test_values_near_the_end_of_the_floats_do_not_break_the_axes(value):
    """The loss of a run that diverges is finite for a while."""
    lines = [{"step": step, "split": "train", "loss": loss} for step, loss in ((1, 2.0), (2, value), (2**53, 1.0))]
    figure = draw("loss", {"train": series_of(lines, "train", "loss")})
    assert figure is not None and len(figure.lines[0].marks) in (2, 3)
    alone = draw("loss", {"train": series_of(lines[1:2], "train", "loss")})
    assert (alone is None) == (value is None or abs(value) > 1e30)
