"""What training and fine-tuning treat differently: weight decay, depth and batch normalization.

The rules are those of the published recipes (sections 3.2 and 4.1 of arXiv 2207.10666 and its
code): vectors and the tables of attention biases do not decay, and in fine-tuning every block
learns at 0.8 times the rate of the block after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from weightwise.optim.groups import by_mesh

if TYPE_CHECKING:
    from weightwise.vision.tiny_vit import TinyViT


def vision_groups(
    model: TinyViT, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Split the parameters by weight decay and learning rate.

    Parameters
    ----------
    model
        Model that is trained.
    weight_decay
        Decay of matrices and filters, at least 0.
    layer_decay
        Learning rate of a block over that of the next one, in (0, 1]. The stem counts as a part of
        the first block, a merge as one of the block before it, and the head as one of the last.

    Returns
    -------
    Groups in `torch.optim` form, each with its ``lr_ratio`` beside the usual keys.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    if not 0 <= weight_decay < float("inf"):
        raise ValueError(f"weight_decay: expected at least 0, got {weight_decay}")
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay: expected in (0, 1], got {layer_decay}")
    last = sum(model.config.depths) - 1
    parts: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        decays = weight.dim() > 1 and not name.endswith("attention_biases")
        distance = last - _block_of(name, model.config.depths) if layer_decay < 1 else 0
        parts.setdefault((distance, decays), []).append(weight)
    return [
        {
            "params": part,
            "weight_decay": weight_decay if decays else 0.0,
            "lr_ratio": layer_decay**distance,
        }
        for (distance, decays), weights in sorted(parts.items(), reverse=True)
        for part in by_mesh(weights)
    ]


def freeze_batch_norm(model: nn.Module) -> None:
    """Let batch normalizations use their running statistics while all else trains.

    Published for fine-tuning. Parameters go on learning. To be called after every ``train()``,
    which undoes it.

    Parameters
    ----------
    model
        Any model; changed in place.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _block_of(name: str, depths: tuple[int, ...]) -> int:
    """Number of the block, counted from 0 over all stages, that a parameter belongs to."""
    part, *rest = name.split(".")
    if part == "patch_embed":
        return 0
    if part == "head":
        return sum(depths) - 1
    stage, kind, *inner = rest
    first = sum(depths[: int(stage)])
    return first - 1 if kind == "downsample" else first + int(inner[0])
