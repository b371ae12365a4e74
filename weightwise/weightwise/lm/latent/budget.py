"""The layout of a latent cache for a given budget of bytes.

Given what a token may cost, `fit_cache` goes through all layouts that fit (layers that share,
widths of latent and rope key, bits, features that share a scale) and takes the one with the
smallest expected loss. What is expected is a sum of penalties in percent of the loss. Those of
bits, of symmetric codes and of sharing are our measurements on a small model (sheet CLLA, section
4, with quantization-aware training at two bits), the others rules of thumb that order layouts
sensibly:

    latent narrower than four heads    2 % for each third; the small model lost that
    rope key narrower than half a head 0.5 % for each half (rule of thumb)
    layers that share                  0.1 %, 1.3 %, … (two cost nothing measurable, four 1.3 %)
    groups of more features a scale    0.05 % for each doubling (rule of thumb)

They are no forecast for another model: train or convert, and measure. Predicted bytes count
scales and padding and are those that the cache allocates, see `allocated_bytes_per_token`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import ceil, log, log2
from typing import TYPE_CHECKING, Literal

import torch

from weightwise.lm.attention_config import GQAConfig
from weightwise.lm.config import layer_groups
from weightwise.lm.latent.codes import bytes_per_row
from weightwise.lm.latent.config import CodeConfig, LatentConfig
from weightwise.lm.model import LanguageModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weightwise.lm.config import ModelConfig

PLAIN_BYTES = 2  # bfloat16
Bits = Literal[2, 3, 4, 8, 16]
# Penalties in percent of the loss, see the text on top of the file.
BITS_PERCENT: dict[tuple[int, bool], float] = {
    (16, True): 0.0, (8, True): 0.01, (4, True): 0.5, (3, True): 4.4, (2, True): 20.0,
    (8, False): 0.01, (4, False): 0.4, (3, False): 2.2, (2, False): 5.5,
}  # fmt: skip
SHARE_PERCENT = {1: 0.0, 2: 0.1, 3: 0.7, 4: 1.3, 6: 2.5, 8: 3.5}
LATENT_PERCENT_A_THIRD = 2.0
ROPE_PERCENT_A_HALF = 0.5
SCALE_PERCENT_A_DOUBLING = 0.05
WIDTH_STEPS = (8, 6, 4, 3, 2, 1.5, 1, 0.75, 0.5)  # of a head, for the latent
ROPE_STEPS = (1.0, 0.5, 0.25)  # of a head
GROUP_WIDTHS: tuple[Literal[16, 32, 64, 128], ...] = (16, 32, 64, 128)


@dataclass(frozen=True, kw_only=True)
class CacheFit:
    """A layout for a budget.

    Parameters
    ----------
    attention
        Its settings.
    bytes_per_token
        What a token costs in the whole model.
    percent
        The same in percent of multi-head attention in bfloat16 with as many and as wide heads.
    penalty_percent
        Expected loss of quality, to compare layouts by; see `weightwise.lm.latent.budget`.
    """

    attention: LatentConfig
    bytes_per_token: float
    percent: float
    penalty_percent: float


def fit_cache(
    config: ModelConfig,
    *,
    bytes_per_token: float | None = None,
    percent: float | None = None,
    share_factor: int | None = None,
    latent_width: int | None = None,
    rope_width: int | None = None,
    bits: Bits | None = None,
) -> CacheFit:
    """Find the layout with the smallest expected loss whose cache fits a budget.

    Parameters
    ----------
    config
        A model; its number and width of heads are kept, everything else about its attention that
        has a meaning for latents as well.
    bytes_per_token, percent
        The budget: bytes of a token in the whole model, or percent of multi-head attention in
        bfloat16. One of them, above 0.
    share_factor, latent_width, rope_width, bits
        What is decided already: layers that share, widths, and bits of codes, 16 for none.

    Raises
    ------
    ValueError
        If there is not one budget, or no layout fits it; the message says what the smallest takes.
    """
    if (bytes_per_token is None) == (percent is None):
        raise ValueError("fit_cache: expected one of bytes_per_token and percent")
    whole = mha_bytes_per_token(config)
    budget = percent / 100 * whole if bytes_per_token is None else bytes_per_token  # type: ignore[operator]
    if not 0 < budget < float("inf"):
        name = "bytes_per_token" if percent is None else "percent"
        raise ValueError(f"{name}: expected a finite number above 0, got {budget:g}")
    layouts = list(
        _layouts(
            config, share_factor=share_factor, latent_width=latent_width,
            rope_width=rope_width, bits=bits,
        )
    )  # fmt: skip
    fitting = [layout for layout in layouts if layout.num_bytes <= budget]
    if not fitting:
        least = min(layout.num_bytes for layout in layouts)
        raise ValueError(
            f"cache: expected at least {least:g} bytes a token ({100 * least / whole:.3g} %), the "
            f"smallest layout of this model, got {budget:g}"
        )
    best = min(fitting, key=lambda layout: (layout.penalty_percent, layout.num_bytes))
    return CacheFit(
        attention=_attention(config, best),
        bytes_per_token=float(best.num_bytes),
        percent=100 * best.num_bytes / whole,
        penalty_percent=best.penalty_percent,
    )


def cache_bytes_per_token(config: ModelConfig, *, plain_bytes: int = PLAIN_BYTES) -> float:
    """Bytes that a token takes in the caches of all layers, from the settings.

    Parameters
    ----------
    config
        Settings of the model.
    plain_bytes
        Of an element that is not in codes.
    """
    total = 0
    for group in layer_groups(config):
        attention = group.attention
        if isinstance(attention, GQAConfig):
            features = 2 * attention.kv_heads * attention.width_per_head(config.width)
            total += features * plain_bytes
            continue
        _, _, latent, rope = attention.widths(config.width)
        num_keys = group.num_layers if attention.rope_key == "layer" else 1
        total += _row_bytes(latent, attention.codes, plain_bytes)
        total += _row_bytes(rope, attention.stored_rope_codes, plain_bytes) * num_keys
    return float(total)


def allocated_bytes_per_token(config: ModelConfig, *, dtype: torch.dtype = torch.bfloat16) -> float:
    """Bytes that a token takes in the caches of all layers, from buffers as they are allocated.

    The buffers are those of `weightwise.lm.LanguageModel.new_cache`, without memory behind them.

    Parameters
    ----------
    config
        Settings of the model.
    dtype
        Of elements that are not in codes.
    """
    with torch.device("meta"):
        model = LanguageModel(config)
    cache = model.new_cache(1, dtype=dtype)
    return cache.num_bytes / cache.capacity


def mha_bytes_per_token(config: ModelConfig) -> float:
    """Bytes of a token with multi-head attention in bfloat16, heads as many and as wide."""
    head = config.attention.width_per_head(config.width)
    return float(2 * PLAIN_BYTES * config.attention.num_heads * head * config.num_layers)


def _row_bytes(width: int, codes: CodeConfig | None, plain_bytes: int) -> int:
    if not width:
        return 0
    return width * plain_bytes if codes is None else bytes_per_row(width, codes)


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """What is to be decided, and what it comes to."""

    share_factor: int
    latent_width: int
    rope_width: int
    codes: CodeConfig | None
    num_bytes: int
    penalty_percent: float


def _layouts(
    config: ModelConfig,
    *,
    share_factor: int | None,
    latent_width: int | None,
    rope_width: int | None,
    bits: Bits | None,
) -> Iterator[_Layout]:
    """All layouts that agree with what is decided."""
    head = config.attention.width_per_head(config.width)
    shares = [s for s in SHARE_PERCENT if s <= config.num_layers]
    latents = sorted({max(1, int(step * head)) for step in WIDTH_STEPS})
    latents = [width for width in latents if width <= config.width]
    ropes = sorted({max(2, int(step * head) // 2 * 2) for step in ROPE_STEPS})
    shares = shares if share_factor is None else [share_factor]
    latents = latents if latent_width is None else [latent_width]
    ropes = ropes if rope_width is None else [rope_width]
    kinds = list(_codes(bits))
    for share, latent, rope, (codes, of_codes) in product(shares, latents, ropes, kinds):
        each = _row_bytes(latent, codes, PLAIN_BYTES) + _row_bytes(rope, codes, PLAIN_BYTES)
        yield _Layout(
            share_factor=share,
            latent_width=latent,
            rope_width=rope,
            codes=codes,
            num_bytes=ceil(config.num_layers / share) * each,
            penalty_percent=of_codes
            + SHARE_PERCENT.get(share, 0.5 * share)
            + LATENT_PERCENT_A_THIRD * max(0.0, log(4 * head / latent, 3))
            + ROPE_PERCENT_A_HALF * max(0.0, log2(head / 2 / max(rope, 1))),
        )


def _codes(bits: Bits | None) -> Iterator[tuple[CodeConfig | None, float]]:
    for (wanted, is_symmetric), penalty in BITS_PERCENT.items():
        if bits not in (None, wanted):
            continue
        if wanted == 16:
            yield None, penalty
            continue
        for doublings, width in enumerate(GROUP_WIDTHS):
            codes = CodeConfig(bits=wanted, group_width=width, is_symmetric=is_symmetric)  # type: ignore[arg-type]
            yield codes, penalty + SCALE_PERCENT_A_DOUBLING * doublings


def _attention(config: ModelConfig, layout: _Layout) -> LatentConfig:
    before = config.attention
    head = before.width_per_head(config.width)
    value, query_latent = head, None
    if isinstance(before, LatentConfig):
        value, query_latent = before.widths(config.width)[1], before.query_latent_width
    return LatentConfig(
        num_heads=before.num_heads,
        head_width=head,
        value_width=value,
        latent_width=layout.latent_width,
        rope_width=layout.rope_width,
        query_latent_width=query_latent,
        rope_theta=before.rope_theta,
        rope_alpha=before.rope_alpha,
        share_factor=layout.share_factor,
        dropout=before.dropout,
        codes=layout.codes,
    )
