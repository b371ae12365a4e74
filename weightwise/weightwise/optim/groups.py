"""AdamW and the groups of parameters that it treats differently.

Weight decay pulls matrices towards zero. It makes no sense for gains and biases, whose natural
value is not zero, nor for embeddings, whose rows are rarely used and would fade between uses.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101).

    The default values are those of arXiv 2501.02423, Table 1.

    Parameters
    ----------
    kind
        Tells this class from other optimizers.
    beta1, beta2
        Decay of the running mean of gradients and of their squares, in [0, 1).
    eps
        Added to the root of the second moment, above 0.
    weight_decay
        Decay per step and unit of learning rate, at least 0; matrices only.
    """

    kind: Literal["adamw"] = "adamw"
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta2: float = Field(default=0.95, ge=0.0, lt=1.0)
    eps: float = Field(default=1e-8, gt=0.0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.1, ge=0.0, allow_inf_nan=False)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the parameters into those that decay and those that do not.

    Parameters
    ----------
    model
        Any module. A head tied to an embedding counts as an embedding.
    weight_decay
        Decay of the matrices.

    Returns
    -------
    list
        Two groups in `torch.optim` form: matrices with ``weight_decay``, and embeddings, norm
        gains and biases with 0.
    """
    embeddings = {
        id(weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for weight in module.parameters(recurse=False)
    }
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for weight in model.parameters():
        is_matrix = weight.ndim >= 2 and id(weight) not in embeddings
        (decayed if is_matrix else kept).append(weight)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]


def make_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.AdamW:
    """Build the optimizer for a model's parameters.

    The learning rate starts at 0 and is set before every step from the schedule.

    Parameters
    ----------
    config
        Settings.
    model
        The model as it is trained (after sharding, if any).
    """
    return torch.optim.AdamW(
        parameter_groups(model, config.weight_decay),
        lr=0.0,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )
