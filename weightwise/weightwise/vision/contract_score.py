"""What a vector of contraction factors promises, by formula: no model is built, no data is needed.

Expressivity follows DeepMAD (Shen et al., arXiv 2303.02165, entropy of a network and the weights
of its stages): with L_s the layers up to the end of stage s, of fan-in f, and maps of r x r
positions and c channels,

    expressivity = sum_s a_s log(r_s^2 c_s) sum_{l in L_s} log f_l,    a = 1, 1, 1, 8.

It is made for convolutions. Linear layers are such of one position; that attention counts as a
layer whose fan-in is the tokens of a window is our own extension.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, log
from typing import TYPE_CHECKING

from weightwise.vision.config import STRIDE

if TYPE_CHECKING:
    from weightwise.vision.config import TinyViTConfig

STAGE_WEIGHTS = (1, 1, 1, 8)
KERNEL = 9  # positions of a 3 x 3 convolution


@lru_cache(maxsize=1 << 14)
def expressivity(config: TinyViTConfig) -> float:
    """How much a model may express, judged by its factors alone; more is better."""
    total = fan_ins = 0.0
    for stage, (weight, width) in enumerate(zip(STAGE_WEIGHTS, config.widths, strict=True)):
        before = config.widths[stage - 1]
        start = [before, KERNEL, width] if stage else [3 * KERNEL, width // 2 * KERNEL]
        layers = [*start, *_block(config, stage) * config.depths[stage]]
        fan_ins += sum(map(log, layers))
        side = ceil(config.image_size / (STRIDE << stage))
        total += weight * log(side**2 * width) * fan_ins
    return total


def _block(config: TinyViTConfig, stage: int) -> list[int]:
    """Fan-ins of a block: of convolutions, or of attention, a convolution and the MLP."""
    width, hidden = config.widths[stage], config.hidden(stage)
    if stage == 0:
        return [width, KERNEL, hidden]
    window = config.windows[stage - 1]
    return [width, window**2, width, KERNEL, width, hidden]
