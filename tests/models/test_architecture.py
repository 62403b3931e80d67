"""Where the architecture comes from: a name, a config.json, the weights to start from, or the run itself."""

from __future__ import annotations

import json

import pytest
import tensorflow as tf

from models.architecture import find_architecture
from models.build import build_model
from models.hugging_face.config import to_hf
from models.wav2vec2.config import Wav2Vec2Config, preset
from models.wav2vec2.model import Wav2Vec2ForCTC
from models.wav2vec2.presets import PRESETS

ODD = {
    "conv_dim": (8,) * 7, "hidden_size": 24, "num_heads": 3, "num_layers": 1, "intermediate_size": 40,
    "pos_conv_groups": 4, "layer_norm_epsilon": 1e-4, "stable_layer_norm": True,
}  # fmt: skip
RECIPE = {"hidden_dropout": 0.31, "final_dropout": 0.4, "layer_drop": 0.0, "mask_time_prob": 0.2}


def build(architecture, **fields):
    return build_model(
        source="native", preset="auto", hub_handle="", architecture=architecture, vocab_size=9, **RECIPE, **fields
    )


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A folder with weights of an architecture that has no name."""
    folder = tmp_path_factory.mktemp("converted") / "model"
    Wav2Vec2ForCTC(config=preset("base", **ODD, vocab_size=5, hidden_dropout=0.9)).save_pretrained(folder)
    return folder


def write_run(folder, architecture, **fields):
    """A workdir as engine leaves it."""
    folder.mkdir()
    model = {"source": "native", "preset": "auto", "init": "gone", **RECIPE, "architecture": architecture, **fields}
    (folder / "config.json").write_text(json.dumps({"seed": 0, "model": model, "train": {"precision": "float32"}}))
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate("_ABCDEFGH")}))
    return folder


def test_the_weights_to_start_from_say_it_but_not_their_recipe_or_vocabulary(converted):
    found = find_architecture(preset="auto", init=str(converted))
    assert json.loads(json.dumps(found)) == found
    model = build(found)
    assert model.config == Wav2Vec2Config(**ODD, **RECIPE, vocab_size=9)
    # A checkpoint inside the folder is of it too.
    assert find_architecture(preset="auto", init=str(converted / "weights")) == found


def test_a_name_whose_recordings_are_not_normalized_is_recorded_in_full():
    found = find_architecture(preset="w2v_bert_base")
    assert found["normalize_waveform"] is False and json.loads(json.dumps(found)) == found
    assert build(found).config == preset("w2v_bert_base", **RECIPE, vocab_size=9)
    # Fields of parts that it lacks are left out, as in runs from before they existed.
    assert "relative_position_buckets" not in found and "layer_kind" not in find_architecture(preset="auto")


def test_a_name_needs_nothing_and_nothing_is_base():
    assert find_architecture(preset="large_lv60") == {}
    assert build(find_architecture(preset="auto"), **ODD).config == preset("base", **ODD, **RECIPE, vocab_size=9)


def test_a_config_of_hugging_face_is_a_preset(tmp_path):
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(to_hf(preset("base", **ODD))))
    for path in (folder, folder / "config.json"):
        found = find_architecture(preset=str(path))
        assert build(found).config == Wav2Vec2Config(**ODD, **RECIPE, vocab_size=9)
    (folder / "config.json").write_text(json.dumps({"model_type": "sew"}))
    with pytest.raises(ValueError, match=r"hf/config.json: model_type is 'sew'"):
        find_architecture(preset=str(folder))


def test_a_run_keeps_its_architecture_when_what_it_came_from_is_gone(converted, tmp_path):
    architecture = find_architecture(preset="auto", init=str(converted))
    run = write_run(tmp_path / "run", architecture)
    for name in ("auto", "gone/config.json"):
        assert find_architecture(preset=name, init="gone", run=str(run)) == architecture
    # The next run starts from this one.
    assert find_architecture(preset="auto", init=str(run / "best" / "ckpt-3")) == architecture
    named = write_run(tmp_path / "named", {}, preset="tiny")
    assert find_architecture(preset="auto", init=str(named))["conv_kernel"] == [256, 5, 3]


def refused(message, **arguments):
    with pytest.raises((ValueError, OSError), match=message) as caught:
        find_architecture(**arguments)
    assert "\n" not in str(caught.value)


def test_a_name_that_contradicts_the_weights_is_refused_with_the_remedy(converted, tmp_path):
    refused(
        r"has another architecture than model.preset=base: conv_dim \[8, .*\], hidden_size 24 instead of 768, "
        "num_layers 1 instead of 12 and 5 more; model.preset=auto takes that of model.init",
        preset="base", init=str(converted),
    )  # fmt: skip
    # How a fresh model would have started is no difference.
    same = write_run(tmp_path / "same", {}, preset="tiny", initializer_range=0.5)
    assert find_architecture(preset="tiny", init=str(same)) == {}
    # Bare weights say nothing: what does not fit shows when they are read.
    assert find_architecture(preset="tiny", init=str(tmp_path / "bare" / "ckpt-1")) == {}


def test_what_says_nothing_is_one_line(tmp_path):
    refused("model.preset='enormous' is neither a name nor a config.json; known are auto, base", preset="enormous")
    refused("no config.json there or above that tells the architecture", preset="auto", init=str(tmp_path / "x/y/z"))
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(to_hf(preset("base"))))
    for name in ("auto", "base"):
        refused("belongs to a Hugging Face model; run .*models.convert --input=.*hf", preset=name, init=str(folder))
    tf.saved_model.save(tf.Module(), str(tmp_path / "saved"))
    for name in ("auto", "base"):
        refused(r"a SavedModel \(model.init\); set model.source=hub", preset=name, init=str(tmp_path / "saved"))
    hub = write_run(tmp_path / "hub", {}, source="hub", hub_handle="X")
    refused("the network of this run is the SavedModel X, not one of ours", preset="auto", init=str(hub))


def test_what_the_model_hears_is_part_of_its_architecture(converted, tmp_path):
    assert all(preset(name).normalize_waveform == (preset(name).front_end == "convolutions") for name in PRESETS)
    # Those that normalize record nothing: so do runs from before there was a choice.
    assert "normalize_waveform" not in find_architecture(preset="auto", init=str(converted))
    raw = Wav2Vec2Config(**ODD, vocab_size=9, normalize_waveform=False)
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "config.json").write_text(raw.to_json())
    found = find_architecture(preset="auto", init=str(folder))
    assert found["normalize_waveform"] is False and build(found).config.normalize_waveform is False
    run = write_run(tmp_path / "run", found)
    assert find_architecture(preset="auto", run=str(run)) == found
    (folder / "config.json").write_text(preset("base", normalize_waveform=False).to_json())
    with pytest.raises(ValueError, match=r"normalize_waveform False instead of True; model.preset=auto takes"):
        find_architecture(preset="base", init=str(folder))
    # A folder of Hugging Face as preset says it in another file than the rest.
    theirs = tmp_path / "hf"
    theirs.mkdir()
    (theirs / "config.json").write_text(json.dumps(to_hf(raw)))
    (theirs / "preprocessor_config.json").write_text('{"do_normalize": false}')
    assert find_architecture(preset=str(theirs))["normalize_waveform"] is False
    (theirs / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    with pytest.raises(ValueError, match="sampling_rate is 8000"):
        find_architecture(preset=str(theirs))
