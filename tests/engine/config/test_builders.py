"""From a config to the parts of a run."""

from __future__ import annotations

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


def test_trained_weights_read_with_the_vocabulary_they_were_trained_with(tmp_path):
    parts = make_parts(build_tokenizer=lambda path: path)
    config = make_config(tmp_path)
    for name in ("run", "other"):
        (tmp_path / name).mkdir()
    find = {"workdir": str(tmp_path / "run"), "checkpoint": str(tmp_path / "other/best/ckpt-3")}
    assert builders.build_tokenizer(config, parts, **find) == ""
    for config.data.vocab in ("auto", "words"):
        with pytest.raises(ValueError, match=rf"ckpt-3: no vocab.json \(data.vocab={config.data.vocab}\); train first"):
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
