"""Parity at full size on real speech, against transformers in an environment that the test makes (2 to 5 GB, once)."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file

from benchmarks.reference import reference_python
from data.audio.decoding import load_audio, normalize_waveform
from models import convert
from models.wav2vec2 import pretrained
from models.wav2vec2.config import CONFORMER_LORA_TARGETS, LORA_TARGETS
from models.wav2vec2.model import Wav2Vec2ForCTC
from tests.helpers.models_parity import check_parity, compute, load_golden, write_hf_folder

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "tests" / "golden" / "make_golden.py"
CORPORA = ROOT.parent / "shared" / "corpora"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def reference():
    """The interpreter of the reference's environment; kept in the temporary folder for the next time."""
    return reference_python()


@pytest.fixture(scope="session")
def audio(tmp_path_factory):
    """A .npy file with an utterance of about five seconds of real speech, normalized."""
    for path in sorted(CORPORA.rglob("*.flac")):
        waveform = load_audio(path)
        if 70_000 < len(waveform) < 90_000:
            saved = tmp_path_factory.mktemp("audio") / "waveform.npy"
            np.save(saved, normalize_waveform(waveform))
            return saved
    pytest.skip(f"no real speech of some five seconds in {CORPORA}")


def run(reference, *arguments):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [reference, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "name",
    [
        "base", "hubert_base", "large_lv60", "wavlm_base", "data2vec_audio_base", "conformer_relative_base",
        "conformer_rotary_base", "w2v_bert_base", "w2v_bert_adapter_base",
    ],
)  # fmt: skip
def test_full_size_models_equal_the_reference_and_go_back(reference, audio, tmp_path, name):
    made = run(reference, RECIPE, f"--model={name}", f"--audio={audio}", f"--output={tmp_path}")
    assert made.returncode == 0, made.stderr[-2000:]
    with np.load(tmp_path / "golden.npz") as file:
        golden = dict(file)
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *(chr(ord("A") + i) for i in range(27))]
    (tmp_path / "hf" / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))

    report = convert.from_hf(input=tmp_path / "hf", output=tmp_path / "ours")
    assert not report.fresh and not report.dropped
    model = Wav2Vec2ForCTC.from_pretrained(tmp_path / "ours")
    largest = check_parity(compute(model, golden), golden)
    print(f"\n{name}, {golden['waveform'].shape[1]} samples, largest differences: {largest}")

    convert.to_hf(input=tmp_path / "ours", output=tmp_path / "back")
    theirs, back = (load_file(tmp_path / folder / "model.safetensors") for folder in ("hf", "back"))
    assert back.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert back[key].tobytes() == tensor.tobytes(), key
    checked = run(reference, RECIPE, f"--check={tmp_path / 'back'}", f"--output={tmp_path}")
    assert checked.returncode == 0, checked.stderr[-2000:]
    found = json.loads(checked.stdout.splitlines()[-1])
    # With a bias of positions PyTorch has one attention kernel with gradients and another without.
    assert found.pop("difference") <= (0.0 if model.config.layer_kind == "transformer" else 1e-5)
    assert found.pop("processor") == ("Wav2Vec2BertProcessor" if name.startswith("w2v_bert") else "Wav2Vec2Processor")
    assert not any(found.values()), found


LOAD_ADAPTER = """
import json, sys
import torch, transformers
folder, = sys.argv[1:]
model = transformers.Wav2Vec2ForCTC.from_pretrained(folder).eval()
waveform = torch.sin(torch.arange(4000.0) / 9.0)[None]
found = {}
with torch.no_grad():
    for code in ("fra", "eng"):
        model.load_adapter(code)
        found[code] = model(waveform).logits[0].tolist()
print(json.dumps(found))
"""


def test_transformers_loads_the_adapters_that_we_save(reference, tmp_path):
    """Two languages beside one model: logits as ours, and back again."""
    golden = load_golden("mms_shaped")
    write_hf_folder(tmp_path / "hf", golden)
    convert.from_hf(input=tmp_path / "hf", output=tmp_path / "eng")
    models = {code: Wav2Vec2ForCTC.from_pretrained(tmp_path / "eng") for code in ("eng", "fra")}
    rng = np.random.default_rng(0)
    for variable in (*models["fra"].attention_adapter_variables, *models["fra"].head.variables):
        variable.assign(rng.normal(size=variable.shape))
    models["fra"].save_pretrained(tmp_path / "fra", vocab=tmp_path / "eng" / "vocab.json")
    convert.to_hf(input=tmp_path / "eng", output=tmp_path / "both")
    (tmp_path / "both" / "vocab.json").unlink()
    for code in models:
        convert.to_adapter(input=tmp_path / code, output=tmp_path / "both", target_lang=code)
    done = run(reference, "-c", LOAD_ADAPTER, tmp_path / "both")
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    waveform = np.sin(np.arange(4000, dtype=np.float32) / 9.0)[np.newaxis]
    for code, model in models.items():
        ours = model(tf.constant(waveform), tf.constant([4000]))[0].numpy()
        assert np.abs(ours).max() > 0.5
        np.testing.assert_allclose(ours, theirs[code], atol=2e-4)


READ_PICKLE = """
import contextlib, pathlib, sys
import numpy as np
from safetensors.numpy import load_file
from models.weights.tensor_files import open_tensors
folder = pathlib.Path(sys.argv[1])
with contextlib.ExitStack() as stack:
    found = {name: tensor.read() for name, tensor in open_tensors(folder / "bin", stack).items()}
wanted = load_file(folder / "hf" / "model.safetensors")
assert found.keys() == wanted.keys() and len(wanted) > 200
assert all(found[name].tobytes() == tensor.tobytes() for name, tensor in wanted.items())
"""


class _Malicious:
    def __init__(self, trap):
        self.trap = trap

    def __reduce__(self):
        return os.mkdir, (self.trap,)


def test_a_pickle_of_tensors_is_read_and_any_other_never_runs(reference, audio, tmp_path):
    made = run(reference, RECIPE, "--model=base", f"--audio={audio}", f"--output={tmp_path}")
    assert made.returncode == 0, made.stderr[-2000:]
    read = run(sys.executable, "-c", READ_PICKLE, tmp_path)
    assert read.returncode == 0, read.stderr[-2000:]

    path = tmp_path / "bin" / "pytorch_model.bin"
    whole, trap = path.read_bytes(), tmp_path / "trap"
    for content, message in (
        (pickle.dumps(_Malicious(str(trap))), "none of it was run"),
        (pickle.dumps({"weight": _Malicious(str(trap))}, protocol=2), "none of it was run"),
        (whole[: len(whole) // 2], "damaged"),
        (b"", "damaged"),
    ):
        path.write_bytes(content)
        command = ("-m", "models.convert", f"--input={tmp_path / 'bin'}", f"--output={tmp_path / 'ours'}")
        refused = run(sys.executable, *command)
        assert refused.returncode == 2, refused.stderr[-2000:]
        assert message in refused.stderr and refused.stderr.count("\n") == 1
        assert not trap.exists() and not (tmp_path / "ours").exists()


PEFT_SIDE = """
import sys
import numpy, torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCTC

base, alone, output, part = sys.argv[1:]
waveform = torch.tensor(numpy.random.default_rng(0).normal(size=(1, 16000)).astype("float32"))
model = PeftModel.from_pretrained(AutoModelForCTC.from_pretrained(base), alone).eval()
config = LoraConfig(
    r=3, lora_alpha=5, use_rslora=True, target_modules=[part, "output_dense"], modules_to_save=["lm_head"]
)
theirs = get_peft_model(AutoModelForCTC.from_pretrained(base), config).eval()
with torch.no_grad():
    for name, value in theirs.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            value.normal_(0, 0.3)
    numpy.savez(output + "/logits.npz", ours=model(waveform).logits.numpy(), theirs=theirs(waveform).logits.numpy())
theirs.save_pretrained(output + "/theirs")
"""


@pytest.mark.parametrize(
    ("golden", "targets", "part"),
    [("base_shaped", LORA_TARGETS, "k_proj"), ("conformer_relative_shaped", CONFORMER_LORA_TARGETS, "linear_k")],
)
def test_peft_computes_what_was_saved_for_it_and_its_own_folder_is_read(reference, tmp_path, golden, targets, part):
    if subprocess.run([reference, "-c", "import peft"], capture_output=True, check=False).returncode:
        pytest.skip(f"no peft in the reference's environment: {reference} -m pip install peft")
    convert.from_hf(input=write_hf_folder(tmp_path / "hf", load_golden(golden)), output=tmp_path / "ours")
    config = dataclasses.replace(pretrained.read_config(tmp_path / "ours"), lora_rank=4, lora_targets=targets)
    model = Wav2Vec2ForCTC(config=config)
    frozen = {variable.name: variable for variable in Wav2Vec2ForCTC.from_pretrained(tmp_path / "ours").variables}
    rng = np.random.default_rng(1)
    for variable in model.variables:
        variable.assign(frozen.get(variable.name, rng.normal(0.0, 0.3, variable.shape)))
    model.save_pretrained(tmp_path / "run")
    convert.main([f"--input={tmp_path}/run", f"--output={tmp_path}/alone", "--to_peft"])
    (tmp_path / "side.py").write_text(PEFT_SIDE)
    made = run(reference, tmp_path / "side.py", tmp_path / "hf", tmp_path / "alone", tmp_path, part)
    assert made.returncode == 0, made.stderr[-2000:]
    wanted = dict(np.load(tmp_path / "logits.npz"))

    waveform, length = np.random.default_rng(0).normal(size=(1, 16000)).astype(np.float32), [16000]
    np.testing.assert_allclose(model(waveform, length), wanted["ours"], atol=2e-4)
    assert convert.main([f"--input={tmp_path}/hf", f"--peft={tmp_path}/theirs", f"--output={tmp_path}/read"]) == 0
    read = Wav2Vec2ForCTC.from_pretrained(tmp_path / "read")
    np.testing.assert_allclose(read(waveform, length), wanted["theirs"], atol=2e-4)
