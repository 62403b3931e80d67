"""Runs the reference's side of a benchmark, Hugging Face transformers on PyTorch, in its own environment.

Of the project only `benchmarks.protocol` and `benchmarks.cases` can be imported here, which need only NumPy.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import torch
import transformers

from benchmarks import cases, protocol


class Side:
    """A model with its batches."""

    def __init__(self, *, task: str, precision: str, device: str, batches: str, model: dict[str, Any]) -> None:
        """Builds the model of a `benchmarks.protocol.Spec`."""
        torch.manual_seed(0)
        self._device = "cuda" if device == "gpu" else "cpu"
        self._is_training = task == "train"
        self._is_half = precision == "mixed_bfloat16"
        config = transformers.Wav2Vec2Config(**model)
        self._model = transformers.Wav2Vec2ForCTC(config).to(self._device)
        self._model.train(self._is_training)
        self._optimizer = None
        if self._is_training:
            self._model.freeze_feature_encoder()
            trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
            self._optimizer = torch.optim.AdamW(trained, lr=1e-5)
        # The published recipe of models with group norm in the feature encoder pads with zeros and uses no mask.
        self._takes_mask = config.feat_extract_norm == "layer"
        self._batches = [self._to_torch(batch) for batch in cases.load(batches)]

    def _to_torch(self, batch: cases.Batch) -> dict[str, torch.Tensor]:
        positions = torch.arange(batch.waveform.shape[1])[None]
        made = {"input_values": torch.from_numpy(batch.waveform)}
        if self._takes_mask:
            made["attention_mask"] = (positions < torch.from_numpy(batch.lengths)[:, None]).long()
        if self._is_training:
            labels = torch.from_numpy(batch.labels).long()
            is_label = torch.arange(labels.shape[1])[None] < torch.from_numpy(batch.label_lengths)[:, None]
            made["labels"] = labels.masked_fill(~is_label, -100)
        return {name: tensor.to(self._device) for name, tensor in made.items()}

    def run_once(self) -> dict[str, float]:
        """Runs one pass over the batches and returns its time and a number to compare."""
        start, cpu_start = time.perf_counter(), time.process_time()
        figure = 0.0
        autocast = torch.autocast(self._device, dtype=torch.bfloat16) if self._is_half else contextlib.nullcontext()
        for batch in self._batches:
            if self._optimizer is None:
                with torch.inference_mode(), autocast:
                    figure = float(self._model(**batch).logits.float().argmax(-1).sum())
                continue
            with autocast:
                loss = self._model(**batch).loss
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            figure = float(loss.detach())
        secs, cpu_secs = time.perf_counter() - start, time.process_time() - cpu_start
        return {"secs": secs, "cpu_secs": cpu_secs, "figure": figure}

    def ceiling(self) -> float:
        """Returns the best rate of a large matrix product in this precision, in FLOP/s."""
        size = 8192 if self._device == "cuda" else 2048
        a = torch.randn(size, size, dtype=torch.bfloat16 if self._is_half else torch.float32, device=self._device)

        def once() -> float:
            start = time.perf_counter()
            float((a @ a)[0, 0])
            return time.perf_counter() - start

        return 2.0 * size**3 / min(once() for _ in range(8))


def _versions() -> str:
    return json.dumps({"torch": torch.__version__, "transformers": transformers.__version__})


if __name__ == "__main__":
    protocol.serve(Side, versions=_versions)
