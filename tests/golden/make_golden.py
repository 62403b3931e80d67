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

_SMALL = {
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
    **_SMALL,
    "conv_dim": (4, 6, 8),
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_conv_pos_embedding_groups": 2,
}
# Of 41 frames, all kinds of distances: one a bucket, several a bucket, past the last bucket.
_BUCKETS = {"num_buckets": 16, "max_bucket_distance": 20}
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}

# Name -> (family, fields). Where one value occurs twice in the published models, the small ones have two: an odd number
# of heads, widths that all differ, an epsilon that is not the one of the feature encoder.
MODELS = {
    "base_shaped": ("wav2vec2", _SMALL),
    "large_lv60_shaped": ("wav2vec2", {**_SMALL, **_STABLE, "layer_norm_eps": 1e-3, "num_conv_pos_embeddings": 7}),
    "hubert_shaped": ("hubert", {**_SMALL, "feat_proj_layer_norm": False, "layer_norm_eps": 1e-3}),
    "wavlm_base_shaped": ("wavlm", {**_TINY, **_BUCKETS}),
    "wavlm_large_shaped": ("wavlm", {**_TINY, **_BUCKETS, **_STABLE, "layer_norm_eps": 1e-3}),
    "unispeech_shaped": ("unispeech", {**_TINY, **_STABLE}),
    "unispeech_sat_shaped": ("unispeech-sat", _TINY),
    "data2vec_audio_shaped": (
        "data2vec-audio",
        {**_TINY, "layer_norm_eps": 1e-3, "conv_pos_kernel_size": 4, "num_conv_pos_embeddings": 3},
    ),
    "mms_shaped": ("wav2vec2", {**_TINY, **_STABLE, "layer_norm_eps": 1e-3, "adapter_attn_dim": 5}),
    "base": ("wav2vec2", {}),
    "large_lv60": ("wav2vec2", {**_LARGE, **_STABLE}),
    "hubert_base": ("hubert", {}),
    "wavlm_base": ("wavlm", {}),
    "data2vec_audio_base": ("data2vec-audio", {}),
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
                is_scale = "norm.weight" in tensor_name
                tensor.normal_(mean=1.0 if is_scale else 0.0, std=0.2)
            if _is_tiny(name):
                tensor.copy_(tensor.half())
    return model


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

    for i, layer in enumerate(backbone.feature_extractor.conv_layers):
        layer.register_forward_hook(keep(f"feature/{i}", lambda inputs, output: output.transpose(1, 2)))
    backbone.feature_projection.register_forward_hook(keep("projection"))
    backbone.encoder.layers[0].register_forward_hook(keep("hidden/0", lambda inputs, output: inputs[0]))
    for i, layer in enumerate(backbone.encoder.layers):
        layer.register_forward_hook(keep(f"hidden/{i + 1}"))
    backbone.encoder.register_forward_hook(keep("encoder", lambda inputs, output: output.last_hidden_state))
    result = model(torch.from_numpy(waveform), labels=torch.from_numpy(labels)[None].long())
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
        logits = model.eval()(torch.from_numpy(golden["waveform"])).logits.numpy()
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
