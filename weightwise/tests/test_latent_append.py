"""Encoding straight into a cache: the bits of `encode` at each token's place, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from weightwise.lm.cache import Cache, Span
from weightwise.lm.latent.append import append
from weightwise.lm.latent.cache import LatentGroupCache
from weightwise.lm.latent.codes import encode
from weightwise.lm.latent.config import CodeConfig, LatentConfig
from weightwise.lm.paged import PagedCache
from weightwise.lm.store import RowStore

CPU = torch.device("cpu")
CONFIGS = st.builds(
    CodeConfig,
    bits=st.sampled_from([2, 3, 4, 8]),
    group_width=st.sampled_from([16, 32, 64, 128]),
    is_symmetric=st.booleans(),
    scale_rule=st.sampled_from(["range", "error"]),
)


def stores_of(config: CodeConfig, batch: int, capacity: int, width: int) -> list[RowStore]:
    """Memory full of ones, so that bytes written beside the tokens would show."""
    row = encode(torch.zeros(1, width), config)
    parts = [part for part in (row.code, row.scale, row.minimum) if part is not None]
    return [
        RowStore(torch.ones(batch, capacity, part.shape[-1], dtype=part.dtype)) for part in parts
    ]


@st.composite
def tokens(draw: Any) -> tuple[Span, Tensor]:
    """New tokens of a few rows: even or not, contiguous or not, of any size and outer scale."""
    batch, width = draw(st.integers(1, 4)), draw(st.integers(1, 140))
    count = [draw(st.integers(1, 4)) for _ in range(batch)]
    start = [draw(st.integers(0, 6)) for _ in range(batch)]
    if draw(st.booleans()):
        start, count = start[:1] * batch, count[:1] * batch
    make = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = torch.randn(batch, max(count), width + 3, generator=make)
    x = x * draw(st.sampled_from([1e-6, 1e-3, 1.0, 300.0, 1e5]))
    x = x + draw(st.sampled_from([0.0, 3.0, -50.0]))
    if draw(st.booleans()):  # as a model with outer scales divides
        x = x / torch.rand(width + 3, generator=make).clamp(min=0.01)
    x = x.to(draw(st.sampled_from([torch.float32, torch.bfloat16])))
    layout = draw(st.sampled_from(["dense", "split", "columns"]))
    if layout == "columns":
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    x = x[..., :width]
    span = Span(start=tuple(start), count=tuple(count), device=CPU)
    return span, x.contiguous() if layout == "dense" else x


@given(tokens(), CONFIGS)
def test_tokens_have_the_bits_of_encode(given_tokens: tuple[Span, Tensor], config: CodeConfig):
    """Memory is, byte for byte, what encoding first and writing then leaves."""
    span, x = given_tokens
    ours, wanted = (stores_of(config, len(span.count), 12, x.shape[-1]) for _ in range(2))
    assert append(span, x, ours, config)
    codes = encode(x, config)
    parts = [part for part in (codes.code, codes.scale, codes.minimum) if part is not None]
    for store, part in zip(wanted, parts, strict=True):
        store.write(span, part)
    for one, other in zip(ours, wanted, strict=True):
        assert torch.equal(one.memory.view(torch.uint8), other.memory.view(torch.uint8))


@pytest.mark.parametrize("is_symmetric", [True, False])
@pytest.mark.parametrize("value", [0.0, 1e30, torch.inf, torch.nan])
def test_odd_values_have_the_bits_of_encode(is_symmetric: bool, value: float):
    """Zeros, what saturates, infinities and NaN."""
    config = CodeConfig(is_symmetric=is_symmetric)
    x = torch.full((1, 1, 40), value)
    stores = stores_of(config, 1, 2, 40)
    assert append(Span(start=(1,), count=(1,), device=CPU), x, stores, config)
    codes = encode(x, config)
    assert torch.equal(stores[0].memory[:, 1:], codes.code)
    assert torch.equal(
        stores[1].memory[:, 1:].view(torch.int16), codes.scale.view(torch.int16)
    )  # NaN is not equal to itself


def test_pages_get_the_tokens_of_rows():
    """Rows of different lengths, in pages of 4 that are given in no order."""
    config = LatentConfig(
        num_heads=2, head_width=8, latent_width=40, rope_width=6,
        codes=CodeConfig(bits=3, is_symmetric=False),
    )  # fmt: skip
    size = {"config": config, "dtype": torch.float32, "device": CPU}
    pool = Cache([LatentGroupCache.new(batch=13, capacity=4, **size)], batch=13, capacity=4)
    pages = PagedCache(pool, batch=3, capacity=16)
    rows = Cache([LatentGroupCache.new(batch=3, capacity=16, **size)], batch=3, capacity=16)
    for row, length in ((2, 16), (0, 12), (1, 16)):
        assert pages.reserve(row, length)
    make = torch.Generator().manual_seed(0)
    for count in ((1, 5, 7), (3, 2, 1), (1, 1, 1)):
        latent, rope = (torch.randn(3, max(count), width, generator=make) for width in (40, 6))
        span = Span(start=tuple(rows.length_B.tolist()), count=count, device=CPU)
        views = []
        for cache in (pages, rows):
            views.append(cache.layers[0].write(span, latent, rope))
            cache.advance(span)
        for one, other in zip(*(view.latent_and_rope() for view in views), strict=True):
            for row, length in enumerate(rows.length_B.tolist()):
                assert torch.equal(one[row, :length], other[row, :length])


def test_long_prompts_are_left_to_threads():
    """What a team of threads would share is not taken; nothing is written then."""
    config = CodeConfig()
    stores = stores_of(config, 1, 2048, 128)
    x = torch.randn(1, 2048, 128)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        is_kept = append(Span(start=(0,), count=(2048,), device=CPU), x, stores, config)
    finally:
        torch.set_num_threads(before)
    assert is_kept == bool((stores[0].memory != 1).any())
    assert not is_kept
