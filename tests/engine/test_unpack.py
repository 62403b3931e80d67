"""From a config to the parts of a run."""

from __future__ import annotations

import json
import re

import pytest
from ml_collections import ConfigDict

from engine import unpack
from models.build import build_model
from models.config import preset
from tests.experiment_toys import make_config, make_parts


def test_load_run_finds_the_config_of_a_checkpoint_inside_a_workdir(tmp_path):
    (tmp_path / "run/best").mkdir(parents=True)
    (tmp_path / "run/config.json").write_text('{"seed": 7}')
    for path in ("run", "run/best", "run/best/ckpt-3"):
        config, workdir = unpack.load_run(str(tmp_path / path))
        assert (config.seed, workdir) == (7, str(tmp_path / "run"))
    with pytest.raises(ValueError, match="no config.json"):
        unpack.load_run(str(tmp_path / "elsewhere/x/y"))
    with pytest.raises(ValueError, match="--checkpoint is empty"):
        unpack.load_run("")


def test_a_run_from_before_there_were_sources_is_native(tmp_path):
    config = make_config(tmp_path)
    config.model.source, config.model.hub_handle = "hub", "X"
    seen = []
    parts = make_parts(build_model=lambda **fields: seen.append((fields["source"], fields["hub_handle"])))
    unpack.build_model(config, parts, num_tokens=6)
    old = ConfigDict(config.to_dict())
    del old.model["source"], old.model["hub_handle"]
    unpack.build_model(old, parts, num_tokens=6)
    assert seen == [("hub", "X"), ("native", "")]


def test_a_converted_folder_is_a_run_that_was_never_trained(tmp_path):
    fields = json.loads(preset("tiny", vocab_size=6, layer_drop=0.25).to_json())
    (tmp_path / "config.json").write_text(json.dumps(fields))
    config, folder = unpack.load_run(str(tmp_path))
    assert folder == str(tmp_path)
    found = {}
    unpack.build_model(config, make_parts(build_model=found.update), num_tokens=6)
    model = build_model(**{**found, "architecture": {**found["architecture"], "num_layers": 1}})
    assert model.config == preset("tiny", vocab_size=6, layer_drop=0.25, num_layers=1)
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2", "hidden_size": 768}')
    with pytest.raises(ValueError, match=r"of a Hugging Face model; run python -m models.convert --input=\S+ --output"):
        unpack.load_run(str(tmp_path))


def test_what_a_preset_turned_out_to_be_stands_in_the_config(tmp_path):
    asked = []

    def find_architecture(**arguments):
        asked.append(arguments)
        return {"conv_dim": [8, 8], "hidden_size": 24}

    config = make_config(tmp_path)
    config.model.preset = "auto"
    parts = make_parts(find_architecture=find_architecture)
    found = unpack.with_architecture(config.lock(), parts, init="weights", run="")
    assert asked == [{"preset": "auto", "init": "weights", "run": ""}]
    assert json.loads(json.dumps(found.to_dict()))["model"]["architecture"] == {"conv_dim": [8, 8], "hidden_size": 24}
    assert config.model.architecture.to_dict() == {}
    seen = {}
    unpack.build_model(found, make_parts(build_model=seen.update), num_tokens=6)
    assert seen["architecture"] == {"conv_dim": [8, 8], "hidden_size": 24}
    hub = config.copy_and_resolve_references()
    hub.model.source = "hub"
    assert unpack.with_architecture(hub, parts, init="weights") is hub
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "x"}, "'seed' is \"x\", not a whole number"),
        ({"model": []}, "'model' is a JSON array, not a JSON object"),
        ({"model": {"preset": 3}}, "model: 'preset' is 3, not text"),
        ({"model": {}}, "model has no 'preset'"),
        ({"train": None}, "'train' is null, not a JSON object"),
        ({"data": {"text_style": "none", "on_rate_mismatch": "refuse", "eval": {"dev": 3}}}, "data.eval: 'dev' is 3"),
        ({"decode": 3}, "'decode' is 3, not a JSON object"),
    ],
)
def test_a_config_that_somebody_has_changed_by_hand_is_one_line(tmp_path, change, message):
    fields = {**make_config(tmp_path).to_dict(), **change}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        unpack.load_model_run(str(tmp_path))
    assert str(tmp_path / "config.json") in str(caught.value) and "\n" not in str(caught.value)
    for name in change:
        del fields[name]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    if name != "decode":
        with pytest.raises(ValueError, match=f"config.json has no '{name}'"):
            unpack.load_model_run(str(tmp_path))


def test_a_config_of_a_converted_folder_without_its_recipe_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"hidden_size": 3}')
    with pytest.raises(ValueError, match="config.json has no 'hidden_dropout'; convert the model again"):
        unpack.load_run(str(tmp_path))
