"""Rounding noise on normal data against measured tables and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from weightwise.numerics import ScaledFormat, fake_quantize, parse, round_to_format


def noise_db(x: Tensor, name: str) -> float:
    """Signal-to-quantization-noise ratio; 6 dB is about one mantissa bit."""
    got = fake_quantize(x, ScaledFormat.parse(name))
    return (20 * torch.log10(x.double().norm() / (x.double() - got.double()).norm())).item()


# Measured for the paper's study on a normal 1024 x 4096 matrix: blocks of 16, 32, 128, 512, a row
# of 4096, the tensor, and blocks of 32 with a power of two (rule "floor"). For E4M3FN, which ends
# at 448, blocks of 32 and what follows the row.
NOISE = {
    "e1m1": (14.02, 12.90, 11.25, 10.04, 8.69, 6.23, 11.50),
    "e1m2": (21.39, 20.26, 18.61, 17.40, 16.05, 13.58, 17.55),
    "e2m1": (20.52, 19.91, 19.26, 18.91, 18.49, 17.30, 18.78),
    "e3m2": (27.02, 26.40, 25.80, 25.61, 25.57, 25.57, 25.37),
    "e2m3": (33.00, 32.30, 31.54, 31.18, 30.88, 30.19, 30.94),
    "e4m3": (33.18, 32.52, 31.86, 31.62, 31.54, 31.56, 31.44),
    "e4m3fn": (None, 32.40, None, None, 31.55, 31.55, 30.65),
    "e5m2": (27.02, 26.40, 25.80, 25.61, 25.57, 25.57, 25.37),
    "e1m6": (46.56, 45.43, 43.78, 42.57, 41.22, 38.76, 41.66),
}
SHARING = ("@16", "@32", "@128", "@512", "@channel", "@tensor", "@32/e8m0")


@pytest.mark.slow
@pytest.mark.parametrize("name", NOISE)
def test_noise_on_normal_data(name: str) -> None:
    """The noise of each format and group size is the published one (tensor: one seed's luck)."""
    x = torch.randn(1024, 4096, generator=torch.Generator().manual_seed(0))
    for sharing, expected in zip(SHARING, NOISE[name], strict=True):
        if expected is not None:
            bound = 0.3 if sharing == "@tensor" else 0.05
            assert noise_db(x, name + sharing) == pytest.approx(expected, abs=bound), sharing


def test_optimal_fp4_grid_for_normal_data() -> None:
    """The best E2M1 grid for N(0, 1) is 0.4870795 times the levels, error 0.0126849."""
    x = torch.linspace(-8, 8, 1 << 19, dtype=torch.float64)
    density = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)

    def error(a: float) -> float:
        rounded = round_to_format((x / a).float(), parse("e2m1")).double() * a
        return torch.trapezoid((rounded - x) ** 2 * density, x).item()

    assert error(0.4870795) == pytest.approx(0.0126849, abs=1e-6)
    assert error(0.4870795) < min(error(0.480), error(0.494))
