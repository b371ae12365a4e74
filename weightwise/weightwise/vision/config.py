"""Settings of TinyViT (Wu et al., arXiv 2207.10666, section 3.2): contraction factors and variants.

A contraction factor is a number that progressive contraction may lower: widths and depths of the
four stages, sides of the attention windows, expansions, and channels of a head. All published
models have the same depths, expansions and width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Four = tuple[int, int, int, int]
STRIDE = 4  # of the stem; every later stage halves the map


@dataclass(frozen=True, kw_only=True)
class TinyViTConfig:
    """Contraction factors of a model and what depends on the task.

    Parameters
    ----------
    widths
        Channels of the four stages (gamma_D): the first is even and at least 2, the others are
        multiples of ``head_width``.
    depths
        Blocks of the four stages (gamma_N), each at least 1.
    windows
        Sides of the attention windows of stages 2 to 4 (gamma_W), each at least 1.
    conv_expansion
        Hidden over outer channels of the convolutional blocks of stage 1 (gamma_R), at least 1;
        hidden channels are rounded down.
    mlp_expansion
        Hidden over outer channels of the MLPs (gamma_M), at least 1; rounded down.
    head_width
        Channels of an attention head (gamma_E), at least 1.
    image_size
        Height and width of the images that the windows are made for, at least 1. The model takes
        others too.
    num_classes
        Classes, at least 1.
    drop_path
        Share of images for which the last block's branches are left out in training, in [0, 1);
        it rises linearly from 0 over all blocks.
    mask_padding
        Keep queries from seeing the tokens that fill up windows at the lower and right border. The
        published models let them take part; no map of theirs needs any.

    Raises
    ------
    ValueError
        If a field is out of range; the message names it.
    """

    widths: Four
    depths: Four = (2, 2, 6, 2)
    windows: tuple[int, int, int] = (7, 14, 7)
    conv_expansion: float = 4.0
    mlp_expansion: float = 4.0
    head_width: int = 32
    image_size: int = 224
    num_classes: int = 1000
    drop_path: float = 0.0
    mask_padding: bool = False

    def __post_init__(self) -> None:
        for name, count in (("widths", 4), ("depths", 4), ("windows", 3)):
            values = getattr(self, name)
            if len(values) != count or min(values) < 1:
                raise ValueError(f"{name}: expected {count} numbers of at least 1, got {values}")
        for name in ("head_width", "image_size", "num_classes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.widths[0] % 2 or any(width % self.head_width for width in self.widths[1:]):
            raise ValueError(
                f"widths: expected an even number and three multiples of head_width "
                f"{self.head_width}, got {self.widths}"
            )
        for name in ("conv_expansion", "mlp_expansion"):
            if not 1 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path: expected in [0, 1), got {self.drop_path}")

    @property
    def num_heads(self) -> tuple[int, int, int]:
        """Attention heads of stages 2 to 4."""
        _, second, third, fourth = (width // self.head_width for width in self.widths)
        return second, third, fourth

    @property
    def drop_paths(self) -> tuple[tuple[float, ...], ...]:
        """Drop-path rate of every block, stage by stage."""
        last = sum(self.depths) - 1
        firsts = [sum(self.depths[:stage]) for stage in range(4)]
        return tuple(
            tuple(self.drop_path * block / last for block in range(first, first + depth))
            for first, depth in zip(firsts, self.depths, strict=True)
        )

    def hidden(self, stage: int) -> int:
        """Hidden channels of a block of stage 0 to 3."""
        return int(self.widths[stage] * (self.mlp_expansion if stage else self.conv_expansion))


_21M = TinyViTConfig(widths=(96, 192, 384, 576), drop_path=0.2)

# Section 3.2 and the published settings. The drop-path rates are those of training from scratch
# on ImageNet-1k; distillation uses 0, 0 and 0.1, and fine-tuning the same.
VARIANTS: Mapping[str, TinyViTConfig] = MappingProxyType(
    {
        "5m": TinyViTConfig(widths=(64, 128, 160, 320)),
        "11m": TinyViTConfig(widths=(64, 128, 256, 448), drop_path=0.1),
        "21m": _21M,
        "21m-384": replace(_21M, windows=(12, 24, 12), image_size=384, drop_path=0.1),
        "21m-512": replace(_21M, windows=(16, 32, 16), image_size=512, drop_path=0.1),
    }
)
