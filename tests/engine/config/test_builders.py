"""From a config to the parts of a run."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from ml_collections import ConfigDict

from engine.config import builders, recorded_run
from models.wav2vec2.config import preset
from tests.helpers.experiment_toys import make_config, make_parts


def test_the_blank_of_the_vocabulary_reaches_every_part_that_asks_for_it():
    def keep(*arguments, blank_id=0):
        return blank_id

    names = ("loss_fn", "decoder", "span_decoder", "span_graph_decoder", "aligner", "build_search")
    parts = make_parts(**dict.fromkeys(names, keep))
    assert builders.with_blank(parts, SimpleNamespace(blank_id=0)) is parts
    bound = builders.with_blank(parts, SimpleNamespace(blank_id=5))
    assert [getattr(bound, name)() for name in names] == [5] * 6


def test_whether_the_model_hears_normalized_recordings_stands_in_the_architecture(tmp_path):
    config = make_config(tmp_path)
    assert builders.normalizes(config)
    seen = []
    parts = make_parts(
        build_train_data=lambda **fields: seen.append(fields["normalize"]),
        build_eval_data=lambda **fields: seen.append(fields["normalize"]),
    )
    config.data.eval = {"dev": {"format": "jsonl", "input": "x"}}
    config.model.architecture = {"normalize_waveform": False}
    builders.build_train_data(config, parts, None)
    builders.build_eval_data(config, parts, None)
    # A converted folder says it too.
    (tmp_path / "config.json").write_text(preset("tiny", normalize_waveform=False).to_json())
    seen.append(builders.normalizes(recorded_run.load_run(str(tmp_path))[0]))
    # A SavedModel says it in a file of its own.
    config.model.architecture, config.model.source, config.model.hub_handle = {}, "hub", str(tmp_path)
    assert builders.normalizes(config)
    (tmp_path / "hub_input.json").write_text('{"normalize_waveform": false}')
    seen.append(builders.normalizes(config))
    assert seen == [False] * 4


def test_a_run_from_before_there_were_sources_is_native(tmp_path):
    config = make_config(tmp_path)
    config.model.source, config.model.hub_handle = "hub", "X"
    seen = []
    parts = make_parts(build_model=lambda **fields: seen.append((fields["source"], fields["hub_handle"])))
    builders.build_model(config, parts, num_tokens=6)
    old = ConfigDict(config.to_dict())
    del old.model["source"], old.model["hub_handle"]
    builders.build_model(old, parts, num_tokens=6)
    assert seen == [("hub", "X"), ("native", "")]


def test_what_a_preset_turned_out_to_be_stands_in_the_config(tmp_path):
    asked = []

    def find_architecture(**arguments):
        asked.append(arguments)
        return {"conv_dim": [8, 8], "hidden_size": 24}

    config = make_config(tmp_path)
    config.model.preset = "auto"
    parts = make_parts(find_architecture=find_architecture)
    found = builders.with_architecture(config.lock(), parts, init="weights", run="")
    assert asked == [{"preset": "auto", "init": "weights", "run": ""}]
    assert json.loads(json.dumps(found.to_dict()))["model"]["architecture"] == {"conv_dim": [8, 8], "hidden_size": 24}
    assert config.model.architecture.to_dict() == {}
    seen = {}
    builders.build_model(found, make_parts(build_model=seen.update), num_tokens=6)
    assert seen["architecture"] == {"conv_dim": [8, 8], "hidden_size": 24}
    hub = config.copy_and_resolve_references()
    hub.model.source = "hub"
    assert builders.with_architecture(hub, parts, init="weights") is hub
    assert len(asked) == 1


def settled(config, data, **more):
    found = builders.with_data(config, data, **more)
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


def test_the_text_style_of_a_run_is_what_it_chose(tmp_path):
    config = make_config(tmp_path)
    data = SimpleNamespace(updates_per_epoch=9, text_normalization="unicode")
    assert builders.with_data(config, data).data.text_normalization == "librispeech"
    assert builders.with_text_normalization(config, run=str(tmp_path / "nowhere")) is config
    config.data.text_normalization = "auto"
    assert builders.with_data(config, data).data.text_normalization == "unicode"
    (tmp_path / "config.json").write_text(json.dumps({"data": {"text_normalization": "none"}}))
    assert builders.with_text_normalization(config, run=str(tmp_path / "best/ckpt-3")).data.text_normalization == "none"
    with pytest.raises(ValueError, match="no config.json"):
        builders.with_text_normalization(config, run=str(tmp_path.parent / "a/b/c"))


def test_trained_weights_read_with_the_vocabulary_they_were_trained_with(tmp_path):
    parts = make_parts(build_tokenizer=lambda path: path)
    config = make_config(tmp_path)
    for name in ("run", "other"):
        (tmp_path / name).mkdir()
    find = {"workdir": str(tmp_path / "run"), "checkpoint": str(tmp_path / "other/best/ckpt-3")}
    assert builders.build_tokenizer(config, parts, **find) == ""
    config.data.vocab = "auto"
    with pytest.raises(ValueError, match=r"ckpt-3: no vocab.json \(data.vocab=auto\); train first"):
        builders.build_tokenizer(config, parts, **find)
    for name in ("run", "other"):
        (tmp_path / name / "vocab.json").write_text("{}")
        (tmp_path / name / "config.json").write_text("{}")
        assert builders.build_tokenizer(config, parts, **find) == str(tmp_path / name / "vocab.json")


@pytest.mark.parametrize(
    ("init", "init_head", "keeps_head"), [("w", True, True), ("w", False, False), ("", True, False)]
)
def test_the_check_before_training_knows_whether_the_head_is_kept(tmp_path, init, init_head, keeps_head):
    config = make_config(tmp_path)
    config.model.init, config.model.init_head = init, init_head
    seen = {}
    builders.run_preflight(config, make_parts(preflight=lambda **fields: seen.update(fields)), None, None, None, {})
    assert seen["keeps_head"] is keeps_head
