"""Runs the reference's side of a benchmark, Hugging Face transformers on PyTorch, in its own environment.

Without transformers, the same architecture in plain PyTorch takes its place (`benchmarks.plain_torch`). Of the project
only `benchmarks.protocol`, `benchmarks.cases` and that module can be imported here, which need only NumPy and PyTorch.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import torch

from benchmarks import cases, plain_torch, protocol

try:
    import transformers
except ImportError:
    transformers = None


class Side:
    """A model with its batches: autocast in half precision, fused attention, TF32 for float32 on a GPU.

    A model that reads log-mel features gets them from its own extractor: once before training, as its published recipe
    prepares a corpus, and within each pass of inference, which begins with waveforms.
    """

    def __init__(
        self, *, task: str, precision: str, device: str, batches: str, model: dict[str, Any], compile: bool = False
    ) -> None:
        """Builds the model of a `benchmarks.protocol.Spec`.

        Raises:
            RuntimeError: If PyTorch sees no GPU and `device` is "gpu".
        """
        torch.manual_seed(0)
        self._device = "cuda" if device == "gpu" else "cpu"
        if device == "gpu":
            if not torch.cuda.is_available():
                raise RuntimeError("PyTorch sees no GPU")
            # As TensorFlow does on its own.
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.allow_tf32 = True
        self._is_training = task == "train"
        self._is_half = precision == "mixed_bfloat16"
        self._model, self._takes_mask = _build(model)
        self._model.to(self._device).train(self._is_training)
        self._optimizer = None
        if self._is_training:
            if hasattr(self._model, "freeze_feature_encoder"):
                self._model.freeze_feature_encoder()
            trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
            self._optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=self._device == "cuda" or None)
        self._call = torch.compile(self._model) if compile else self._model
        self._extractor = None
        if getattr(self._model, "main_input_name", "") == "input_features":
            self._extractor = transformers.SeamlessM4TFeatureExtractor()
        self._batches: list[Any] = cases.load(batches)
        self._extracts_in_pass = self._extractor is not None and not self._is_training
        if not self._extracts_in_pass:
            self._batches = [self._to_torch(batch) for batch in self._batches]

    def _to_torch(self, batch: cases.Batch) -> dict[str, torch.Tensor]:
        if self._extractor is not None:
            made = dict(self._extractor(batch.rows, sampling_rate=cases.SAMPLE_RATE, return_tensors="pt"))
        else:
            made = {"input_values": torch.from_numpy(batch.waveform)}
            if self._takes_mask:
                positions = torch.arange(batch.waveform.shape[1])[None]
                made["attention_mask"] = (positions < torch.from_numpy(batch.lengths)[:, None]).long()
        if self._is_training:
            labels = torch.from_numpy(batch.labels).long()
            is_label = torch.arange(labels.shape[1])[None] < torch.from_numpy(batch.label_lengths)[:, None]
            made["labels"] = labels.masked_fill(~is_label, -100)
        return {name: tensor.to(self._device) for name, tensor in made.items()}

    def run_once(self) -> dict[str, float]:
        """Runs one pass over the batches and returns its time and a number to compare.

        The device is waited for once, at the end, so that it never waits for Python.
        """
        self._synchronize()
        start, cpu_start = time.perf_counter(), time.process_time()
        results = [self._run(self._to_torch(batch) if self._extracts_in_pass else batch) for batch in self._batches]
        figure = float(results[-1])
        self._synchronize()
        secs, cpu_secs = time.perf_counter() - start, time.process_time() - cpu_start
        return {"secs": secs, "cpu_secs": cpu_secs, "figure": figure}

    def _autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self._device, dtype=torch.bfloat16) if self._is_half else contextlib.nullcontext()

    def _run(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self._infer(batch) if self._optimizer is None else self._update(batch)

    def _infer(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.inference_mode(), self._autocast():
            found = self._call(**batch)
            return getattr(found, "logits", found).float().argmax(-1).sum()

    def _update(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        assert self._optimizer is not None
        with self._autocast():
            found = self._call(**batch)
            loss = getattr(found, "loss", found)
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _synchronize(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

    def peak_device_bytes(self) -> int | None:
        """Returns the peak memory of the GPU; None on a CPU."""
        return torch.cuda.max_memory_allocated() if self._device == "cuda" else None

    def ceiling(self) -> float:
        """Returns the best rate of a large matrix product in this precision, in FLOP/s."""
        # On a GPU several products are queued, because starting one and waiting for it takes time as well.
        size, count = (8192, 16) if self._device == "cuda" else (2048, 1)
        a = torch.randn(size, size, dtype=torch.bfloat16 if self._is_half else torch.float32, device=self._device)

        def once() -> float:
            self._synchronize()
            start = time.perf_counter()
            for _ in range(count):
                a @ a
            self._synchronize()
            return (time.perf_counter() - start) / count

        return 2.0 * size**3 / min(once() for _ in range(8))


def _build(fields: dict[str, Any]) -> tuple[Any, bool]:
    """Returns the model of the fields of a Hugging Face config, and whether it takes a mask of the padding.

    Raises:
        RuntimeError: Without transformers, if the network is not that of wav2vec 2.0.
    """
    if transformers is None and fields["model_type"] != "wav2vec2":
        raise RuntimeError(f"a reference of type {fields['model_type']} needs transformers: --reference_python")
    if transformers is None:
        return plain_torch.Model(**fields), False
    # WavLM's attention has one implementation.
    attention = "eager" if fields["model_type"] == "wavlm" else "sdpa"
    config = transformers.AutoConfig.for_model(**fields, attn_implementation=attention)
    # The published recipe of models with group norm in the feature encoder pads with zeros and uses no mask.
    takes_mask = getattr(config, "feat_extract_norm", "layer") == "layer"
    return transformers.AutoModelForCTC.from_config(config), takes_mask


def _versions() -> str:
    versions = {"torch": torch.__version__, "transformers": "none: the same layers in plain PyTorch"}
    if transformers is not None:
        versions["transformers"] = transformers.__version__
    if torch.cuda.is_available():
        versions["gpu"] = torch.cuda.get_device_name()
    return json.dumps(versions)


if __name__ == "__main__":
    protocol.serve(Side, versions=_versions)
