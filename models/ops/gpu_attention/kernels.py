"""Attention of one block of frames at a time, for NVIDIA GPUs, in the language of Triton (https://triton-lang.org).

`models.ops.gpu_attention.generate` writes these functions out in Triton's own intermediate form, which XLA compiles;
only that needs the package triton. The algorithm is FlashAttention (Dao et al. 2022,
https://arxiv.org/abs/2205.14135; Dao 2023, https://arxiv.org/abs/2307.08691). Dropout draws the numbers of
`models.ops.keyed_random.keep_of`, so it drops the same probabilities as attention that writes them out.

Arguments of both kernels; each is a pointer to a tensor in row-major order:

    qkv: [B, F, 3, H, D], queries, keys and values.
    key_bias: float32 [B, F], added to the logits of each key.
    keys: uint32 [B, H, F] of `UpdateRandom.vector_keys`; not read without DROPS.
    sizes: int32 [3], F, H and the bits of `keep_limit`.
    factors: float32 [3], log2(e) / sqrt(D), 1 / sqrt(D), and 1 / (1 - rate).

A program handles a block of frames of one head. Logits are in units of log(2), because a GPU computes powers of two.
"""

import triton
import triton.language as tl

_LOG2_E = tl.constexpr(1.4426950408889634)
_GOLDEN = tl.constexpr(0x9E3779B9)


@triton.jit
def _is_kept(row_keys, columns, limit):
    x = row_keys + columns.to(tl.uint32) * _GOLDEN
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return (x ^ (x >> 16)) >= limit


@triton.jit
def attention_forward(
    qkv, key_bias, keys, sizes, factors, context, lse,
    DROPS: tl.constexpr, D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Writes context, [B, F, H, D], and the log2 of each softmax's divisor, float32 [B, H, F]."""
    num_frames, num_heads = tl.load(sizes), tl.load(sizes + 1)
    limit = tl.load(sizes + 2).to(tl.uint32, bitcast=True)
    to_log2, inverse_keep = tl.load(factors), tl.load(factors + 2)
    pair = tl.program_id(1)
    row, head = pair // num_heads, pair % num_heads
    width = num_heads * D
    first = (row * num_frames).to(tl.int64)
    query_at = qkv + first * (3 * width) + head * D
    channel = tl.arange(0, D)

    at_q = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    is_q = at_q < num_frames
    q = tl.load(query_at + at_q[:, None] * (3 * width) + channel[None, :], mask=is_q[:, None], other=0.0)
    if DROPS:
        row_keys = tl.load(keys + pair * num_frames + at_q, mask=is_q, other=0)
    highest = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    found = tl.zeros([BLOCK_Q, D], tl.float32)
    for start in range(0, num_frames, BLOCK_K):
        at_k = start + tl.arange(0, BLOCK_K)
        is_k = at_k < num_frames
        k_at = query_at + width + at_k[None, :] * (3 * width) + channel[:, None]
        k = tl.load(k_at, mask=is_k[None, :], other=0.0)
        bias = tl.load(key_bias + first + at_k, mask=is_k, other=float("-inf"))
        logits = tl.dot(q, k) * to_log2 + (bias * _LOG2_E)[None, :]
        higher = tl.maximum(highest, tl.max(logits, 1))
        shrunk = tl.exp2(highest - higher)
        exps = tl.exp2(logits - higher[:, None])
        total = total * shrunk + tl.sum(exps, 1)
        if DROPS:
            exps = tl.where(_is_kept(row_keys[:, None], at_k[None, :], limit), exps, 0.0)
        v_at = query_at + 2 * width + at_k[:, None] * (3 * width) + channel[None, :]
        v = tl.load(v_at, mask=is_k[:, None], other=0.0)
        found = tl.dot(exps.to(v.dtype), v, found * shrunk[:, None])
        highest = higher
    divisor = total
    if DROPS:
        divisor = total / inverse_keep
    found = found / divisor[:, None]
    context_at = context + first * width + head * D + at_q[:, None] * width + channel[None, :]
    tl.store(context_at, found.to(context.dtype.element_ty), mask=is_q[:, None])
    tl.store(lse + pair * num_frames + at_q, highest + tl.log2(total), mask=is_q)


@triton.jit
def attention_backward(
    qkv, key_bias, keys, sizes, factors, lse, along, upstream, to_qkv,
    DROPS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, STEP_Q: tl.constexpr, STEP_K: tl.constexpr,
):  # fmt: skip
    """Writes the gradient of qkv, [B, F, 3, H, D].

    `lse` is that of `attention_forward`; `upstream`, [B, F, H, D], is the gradient of its context; `along`, float32
    [B, H, F], the sum of upstream * context over the channels, times 1 - rate. Where all keys of a row are masked,
    float32 loses its probabilities; its gradient is right only because such a row has no loss and upstream is zero.
    """
    num_frames, num_heads = tl.load(sizes), tl.load(sizes + 1)
    limit = tl.load(sizes + 2).to(tl.uint32, bitcast=True)
    to_log2, scale, inverse_keep = tl.load(factors), tl.load(factors + 1), tl.load(factors + 2)
    pair = tl.program_id(1)
    row, head = pair // num_heads, pair % num_heads
    width = num_heads * D
    first = (row * num_frames).to(tl.int64)
    query_at = qkv + first * (3 * width) + head * D
    upstream_at = upstream + first * width + head * D
    to_query_at = to_qkv + first * (3 * width) + head * D
    channel = tl.arange(0, D)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_frame = at < num_frames
    here = at[:, None] * (3 * width) + channel[None, :]

    # The block's frames as keys: matrices are [keys, queries].
    k = tl.load(query_at + width + here, mask=is_frame[:, None], other=0.0)
    v = tl.load(query_at + 2 * width + here, mask=is_frame[:, None], other=0.0)
    bias = tl.load(key_bias + first + at, mask=is_frame, other=float("-inf")) * _LOG2_E
    to_k = tl.zeros([BLOCK, D], tl.float32)
    to_v = tl.zeros([BLOCK, D], tl.float32)
    for start in range(0, num_frames, STEP_Q):
        at_q = start + tl.arange(0, STEP_Q)
        is_q = at_q < num_frames
        other_q = tl.load(query_at + at_q[:, None] * (3 * width) + channel[None, :], mask=is_q[:, None], other=0.0)
        other_up = tl.load(upstream_at + at_q[:, None] * width + channel[None, :], mask=is_q[:, None], other=0.0)
        # Beyond the last frame exp2 gives 0.
        other_divisor = tl.load(lse + pair * num_frames + at_q, mask=is_q, other=float("inf"))
        probs = tl.exp2(tl.dot(k, tl.trans(other_q)) * to_log2 + bias[:, None] - other_divisor[None, :])
        to_probs = tl.dot(v, tl.trans(other_up))
        kept = probs
        if DROPS:
            other_keys = tl.load(keys + pair * num_frames + at_q, mask=is_q, other=0)
            is_kept = _is_kept(other_keys[None, :], at[:, None], limit)
            kept = tl.where(is_kept, probs, 0.0)
            to_probs = tl.where(is_kept, to_probs, 0.0)
        to_v = tl.dot(kept.to(v.dtype), other_up, to_v)
        to_logits = probs * (to_probs - tl.load(along + pair * num_frames + at_q, mask=is_q, other=0.0)[None, :])
        to_k = tl.dot(to_logits.to(v.dtype), other_q, to_k)
    if DROPS:
        to_v *= inverse_keep
        scale *= inverse_keep
    tl.store(to_query_at + width + here, (to_k * scale).to(to_qkv.dtype.element_ty), mask=is_frame[:, None])
    tl.store(to_query_at + 2 * width + here, to_v.to(to_qkv.dtype.element_ty), mask=is_frame[:, None])

    # The block's frames as queries: matrices are [queries, keys].
    q = tl.load(query_at + here, mask=is_frame[:, None], other=0.0)
    up = tl.load(upstream_at + at[:, None] * width + channel[None, :], mask=is_frame[:, None], other=0.0)
    divisor = tl.load(lse + pair * num_frames + at, mask=is_frame, other=float("inf"))
    summed = tl.load(along + pair * num_frames + at, mask=is_frame, other=0.0)
    if DROPS:
        row_keys = tl.load(keys + pair * num_frames + at, mask=is_frame, other=0)
    to_q = tl.zeros([BLOCK, D], tl.float32)
    for start in range(0, num_frames, STEP_K):
        at_k = start + tl.arange(0, STEP_K)
        is_k = at_k < num_frames
        there = at_k[:, None] * (3 * width) + channel[None, :]
        other_k = tl.load(query_at + width + there, mask=is_k[:, None], other=0.0)
        other_v = tl.load(query_at + 2 * width + there, mask=is_k[:, None], other=0.0)
        other_bias = tl.load(key_bias + first + at_k, mask=is_k, other=float("-inf")) * _LOG2_E
        probs = tl.exp2(tl.dot(q, tl.trans(other_k)) * to_log2 + other_bias[None, :] - divisor[:, None])
        to_probs = tl.dot(up, tl.trans(other_v))
        if DROPS:
            to_probs = tl.where(_is_kept(row_keys[:, None], at_k[None, :], limit), to_probs, 0.0)
        to_logits = probs * (to_probs - summed[:, None])
        to_q = tl.dot(to_logits.to(v.dtype), other_k, to_q)
    tl.store(to_query_at + here, (to_q * scale).to(to_qkv.dtype.element_ty), mask=is_frame[:, None])
