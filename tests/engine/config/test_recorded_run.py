"""Configs that runs have recorded, whole and damaged."""

from __future__ import annotations

import json
import re

import pytest

from engine.config import builders, recorded_run
from models.build import build_model
from models.wav2vec2.config import preset
from tests.helpers.experiment_toys import make_config, make_parts


def test_load_run_finds_the_config_of_a_checkpoint_inside_a_workdir(tmp_path):
    (tmp_path / "run/best").mkdir(parents=True)
    fields = {**make_config(tmp_path).to_dict(), "seed": 7}
    (tmp_path / "run/config.json").write_text(json.dumps(fields))
    for path in ("run", "run/best", "run/best/ckpt-3"):
        config, workdir = recorded_run.load_run(str(tmp_path / path))
        assert (config.seed, workdir) == (7, str(tmp_path / "run"))
    with pytest.raises(ValueError, match="no config.json"):
        recorded_run.load_run(str(tmp_path / "elsewhere/x/y"))
    with pytest.raises(ValueError, match="--checkpoint is empty"):
        recorded_run.load_run("")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("\xff", "not UTF-8"),
        ("[]", "not a JSON object"),
        ("3", "not a JSON object"),
        ('{"seed": ' + "[" * 100_000, "nested too deeply"),
        ('{"seed": ' + "9" * 5000 + "}", "too many digits"),
        ("{}", "config.json has no 'model'"),
        ({"model": []}, "'model' is a JSON array"),
        ({"model": {"preset": 3}}, "model: 'preset' is 3, not text"),
        ({"data": {}}, "data has no 'on_rate_mismatch'"),
        ({"train": {"precision": None}}, "train: 'precision' is null"),
        ({"seed": "0"}, "'seed' is \"0\", not a whole number"),
        ({"decode": 3}, "'decode' is 3, not a JSON object"),
        ({"a.b": 3}, "is not the config of a run .*dots"),
    ],
)
def test_a_damaged_config_of_a_run_is_one_line(tmp_path, content, message):
    if not isinstance(content, str):
        content = json.dumps({**make_config(tmp_path).to_dict(), **content})
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message) as caught:
        recorded_run.load_run(str(tmp_path))
    assert str(tmp_path / "config.json") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("tokens", "style"), [("ab'|", "unicode"), ("AB|", "librispeech"), ("Ab", "librispeech")])
def test_a_converted_folder_reads_transcripts_in_the_case_that_it_writes(tmp_path, tokens, style):
    (tmp_path / "config.json").write_text(preset("tiny").to_json())
    (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(["[PAD]", *tokens])}))
    assert recorded_run.load_run(str(tmp_path))[0].data.text_normalization == style


def test_a_converted_folder_is_a_run_that_was_never_trained(tmp_path):
    fields = json.loads(preset("tiny", vocab_size=6, layer_drop=0.25).to_json())
    (tmp_path / "config.json").write_text(json.dumps(fields))
    config, folder = recorded_run.load_run(str(tmp_path))
    assert folder == str(tmp_path)
    found = {}
    builders.build_model(config, make_parts(build_model=found.update), num_tokens=6)
    model = build_model(**{**found, "architecture": {**found["architecture"], "num_layers": 1}})
    assert model.config == preset("tiny", vocab_size=6, layer_drop=0.25, num_layers=1)
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2", "hidden_size": 768}')
    with pytest.raises(ValueError, match=r"of a Hugging Face model; run python -m models.convert --input=\S+ --output"):
        recorded_run.load_run(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "x"}, "'seed' is \"x\", not a whole number"),
        ({"model": []}, "'model' is a JSON array, not a JSON object"),
        ({"model": {"preset": 3}}, "model: 'preset' is 3, not text"),
        ({"model": {}}, "model has no 'preset'"),
        ({"train": None}, "'train' is null, not a JSON object"),
        (
            {"data": {"text_normalization": "none", "on_rate_mismatch": "refuse", "eval": {"dev": 3}}},
            "data.eval: 'dev' is 3",
        ),
        ({"decode": 3}, "'decode' is 3, not a JSON object"),
    ],
)
def test_a_config_that_somebody_has_changed_by_hand_is_one_line(tmp_path, change, message):
    fields = {**make_config(tmp_path).to_dict(), **change}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        recorded_run.load_run(str(tmp_path))
    assert str(tmp_path / "config.json") in str(caught.value) and "\n" not in str(caught.value)
    for name in change:
        del fields[name]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    if name != "decode":
        with pytest.raises(ValueError, match=f"config.json has no '{name}'"):
            recorded_run.load_run(str(tmp_path))


def test_a_converted_folder_of_a_version_without_fewest_masks_still_loads(tmp_path):
    fields = {name: 0.0 for name in recorded_run.ARCHITECTURE_FIELDS if name != "mask_time_min_spans"}
    fields |= {"mask_time_length": 10, "mask_feature_length": 10, "fused_ops": "auto", "gradient_checkpointing": False}
    fields["train_adapters_only"] = False
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 3, **fields}))
    config, _ = recorded_run.load_run(str(tmp_path))
    assert "mask_time_min_spans" not in config.model


def test_a_config_of_a_converted_folder_without_its_recipe_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"hidden_size": 3}')
    with pytest.raises(ValueError, match="config.json has no 'hidden_dropout'; convert the model again"):
        recorded_run.load_run(str(tmp_path))
