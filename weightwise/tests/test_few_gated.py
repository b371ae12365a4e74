"""The gated feed-forward layer for a few rows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from weightwise.lm import SwiGLUConfig
from weightwise.lm.ffn import SwiGLU
from weightwise.lm.products import FEW_ROWS, takes_few_rows


@pytest.mark.slow
@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_few_rows_are_the_definition(rows: int, num_threads: int) -> None:
    """Compiled code gives what torch's operations give in float64, on any number of threads."""
    layer = SwiGLU(SwiGLUConfig(hidden=1030), 260)
    x_BTD = torch.randn(1, rows, 260, generator=torch.Generator().manual_seed(rows))
    weights = [one.weight.double() for one in (layer.gate, layer.up, layer.down)]
    x = x_BTD.double()
    expected = (F.silu(x @ weights[0].T) * (x @ weights[1].T)) @ weights[2].T
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        with torch.no_grad():
            assert takes_few_rows(x_BTD, layer.gate, layer.up, layer.down)
            found = layer(x_BTD)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_others_are_left_to_torch() -> None:
    """Gradients, many rows, hooks, other types and small matrices take the other way."""
    layer = SwiGLU(SwiGLUConfig(hidden=1030), 260)
    parts = layer.gate, layer.up, layer.down
    assert not takes_few_rows(torch.randn(1, 1, 260), *parts)
    with torch.no_grad():
        assert not takes_few_rows(torch.randn(1, FEW_ROWS + 1, 260), *parts)
        assert not takes_few_rows(torch.randn(1, 1, 260, dtype=torch.bfloat16), *parts)
        small = SwiGLU(SwiGLUConfig(hidden=16), 8)
        assert not takes_few_rows(torch.randn(1, 1, 8), small.gate, small.up, small.down)
        with torch.autocast("cpu", torch.bfloat16):
            assert not takes_few_rows(torch.randn(1, 1, 260), *parts)
        layer.up.register_forward_hook(lambda *_: None)
        assert not takes_few_rows(torch.randn(1, 1, 260), *parts)
