"""Multiplexing of any model: one set of weights for several blocks (MiniViT, arXiv 2204.07154).

The model keeps its modules, one for each execution. Those of a group get the very same parameters,
and keep normalizations and buffers of their own, so forward code, caches, drop-path rates and layer
numbers go on working, and the gradient of a shared weight is the sum over its executions.
"""

# Shapes: O outputs, I inputs

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Literal, cast, get_args

import torch
from torch import Tensor, nn

from weightwise.multiplex.files import num_unique_parameters
from weightwise.multiplex.grouping import Price, cheapest_groups, even_groups, merging_costs
from weightwise.multiplex.linears import linear_layers, matrix_of
from weightwise.multiplex.local import LocalMix
from weightwise.multiplex.observe import Batch, find_attentions, find_branch, input_products
from weightwise.multiplex.plan import Plan, StagePlan, Transforms
from weightwise.multiplex.stages import Stage, find_stages
from weightwise.multiplex.start import Start, group_start, low_rank
from weightwise.multiplex.transforms import LocalBranch, LowRank, MixedAttention

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

By = Literal["even", "sensitivity"]
PLAN = "multiplex_plan"
NORM_EPS = 1e-6  # of the convolution's normalization


def multiplex(
    model: nn.Module,
    budget: float | None = None,
    *,
    plan: Plan | None = None,
    by: By = "even",
    start: Start = "mean",
    transforms: Transforms | None = None,
    batches: Sequence[Batch] = (),
    keep: Collection[str] = (),
    only: Collection[str] | None = None,
) -> Plan:
    """Let neighbouring blocks of a model share weights, in place.

    With transforms that are neutral at the start, the result computes what the model would with the
    group's weights copied into each block.

    Parameters
    ----------
    model
        Any model with runs of equal blocks. It is changed only if all goes well.
    budget
        Most unique parameters of the result: their number, or below 1 their share of the model's.
    plan
        What to do, instead of a budget and the settings of groups and transforms.
    by
        How groups are chosen: ``even`` runs, or ``sensitivity`` to merging, measured on ``batches``
        if there are any and on weights otherwise.
    start
        Weights of a group: those of its ``first`` block, their ``mean``, or ``data``: the ones that
        change outputs least on ``batches``.
    transforms
        What each execution gets of its own; ``None`` means normalizations only.
    batches
        Inputs of the model: tensors, sequences of arguments, or mappings of named ones. Needed for
        ``data``, and to find places for maps over heads and convolutions.
    keep
        Parts of parameters' dotted names that stay each block's own, such as ``router``.
    only
        Names of the lists of blocks that take part; ``None`` means all.

    Returns
    -------
    The plan, also kept as ``model.multiplex_plan``.

    Raises
    ------
    ValueError
        If the model has no equal blocks, is multiplexed already, cannot take a transform, or the
        budget is out of reach; the message says why.

    References
    ----------
    Zhang et al., MiniViT: Compressing Vision Transformers with Weight Multiplexing, CVPR 2022.
    """
    _check(model, budget, plan, by, start, batches)
    if plan is not None:
        keep, only = plan.keep, [one.name for one in plan.stages]
    stages = find_stages(model, keep=keep, only=only)
    has_products = start == "data" or (plan is None and by == "sensitivity" and batches)
    products = input_products(model, stages, batches) if has_products else {}
    if plan is None:
        assert budget is not None
        places = _places(model, stages, transforms or Transforms(), batches)
        groups = _groups(model, stages, places, budget, by, transforms or Transforms(), products)
        plan = Plan(
            stages=tuple(replace(one, groups=own) for one, own in zip(places, groups, strict=True)),
            transforms=transforms or Transforms(),
            keep=tuple(keep),
        )
    values = _values(model, _matched(stages, plan), plan, start, products)
    share(model, plan)
    _assign(model, values)
    return plan


def share(model: nn.Module, plan: Plan) -> None:
    """Give blocks the same parameters and attach neutral transforms; weights are the first block's.

    Parameters
    ----------
    model
        Newly made original, or any untied model.
    plan
        Which blocks share.

    Raises
    ------
    ValueError
        If the plan does not fit the model.
    """
    if hasattr(model, PLAN):
        raise ValueError("model: expected one that is not multiplexed, got a multiplexed one")
    found = find_stages(model, keep=plan.keep, only=[one.name for one in plan.stages])
    for stage, own in _matched(found, plan):
        blocks = stage.blocks(model)
        for run in own.runs():
            group = [blocks[index] for index in run]
            _tie(group, stage.shared)
            if len(group) > 1:
                for block in group:
                    _attach(block, own, plan.transforms)
    setattr(model, PLAN, plan)


def _check(
    model: nn.Module,
    budget: float | None,
    plan: Plan | None,
    by: By,
    start: Start,
    batches: Sequence[Batch],
) -> None:
    if hasattr(model, PLAN):
        raise ValueError("model: expected one that is not multiplexed, got a multiplexed one")
    if (budget is None) == (plan is None):
        raise ValueError("budget: expected either a budget or a plan")
    if budget is not None and budget <= 0:
        raise ValueError(f"budget: expected a share or a number above 0, got {budget}")
    if by not in get_args(By):
        raise ValueError(f"by: expected even or sensitivity, got {by!r}")
    if start not in get_args(Start):
        raise ValueError(f"start: expected first, mean or data, got {start!r}")
    if start == "data" and not batches:
        raise ValueError("batches: expected some for start data, got none")


def _places(
    model: nn.Module, stages: Sequence[Stage], transforms: Transforms, batches: Sequence[Batch]
) -> list[StagePlan]:
    """Where transforms go; groups are still open."""
    if (transforms.mixes or transforms.kernel) and not batches:
        raise ValueError("batches: expected one at least, to find places for transforms; got none")
    places = []
    for stage in stages:
        deltas = linear_layers(stage.blocks(model)[0], stage.shared) if transforms.rank else {}
        if transforms.rank and not deltas:
            name = stage.block_names(model)[0]
            raise ValueError(f"rank: expected linear layers that {name} can share, found none")
        places.append(
            StagePlan(
                name=stage.name,
                first=stage.first,
                groups=(stage.length,),
                attentions=find_attentions(model, stage, batches[0]) if transforms.mixes else (),
                branch=find_branch(model, stage, batches[0]) if transforms.kernel else None,
                deltas=tuple(deltas),
            )
        )
    return places


def _groups(
    model: nn.Module,
    stages: Sequence[Stage],
    places: Sequence[StagePlan],
    budget: float,
    by: By,
    transforms: Transforms,
    products: Mapping[nn.Module, Tensor],
) -> list[tuple[int, ...]]:
    total = num_unique_parameters(model)
    wanted = int(budget * total) if budget < 1 else int(budget)
    prices = [
        Price(
            length=stage.length,
            shared=stage.num_shared,
            own=_num_own(model, stage, place, transforms),
        )
        for stage, place in zip(stages, places, strict=True)
    ]
    rest = total - sum(price.length * price.shared for price in prices)
    try:
        if by == "even":
            return even_groups(prices, wanted - rest)
        costs = [merging_costs(stage.blocks(model), stage.shared, products) for stage in stages]
        return cheapest_groups(prices, costs, wanted - rest)
    except ValueError as error:
        lacking = getattr(error, "lacking", 0)
        raise ValueError(
            f"budget: expected at least {wanted + lacking:,} parameters, the smallest choice; "
            f"got {wanted:,}"
        ) from error


def _num_own(model: nn.Module, stage: Stage, place: StagePlan, transforms: Transforms) -> int:
    """Parameters of one execution's transforms."""
    made = _modules(stage.blocks(model)[0], place, transforms)
    return sum(one.numel() for module in made.values() for one in module.parameters())


def _modules(
    block: nn.Module, own: StagePlan, transforms: Transforms
) -> dict[str, MixedAttention | LocalBranch | LowRank]:
    """New transforms of a block, by where they go: kind and module."""
    made: dict[str, MixedAttention | LocalBranch | LowRank] = {}
    for one in own.attentions:
        made[f"attention {one.name}"] = MixedAttention(one.num_heads, bias=transforms.mix_bias)
    if own.branch is not None:
        mix = LocalMix(own.branch.width, transforms.kernel, residual="kept", eps=NORM_EPS)
        made[f"branch {own.branch.name}"] = LocalBranch(mix, own.branch.num_prefix)
    for name in own.deltas:
        outputs, inputs = matrix_of(block.get_submodule(name)).shape
        rank = min(transforms.rank, outputs, inputs)
        made[f"delta {name}"] = LowRank(torch.zeros(rank, inputs), torch.zeros(outputs, rank))
    return made


def _attach(block: nn.Module, own: StagePlan, transforms: Transforms) -> None:
    like = next(block.parameters())
    for place, module in _modules(block, own, transforms).items():
        module.to(device=like.device, dtype=like.dtype)
        target = block.get_submodule(place.partition(" ")[2])
        if isinstance(module, LocalBranch):
            module.attach(block, target)
        else:
            module.attach(target)


def _tie(group: Sequence[nn.Module], shared: Sequence[str]) -> None:
    for name in shared:
        parent, _, leaf = name.rpartition(".")
        for block in group[1:]:
            setattr(block.get_submodule(parent), leaf, group[0].get_parameter(name))


def _matched(stages: Sequence[Stage], plan: Plan) -> list[tuple[Stage, StagePlan]]:
    """Stages of a model beside those of a plan."""
    known = {(stage.name, stage.first): stage for stage in stages}
    pairs = []
    for own in plan.stages:
        stage = known.get((own.name, own.first))
        length = 0 if stage is None else stage.length
        if stage is None or sum(own.groups) != length:
            raise ValueError(
                f"plan: expected {sum(own.groups)} equal blocks in {own.name} from {own.first} on, "
                f"found {length}"
            )
        pairs.append((stage, own))
    return pairs


Values = list[tuple[str, Tensor]]


def _values(
    model: nn.Module,
    pairs: Sequence[tuple[Stage, StagePlan]],
    plan: Plan,
    start: Start,
    products: Mapping[nn.Module, Tensor],
) -> Values:
    """Start of shared weights and of what is added to them, by dotted name."""
    found: Values = []
    for stage, own in pairs:
        blocks, names = stage.blocks(model), stage.block_names(model)
        for run in own.runs():
            if len(run) == 1:
                continue
            values = group_start([blocks[i] for i in run], stage.shared, start, products)
            found += [(f"{names[run[0]]}.{name}", one) for name, one in values.items()]
            for index, name in product(run, own.deltas):
                layer = blocks[index].get_submodule(name)
                delta = _delta(layer, values[f"{name}.weight"], plan)
                found += [(f"{names[index]}.{name}.delta.{key}", one) for key, one in delta]
    return found


def _delta(layer: nn.Module, value: Tensor, plan: Plan) -> Values:
    matrix_OI = matrix_of(layer)
    shared_OI = value if isinstance(layer, nn.Linear) else value.T
    down_KI, up_OK = low_rank(matrix_OI - shared_OI, plan.transforms.rank)
    return [("down", down_KI), ("up", up_OK if plan.transforms.delta == "fit" else 0 * up_OK)]


@torch.no_grad()
def _assign(model: nn.Module, values: Values) -> None:
    for name, value in values:
        cast("Tensor", model.get_parameter(name)).copy_(value)
