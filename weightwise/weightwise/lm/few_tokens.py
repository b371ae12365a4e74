"""A mixture of experts for a few tokens: one call of compiled code for the whole layer.

For one token, torch's many small steps take as long as the weights take to come from memory: their
own instructions have to be fetched each time too, since the weights push them out of the caches.
Here are only two rounds over all matrices, the gates with the rows beside them and then the ways
down, each shared between the threads by columns.
"""

# Shapes: T tokens, K experts per token, R rows of all experts, E experts, D model width,
# F inner width of an expert, S inner width of the shared experts

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba as _numba
import numpy as np
import torch

from weightwise.lm.few_rows import columns, fast, shared
from weightwise.lm.routing import Routing
from weightwise.lm.row_tiles import floats_at, integers_at
from weightwise.numerics.kernels import team
from weightwise.numerics.kernels.vectors import float_of, larger_float, smaller

if TYPE_CHECKING:
    from torch import Tensor

numba: Any = _numba
F32, I32 = np.float32, np.int32
# Sums in the order in which they are written, which rounding depends on; products may join them.
exact: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
LEAST, MOST = F32(-87), F32(88)  # exponents between which exp is a normal number
LOG2_E, LN2_HIGH, LN2_LOW = F32(1.44269504), F32(0.693359375), F32(-2.12194440e-4)
EPS = np.finfo(F32).eps
ROUND = F32(3 << 22)  # a sum with it has no digits behind the point


def mixture(
    x_TD: Tensor, top_k: int, is_renormalized: bool, router: Tensor, gate_up: Tensor, down: Tensor,
    *shared_weights: Tensor,
) -> tuple[Tensor, Routing]:  # fmt: skip
    """Answers of all experts, added up; without a gradient.

    Parameters
    ----------
    x_TD
        Tokens; like all other tensors contiguous, float32 and on the CPU.
    top_k, is_renormalized
        Experts per token K, and whether their weights add up to 1.
    router, gate_up, down
        Weights, shapes (E, D), (E, 2 F, D) and (E, D, F).
    *shared_weights
        Gate, up and down of the shared experts, if there are any.

    Returns
    -------
    tuple
        Answers, shape (T, D), and what `weightwise.lm.routing.route` would say without a capacity.
    """
    tokens, num_experts = len(x_TD), len(router)
    out_TD = torch.empty_like(x_TD)
    logits_TE, prob_TE = x_TD.new_empty(2, tokens, num_experts)
    weight_TK = x_TD.new_empty(tokens, top_k)
    expert_TK = torch.empty_like(weight_TK, dtype=torch.int64)
    num_shared = len(shared_weights[0]) if shared_weights else 0
    sizes = (*x_TD.shape, top_k, *down.shape[::2], num_shared, int(is_renormalized))
    tensors = (
        x_TD, router, logits_TE, prob_TE, expert_TK, weight_TK, gate_up, down, out_TD,
        *shared_weights,
    )  # fmt: skip
    # Addresses: `numpy()` would forbid to resize the storage, which FSDP does.
    places = (*(tensor.data_ptr() for tensor in tensors), 0, 0, 0)[:12]
    if team.is_ready(down[0].numel()):
        with team.threads_of_torch():
            together(sizes, places, torch.get_num_threads())
    else:
        alone(sizes, places)
    return out_TD, Routing(
        experts=expert_TK, weights=weight_TK, choices=expert_TK, logits=logits_TE,
        probabilities=prob_TE,
    )  # fmt: skip


@exact
def exp(x: Any) -> Any:
    """Exponential function, exact to some units of the last place."""
    z = smaller(larger_float(x, LEAST), MOST)
    n = z * LOG2_E + ROUND - ROUND
    r = z - n * LN2_HIGH - n * LN2_LOW
    series = F32(1 / 720) + r * F32(1 / 5040)
    series = F32(1 / 24) + r * (F32(1 / 120) + r * series)
    series = F32(1) + r * (F32(1) + r * (F32(1 / 2) + r * (F32(1 / 6) + r * series)))
    return series * float_of(I32((I32(n) + I32(127)) << I32(23)))


@exact
def gated(x: Any, gate: Any, up: Any, out: Any, other: Any, first: Any, last: Any) -> None:
    """Columns ``first`` to ``last - 1`` of silu(gate x) * (up x)."""
    columns(x, gate, out, first, last)
    columns(x, up, other, first, last)
    for r in range(x.shape[0]):
        for n in range(first, last):
            out[r, n] = out[r, n] / (F32(1) + exp(-out[r, n])) * other[r, n]


@exact
def choose(logits: Any, prob: Any, experts: Any, weights: Any, renormalizes: Any) -> None:
    """Probabilities of one token, its likeliest experts and their weights."""
    top, total = logits.max(), F32(0)
    for e in range(logits.shape[0]):
        prob[e] = exp(logits[e] - top)
        total += prob[e]
    for e in range(logits.shape[0]):
        prob[e] /= total
    left, total = prob.copy(), F32(0)
    for k in range(experts.shape[0]):
        experts[k] = left.argmax()
        weights[k] = left[experts[k]]
        left[experts[k]] = -1
        total += weights[k]
    if renormalizes:
        for k in range(experts.shape[0]):
            weights[k] /= max(total, EPS)


@fast
def sort(experts: Any, num_experts: Any) -> Any:
    """Where every choice stands when they are sorted by expert, and where each expert starts."""
    start_E = np.zeros(num_experts + 1, np.int64)
    for expert in experts:
        start_E[expert + 1] += 1
    for e in range(num_experts):
        start_E[e + 1] += start_E[e]
    following_E = start_E.copy()
    row_A = np.empty(experts.shape[0], np.int64)
    for choice in range(experts.shape[0]):
        row_A[choice] = following_E[experts[choice]]
        following_E[experts[choice]] += 1
    return row_A, start_E


@fast
def gathered(x_TD: Any, row_A: Any, top_k: Any) -> Any:
    """A row for every choice, sorted."""
    x_AD = np.empty((row_A.shape[0], x_TD.shape[1]), F32)
    for choice in range(row_A.shape[0]):
        row, token = row_A[choice], choice // top_k
        for d in range(x_TD.shape[1]):
            x_AD[row, d] = x_TD[token, d]
    return x_AD


@fast
def inner(
    sizes: Any, places: Any, x_AD: Any, start_E: Any, scratch: Any, part: Any, parts: Any
) -> None:
    """One of several shares of what is between the two rounds."""
    tokens, width, _, num_experts, hidden, num_shared, _ = sizes
    first, last = hidden * part // parts, hidden * (part + 1) // parts
    h_TS, other_TS, h_AF, other_AF = scratch
    if num_shared:
        x_TD = numba.carray(floats_at(places[0]), (tokens, width))
        gate = numba.carray(floats_at(places[9]), (num_shared, width))
        up = numba.carray(floats_at(places[10]), (num_shared, width))
        begin, end = num_shared * part // parts, num_shared * (part + 1) // parts
        gated(x_TD, gate, up, h_TS, other_TS, begin, end)
    gate_up = numba.carray(floats_at(places[6]), (num_experts, 2 * hidden, width))
    for e in range(num_experts):
        a, b = start_E[e], start_E[e + 1]
        if b > a:
            gate, up = gate_up[e, :hidden], gate_up[e, hidden:]
            gated(x_AD[a:b], gate, up, h_AF[a:b], other_AF[a:b], first, last)


@fast
def outer(
    sizes: Any, places: Any, row_A: Any, start_E: Any, scratch: Any, answer_AD: Any, part: Any,
    parts: Any,
) -> None:  # fmt: skip
    """One of several shares of the columns of the result."""
    tokens, width, top_k, num_experts, hidden, num_shared, _ = sizes
    first, last = width * part // parts, width * (part + 1) // parts
    out = numba.carray(floats_at(places[8]), (tokens, width))
    if num_shared:
        shared_down = numba.carray(floats_at(places[11]), (width, num_shared))
        columns(scratch[0], shared_down, out, first, last)
    else:
        for token in range(tokens):
            for n in range(first, last):
                out[token, n] = 0
    down = numba.carray(floats_at(places[7]), (num_experts, width, hidden))
    for e in range(num_experts):
        a, b = start_E[e], start_E[e + 1]
        if b > a:
            columns(scratch[2][a:b], down[e], answer_AD[a:b], first, last)
    weights = numba.carray(floats_at(places[5]), (tokens * top_k,))
    for choice in range(tokens * top_k):
        row, token = row_A[choice], choice // top_k
        for n in range(first, last):
            out[token, n] += weights[choice] * answer_AD[row, n]


@fast
def prepared(sizes: Any, places: Any) -> Any:
    """The sorted rows, and room for what comes of them."""
    tokens, width, top_k, num_experts, hidden, num_shared, renormalizes = sizes
    x_TD = numba.carray(floats_at(places[0]), (tokens, width))
    router = numba.carray(floats_at(places[1]), (num_experts, width))
    logits = numba.carray(floats_at(places[2]), (tokens, num_experts))
    prob = numba.carray(floats_at(places[3]), (tokens, num_experts))
    experts = numba.carray(integers_at(places[4]), (tokens, top_k))
    weights = numba.carray(floats_at(places[5]), (tokens, top_k))
    columns(x_TD, router, logits, 0, num_experts)
    for t in range(tokens):
        choose(logits[t], prob[t], experts[t], weights[t], renormalizes)
    row_A, start_E = sort(experts.ravel(), num_experts)
    x_AD = gathered(x_TD, row_A, top_k)
    h_TS, other_TS = np.empty((tokens, num_shared), F32), np.empty((tokens, num_shared), F32)
    shape = (tokens * top_k, hidden)
    scratch = (h_TS, other_TS, np.empty(shape, F32), np.empty(shape, F32))
    return x_AD, row_A, start_E, scratch, np.empty_like(x_AD)


@fast
def alone(sizes: Any, places: Any) -> None:
    """The whole layer, by one thread."""
    x_AD, row_A, start_E, scratch, answer_AD = prepared(sizes, places)
    inner(sizes, places, x_AD, start_E, scratch, 0, 1)
    outer(sizes, places, row_A, start_E, scratch, answer_AD, 0, 1)


@shared
def together(sizes: Any, places: Any, parts: Any) -> None:
    """The whole layer, by so many threads."""
    x_AD, row_A, start_E, scratch, answer_AD = prepared(sizes, places)
    for part in numba.prange(parts):
        inner(sizes, places, x_AD, start_E, scratch, part, parts)
    for part in numba.prange(parts):
        outer(sizes, places, row_A, start_E, scratch, answer_AD, part, parts)
