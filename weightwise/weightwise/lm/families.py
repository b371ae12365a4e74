"""Which Hugging Face model families can be read, by the ``model_type`` of their settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightwise.lm import deepseek, hunyuan, llama
from weightwise.lm.hub_settings import read_settings

if TYPE_CHECKING:
    from pathlib import Path

    from weightwise.lm.config import ModelConfig
    from weightwise.lm.hub_settings import Piece, Shapes

FAMILIES = {name: family for family in (deepseek, hunyuan, llama) for name in family.MODEL_TYPES}


def read_config(path: Path) -> ModelConfig:
    """Settings of a checkpoint from its ``config.json``.

    Raises
    ------
    ValueError
        If the file is missing or malformed, or the family or a setting is not supported.
    """
    name = read_settings(path).get("model_type")
    if name not in FAMILIES:
        raise ValueError(f"{path}: model_type: expected one of {', '.join(FAMILIES)}, got {name!r}")
    config: ModelConfig = FAMILIES[name].read_config(path)
    return config


def pieces(
    path: Path, shapes: Shapes, config: ModelConfig
) -> tuple[dict[str, Piece], dict[str, Piece]]:
    """Tensors of a checkpoint by name: those that it must have, and all that it may have.

    Parameters
    ----------
    path
        Its ``config.json``.
    shapes, config
        Our model's parameters by name, and its settings.
    """
    given = read_settings(path)
    family = FAMILIES[given["model_type"]]
    if family is deepseek:
        found = deepseek.pieces(shapes, config, is_interleaved=deepseek.is_interleaved(given))
        return found, found | deepseek.stacked_pieces(shapes)
    if family is hunyuan:
        separate = hunyuan.pieces(shapes)
        return separate, separate | hunyuan.stacked_pieces(shapes)
    found = llama.pieces(shapes)
    return found, found
