"""Fields of a config that weights, data and texts decide."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from engine.config import builders, fields_of_run
from tests.helpers.experiment_toys import make_config, make_parts


def test_what_a_preset_turned_out_to_be_stands_in_the_config(tmp_path):
    asked = []

    def find_architecture(**arguments):
        asked.append(arguments)
        return {"conv_dim": [8, 8], "hidden_size": 24}

    config = make_config(tmp_path)
    config.model.preset = "auto"
    parts = make_parts(find_architecture=find_architecture)
    found = fields_of_run.with_architecture(config.lock(), parts, init="weights", run="")
    assert asked == [{"preset": "auto", "init": "weights", "run": ""}]
    assert json.loads(json.dumps(found.to_dict()))["model"]["architecture"] == {"conv_dim": [8, 8], "hidden_size": 24}
    assert config.model.architecture.to_dict() == {}
    seen = {}
    builders.build_model(found, make_parts(build_model=seen.update), num_tokens=6)
    assert seen["architecture"] == {"conv_dim": [8, 8], "hidden_size": 24}
    hub = config.copy_and_resolve_references()
    hub.model.source = "hub"
    assert fields_of_run.with_architecture(hub, parts, init="weights") is hub
    assert len(asked) == 1


def settled(config, data, **more):
    found = fields_of_run.with_data(config, data, **more)
    return found.train.num_updates, found.eval.every_updates, found.checkpoint.every_updates


def test_epochs_become_updates_of_the_data(tmp_path):
    config = make_config(tmp_path)
    assert settled(config, SimpleNamespace(updates_per_epoch=9)) == (6, 400, 2)
    config.train.update({"num_updates": 0, "num_epochs": 2.5})
    config.eval.update({"every_updates": 0, "every_epochs": 1.0})
    config.checkpoint.update({"every_updates": 0, "every_epochs": 0.5})
    assert settled(config, SimpleNamespace(updates_per_epoch=9)) == (22, 9, 4)
    assert settled(config, SimpleNamespace(updates_per_epoch=1)) == (2, 1, 1)  # never none
    # A run that is continued has counted them; with other epochs they are counted anew.
    (tmp_path / "config.json").write_text(json.dumps({"train": {"num_epochs": 2.5, "num_updates": 20}}))
    assert settled(config, SimpleNamespace(updates_per_epoch=9), run=str(tmp_path))[0] == 20
    config.train.num_epochs = 3.0
    assert settled(config, SimpleNamespace(updates_per_epoch=9), run=str(tmp_path))[0] == 27
    assert config.train.num_updates == 0


def test_the_text_normalization_of_a_run_is_what_it_chose(tmp_path):
    config = make_config(tmp_path)
    data = SimpleNamespace(updates_per_epoch=9, text_normalization="unicode")
    assert fields_of_run.with_data(config, data).data.text_normalization == "librispeech"
    assert fields_of_run.with_text_normalization(config, run=str(tmp_path / "nowhere")) is config
    config.data.text_normalization = "auto"
    assert fields_of_run.with_data(config, data).data.text_normalization == "unicode"
    (tmp_path / "config.json").write_text(json.dumps({"data": {"text_normalization": "none"}}))
    found = fields_of_run.with_text_normalization(config, run=str(tmp_path / "best/ckpt-3"))
    assert found.data.text_normalization == "none"
    with pytest.raises(ValueError, match="no config.json"):
        fields_of_run.with_text_normalization(config, run=str(tmp_path.parent / "a/b/c"))


def test_options_behind_auto_go_on_with_what_the_texts_decide(tmp_path):
    config = make_config(tmp_path)
    config.data.text_normalization = "auto+drop_markup"
    data = SimpleNamespace(updates_per_epoch=9, text_normalization="unicode+drop_markup")
    assert fields_of_run.with_data(config, data).data.text_normalization == "unicode+drop_markup"
    (tmp_path / "config.json").write_text(json.dumps({"data": {"text_normalization": "unicode+drop_markup"}}))
    found = fields_of_run.with_text_normalization(config, run=str(tmp_path))
    assert found.data.text_normalization == "unicode+drop_markup"
