"""Comparison of our model with what tests/golden/make_golden.py has written of the reference."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from models.ctc.loss import ctc_loss
from models.hugging_face import names
from models.hugging_face.config import from_hf
from models.wav2vec2.model import Wav2Vec2ForCTC

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL_MODELS = (
    "base_shaped", "large_lv60_shaped", "hubert_shaped", "wavlm_base_shaped", "wavlm_large_shaped", "unispeech_shaped",
    "unispeech_sat_shaped", "data2vec_audio_shaped", "mms_shaped", "conformer_relative_shaped",
    "conformer_rotary_shaped", "w2v_bert_shaped", "w2v_bert_adapter_shaped",
)  # fmt: skip
_MEL_CHANNELS, _MEL_TOLERANCE = 160, 2e-3


def load_golden(name):
    """The arrays of a golden file, by key."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def tensors_of(golden):
    """Name as transformers saves it -> tensor."""
    return {key.removeprefix("weight/"): value for key, value in golden.items() if key.startswith("weight/")}


def write_hf_folder(folder, golden, *, tensors=None, vocab=True, **fields):
    """A Hugging Face folder of the golden model, with other tensors or config fields if given."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors_of(golden) if tensors is None else tensors, folder / "model.safetensors")
    config = {**json.loads(str(golden["config"])), **fields}
    (folder / "config.json").write_text(json.dumps(config))
    if vocab:
        tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", "A", "B", "C"]
        (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    return folder


def build_through_the_table(golden):
    """Our model of a golden config and its weights, by nothing but the name table."""
    model = Wav2Vec2ForCTC(config=from_hf(json.loads(str(golden["config"]))))
    tensors = {names.canonical_name(name): tensor for name, tensor in tensors_of(golden).items()}
    variables = {variable.name.removesuffix(":0"): variable for variable in model.variables}
    for entry in names.name_table(model.config):
        variables[entry.ours].assign(entry.join([tensors.pop(name) for name in entry.theirs]))
    assert not tensors
    return model


def compute(model, golden):
    """What the golden file has, computed by our model; gradients by name of the table."""
    found = {}
    length = tf.constant([golden["waveform"].shape[1]])
    labels = tf.constant(golden["labels"][np.newaxis])

    def keep(layer, key):
        call = layer.call

        def kept(*args, **kwargs):
            result = call(*args, **kwargs)
            # The list of the encoder's hidden states, or (features, lengths).
            kept_one = result[-1] if isinstance(result, list) else result[0] if isinstance(result, tuple) else result
            found[key] = kept_one.numpy()
            return result

        return _swapped(layer, "call", kept)

    backbone = model.backbone
    with contextlib.ExitStack() as stack, tf.GradientTape() as tape:
        if model.config.front_end == "log_mel":
            stack.enter_context(keep(backbone.feature_encoder, "feature/0"))
        else:
            for i, layer in enumerate(backbone.feature_encoder.convolutions):
                stack.enter_context(keep(layer, f"feature/{i}"))
        stack.enter_context(keep(backbone.encoder, "encoder"))
        if backbone.length_adapter is not None:
            stack.enter_context(keep(backbone.length_adapter, "adapter"))
        stack.enter_context(keep(backbone.feature_projection, "projection"))
        for i, layer in enumerate(backbone.encoder.transformer_layers):
            stack.enter_context(keep(layer, f"hidden/{i + 1}"))
        hidden_states, _ = backbone(tf.constant(golden["waveform"]), length, None)
        logits = tf.cast(model.head(hidden_states[-1]), tf.float32)
        loss = tf.reduce_sum(ctc_loss(logits, model.output_lengths(length), labels, tf.constant([labels.shape[1]])))
    np.testing.assert_array_equal(logits, model(tf.constant(golden["waveform"]), length))
    gradients = tape.gradient(loss, model.variables)
    by_name = dict(zip((variable.name.removesuffix(":0") for variable in model.variables), gradients, strict=True))
    for entry in names.name_table(model.config):
        if by_name[entry.ours] is not None:
            for name, gradient in entry.split(by_name[entry.ours].numpy()).items():
                found[f"gradient/{name}"] = gradient
    return {
        **found,
        "hidden/0": hidden_states[0].numpy(),
        "logits": logits.numpy(),
        "loss": loss.numpy(),
    }


def check_parity(found, golden):
    """Asserts the project's bounds; returns the largest difference of each kind.

    Returns:
        dict: layers, logits (both absolute), loss (relative), gradient (1 - cosine).
    """
    largest = {"layers": 0.0, "logits": 0.0, "loss": 0.0, "gradient": 0.0}
    states = [key for key in golden if key.split("/")[0] in ("feature", "projection", "hidden", "encoder", "adapter")]
    assert len(states) >= 6
    for key in states:
        assert found[key].shape == golden[key].shape, key
        assert golden[key].std() > 0.01, key  # a state that says nothing would compare well
        # A spectrum of float32 is coarser than the reference's in a few silent channels of a frame.
        atol = _MEL_TOLERANCE if golden[key].shape[2] == _MEL_CHANNELS else 1e-4
        np.testing.assert_allclose(found[key], golden[key], rtol=0, atol=atol, err_msg=key)
        largest["layers"] = max(largest["layers"], float(np.abs(found[key] - golden[key]).max()))
    np.testing.assert_allclose(found["logits"], golden["logits"], rtol=0, atol=2e-4)
    largest["logits"] = float(np.abs(found["logits"] - golden["logits"]).max())
    np.testing.assert_allclose(found["loss"], golden["loss"], rtol=1e-4)
    largest["loss"] = float(abs(found["loss"] / golden["loss"] - 1.0))

    theirs = {names.canonical_name(k.removeprefix("gradient/")): v for k, v in golden.items() if "gradient/" in k}
    ours = {key.removeprefix("gradient/"): value for key, value in found.items() if key.startswith("gradient/")}
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        if name.endswith(("k_proj.bias", "linear_k.bias")):
            # Adds the same to a query's logits for all keys, which softmax takes away: both are rounding.
            scale = np.linalg.norm(theirs[name.replace("bias", "weight")])
            assert max(np.linalg.norm(ours[name]), np.linalg.norm(wanted)) < 1e-3 * scale, name
            continue
        a, b = ours[name].ravel().astype(np.float64), wanted.ravel().astype(np.float64)
        cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        assert cosine >= 0.9999, (name, cosine)
        np.testing.assert_allclose(np.linalg.norm(a), np.linalg.norm(b), rtol=1e-3, err_msg=name)
        largest["gradient"] = max(largest["gradient"], 1.0 - float(cosine))
    return largest


@contextlib.contextmanager
def _swapped(obj, name, value):
    old = getattr(obj, name)
    object.__setattr__(obj, name, value)
    try:
        yield
    finally:
        object.__setattr__(obj, name, old)
