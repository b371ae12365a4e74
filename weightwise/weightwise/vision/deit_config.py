"""Settings of DeiT (Touvron et al., arXiv 2012.12877) and of Mini-DeiT, which shares its weights.

Mini-DeiT (MiniViT, Zhang et al., arXiv 2204.07154) is a DeiT without class token whose consecutive
blocks run on one set of weights. What tells them apart are own layer normalizations, terms of
relative position, and maps over heads; see `weightwise.vision.deit`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

Local = Literal["none", "kept", "published", "stream"]
MixStart = Literal["identity", "published"]
DEPTH = 12  # of every published model


@dataclass(frozen=True, kw_only=True)
class DeiTConfig:
    """A vision transformer with blocks of one width, and what their executions share.

    Parameters
    ----------
    width
        Channels, a multiple of ``num_heads``.
    num_heads
        Attention heads, at least 1.
    groups
        How many executions in a row run on one set of weights, from the first block to the last;
        each at least 1. Their sum is the depth. See `even_groups`.
    mlp_expansion
        Hidden over outer channels of the MLPs, at least 1; hidden channels are rounded down.
    patch
        Side of a patch in pixels, at least 1.
    image_size
        Height and width of the images, a multiple of ``patch``.
    num_classes
        Classes, at least 1.
    drop_path
        Share of images for which the last execution's branches are left out in training, in
        [0, 1); it rises linearly from 0 over all executions.
    class_token
        Whether the head reads a class token. Otherwise it reads the mean over tokens.
    relative
        Whether each execution has terms of relative position of its own, from queries.
    mixes
        Whether each execution has maps over heads of its own, before and after the softmax.
    mix_start
        What `DeiT.initialize` makes of these maps: the ``identity``, where attention is the plain
        one, or the ``published`` draws, where it begins nearly uniform.
    local
        Depthwise convolution of each execution before the MLP: ``none`` as in the released
        Mini-DeiT, ``kept`` or ``published`` for the forms of `weightwise.multiplex.LocalMix`, or
        ``stream`` for a convolution of the tokens themselves, with neither normalization nor
        residual, the literal reading of the paper. A class token passes by.
    local_kernel
        Side of its kernel, odd.

    Raises
    ------
    ValueError
        If a field is out of range; the message names it.
    """

    width: int
    num_heads: int
    groups: tuple[int, ...] = (1,) * DEPTH
    mlp_expansion: float = 4.0
    patch: int = 16
    image_size: int = 224
    num_classes: int = 1000
    drop_path: float = 0.0
    class_token: bool = True
    relative: bool = False
    mixes: bool = False
    mix_start: MixStart = "identity"
    local: Local = "none"
    local_kernel: int = 5

    def __post_init__(self) -> None:
        for name in ("width", "num_heads", "patch", "image_size", "num_classes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.width % self.num_heads:
            raise ValueError(
                f"width: expected a multiple of num_heads {self.num_heads}, got {self.width}"
            )
        if self.image_size % self.patch:
            raise ValueError(
                f"image_size: expected a multiple of patch {self.patch}, got {self.image_size}"
            )
        if not self.groups or min(self.groups) < 1:
            raise ValueError(f"groups: expected numbers of at least 1, got {self.groups}")
        if not 1 <= self.mlp_expansion < float("inf"):
            raise ValueError(f"mlp_expansion: expected at least 1, got {self.mlp_expansion}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path: expected in [0, 1), got {self.drop_path}")
        for name, choices in (("mix_start", get_args(MixStart)), ("local", get_args(Local))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {choices}, got {getattr(self, name)!r}")
        if self.local_kernel < 1 or self.local_kernel % 2 == 0:
            raise ValueError(
                f"local_kernel: expected an odd number of at least 1, got {self.local_kernel}"
            )

    @property
    def depth(self) -> int:
        """Executions of blocks."""
        return sum(self.groups)

    @property
    def side(self) -> int:
        """Patches along height or width."""
        return self.image_size // self.patch

    @property
    def num_tokens(self) -> int:
        """Tokens that blocks see."""
        return self.side**2 + self.class_token

    @property
    def hidden(self) -> int:
        """Hidden channels of an MLP."""
        return int(self.width * self.mlp_expansion)

    @property
    def drop_paths(self) -> tuple[float, ...]:
        """Drop-path rate of every execution."""
        last = max(self.depth - 1, 1)
        return tuple(self.drop_path * number / last for number in range(self.depth))


def even_groups(depth: int, repeats: int) -> tuple[int, ...]:
    """Split executions into runs of one length.

    Parameters
    ----------
    depth
        Executions, at least 1.
    repeats
        Length of a run, at least 1; the last run takes what is left.

    Returns
    -------
    Lengths for `DeiTConfig.groups`.

    Raises
    ------
    ValueError
        If a number is below 1.

    Examples
    --------
    >>> even_groups(11, 2)
    (2, 2, 2, 2, 2, 1)
    """
    if min(depth, repeats) < 1:
        raise ValueError(f"repeats: expected at least 1 of depth 1 or more, got {repeats}, {depth}")
    rest = depth % repeats
    return (repeats,) * (depth // repeats) + (rest,) * (rest > 0)


def mini_deit(config: DeiTConfig, repeats: int = 2) -> DeiTConfig:
    """Settings of the Mini-DeiT made of a DeiT: shared weights, own transforms, no class token.

    Parameters
    ----------
    config
        Settings of the original.
    repeats
        Executions of a set of weights, at least 1; the published models have 2.

    Raises
    ------
    ValueError
        If ``repeats`` is below 1.
    """
    groups = even_groups(config.depth, repeats)
    return replace(config, groups=groups, class_token=False, relative=True, mixes=True)


_TI = DeiTConfig(width=192, num_heads=3)
_S = DeiTConfig(width=384, num_heads=6)
_B = DeiTConfig(width=768, num_heads=12, drop_path=0.1)
_B_384 = replace(_B, image_size=384)

# Sizes of arXiv 2012.12877; drop-path rates are those of Mini-DeiT's published recipes.
DEIT_VARIANTS: Mapping[str, DeiTConfig] = MappingProxyType(
    {
        "ti": _TI,
        "s": _S,
        "b": _B,
        "b-384": _B_384,
        "mini-ti": mini_deit(_TI),
        "mini-s": mini_deit(_S),
        "mini-b": mini_deit(_B),
        "mini-b-384": mini_deit(_B_384),
    }
)
