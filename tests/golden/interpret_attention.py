"""Interprets the attention kernels on a CPU and compares them with attention that is written out, in float64.

Needs triton and torch, see `kernels` in setup.cfg. Prints one line of JSON: the largest errors, relative to the largest
value, by case.
"""

from __future__ import annotations

import json
import math
import os

os.environ["TRITON_INTERPRET"] = "1"  # read by triton when the kernels are defined

import numpy as np
import torch

from models.ops.gpu_attention import kernels

SIZE = 64


def mix(x: np.ndarray) -> np.ndarray:
    """The hash of `models.ops.keyed_random`, written again because TensorFlow is not here."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def errors(*, rows: int, frames: int, heads: int, rate: float, block: int, step: int) -> list[float]:
    """Returns the largest errors of the context and of the gradients of queries, keys and values."""
    generator, numbers = torch.Generator().manual_seed(0), np.random.default_rng(0)
    qkv = torch.randn(rows, frames, 3, heads, SIZE, generator=generator).half()
    upstream = torch.randn(rows, frames, heads, SIZE, generator=generator).half()
    lengths = torch.tensor([max(1, frames - 20 * row) for row in range(rows)])
    bias = torch.where(torch.arange(frames) < lengths[:, None], 0.0, -1e9).float()
    keys = numbers.integers(0, 2**32, (rows, heads, frames), dtype=np.uint32)
    limit = math.ceil(float(np.float32(rate)) * 2**24) << 8
    sizes = torch.tensor([frames, heads, int(np.uint32(limit).astype(np.int32))], dtype=torch.int32)
    factors = torch.tensor([math.log2(math.e) / SIZE**0.5, SIZE**-0.5, 1 / (1 - rate)], dtype=torch.float32)
    shared = (qkv, bias, torch.from_numpy(keys.view(np.int32)).view(torch.uint32), sizes, factors)
    context, lse, to_qkv = torch.zeros_like(upstream), torch.zeros(rows, heads, frames), torch.zeros_like(qkv)

    grid, constants = (-(-frames // block), rows * heads), {"DROPS": rate > 0, "D": SIZE}
    kernels.attention_forward[grid](*shared, context, lse, **constants, BLOCK_Q=block, BLOCK_K=step)
    along = (upstream.float() * context.float()).sum(-1).permute(0, 2, 1).contiguous() * (1 - rate)
    kernels.attention_backward[grid](
        *shared, lse, along, upstream, to_qkv, **constants, BLOCK=block, STEP_Q=step, STEP_K=block
    )

    wide = qkv.double().requires_grad_()
    query, key, value = wide.permute(2, 0, 3, 1, 4)
    probs = torch.softmax(query @ key.transpose(-1, -2) / SIZE**0.5 + bias.double()[:, None, None], -1)
    is_kept = mix(np.arange(frames, dtype=np.uint32) * np.uint32(0x9E3779B9) + keys[..., np.newaxis]) >= limit
    probs = torch.where(torch.from_numpy(is_kept), probs / (1 - rate), 0.0)
    wanted = (probs @ value).permute(0, 2, 1, 3)
    wanted.backward(upstream.double())
    pairs = [(context, wanted.detach()), *((to_qkv[:, :, i], wide.grad[:, :, i]) for i in range(3))]
    return [((ours - theirs).abs().max() / theirs.abs().max()).item() for ours, theirs in pairs]


def main() -> None:
    """Compares blocks that fit the frames with blocks that do not, with dropout and without."""
    cases = [
        {"rows": rows, "frames": frames, "heads": heads, "rate": rate, "block": block, "step": step}
        for rows, frames, heads in ((2, 50, 2), (3, 64, 1), (1, 3, 1))
        for rate in (0.0, 0.1)
        for block, step in ((32, 16), (64, 64))
    ]
    with np.errstate(over="ignore"):
        print(json.dumps([{**case, "errors": errors(**case)} for case in cases]))


if __name__ == "__main__":
    main()
