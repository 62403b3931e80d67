"""The length of the windows of a recognizer: by default, and as asked for."""

from __future__ import annotations

import json

import pytest

from engine.inference.window_length import WindowLength, choose_window, default_window_secs
from tests.engine.config.test_row_length import write_run


def write_export(folder, **fields):
    (folder / "saved_model.pb").touch()
    (folder / "export.json").write_text(json.dumps(fields))
    return str(folder)


@pytest.mark.parametrize(
    ("row_secs", "window_secs"), [(3.926, 4.0), (5.0, 5.0), (0.4, 1.0), (29.99, 30.0), (30.0, 30.0), (95.0, 30.0)]
)
def test_windows_are_as_long_as_the_rows_between_1_and_30_s(tmp_path, row_secs, window_secs):
    assert default_window_secs(write_run(tmp_path, recorded=json.dumps({"trained_row_secs": row_secs}))) == window_secs


def test_without_a_bound_on_rows_and_from_other_weights_windows_have_30_s(tmp_path):
    assert default_window_secs(write_run(tmp_path, max_duration_secs=0.0)) == 30.0
    assert default_window_secs(write_run(tmp_path, max_duration_secs=4.0, model={"init": "hf://some/model"})) == 30.0


@pytest.mark.parametrize(("fields", "secs"), [({"window_secs": 2.5}, 2.5), ({}, 30.0), ({"window_secs": -4}, 1.0)])
def test_an_export_says_its_window_and_an_older_one_has_30_s(tmp_path, fields, secs):
    assert default_window_secs(write_export(tmp_path, **fields)) == secs


@pytest.mark.parametrize("value", ["2.5", None, True, [2.5]])
def test_a_window_of_an_export_that_is_no_number_is_named(tmp_path, value):
    with pytest.raises(ValueError, match=r"export.json: 'window_secs' is .*, not a finite number"):
        default_window_secs(write_export(tmp_path, window_secs=value))


def test_one_is_warned_of_a_window_that_is_longer_than_the_rows(tmp_path, caplog):
    caplog.set_level("WARNING", logger="absl")
    export = write_export(tmp_path, window_secs=2.5)
    assert choose_window(export, 2.0) == WindowLength(2.0, 1.0)
    assert "windows of 2.5 s" in choose_window(export, None).note
    assert caplog.text == ""
    assert choose_window(export, 8.0) == WindowLength(8.0, 8.0 / 6)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"--window_secs=8: {tmp_path} was trained from random weights on rows of up to 2.5 s" in record.getMessage()
    assert "leave --window_secs out" in record.getMessage()


def test_nobody_is_warned_of_fine_tuned_weights(tmp_path, caplog):
    caplog.set_level("WARNING", logger="absl")
    run = write_run(tmp_path, model={"init": "hf://some/model"})
    assert choose_window(run, 60.0) == WindowLength(60.0, 10.0)
    assert choose_window(run, None) == WindowLength(30.0, 5.0)
    assert caplog.text == ""
