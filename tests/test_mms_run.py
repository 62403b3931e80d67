"""An MMS checkpoint through a run: adapter and head of one language train, and nothing else moves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from data.audio.decoding import normalize_waveform
from data.batches.datasets import build_eval_data, build_train_data
from data.text.tokenizer import load_tokenizer
from engine import experiment
from models import convert
from models.architecture import find_architecture
from models.build import build_model
from models.ctc import greedy, loss
from models.hugging_face.names import is_of_language, name_table
from models.memory_estimate import measure_model
from models.wav2vec2.model import Wav2Vec2ForCTC
from tests.engine.test_experiment import StopAt, values_of
from tests.helpers.experiment_toys import make_config, make_parts
from tests.helpers.models_parity import load_golden, write_hf_folder

NUM_UPDATES = 4
PARTS = make_parts(
    build_tokenizer=load_tokenizer,
    build_train_data=build_train_data,
    build_eval_data=build_eval_data,
    build_model=build_model,
    find_architecture=find_architecture,
    normalize_waveform=normalize_waveform,
    loss_fn=loss.ctc_loss,
    feasible_fn=loss.feasible,
    decoder=greedy.greedy_decode,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """hf, a checkpoint of two languages; ours, converted; and train.jsonl."""
    root = tmp_path_factory.mktemp("mms")
    hf = write_hf_folder(root / "hf", load_golden("mms_shaped"), vocab=False)
    ids = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", "A", "B", "C"])}
    (hf / "vocab.json").write_text(json.dumps({"eng": ids, "fra": ids}))
    (hf / "tokenizer_config.json").write_text(json.dumps({"target_lang": "eng"}))
    convert.from_hf(input=hf, output=root / "ours")
    lines = []
    for i, text in enumerate(["A B", "BA", "CAB", "C"] * 2):
        samples = np.random.default_rng(i).uniform(-0.5, 0.5, 4_000)
        soundfile.write(root / f"{i}.wav", samples, 16_000)
        lines.append(json.dumps({"audio_filepath": f"{i}.wav", "text": text, "speaker": "ann"}))
    (root / "train.jsonl").write_text("\n".join(lines))
    return root


def train(folder, name, *, stop=None, model=(), **train):
    config = make_config("", num_updates=NUM_UPDATES, learning_rate=1e-3, **train)
    config.data.train.update({"format": "jsonl", "input": str(folder / "train.jsonl")})
    config.data.vocab = str(folder / "ours" / "vocab.json")
    config.model.update(
        {"init": str(folder / "ours"), "init_head": True, "preset": "auto", "train_adapters_only": True, **dict(model)}
    )
    return experiment.run(
        config=config, parts=PARTS, workdir=str(folder / name), mode="train", strategy_name="one_device", stop=stop
    )


def variables_of(folder):
    model = Wav2Vec2ForCTC.from_pretrained(folder)
    return model.config, {variable.name.removesuffix(":0"): variable.numpy() for variable in model.variables}


@pytest.fixture(scope="module")
def straight(folder):
    assert train(folder, "straight").exit_status == 0
    return folder / "straight"


def test_adapter_and_head_train_and_every_other_weight_keeps_its_bits(folder, straight):
    config, before = variables_of(folder / "ours")
    trained_config, after = variables_of(straight)
    assert trained_config.train_adapters_only and not config.train_adapters_only
    num_trained = 0
    for entry in name_table(config):
        name = entry.ours
        is_trained = is_of_language(entry.theirs[0])
        assert (before[name].tobytes() != after[name].tobytes()) == is_trained, name
        num_trained += is_trained * before[name].size
    # The optimizer has moments of what trains, and of nothing else.
    shapes = tf.train.load_checkpoint(str(straight / f"checkpoints/ckpt-{NUM_UPDATES}")).get_variable_to_shape_map()
    moments = [shape for name, shape in shapes.items() if name.startswith("optimizer/_variables") and shape]
    assert sum(int(np.prod(shape)) for shape in moments) == 2 * num_trained
    noted = json.loads((straight / "environment.json").read_text())
    assert noted["num_trained"] == num_trained < 0.2 * noted["num_parameters"]


def test_a_stopped_run_goes_on_bit_for_bit(folder, straight):
    assert train(folder, "stopped", stop=StopAt(3)).exit_status == 143
    assert train(folder, "stopped").exit_status == 0
    assert values_of(folder / "stopped", NUM_UPDATES) == values_of(straight, NUM_UPDATES)


@pytest.mark.slow
def test_microbatches_train_the_same_adapter(folder, straight):
    assert train(folder, "split", microbatch_rows=1).exit_status == 0
    wanted = variables_of(straight)[1]
    for name, value in variables_of(folder / "split")[1].items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_trained_adapter_goes_back_into_the_checkpoint(folder, straight, tmp_path):
    convert.to_adapter(input=straight, output=folder / "hf", target_lang="fra")
    convert.from_hf(input=folder / "hf", output=tmp_path / "again", target_lang="fra")
    wanted = variables_of(straight)[1]
    for name, value in variables_of(tmp_path / "again")[1].items():
        assert value.tobytes() == wanted[name].tobytes(), name


def test_the_estimate_knows_what_trains():
    def measure(**fields):
        return measure_model(
            source="native", preset="mms_1b_all", hub_handle="", vocab_size=100, precision="float32",
            freeze_feature_encoder=True, **fields,
        )  # fmt: skip

    everything, adapters = (measure(train_adapters_only=only).memory_bytes(1, 160_000, True) for only in (False, True))
    assert 14e9 < everything - adapters < 16e9  # gradients and moments of nearly a billion weights


def test_adapters_that_a_network_lacks_or_that_would_stay_in_a_random_one_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="model.init is empty: all but adapters and head would stay random"):
        train(folder, tmp_path / "a", model={"init": "", "preset": "tiny", "init_head": False})
    write_hf_folder(tmp_path / "hf", load_golden("unispeech_sat_shaped"))
    convert.from_hf(input=tmp_path / "hf", output=tmp_path / "plain")
    with pytest.raises(ValueError, match="train_adapters_only is true, but attention_adapter_size is 0"):
        train(folder, tmp_path / "b", model={"init": str(tmp_path / "plain")})
