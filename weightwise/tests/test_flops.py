"""Operations counted from settings against what torch counts while it computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, MoEConfig, SwiGLUConfig
from weightwise.lm.flops import forward_flop, training_flop
from weightwise.recipes import hunyuan_large

DENSE = ModelConfig(
    vocab_size=100,
    width=32,
    num_layers=3,
    max_length=64,
    attention=GQAConfig(num_heads=4, num_kv_heads=2),
    ffn=SwiGLUConfig(hidden=48),
)
SPARSE = replace(
    DENSE,
    attention=replace(DENSE.attention, share_factor=2),
    ffn=MoEConfig(hidden=40, num_experts=6, num_shared=2, top_k=2),
)


@pytest.mark.parametrize("config", [DENSE, SPARSE, replace(SPARSE, tie_embeddings=False)])
def test_count_is_that_of_torch(config: ModelConfig) -> None:
    """Forward and backward of whole sequences, with attention counted without its mask."""
    model = LanguageModel(config)
    token_BT = torch.randint(100, (2, 40))
    # Its fused attention for CPUs is not counted.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(token_BT).sum().backward()
    # torch counts all pairs of tokens, masked or not.
    inner, layers = 32, config.num_layers
    masked = 4 * inner * (40 - (40 + 1) / 2) * layers
    forward = forward_flop(config, 40) + masked
    counted = counter.get_total_flops() / (2 * 40)
    assert counted == pytest.approx(3 * forward, rel=1e-9)


def test_hunyuan_large_costs_what_the_sheet_says() -> None:
    """At 8K tokens attention adds 0.39 N to the 6 N of the weights."""
    config = hunyuan_large()
    weights = 6 * 50_496_323_840
    whole = training_flop(config, 8192)
    head = 6 * config.width * config.vocab_size
    assert (whole - head - weights) / 50_496_323_840 == pytest.approx(0.39, abs=0.01)
    assert training_flop(config, 8192, is_recomputed=True) == pytest.approx(whole * 4 / 3)


def test_length_out_of_range_is_named() -> None:
    """The message says which lengths there are."""
    with pytest.raises(ValueError, match="seq_length: expected 1 to max_length 64, got 65"):
        forward_flop(DENSE, 65)
