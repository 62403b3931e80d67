"""How long the rows of a training from random weights were: as recorded, or as its config allows."""

from __future__ import annotations

import json
import math

import pytest

from engine.config.row_length import find_row_secs
from models.wav2vec2.config import preset
from tests.helpers.experiment_toys import make_config


def write_run(folder, *, recorded=None, model=None, **data):
    config = make_config(folder)
    config.model.update(model or {})
    config.data.update(data)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    if recorded is not None:
        (folder / "environment.json").write_text(recorded)
    return str(folder)


def test_what_a_run_has_recorded_counts_whatever_it_started_from(tmp_path):
    run = write_run(tmp_path, recorded='{"trained_row_secs": 3.5}', model={"init": "runs/other"})
    (tmp_path / "best").mkdir()
    assert find_row_secs(run) == find_row_secs(f"{run}/best/ckpt-3") == 3.5


@pytest.mark.parametrize(
    "model", [{"init": "hf://facebook/wav2vec2-base"}, {"source": "hub", "hub_handle": "/some/model"}]
)
def test_pretrained_weights_have_heard_other_rows_than_those_of_the_run(tmp_path, model):
    assert find_row_secs(write_run(tmp_path, recorded='{"trained_row_secs": null}', model=model)) is None


def test_a_converted_folder_was_not_trained_from_random_weights(tmp_path):
    (tmp_path / "config.json").write_text(preset("tiny").to_json())
    (tmp_path / "vocab.json").write_text('{"[PAD]": 0, "A": 1}')
    assert find_row_secs(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("data", "secs"),
    [
        ({"max_duration_secs": 12.0}, 12.0),
        ({"max_duration_secs": 0.0}, math.inf),
        ({"max_duration_secs": 12.0, "bucket_boundaries_samples": (16_000, 80_000)}, 5.0),
        ({"max_duration_secs": 0.0, "bucket_boundaries_samples": (80_000,)}, 5.0),
        ({"max_duration_secs": 4.0, "concat_max_utterances": 3, "concat_max_secs": 16.0}, 16.0),
        ({"max_duration_secs": 20.0, "concat_max_utterances": 3, "concat_max_secs": 16.0}, 20.0),
        ({"max_duration_secs": 4.0, "concat_max_utterances": 3}, math.inf),
    ],
)
def test_of_an_older_run_the_longest_row_that_its_config_allows_counts(tmp_path, data, secs):
    assert find_row_secs(write_run(tmp_path, **data)) == secs


@pytest.mark.parametrize("content", ["{", "[]", '{"trained_row_secs": "3"}', '{"trained_row_secs": -1}', "{}"])
def test_a_damaged_record_leaves_what_the_config_allows(tmp_path, content):
    assert find_row_secs(write_run(tmp_path, recorded=content, max_duration_secs=12.0)) == 12.0


def test_a_field_of_another_type_is_one_line(tmp_path):
    path = tmp_path / "config.json"
    write_run(tmp_path)
    fields = json.loads(path.read_text())
    fields["data"]["max_duration_secs"] = "20"
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"config.json, data: 'max_duration_secs' is \"20\", not a finite number"):
        find_row_secs(str(tmp_path))
