"""Attention of a few queries over kept latents on CPUs, straight from the codes.

Absorbed (sheet CLLA, 3.5), all heads of a token's row look at the same latent, so the latents of a
few tokens are unpacked into the nearest cache, and all heads use them there twice: for scores and
to be mixed. What is unpacked is thrown away at once. For the layers of a group to keep it would
mean to write and read four bytes a feature, through a cache further away, in place of the half
byte that they read now, and takes longer than to unpack again.

Softmax runs along (online softmax): the highest score so far, the sum of the weights 2^(score -
top), and the mixed latent are scaled down whenever a higher score comes. Scores are in powers of
two, which the queries are multiplied for in advance. Threads take a part of the tokens each, and
their results are put together at the end.

A token costs 2 H (2 C + R) operations a query, which is what bounds the time: memory would deliver
a token of 4-bit codes ten times as fast.
"""

# Shapes: B batch, H heads, T queries, S tokens so far, K key features without rotation, V value
# features, C latent width, R rope width, P the same filled up, N groups of 8 heads

from __future__ import annotations

from typing import Any

import numba as _numba
import numpy as np

from weightwise.lm.few_rows import columns
from weightwise.lm.latent.lanes import (
    BFLOAT16,
    FEATURES,
    FLOAT16,
    FLOAT32,
    HEADS,
    LANES,
    TOKENS,
    bytes_at,
    mix_tile,
    score_tile,
    unpack,
    weigh,
    widen,
)
from weightwise.lm.row_tiles import floats_at

numba: Any = _numba
FLAGS = {"reassoc", "contract", "nsz"}  # sums in any order; infinities and NaN count
fast: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
# Flags go to the instructions of tiles too, and powers of two are rounded by sums in their order.
exact: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
shared: Any = numba.njit(nogil=True, cache=True, error_model="numpy", parallel=True)
F32 = np.float32
BLOCK = 32  # tokens that are unpacked at a time
STATE = 3 * LANES  # highest scores, sums of weights and decays of a group of heads


@exact
def unpack_rows(source: Any, batch: Any, first: Any, count: Any, out: Any, stride: Any) -> None:
    """Float32 numbers of some tokens, with so many bytes from one to the next."""
    kind, width, groups, vectors = source[:4]
    code, code_batch, code_row, scale, scale_batch, scale_row, least, _, _ = source[4:]
    codes = code + batch * code_batch + first * code_row
    offset = batch * scale_batch + first * scale_row
    scales, low = scale + offset, least + offset if least else 0
    # Loops beside each other are merged into a slower one: what is asked for most stands alone.
    if kind == 4:
        unpack(4, count, codes, code_row, scales, low, scale_row, groups, vectors, out, stride)
    elif kind > 0:
        shape = count, groups, vectors
        unpack_others(kind, codes, code_row, scales, low, scale_row, shape, out, stride)
    else:
        widen_rows(kind, codes, code_row, count, width, out, stride)


@exact
def unpack_others(
    bits: Any, codes: Any, code_row: Any, scales: Any, low: Any, scale_row: Any, shape: Any,
    out: Any, stride: Any,
) -> None:  # fmt: skip
    """Numbers of codes that do not have 4 bits."""
    count, groups, vectors = shape
    if bits == 8:
        unpack(8, count, codes, code_row, scales, low, scale_row, groups, vectors, out, stride)
    elif bits == 3:
        unpack(3, count, codes, code_row, scales, low, scale_row, groups, vectors, out, stride)
    else:
        unpack(2, count, codes, code_row, scales, low, scale_row, groups, vectors, out, stride)


@exact
def widen_rows(
    kind: Any, numbers: Any, row: Any, count: Any, width: Any, out: Any, stride: Any
) -> None:
    """Numbers that are no codes."""
    if kind == -1 - FLOAT32:
        widen(FLOAT32, count, numbers, row, width, out, stride)
    elif kind == -1 - BFLOAT16:
        widen(BFLOAT16, count, numbers, row, width, out, stride)
    else:
        widen(FLOAT16, count, numbers, row, width, out, stride)


@fast
def absorb(query: Any, rope: Any, up: Any, sizes: Any, factor: Any, head: Any, asked: Any) -> None:
    """Ask with one head: queries times up-projection, into (B, T, N, P / 2, 8, 2)."""
    batch, _, num_queries, _, key_width, _, latent_width, rope_width = sizes
    filled = asked.shape[3] - rope_width // 2
    weight = numba.carray(floats_at(up[0] + head * up[1]), (key_width, latent_width))
    total = np.empty(latent_width, F32)
    group, lane = head // HEADS, head % HEADS
    for b in range(batch):
        for t in range(num_queries):
            place = b * query[1] + head * query[2] + t * query[3]
            q = numba.carray(floats_at(query[0] + place), (key_width,))
            place = b * rope[1] + head * rope[2] + t * rope[3]
            r = numba.carray(floats_at(rope[0] + place), (rope_width,))
            total[:] = F32(0)
            for k in range(key_width // 4 * 4, key_width):
                for c in range(latent_width):
                    total[c] += q[k] * weight[k, c]
            for k in range(0, key_width // 4 * 4, 4):
                w0, w1, w2, w3 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
                for c in range(latent_width):
                    total[c] += (
                        q[k] * w0[c] + q[k + 1] * w1[c] + q[k + 2] * w2[c] + q[k + 3] * w3[c]
                    )
            out = asked[b, t, group]
            for c in range(latent_width):
                out[c // 2, lane, c % 2] = total[c] * factor
            for c in range(rope_width):
                out[filled + c // 2, lane, c % 2] = r[c] * factor


@exact
def mix_part(
    asked: Any, latent: Any, rope: Any, mask: Any, num_tokens: Any, b: Any, part: Any, parts: Any,
    state: Any, mixed: Any,
) -> None:  # fmt: skip
    """Attention of the queries of one sequence over a part of its tokens.

    Leaves what `weigh` keeps in state (T, N, 48), and mixed latents (T, N, 8, P) not yet divided.
    """
    num_queries, groups, width = asked.shape[1], asked.shape[2], mixed.shape[3]
    is_in_place = latent[0] == -1 and rope[0] == -1 and latent[1] == width
    # Codes are unpacked with their padding.
    latent_row = 4 * max(width, latent[2] * latent[3] * LANES)
    rope_row = 4 * max(rope[1], rope[2] * rope[3] * LANES)
    latents = np.zeros(BLOCK * latent_row // 4, F32)
    ropes = np.zeros(BLOCK * rope_row // 4 + 1, F32)
    score = np.empty((BLOCK, HEADS), F32)
    state[:, :, :] = F32(0)
    state[:, :, :LANES] = F32(-np.inf)
    mixed[:, :, :, :] = F32(0)
    blocks = (num_tokens + BLOCK - 1) // BLOCK
    for block in range(blocks * part // parts, blocks * (part + 1) // parts):
        first = block * BLOCK
        count = min(BLOCK, num_tokens - first)
        if not is_seen(mask, b, num_queries, first, count):
            continue
        latent_at, latent_step = latents.ctypes.data, latent_row
        rope_at, rope_step = ropes.ctypes.data, rope_row
        if is_in_place and count == BLOCK:
            latent_at, latent_step = latent[4] + b * latent[5] + first * latent[6], latent[6]
            rope_at, rope_step = rope[4] + b * rope[5] + first * rope[6], rope[6]
        else:
            unpack_rows(latent, b, first, count, latent_at, latent_row)
            unpack_rows(rope, b, first, count, rope_at, rope_row)
        for t in range(num_queries):
            for n in range(groups):
                query = asked[b, t, n]
                score_block(query, width // 2, latent_at, latent_step, rope_at, rope_step, score)
                hide(score, mask, b, t, first, count)
                mix_block(score, latent_at, latent_step, state[t, n], mixed[t, n])


@exact
def score_block(
    query: Any, pairs: Any, latent_at: Any, latent_step: Any, rope_at: Any, rope_step: Any,
    score: Any,
) -> None:  # fmt: skip
    """Scores of a block of tokens, shape (BLOCK, 8), for 8 heads."""
    query_at, score_at = query.ctypes.data, score.ctypes.data
    for token in range(0, BLOCK, TOKENS):
        score_tile(
            query_at, latent_at + token * latent_step, latent_step, pairs,
            query_at + 4 * LANES * pairs, rope_at + token * rope_step, rope_step,
            query.shape[0] - pairs, score_at + 4 * HEADS * token,
        )  # fmt: skip


@exact
def mix_block(score: Any, latent_at: Any, latent_step: Any, state: Any, mixed: Any) -> None:
    """Add a block of tokens to the mixed latents of 8 heads."""
    score_at, state_at, width = score.ctypes.data, state.ctypes.data, mixed.shape[1]
    weigh(score_at, BLOCK, state_at, state_at + 4 * LANES)
    scale_down(mixed, state[2 * LANES :])
    for feature in range(0, width, FEATURES):
        mix_tile(
            score_at, latent_at + 4 * feature, latent_step, BLOCK,
            mixed.ctypes.data + 4 * feature, 4 * width,
        )  # fmt: skip


@fast
def is_seen(mask: Any, b: Any, num_queries: Any, first: Any, count: Any) -> Any:
    """Whether any query sees any of some tokens."""
    if not mask[0]:
        return True
    for t in range(num_queries):
        seen = numba.carray(bytes_at(mask[0] + b * mask[1] + t * mask[2] + first), (count,))
        for token in range(count):
            if seen[token]:
                return True
    return False


@fast
def hide(score: Any, mask: Any, b: Any, t: Any, first: Any, count: Any) -> None:
    """Give minus infinity to tokens that a query does not see, or that there are not."""
    if mask[0]:
        seen = numba.carray(bytes_at(mask[0] + b * mask[1] + t * mask[2] + first), (count,))
        for token in range(count):
            if not seen[token]:
                score[token] = F32(-np.inf)
    for token in range(count, BLOCK):
        score[token] = F32(-np.inf)


@fast
def scale_down(mixed: Any, decay: Any) -> None:
    """Mixed latents of 8 heads after their highest scores have risen."""
    for head in range(HEADS):
        if decay[head] != F32(1):
            for c in range(mixed.shape[1]):
                mixed[head, c] *= decay[head]


@fast
def give(
    head: Any, state: Any, mixed: Any, up: Any, sizes: Any, out_at: Any
) -> None:  # fmt: skip
    """Put the parts of one head together and multiply them with its up-projection."""
    batch, heads, num_queries, _, _, value_width, latent_width, _ = sizes
    out = numba.carray(floats_at(out_at), (batch, num_queries, heads, value_width))
    weight = numba.carray(floats_at(up[0] + head * up[1]), (value_width, latent_width))
    rows = np.zeros((batch * num_queries, latent_width), F32)
    values = np.empty((batch * num_queries, value_width), F32)
    n, lane = head // HEADS, head % HEADS
    for b in range(batch):
        for t in range(num_queries):
            row = rows[b * num_queries + t]
            top, total = F32(-np.inf), F32(0)
            for part in range(state.shape[0]):
                top = max(top, state[part, b, t, n, lane])
            for part in range(state.shape[0]):
                one = state[part, b, t, n]
                if one[lane] > F32(-np.inf):
                    share = F32(2) ** (one[lane] - top)
                    total += share * (one[LANES + lane] + one[LANES + HEADS + lane])
                    for c in range(latent_width):
                        row[c] += share * mixed[part, b, t, n, lane, c]
                elif one[lane] != one[lane]:
                    total = one[lane]
            if total != F32(0):
                for c in range(latent_width):
                    row[c] /= total
    columns(rows, weight, values, 0, value_width)
    for b in range(batch):
        for t in range(num_queries):
            out[b, t, head] = values[b * num_queries + t]


@exact
def alone(
    query: Any, query_rope: Any, up_key: Any, up_value: Any, latent: Any, rope: Any, mask: Any,
    out_at: Any, sizes: Any, factor: Any,
) -> None:  # fmt: skip
    """Everything by one thread; the arguments are those of `attend` as numbers."""
    asked, state, mixed = room(sizes, 1)
    for head in range(sizes[1]):
        absorb(query, query_rope, up_key, sizes, factor, head, asked)
    for b in range(sizes[0]):
        mix_part(asked, latent, rope, mask, sizes[3], b, 0, 1, state[0, b], mixed[0, b])
    for head in range(sizes[1]):
        give(head, state, mixed, up_value, sizes, out_at)


@shared
def together(
    query: Any, query_rope: Any, up_key: Any, up_value: Any, latent: Any, rope: Any, mask: Any,
    out_at: Any, sizes: Any, factor: Any, parts: Any,
) -> None:  # fmt: skip
    """The same by several threads, each with a part of every sequence's tokens."""
    asked, state, mixed = room(sizes, parts)
    for head in numba.prange(sizes[1]):
        absorb(query, query_rope, up_key, sizes, factor, head, asked)
    for work in numba.prange(sizes[0] * parts):
        b, part = work % sizes[0], work // sizes[0]
        mix_part(
            asked, latent, rope, mask, sizes[3], b, part, parts, state[part, b], mixed[part, b]
        )
    for head in numba.prange(sizes[1]):
        give(head, state, mixed, up_value, sizes, out_at)


@fast
def room(sizes: Any, parts: Any) -> Any:
    """Queries as `score_tile` takes them, states and mixed latents."""
    batch, heads, num_queries, _, _, _, latent_width, rope_width = sizes
    groups = (heads + HEADS - 1) // HEADS
    width = (latent_width + FEATURES - 1) // FEATURES * FEATURES
    asked = np.zeros((batch, num_queries, groups, (width + rope_width) // 2, HEADS, 2), F32)
    state = np.empty((parts, batch, num_queries, groups, STATE), F32)
    mixed = np.empty((parts, batch, num_queries, groups, HEADS, width), F32)
    return asked, state, mixed
