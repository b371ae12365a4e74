"""AdamW and the groups of parameters that it treats differently.

Weight decay pulls matrices towards zero. It makes no sense for gains and biases, whose natural
value is not zero, nor for embeddings, whose rows are rarely used and would fade between uses.

Experts are stacks of matrices, tensors with three axes. Each sees a part of the tokens only, so
their learning rate may differ, see `weightwise.optim.expert_rate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import torch
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import nn

from weightwise.optim.averaging import AveragingAdamW
from weightwise.optim.expert_rate import expert_ratio

if TYPE_CHECKING:
    from collections.abc import Iterable

STRICT = ConfigDict(extra="forbid")
EXPERT_AXES = 3


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
    expert_lr
        Learning rate of specialised experts relative to that of all other weights, above 0;
        ``auto`` computes it from the batch and ``noise_batch``.
    noise_batch
        Batch in tokens at which the best learning rate is highest; needed for ``auto``.
    average_decay
        Keep a moving average of the weights, of which a step keeps this share, above 0 and below
        1; it is then the model that is judged and given away. ``None`` keeps none.
    """

    kind: Literal["adamw"] = "adamw"
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta2: float = Field(default=0.95, ge=0.0, lt=1.0)
    eps: float = Field(default=1e-8, gt=0.0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.1, ge=0.0, allow_inf_nan=False)
    expert_lr: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | Literal["auto"] = 1.0
    noise_batch: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    average_decay: float | None = Field(default=None, gt=0.0, lt=1.0)

    @model_validator(mode="after")
    def _check_noise(self) -> Self:
        if self.expert_lr == "auto" and self.noise_batch is None:
            raise ValueError("noise_batch: expected tokens for expert_lr 'auto', got none")
        return self

    def expert_ratio(self, batch: float, tokens_per_choice: float) -> float:
        """Learning rate of experts over that of other weights.

        Parameters
        ----------
        batch
            Tokens of a step.
        tokens_per_choice
            Experts over experts of a token.
        """
        if self.expert_lr != "auto":
            return self.expert_lr
        assert self.noise_batch is not None
        return expert_ratio(tokens_per_choice, batch / self.noise_batch)


def parameter_groups(
    model: nn.Module, weight_decay: float, expert_ratio: float = 1.0
) -> list[dict[str, Any]]:
    """Split the parameters into those that decay and those that do not.

    Parameters
    ----------
    model
        Any module. A head tied to an embedding counts as an embedding.
    weight_decay
        Decay of the matrices.
    expert_ratio
        Learning rate of experts relative to the others.

    Returns
    -------
    list
        Two groups in `torch.optim` form: matrices with ``weight_decay``, and embeddings, norm
        gains and biases with 0. Experts with another learning rate are a third group, and a group
        whose weights are sharded in several ways is split, see `by_mesh`. Each has an ``lr_ratio``
        beside the usual keys.
    """
    embeddings = {
        id(weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for weight in module.parameters(recurse=False)
    }
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    experts: list[nn.Parameter] = []
    for weight in model.parameters():
        if weight.ndim == EXPERT_AXES and expert_ratio != 1.0:
            experts.append(weight)
        elif weight.ndim >= 2 and id(weight) not in embeddings:
            decayed.append(weight)
        else:
            kept.append(weight)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay, "lr_ratio": 1.0},
        {"params": kept, "weight_decay": 0.0, "lr_ratio": 1.0},
    ]
    if experts:
        groups.append({"params": experts, "weight_decay": weight_decay, "lr_ratio": expert_ratio})
    return [{**group, "params": part} for group in groups for part in by_mesh(group["params"])]


def by_mesh(weights: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Part weights by the processes over which they are sharded; whole ones are one part.

    Torch's operations on lists of tensors, of which fused optimizers and gradient clipping are
    made, take no mixture.
    """
    parts: dict[object, list[nn.Parameter]] = {}
    for weight in weights:
        parts.setdefault(getattr(weight, "device_mesh", None), []).append(weight)
    return list(parts.values())


def make_optimizer(
    config: OptimizerConfig, model: nn.Module, expert_ratio: float = 1.0
) -> torch.optim.AdamW:
    """Build the optimizer for a model's parameters.

    The learning rate starts at 0 and is set before every step from the schedule.

    Parameters
    ----------
    config
        Settings.
    model
        The model as it is trained (after sharding, if any).
    expert_ratio
        Learning rate of experts relative to the others, see `OptimizerConfig.expert_ratio`.
    """
    kind = torch.optim.AdamW if config.average_decay is None else AveragingAdamW
    optimizer = kind(
        parameter_groups(model, config.weight_decay, expert_ratio),
        lr=0.0,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )
    if isinstance(optimizer, AveragingAdamW) and config.average_decay is not None:
        optimizer.average_decay = config.average_decay
    return optimizer
