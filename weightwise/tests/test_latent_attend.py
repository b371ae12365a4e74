"""Attention over latents: both orders of its products, in kernels and blocks, on any shape."""

from __future__ import annotations

from math import inf, nan
from typing import TYPE_CHECKING, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightwise.lm.latent import decode, prefill
from weightwise.lm.latent.attend import absorbed, attend_latent, expanded, is_absorbed
from weightwise.lm.latent.cache import LatentView, Vectors
from weightwise.lm.latent.codes import encode
from weightwise.lm.latent.config import CodeConfig

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-5  # of numbers around 1, in float32
CODES = st.none() | st.builds(
    CodeConfig,
    bits=st.sampled_from((2, 3, 4, 8)),
    group_width=st.sampled_from((16, 32, 64)),
    is_symmetric=st.booleans(),
)


class Shape(NamedTuple):
    """Sizes of one attention: batch, heads, queries, tokens, and widths."""

    batch: int
    heads: int
    queries: int
    tokens: int
    key: int
    value: int
    latent: int
    rope: int


SHAPES = st.builds(
    Shape,
    batch=st.integers(1, 3),
    heads=st.integers(1, 17),
    queries=st.integers(1, 4),
    tokens=st.integers(1, 100),
    key=st.integers(1, 9),
    value=st.integers(1, 9),
    latent=st.integers(1, 70),
    rope=st.integers(0, 4).map(lambda pairs: 2 * pairs),
)


class Case(NamedTuple):
    """What attention takes."""

    query: Tensor
    query_rope: Tensor
    view: LatentView
    up_key: Tensor
    up_value: Tensor


def case_of(shape: Shape, codes: CodeConfig | None = None, seed: int = 0) -> Case:
    """Draw one; queries and up-projections are views of larger tensors, as in the model."""
    draw = torch.Generator().manual_seed(seed)
    query = torch.randn(
        shape.batch, shape.queries, shape.heads, shape.key + shape.rope, generator=draw
    )
    up = torch.randn(shape.heads, shape.key + shape.value, shape.latent, generator=draw)
    parts = [
        vectors(torch.randn(shape.batch, shape.tokens, width, generator=draw), codes)
        for width in (shape.latent, shape.rope)
    ]
    return Case(
        *query.transpose(1, 2).split((shape.key, shape.rope), dim=-1),
        LatentView(latent=parts[0], rope=parts[1]),
        *(up / shape.latent**0.5).split((shape.key, shape.value), dim=1),
    )


def vectors(x: Tensor, codes: CodeConfig | None) -> Vectors:
    """Plain ones or codes."""
    if codes is None:
        return Vectors.plain(x)
    return Vectors(content=encode(x, codes), config=codes, width=x.shape[-1], dtype=x.dtype)


def expected(case: Case, mask: Tensor | None, scale: float) -> Tensor:
    """The definition in float64; zero where nothing is seen."""
    query, rope, up_key, up_value = (
        x.double() for x in (case.query, case.query_rope, case.up_key, case.up_value)
    )
    latent, key_rope = (x.double() for x in case.view.latent_and_rope())
    key = torch.einsum("hkc,bsc->bhsk", up_key, latent)
    value = torch.einsum("hvc,bsc->bhsv", up_value, latent)
    score = query @ key.mT + torch.einsum("bhtr,bsr->bhts", rope, key_rope)
    if mask is not None:
        score = score.masked_fill(~mask, -inf)
    return (score * scale).softmax(-1).nan_to_num(0.0) @ value


@given(SHAPES, CODES, st.booleans(), st.integers(0, 99))
def test_kernel_is_the_definition(
    shape: Shape, codes: CodeConfig | None, is_masked: bool, seed: int
) -> None:
    """The compiled kernel gives the definition for any shape, coding and mask."""
    case = case_of(shape, codes, seed)
    mask = None
    if is_masked:
        mask = torch.rand(shape.batch, 1, shape.queries, shape.tokens) < 0.5
    found = decode.attend(*case, mask, 0.3)
    torch.testing.assert_close(
        found.double(), expected(case, mask, 0.3), rtol=TOLERANCE, atol=TOLERANCE
    )


@pytest.mark.slow
@pytest.mark.parametrize("codes", [None, CodeConfig()])
def test_threads_give_the_definition(codes: CodeConfig | None) -> None:
    """Several threads share the tokens, whose parts are put together."""
    case = case_of(Shape(2, 8, 1, 1500, 16, 8, 96, 8), codes)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = decode.attend(*case, None, 0.3)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(
        found.double(), expected(case, None, 0.3), rtol=TOLERANCE, atol=TOLERANCE
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kernel_reads_16_bits(dtype: torch.dtype) -> None:
    """Latents of 16 bits are read as they are and computed with in float32."""
    case = case_of(Shape(1, 4, 2, 70, 8, 8, 48, 4))
    latent, rope = case.view.latent_and_rope()
    case = case._replace(view=LatentView.plain(latent.to(dtype), rope.to(dtype)))
    torch.testing.assert_close(
        decode.attend(*case, None, 0.3).double(), expected(case, None, 0.3),
        rtol=TOLERANCE, atol=TOLERANCE,
    )  # fmt: skip


def test_kernel_keeps_large_scores_and_nan() -> None:
    """Scores far apart do not overflow, and a latent that is no number is not lost."""
    case = case_of(Shape(1, 8, 1, 200, 8, 8, 32, 4))
    torch.testing.assert_close(
        decode.attend(*case, None, 1e4).double(), expected(case, None, 1e4),
        rtol=1e-2, atol=1e-2,
    )  # fmt: skip
    case.view.latent_and_rope()[0][0, 77] = nan
    assert decode.attend(*case, None, 0.3).isnan().all()


@given(SHAPES, st.sampled_from(["causal", "mask", "rows"]), st.integers(0, 99))
def test_blocks_are_the_definition(shape: Shape, kind: str, seed: int) -> None:
    """Blocks of queries and keys give the definition, whatever they see and wherever they end."""
    tokens = shape.queries if kind == "causal" else shape.tokens
    case = case_of(shape._replace(tokens=tokens, heads=1 + shape.heads % 2), seed=seed)
    mask = torch.ones(shape.queries, tokens, dtype=torch.bool).tril()
    if kind == "mask":
        mask = torch.rand(shape.queries, tokens) < 0.5
    elif kind == "rows":
        mask = torch.rand(shape.batch, 1, shape.queries, tokens) < 0.5
    given_mask = None if kind == "causal" else mask
    latent, rope = case.view.latent_and_rope()
    sizes = prefill.QUERIES, prefill.KEYS
    prefill.QUERIES, prefill.KEYS = 2, 9 + seed % 40
    try:
        found = prefill.attend(
            case.query, case.query_rope, latent, rope, case.up_key, case.up_value, given_mask, 0.3
        )
    finally:
        prefill.QUERIES, prefill.KEYS = sizes
    torch.testing.assert_close(
        found.double(), expected(case, mask, 0.3), rtol=TOLERANCE, atol=TOLERANCE
    )


@pytest.mark.parametrize("tokens", [300, 600])
def test_large_blocks_are_the_definition(tokens: int) -> None:
    """Blocks whose products go to the other library, with earlier tokens before the queries."""
    case = case_of(Shape(1, 2, 300, tokens, 64, 48, 96, 16))
    mask = torch.ones(300, tokens, dtype=torch.bool).tril(tokens - 300)
    latent, rope = case.view.latent_and_rope()
    with torch.no_grad():
        found = expanded(
            case.query, case.query_rope, latent, rope, case.up_key, case.up_value, mask, 0.1
        )
    torch.testing.assert_close(
        found.double(), expected(case, mask, 0.1), rtol=TOLERANCE, atol=TOLERANCE
    )


@pytest.mark.parametrize("queries", [1, 3])
def test_orders_agree(queries: int) -> None:
    """Absorbed and expanded are the same, in both ways that a gradient chooses between."""
    case = case_of(Shape(2, 4, queries, queries, 8, 8, 32, 4))
    with torch.no_grad():
        without = attend_latent(*case, None, 0.3)
        mask = torch.ones(queries, queries, dtype=torch.bool).tril()
        direct = absorbed(*case, mask, 0.3)
    torch.testing.assert_close(attend_latent(*case, None, 0.3), without, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(direct, without, rtol=0, atol=TOLERANCE)


def test_order_follows_from_the_operations() -> None:
    """One query is absorbed, a prompt is expanded, and the change comes where the costs cross."""
    widths = 64, 64, 256, 32
    assert is_absorbed(1, 4096, widths)
    assert not is_absorbed(4096, 4096, widths)
    key, value, latent, _ = widths
    least = latent * (key + value) / (2 * latent - key - value)
    chosen = [is_absorbed(queries, 10**6, widths) for queries in range(1, 200)]
    assert chosen.index(False) == pytest.approx(least, abs=2)
