"""What the reference (Hugging Face transformers on PyTorch, CPU) computes, for the parity tests.

Runs in an environment of its own, with torch, transformers and safetensors; nothing of the project imports it:

    python -m venv REF && REF/bin/pip install torch==2.13.0 transformers==5.23.0 safetensors
    REF/bin/python tests/golden/make_golden.py                  the small .npz files beside this one
    REF/bin/python tests/golden/make_golden.py --model=base --audio=F.npy --output=DIR      one of full size
    REF/bin/python tests/golden/make_golden.py --check=FOLDER --output=DIR       does transformers load FOLDER?

The second writes DIR/golden.npz, and the model as DIR/hf (safetensors) and DIR/bin (pickle). The third prints, as JSON,
what transformers missed or could not place, and the largest difference of the logits from those of DIR/golden.npz.

An .npz file holds: config (JSON), waveform [1, T], labels [L], logits, loss; `feature/I` of each convolution [1, F, C],
`projection`, `hidden/I` from the input of the first layer to the last layer's output, before the last norm of a
pre-norm model, `encoder` after it; `weight/NAME` (small models only) and `gradient/NAME` of each tensor.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import transformers

SMALL = {
    "vocab_size": 8,
    "conv_dim": (8, 12, 16),
    "conv_kernel": (10, 4, 3),
    "conv_stride": (8, 4, 3),
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}
_STABLE = {"conv_bias": True, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
# Parts that came later need no wider models to show themselves, and files of half the size: weights that float16 holds
# exactly, gradients in float16.
_TINY = {
    **SMALL,
    "conv_dim": (4, 6, 8),
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_conv_pos_embedding_groups": 2,
}
# Of 41 frames, all kinds of distances: one a bucket, several a bucket, past the last bucket.
_BUCKETS = {"num_buckets": 16, "max_bucket_distance": 20}
# w2v-BERT has no convolutions below: of 24 frames, distances on both sides of those that have a vector of their own.
_BERT = {
    **{name: _TINY[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")},
    "intermediate_size": 20, "layer_norm_eps": 1e-3, "conv_depthwise_kernel_size": 5,
    "left_max_position_embeddings": 6, "right_max_position_embeddings": 3,
}  # fmt: skip
_ADAPTER = {"num_hidden_layers": 1, "add_adapter": True, "num_adapter_layers": 1, "output_hidden_size": 9}
_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}

# Name -> (family, fields). Where one value occurs twice in the published models, the small ones have two: an odd number
# of heads, widths that all differ, an epsilon that is not the one of the feature encoder.
MODELS = {
    "base_shaped": ("wav2vec2", SMALL),
    "large_lv60_shaped": ("wav2vec2", {**SMALL, **_STABLE, "layer_norm_eps": 1e-3, "num_conv_pos_embeddings": 7}),
    "hubert_shaped": ("hubert", {**SMALL, "feat_proj_layer_norm": False, "layer_norm_eps": 1e-3}),
    "wavlm_base_shaped": ("wavlm", {**_TINY, **_BUCKETS}),
    "wavlm_large_shaped": ("wavlm", {**_TINY, **_BUCKETS, **_STABLE, "layer_norm_eps": 1e-3}),
    "unispeech_shaped": ("unispeech", {**_TINY, **_STABLE}),
    "unispeech_sat_shaped": ("unispeech-sat", _TINY),
    "data2vec_audio_shaped": (
        "data2vec-audio",
        {**_TINY, "layer_norm_eps": 1e-3, "conv_pos_kernel_size": 4, "num_conv_pos_embeddings": 3},
    ),
    "mms_shaped": ("wav2vec2", {**_TINY, **_STABLE, "layer_norm_eps": 1e-3, "adapter_attn_dim": 5}),
    "conformer_relative_shaped": (
        "wav2vec2-conformer",
        {**_TINY, **_STABLE, "layer_norm_eps": 1e-3, "conv_depthwise_kernel_size": 5, "hidden_act": "swish"},
    ),
    "conformer_rotary_shaped": (
        "wav2vec2-conformer",
        {**_TINY, **_ADAPTER, "conv_depthwise_kernel_size": 5, "position_embeddings_type": "rotary"},
    ),
    "w2v_bert_shaped": ("wav2vec2-bert", _BERT),
    "w2v_bert_adapter_shaped": (
        "wav2vec2-bert",
        {**_BERT, **_ADAPTER, "use_intermediate_ffn_before_adapter": True, "position_embeddings_type": None},
    ),
    "base": ("wav2vec2", {}),
    "large_lv60": ("wav2vec2", {**_LARGE, **_STABLE}),
    "hubert_base": ("hubert", {}),
    "wavlm_base": ("wavlm", {}),
    "data2vec_audio_base": ("data2vec-audio", {}),
    "conformer_relative_base": ("wav2vec2-conformer", {**_STABLE, "vocab_size": 32, "hidden_act": "swish"}),
    "conformer_rotary_base": ("wav2vec2-conformer", {"vocab_size": 32, "position_embeddings_type": "rotary"}),
    "w2v_bert_base": ("wav2vec2-bert", {**_BASE, "vocab_size": 32}),
    "w2v_bert_adapter_base": ("wav2vec2-bert", {**_BASE, "vocab_size": 32, "add_adapter": True}),
}
SMALL_MODELS = tuple(name for name in MODELS if name.endswith("_shaped"))


def _is_tiny(name: str) -> bool:
    return MODELS[name][1].get("hidden_size") == _TINY["hidden_size"]


def build(name: str, seed: int) -> torch.nn.Module:
    """Returns the model with every tensor random: fresh ones have zero biases, which would hide a wrong mapping."""
    family, fields = MODELS[name]
    torch.manual_seed(seed)
    # The default of some families is another one; ours, before it divides by the rows of an update, is this.
    config = transformers.AutoConfig.for_model(family, **{"ctc_loss_reduction": "sum", **fields})
    model = transformers.AutoModelForCTC.from_config(config).eval()
    with torch.no_grad():
        for tensor_name, tensor in model.named_parameters():
            if tensor_name.endswith("original0"):  # gains of weight norm
                tensor.mul_(1.0 + 0.2 * torch.randn_like(tensor))
            elif tensor.ndim >= 2:
                tensor.normal_(std=float(tensor[0].numel()) ** -0.5)
            else:
                is_scale = tensor_name.endswith("norm.weight")
                tensor.normal_(mean=1.0 if is_scale else 0.0, std=0.2)
            if _is_tiny(name):
                tensor.copy_(tensor.half())
        for tensor_name, tensor in model.named_buffers():  # statistics of batch norm
            if tensor_name.endswith("running_mean"):
                tensor.normal_(std=0.2)
            elif tensor_name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif tensor_name.endswith("num_batches_tracked"):
                tensor.fill_(seed)
    return model


def to_input(model: torch.nn.Module, waveform: np.ndarray) -> dict[str, torch.Tensor]:
    """Returns the input of the model: the waveform [1, T], or what the reference makes of it."""
    if model.main_input_name == "input_values":
        return {"input_values": torch.from_numpy(waveform)}
    extractor = transformers.SeamlessM4TFeatureExtractor()
    return dict(extractor(list(waveform), sampling_rate=16_000, return_tensors="pt"))


def run(model: torch.nn.Module, waveform: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what the model computes for one utterance, and leaves the loss's gradients in its parameters."""
    found: dict[str, np.ndarray] = {}
    backbone = model.base_model

    def keep(key, pick=lambda inputs, output: output):
        def hook(module, inputs, output):
            value = pick(inputs, output)
            value = value[0] if isinstance(value, tuple) else value
            found[key] = value.detach().numpy().copy()

        return hook

    inputs = to_input(model, waveform)
    if "input_features" in inputs:
        found["feature/0"] = inputs["input_features"].numpy()
    else:
        for i, layer in enumerate(backbone.feature_extractor.conv_layers):
            layer.register_forward_hook(keep(f"feature/{i}", lambda inputs, output: output.transpose(1, 2)))
    if getattr(backbone, "adapter", None) is not None:
        backbone.adapter.register_forward_hook(keep("adapter"))
    backbone.feature_projection.register_forward_hook(keep("projection"))
    backbone.encoder.layers[0].register_forward_hook(keep("hidden/0", lambda inputs, output: inputs[0]))
    for i, layer in enumerate(backbone.encoder.layers):
        layer.register_forward_hook(keep(f"hidden/{i + 1}"))
    backbone.encoder.register_forward_hook(keep("encoder", lambda inputs, output: output.last_hidden_state))
    result = model(**inputs, labels=torch.from_numpy(labels)[None].long())
    result.loss.backward()
    return {
        **found,
        "waveform": waveform,
        "labels": labels,
        "logits": result.logits.detach().numpy(),
        "loss": result.loss.detach().numpy(),
    }


def make_small(name: str) -> dict[str, np.ndarray]:
    """A small model on a second of noise whose loudness changes, so that frames differ."""
    seed = 100 + SMALL_MODELS.index(name)
    model = build(name, seed)
    rng = np.random.default_rng(seed)
    waveform = rng.normal(size=(1, 4000)) * (1.0 + np.sin(np.arange(4000) / 300.0))
    if MODELS[name][0] == "wav2vec2-bert":  # a hop of 320 samples, and recordings as they are
        waveform = rng.normal(size=(1, 8000)) * (1.0 + np.sin(np.arange(8000) / 300.0))
        waveform = np.round(waveform * 1000.0) / 32_768.0
    if _is_tiny(name):
        waveform = waveform.astype(np.float16)
    found = run(model, waveform.astype(np.float32), np.array([3, 1, 1, 7, 2, 5], np.int32))
    for tensor_name, tensor in model.state_dict().items():
        found[f"weight/{tensor_name}"] = tensor.numpy()
    for tensor_name, tensor in model.named_parameters():
        if tensor.grad is not None:
            found[f"gradient/{tensor_name}"] = tensor.grad.numpy().astype(np.float16 if _is_tiny(name) else np.float32)
    # Not to_dict: it holds the version and much that has nothing to do with the network.
    found["config"] = np.array(json.dumps(model.config.to_diff_dict()))
    return found


def make_full(name: str, audio: str, output: Path) -> dict[str, np.ndarray]:
    """A model of full size on a waveform from a .npy file; its weights are saved as transformers does it."""
    model = build(name, seed=7)
    model.save_pretrained(output / "hf")
    rng = np.random.default_rng(7)
    waveform = np.load(audio).astype(np.float32)[np.newaxis]
    if MODELS[name][0] == "wav2vec2-bert":
        # As loud as a recording, and an even number of frames: of an odd one the reference pads the last feature.
        waveform = waveform[:, : (waveform.shape[1] - 400) // 320 * 320 + 400 - 160] * np.float32(0.05)
    found = run(model, waveform, rng.integers(5, 32, size=40).astype(np.int32))
    gradients = {key: tensor.grad for key, tensor in model.named_parameters() if tensor.grad is not None}
    (output / "bin").mkdir(exist_ok=True)
    model.config.save_pretrained(output / "bin")
    torch.save(model.state_dict(), output / "bin" / "pytorch_model.bin")
    return {**found, **{f"gradient/{key}": tensor.numpy() for key, tensor in gradients.items()}}


def check(folder: str, output: Path) -> dict[str, object]:
    """Loads a folder as a user would, and computes the logits of the golden waveform with it."""
    model, info = transformers.AutoModelForCTC.from_pretrained(folder, output_loading_info=True)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    with np.load(output / "golden.npz") as golden, torch.no_grad():
        model.eval()
        logits = model(**to_input(model, golden["waveform"])).logits.numpy()
        difference = float(np.abs(logits - golden["logits"]).max())
    problems = {key: sorted(map(str, found)) for key, found in info.items()}
    return {**problems, "difference": difference, "processor": type(processor).__name__}


def main() -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="", choices=("", *MODELS))
    parser.add_argument("--audio", default="")
    parser.add_argument("--output", default=str(Path(__file__).parent))
    parser.add_argument("--check", default="")
    flags = parser.parse_args()
    output = Path(flags.output)
    if flags.check:
        print(json.dumps(check(flags.check, output)))
        return
    if flags.audio:
        np.savez(output / "golden.npz", **make_full(flags.model, flags.audio, output))
        return
    for name in (flags.model,) if flags.model else SMALL_MODELS:
        np.savez_compressed(output / f"{name}.npz", **make_small(name))


if __name__ == "__main__":
    main()
