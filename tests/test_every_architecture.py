"""Each architecture of the family through what base goes through: training, resuming, reading, exports, serving."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import tensorflow as tf

import run as program
from engine import experiment
from engine.config import fields_of_run, memory
from engine.inference.loading import load_trained, load_transcriber
from engine.modes import export, serve
from models import convert, hub_export
from models.hugging_face.names import num_parameters
from models.memory_estimate import measure_model
from models.wav2vec2.model import Wav2Vec2ForCTC
from tests.engine.test_experiment import StopAt, values_of
from tests.helpers.experiment_toys import make_config
from tests.helpers.models_parity import load_golden, write_hf_folder

NUM_UPDATES = 2
LENGTHS = (4_000, 4_800, 6_400, 5_600)  # samples of the recordings
PARTS = program._build_parts()
ARCHITECTURES = (
    "wavlm_base_shaped", "data2vec_audio_shaped", "unispeech_sat_shaped", "mms_shaped", "conformer_relative_shaped",
    "conformer_rotary_shaped", "w2v_bert_shaped", "w2v_bert_adapter_shaped",
)  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request, tmp_path_factory):
    """hf, a checkpoint of transformers; ours, converted; four recordings with their texts in train.jsonl."""
    root = tmp_path_factory.mktemp("all")
    write_hf_folder(root / "hf", load_golden(request.param))
    convert.from_hf(input=root / "hf", output=root / "ours")
    lines = []
    for i, (text, length) in enumerate(zip(["A B", "BA", "CAB", "C"], LENGTHS, strict=True)):
        soundfile.write(root / f"{i}.wav", np.random.default_rng(i).uniform(-0.5, 0.5, length), 16_000)
        lines.append(json.dumps({"audio_filepath": f"{i}.wav", "text": text, "speaker": "ann"}))
    (root / "train.jsonl").write_text("\n".join(lines))
    return root


def config_of(folder, **train):
    config = make_config("", num_updates=NUM_UPDATES, learning_rate=1e-3, **train)
    config.data.train.update({"format": "jsonl", "input": str(folder / "train.jsonl")})
    config.data.vocab = str(folder / "ours" / "vocab.json")
    config.model.update({"init": str(folder / "ours"), "init_head": True, "preset": "auto"})
    config.checkpoint.every_updates = 1
    return config


def train(folder, name, *, stop=None, **train):
    return experiment.run(
        config=config_of(folder, **train), parts=PARTS, workdir=str(folder / name), mode="train",
        strategy_name="one_device", stop=stop,
    )  # fmt: skip


@pytest.fixture(scope="module")
def straight(folder):
    """A run that nothing stopped."""
    assert train(folder, "straight").exit_status == 0
    return folder / "straight"


def read(checkpoint, folder):
    """The texts of the recordings, by the reader of --mode=transcribe."""
    transcriber = load_transcriber(parts=PARTS, checkpoint=str(checkpoint))
    paths = [str(folder / f"{i}.wav") for i in range(len(LENGTHS))]
    found = transcriber.transcribe_files(paths, quiet=True)
    return transcriber, [transcript.text for transcript in found.transcripts]


def test_a_stopped_run_goes_on_bit_for_bit(folder, straight):
    assert train(folder, "stopped", stop=StopAt(2)).exit_status == 143
    assert train(folder, "stopped").exit_status == 0
    assert values_of(folder / "stopped", NUM_UPDATES) == values_of(straight, NUM_UPDATES)


def test_half_precision_trains_and_reads(folder):
    assert train(folder, "half", precision="mixed_bfloat16").exit_status == 0
    lines = [json.loads(line) for line in (folder / "half/metrics.jsonl").read_text().splitlines()]
    assert np.isfinite([line["loss"] for line in lines if "loss" in line]).all()
    assert len(read(folder / "half", folder)[1]) == len(LENGTHS)


def test_padding_changes_no_logit(folder, straight):
    model, _ = load_trained(parts=PARTS, checkpoint=str(straight))
    rows = [np.random.default_rng(i).normal(size=length).astype(np.float32) for i, length in enumerate(LENGTHS)]
    padded = np.stack([np.pad(row, [0, 8_000 - len(row)], constant_values=1.0) for row in rows])
    together = model(tf.constant(padded), tf.constant(LENGTHS)).numpy()
    for i, row in enumerate(rows):
        alone = model(tf.constant(row[np.newaxis]), tf.constant([len(row)])).numpy()[0]
        np.testing.assert_allclose(together[i, : len(alone)], alone, atol=1e-4)


def test_the_doctor_knows_its_frames_weights_and_memory(folder, straight):
    config = fields_of_run.with_architecture(config_of(folder), PARTS, init=str(folder / "ours"))
    estimate = memory.measure(config, num_tokens=8, measure_model=measure_model)
    model, _ = load_trained(parts=PARTS, checkpoint=str(straight))
    np.testing.assert_array_equal(estimate.num_frames(np.array(LENGTHS)), model.output_lengths(tf.constant(LENGTHS)))
    assert num_parameters(estimate.config) == sum(variable.shape.num_elements() for variable in model.variables)
    for training in (True, False):
        found = [estimate.memory_bytes(num_rows, 160_000, training) for num_rows in (1, 2, 4)]
        assert found[0] < found[1] < found[2]
    assert estimate.memory_bytes(1, 160_000, True) > estimate.memory_bytes(1, 160_000, False)


def test_every_export_and_server_reads_as_the_run(folder, straight, tmp_path):
    transcriber, texts = read(straight, folder)
    assert any(texts)
    formats = ["tflite_float32", "onnx"]
    paths = [str(folder / f"{i}.wav") for i in range(len(LENGTHS))]
    output = tmp_path / "exported"
    assert export.run(parts=PARTS, checkpoint=str(straight), inputs=paths, output=str(output), formats=formats) == 0
    said = json.loads((output / "export.json").read_text())
    assert [found["num_different_words"] for found in said["formats"]] == [0, 0]
    exported, again = read(output, folder)
    assert again == texts
    samples = soundfile.read(paths[0], dtype="float32")[0]
    row = {"waveform": tf.constant(samples[np.newaxis]), "lengths": tf.constant([len(samples)])}
    for reader in (transcriber, exported):
        assert serve.find_signature(reader, PARTS)(**row)["text"].numpy()[0].decode() == texts[0]


def test_it_goes_to_tf_hub_and_back_to_transformers(folder, straight, tmp_path):
    assert hub_export.main([f"--input={straight}", f"--output={tmp_path / 'hub'}", "--num_samples=4000"]) == 0
    model = Wav2Vec2ForCTC.from_pretrained(straight)
    speech = np.random.default_rng(0).normal(size=(1, 4_000)).astype(np.float32)
    wanted, _ = model.backbone(tf.constant(speech), tf.constant([4_000]), None)
    loaded = tf.saved_model.load(str(tmp_path / "hub"))
    np.testing.assert_allclose(loaded(speech, training=False), wanted[-1], atol=1e-4)
    convert.to_hf(input=straight, output=tmp_path / "hf")
    convert.from_hf(input=tmp_path / "hf", output=tmp_path / "again")
    again = {variable.name: variable for variable in Wav2Vec2ForCTC.from_pretrained(tmp_path / "again").variables}
    for variable in model.variables:
        assert again[variable.name].numpy().tobytes() == variable.numpy().tobytes(), variable.name
