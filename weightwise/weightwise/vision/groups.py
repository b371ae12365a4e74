"""What training and fine-tuning treat differently: weight decay, depth and batch normalization.

The rules are those of the published recipes (sections 3.2 and 4.1 of arXiv 2207.10666 and its
code; the code of arXiv 2204.07154): vectors, tables of attention biases, position embeddings and
class tokens do not decay, and in fine-tuning every block learns at 0.8 times the rate of the block
after it. Weights that several executions share belong to the first of them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from torch import nn

from weightwise.optim.groups import by_mesh

if TYPE_CHECKING:
    from weightwise.vision.deit import DeiT
    from weightwise.vision.swin import Swin
    from weightwise.vision.tiny_vit import TinyViT

# Parameters of two and more axes that do not decay, by the end of their names
NEVER_DECAY = ("attention_biases", "relative_position_bias_table", "pos_embed", "cls_token")


def vision_groups(
    model: TinyViT | DeiT | Swin, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Split the parameters by weight decay and learning rate.

    Parameters
    ----------
    model
        Model that is trained.
    weight_decay
        Decay of matrices and filters, at least 0.
    layer_decay
        Learning rate of a block over that of the next one, in (0, 1]. Stem and position embedding
        count as parts of the first block, a merge as one of the block before it, and the head as
        one of the last.

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
    depths = _depths(model)
    last = sum(depths) - 1
    parts: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        decays = weight.dim() > 1 and not name.endswith(NEVER_DECAY)
        distance = last - _block_of(name, depths) if layer_decay < 1 else 0
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


def _depths(model: TinyViT | DeiT | Swin) -> tuple[int, ...]:
    """Executions of each stage."""
    config = model.config
    return config.depths if hasattr(config, "depths") else (config.depth,)


def _block_of(name: str, depths: tuple[int, ...]) -> int:
    """Number of the block, counted from 0 over all stages, that a parameter belongs to."""
    found = re.match(r"(?:(?:stages|layers)\.(\d+)\.)?(?:blocks\.(\d+)\.|downsample\.)", name)
    if found is None:
        return sum(depths) - 1 if name.startswith(("head.", "norm.")) else 0
    first = sum(depths[: int(found[1] or 0)])
    return first - 1 if found[2] is None else first + int(found[2])
