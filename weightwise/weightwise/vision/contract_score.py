"""What a vector of contraction factors promises, by formula: no model is built, no data is needed.

Expressivity is the entropy that DeepMAD maximizes (Shen et al., CVPR 2023, arXiv 2303.02165,
entropy of CNNs and its weighted sum over scales), constants as in the code released with it,
alibaba/lightweight-neural-architecture-search, tinynas/scores/compute_deepmad.py. A scale ends
where the map is halved next. With all layers l up to its end, of fan-in f_l = c_in k^2 / g for c_in
input channels, kernels of k x k and g groups, and with maps of r x r positions and c channels,

    expressivity = sum_s a_s log(r_s^2 c_s) sum_l 1/2 log f_l,    a = 1, 1, 1, 1, 8.

Two more parts of DeepMAD are left out. Its limit on depth over mean fan-in, L / (prod_l f_l)^(1/L),
keeps networks from growing deep at no cost; here depth costs what the bounds count. Its penalty for
stages of unequal depth would fault every published TinyViT. The formula is made for convolutions: a
linear layer is one of kernel 1, and that attention counts as a layer whose fan-in is the tokens of
a window is our own extension.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, log
from typing import TYPE_CHECKING

from weightwise.vision.config import STRIDE

if TYPE_CHECKING:
    from weightwise.vision.config import TinyViTConfig

SCALE_WEIGHTS = (1, 1, 1, 1, 8)  # strides 2 to 32
KERNEL = 9  # positions of a 3 x 3 convolution


@lru_cache(maxsize=1 << 14)
def expressivity(config: TinyViTConfig) -> float:
    """How much a model may express, judged by its factors alone; more is better."""
    stem, rest = config.widths[0] // 2, [_stage(config, number) for number in range(4)]
    scales = [(STRIDE // 2, stem, [3 * KERNEL])]
    scales += [(STRIDE << s, config.widths[s], layers) for s, layers in enumerate(rest)]
    total = fan_ins = 0.0
    for weight, (stride, width, layers) in zip(SCALE_WEIGHTS, scales, strict=True):
        fan_ins += sum(map(log, layers)) / 2
        total += weight * log(ceil(config.image_size / stride) ** 2 * width) * fan_ins
    return total


def _stage(config: TinyViTConfig, stage: int) -> list[int]:
    """Fan-ins of a stage: of what halves the map before it, and of its blocks."""
    width, before = config.widths[stage], config.widths[stage - 1]
    start = [before, KERNEL, width] if stage else [width // 2 * KERNEL]
    return start + _block(config, stage) * config.depths[stage]


def _block(config: TinyViTConfig, stage: int) -> list[int]:
    """Fan-ins of a block: of convolutions, or of attention, a convolution and the MLP."""
    width, hidden = config.widths[stage], config.hidden(stage)
    if stage == 0:
        return [width, KERNEL, hidden]
    window = config.windows[stage - 1]
    return [width, window**2, width, KERNEL, width, hidden]
