"""The model of a vision recipe: its family, its settings, and which blocks share weights.

A family is told by ``model.kind``. All of a family's settings may be given; what is not given is
the variant's, or the default where no variant is named.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias

import torch
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from weightwise.multiplex.share import share
from weightwise.train.vision_config import StudentConfig, given_settings
from weightwise.vision import TinyViT, TinyViTConfig
from weightwise.vision.deit import INIT_STD, DeiT
from weightwise.vision.deit_config import DEIT_VARIANTS, DeiTConfig
from weightwise.vision.swin import Swin
from weightwise.vision.swin_config import SWIN_VARIANTS, SwinConfig

if TYPE_CHECKING:
    from weightwise.multiplex.plan import Plan

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DeiTStudent:
    """A DeiT or a Mini-DeiT: a variant and what differs from it, or all settings.

    Parameters
    ----------
    kind
        Tells this class from the others.
    variant
        A name in `weightwise.vision.deit_config.DEIT_VARIANTS`; ``None`` needs ``width`` and
        ``num_heads``.
    width, num_heads, groups, mlp_expansion, patch, image_size, num_classes, drop_path
        As in `weightwise.vision.deit_config.DeiTConfig`; ``None`` is the variant's.
    class_token, relative, mixes, mix_start, local, local_kernel
        As there.
    position_std
        Standard deviation of new position embeddings, above 0. The published one is too small
        for images of few patches, which then learn slowly.
    """

    kind: Literal["deit"] = "deit"
    variant: (
        Literal["ti", "s", "b", "b-384", "mini-ti", "mini-s", "mini-b", "mini-b-384"] | None
    ) = None
    width: int | None = None
    num_heads: int | None = None
    groups: tuple[int, ...] | None = None
    mlp_expansion: float | None = None
    patch: int | None = None
    image_size: int | None = Field(default=None, ge=1, le=4096)
    num_classes: int | None = None
    drop_path: float | None = None
    class_token: bool | None = None
    relative: bool | None = None
    mixes: bool | None = None
    mix_start: Literal["identity", "published"] | None = None
    local: Literal["none", "kept", "published", "stream"] | None = None
    local_kernel: int | None = None
    position_std: float = Field(default=INIT_STD, gt=0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.variant is None and (self.width is None or self.num_heads is None):
            raise ValueError("variant: expected a name, or width and num_heads, got none")
        self.build()
        return self

    def build(self) -> DeiTConfig:
        """All settings of the model."""
        given = given_settings(self)
        if self.variant is not None:
            return replace(DEIT_VARIANTS[self.variant], **given)
        return DeiTConfig(**given)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SwinStudent:
    """A Swin or a Mini-Swin: a variant and what differs from it, or all settings.

    Parameters
    ----------
    kind
        Tells this class from the others.
    variant
        A name in `weightwise.vision.swin_config.SWIN_VARIANTS`; ``None`` needs ``width``.
    width, groups, window, head_width, mlp_expansion, image_size, num_classes, drop_path
        As in `weightwise.vision.swin_config.SwinConfig`; ``None`` is the variant's.
    own_norms, mixes, mix_start, local, local_kernel, mask_unshifted, mask_padding
        As there.
    """

    kind: Literal["swin"] = "swin"
    variant: Literal["t", "s", "b", "b-384", "mini-t", "mini-s", "mini-b", "mini-b-384"] | None = (
        None
    )
    width: int | None = None
    groups: tuple[tuple[int, ...], ...] | None = None
    window: int | None = None
    head_width: int | None = None
    mlp_expansion: float | None = None
    image_size: int | None = Field(default=None, ge=1, le=4096)
    num_classes: int | None = None
    drop_path: float | None = None
    own_norms: bool | None = None
    mixes: bool | None = None
    mix_start: Literal["identity", "published"] | None = None
    local: Literal["none", "kept", "published"] | None = None
    local_kernel: int | None = None
    mask_unshifted: bool | None = None
    mask_padding: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.variant is None and self.width is None:
            raise ValueError("variant: expected a name, or width, got none")
        self.build()
        return self

    def build(self) -> SwinConfig:
        """All settings of the model."""
        given = given_settings(self)
        if self.variant is not None:
            return replace(SWIN_VARIANTS[self.variant], **given)
        return SwinConfig(**given)


Student: TypeAlias = Annotated[
    StudentConfig | DeiTStudent | SwinStudent, Field(discriminator="kind")
]
VisionModel: TypeAlias = TinyViT | DeiT | Swin
VisionSettings: TypeAlias = TinyViTConfig | DeiTConfig | SwinConfig


def make_model(config: VisionSettings, plan: Plan | None = None) -> VisionModel:
    """Make a model whose weights are still to be drawn or loaded.

    Parameters
    ----------
    config
        Settings of the family that is meant.
    plan
        Which blocks share weights beside those that the settings say; ``None`` for none.

    Raises
    ------
    ValueError
        If the plan does not fit such a model.
    """
    model: VisionModel
    if isinstance(config, TinyViTConfig):
        model = TinyViT(config)
    else:
        model = DeiT(config) if isinstance(config, DeiTConfig) else Swin(config)
    if plan is not None:
        share(model, plan)
    return model


@torch.no_grad()
def draw_weights(model: VisionModel, student: Student, generator: torch.Generator) -> None:
    """Draw the weights that a family begins with.

    Parameters
    ----------
    model
        A model of these settings that no plan has changed yet.
    student
        The recipe's settings.
    generator
        Source of randomness.
    """
    model.initialize(generator)
    if isinstance(model, DeiT) and isinstance(student, DeiTStudent):
        model.pos_embed.mul_(student.position_std / INIT_STD)
