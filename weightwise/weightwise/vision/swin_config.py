"""Settings of Swin (Liu et al., arXiv 2103.14030) and of Mini-Swin, which shares its weights.

Mini-Swin (MiniViT, Zhang et al., arXiv 2204.07154) is a Swin whose consecutive blocks of a stage
run on one set of weights. What tells them apart are own layer normalizations, maps over heads, and
a depthwise convolution before the MLP; see `weightwise.vision.swin`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

from weightwise.vision.deit_config import even_groups

if TYPE_CHECKING:
    from collections.abc import Mapping

Groups = tuple[tuple[int, ...], ...]
Local = Literal["none", "kept", "published"]
Start = Literal["identity", "published"]
NUM_STAGES = 4
SMALLEST = ((1, 1), (1, 1), (1,) * 6, (1, 1))  # blocks of the smallest model
PATCH = 4  # side in pixels; every later stage halves the map


def alone(depths: tuple[int, ...]) -> Groups:
    """Groups of a model whose blocks share nothing."""
    return tuple((1,) * depth for depth in depths)


@dataclass(frozen=True, kw_only=True)
class SwinConfig:
    """A transformer of four stages with shifted windows, and what its executions share.

    Parameters
    ----------
    width
        Channels of the first stage, a multiple of ``head_width``; every stage doubles them.
    groups
        For each stage, how many executions in a row run on one set of weights, from its first
        block to its last; each at least 1. Their sum is the stage's depth.
    window
        Side of the attention windows, at least 1. Maps that are smaller are one window.
    head_width
        Channels of an attention head, at least 1.
    mlp_expansion
        Hidden over outer channels of the MLPs, at least 1; hidden channels are rounded down.
    image_size
        Height and width of the images that the model is made for, at least 1. It takes others too.
    num_classes
        Classes, at least 1.
    drop_path
        Share of images for which the last execution's branches are left out in training, in
        [0, 1); it rises linearly from 0 over all executions.
    own_norms
        Whether executions that share weights have layer normalizations of their own.
    mixes
        Whether each execution has maps over heads of its own, before and after the softmax.
    mix_start
        How `Swin.initialize` starts these maps: at the ``identity``, or ``published``, as the
        released code does, near zero.
    local
        Depthwise convolution of each execution before the MLP: ``none``, or ``kept`` or
        ``published`` for the forms of `weightwise.multiplex.LocalMix`.
    local_kernel
        Side of its kernel, odd.
    mask_unshifted
        Mask windows as if they were shifted also where they are not, as the released Mini-Swin
        does: one mask belongs to a set of weights there, and every execution gets it.
    mask_padding
        Keep queries from seeing the tokens that fill up windows at the lower and right border. No
        map of the published models needs any.

    Raises
    ------
    ValueError
        If a field is out of range; the message names it.
    """

    width: int
    groups: Groups = SMALLEST
    window: int = 7
    head_width: int = 32
    mlp_expansion: float = 4.0
    image_size: int = 224
    num_classes: int = 1000
    drop_path: float = 0.0
    own_norms: bool = True
    mixes: bool = False
    mix_start: Start = "identity"
    local: Local = "none"
    local_kernel: int = 7
    mask_unshifted: bool = False
    mask_padding: bool = True

    def __post_init__(self) -> None:
        for name in ("width", "window", "head_width", "image_size", "num_classes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.width % self.head_width:
            raise ValueError(
                f"width: expected a multiple of head_width {self.head_width}, got {self.width}"
            )
        if len(self.groups) != NUM_STAGES or any(
            not stage or min(stage) < 1 for stage in self.groups
        ):
            raise ValueError(
                f"groups: expected {NUM_STAGES} stages of numbers of at least 1, got {self.groups}"
            )
        if not 1 <= self.mlp_expansion < float("inf"):
            raise ValueError(f"mlp_expansion: expected at least 1, got {self.mlp_expansion}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path: expected in [0, 1), got {self.drop_path}")
        for name, known in (("mix_start", get_args(Start)), ("local", get_args(Local))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {known}, got {getattr(self, name)!r}")
        if self.local_kernel < 1 or self.local_kernel % 2 == 0:
            raise ValueError(
                f"local_kernel: expected an odd number of at least 1, got {self.local_kernel}"
            )

    @property
    def depths(self) -> tuple[int, ...]:
        """Executions of the four stages."""
        return tuple(sum(stage) for stage in self.groups)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the four stages."""
        return tuple(self.width * 2**stage for stage in range(NUM_STAGES))

    @property
    def num_heads(self) -> tuple[int, ...]:
        """Attention heads of the four stages."""
        return tuple(width // self.head_width for width in self.widths)

    @property
    def drop_paths(self) -> tuple[tuple[float, ...], ...]:
        """Drop-path rate of every execution, stage by stage."""
        last = sum(self.depths) - 1
        firsts = [sum(self.depths[:stage]) for stage in range(NUM_STAGES)]
        return tuple(
            tuple(self.drop_path * number / last for number in range(first, first + depth))
            for first, depth in zip(firsts, self.depths, strict=True)
        )

    def hidden(self, stage: int) -> int:
        """Hidden channels of an MLP of stage 0 to 3."""
        return int(self.widths[stage] * self.mlp_expansion)


def mini_swin(config: SwinConfig, repeats: tuple[int, ...]) -> SwinConfig:
    """Settings of the Mini-Swin made of a Swin: shared weights and own transforms.

    Parameters
    ----------
    config
        Settings of the original.
    repeats
        Executions of a set of weights, for each of the four stages.

    Raises
    ------
    ValueError
        If there are not four numbers of at least 1.
    """
    if len(repeats) != NUM_STAGES:
        raise ValueError(f"repeats: expected {NUM_STAGES} numbers, got {repeats}")
    groups = tuple(map(even_groups, config.depths, repeats))
    return replace(config, groups=groups, mixes=True, local="kept")


def as_published(config: SwinConfig) -> SwinConfig:
    """Settings under which a Mini-Swin starts and computes like the released ones.

    Parameters
    ----------
    config
        Settings of a Mini-Swin.

    Returns
    -------
    The same with the released convolution, whose stream goes on from normalized tokens, with all
    windows masked, and with the released start of maps over heads.
    """
    return replace(config, local="published", mask_unshifted=True, mix_start="published")


_T = SwinConfig(width=96, drop_path=0.2)
_S = replace(_T, groups=alone((2, 2, 18, 2)), drop_path=0.3)
_B = replace(_S, width=128, drop_path=0.5)
_B_384 = replace(_B, window=12, image_size=384)
# Released Mini-Swin: T runs the third stage six times on one set, S and B run it in pairs.
_MINI_T = replace(mini_swin(_T, (2, 2, 6, 2)), drop_path=0.0)
_MINI_S = replace(mini_swin(_S, (2, 2, 2, 2)), drop_path=0.1)
_MINI_B = replace(mini_swin(_B, (2, 2, 2, 2)), drop_path=0.2)

# Sizes of arXiv 2103.14030, table 7, and drop-path rates of the published settings.
SWIN_VARIANTS: Mapping[str, SwinConfig] = MappingProxyType(
    {
        "t": _T,
        "s": _S,
        "b": _B,
        "b-384": _B_384,
        "mini-t": _MINI_T,
        "mini-s": _MINI_S,
        "mini-b": _MINI_B,
        "mini-b-384": replace(_MINI_B, window=12, image_size=384),
    }
)
