"""Turn a model and its optimizer into 8-bit ones (FP8-LM, arXiv 2310.18313, figure 1).

=====  =========  ==========  ============  ==========  =================
level  products   gradient    weight        moments     bytes of a weight
=====  =========  ==========  ============  ==========  =================
O1     8 bits     E4M3        float16       float32     11
O2     8 bits     E4M3        float16       E4M3, f16   6
O3     8 bits     E4M3        E4M3          E4M3, f16   2 + 5 / N
=====  =========  ==========  ============  ==========  =================

Only the weights of linear layers change, and those of modules that name them: stacks of experts.
Embeddings, norms and biases keep their type and their communication; their moments are those of
the level. With O1 and O2 the float16 weight, which has a
scale, is the master. With O3 its owner of N processes keeps that beside the moments.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from weightwise.distributed.fp8_gradients import Fp8Gradients
from weightwise.distributed.fp8_zero import WholeTensors
from weightwise.fp8.config import LEVELS, Fp8Training, Level
from weightwise.fp8.zero import ZeroAdamW8
from weightwise.numerics.fp8_linear import fp8_model, selecting, update_scales
from weightwise.numerics.scaled_tensor import ScaledTensor
from weightwise.numerics.swap import skipping, swap_linears
from weightwise.optim import AdamW8

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

WEIGHTS = {
    "e4m3": torch.float8_e4m3fn,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
GRADIENTS = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
KEPT = ("lr", "betas", "eps", "weight_decay", "maximize")


def prepare(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    level: Level | Fp8Training = "O2",
    *,
    skip: Collection[str] | Callable[[str], bool] = ("head", "lm_head"),
    **communication: Any,
) -> tuple[nn.Module, AdamW8]:
    """Make a model train in 8 bits; call it before schedulers are made and before compiling.

    Parameters
    ----------
    model
        Changed in place. A module that is no linear layer may name weights in an attribute
        ``low_bit_weights`` and have a method ``multiply_in_8_bits(config)``. Not wrapped for data
        parallelism: where torch.distributed is initialized, gradients are averaged over all
        processes at the end of every backward pass (O1, O2), or when the optimizer steps (O3).
    optimizer
        `torch.optim.AdamW`, `torch.optim.Adam` or `AdamW8` over parameters of the model. Its
        settings and moments are taken over.
    level
        See the module's text; `Fp8Training` for what differs from a level.
    skip
        Layers to leave alone, see `weightwise.numerics.fp8_linear.fp8_model`.
    communication
        Settings of `weightwise.distributed.Fp8Gradients`.

    Returns
    -------
    tuple
        The model, and the optimizer to use from now on.

    Raises
    ------
    ValueError
        If the level is unknown, the optimizer is another one, the model is wrapped or has no
        linear layer to change, or processes have different models or levels.
    """
    if isinstance(level, str) and level not in LEVELS:
        raise ValueError(f"level: expected one of {', '.join(LEVELS)}, got {level!r}")
    training = Fp8Training(level=level) if isinstance(level, str) else level
    check(model, optimizer)
    weights = _weights(model, training, skip)
    if not weights:
        raise ValueError("model: expected linear layers outside of skip, found none")
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        check_alike(model, training)
        _equalize(model)
    whole = WholeTensors(weights) if training.level == "O3" else None
    new = whole.weights if whole else [_stored(one, training.weight) for one in weights]
    new_of = {id(old): one for old, one in zip(weights, new, strict=True)}
    # A weight may stand in other modules, too: tied embeddings.
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in new_of:
                setattr(module, name, new_of[id(parameter)])
    made = _optimizer(optimizer, new_of, training, whole)
    _watch(model, new, made, training, communication)
    return model, made


def _weights(
    model: nn.Module, training: Fp8Training, skip: Collection[str] | Callable[[str], bool]
) -> list[nn.Parameter]:
    """The weights that change; their layers multiply in 8 bits from now on if they are to."""
    if training.products:
        names = fp8_model(model, training.linear, skip=skip)
    else:
        # Exchanged for themselves: the same layers as above.
        names = swap_linears(model, (nn.Linear,), selecting(skip), lambda one: one)
    found = [model.get_submodule(name).weight for name in names]
    is_skipped = skipping(skip)
    for name, module in model.named_modules():
        stacks = getattr(module, "low_bit_weights", ())
        if stacks and not is_skipped(name):
            found += [getattr(module, one) for one in stacks]
            if training.products:
                module.multiply_in_8_bits(training.linear)
    return list({id(one): one for one in found if isinstance(one, nn.Parameter)}.values())


def check(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Refuse what cannot be prepared."""
    if not isinstance(optimizer, (torch.optim.AdamW, torch.optim.Adam, AdamW8)):
        raise ValueError(  # noqa: TRY004, what a user can cause is a ValueError
            f"optimizer: expected AdamW, Adam or AdamW8, got {type(optimizer).__name__}"
        )
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise ValueError(  # noqa: TRY004, what a user can cause is a ValueError
            "model: expected one that is not wrapped in DistributedDataParallel: gradients are "
            "averaged without it"
        )
    if any(hasattr(one, "to_local") for one in model.parameters()):
        raise ValueError("model: expected whole weights, got sharded ones; use level O3 instead")
    known = {id(one) for one in model.parameters()}
    for group in optimizer.param_groups:
        if group.get("amsgrad"):
            raise ValueError("optimizer: expected amsgrad=False")
        if not known.issuperset(map(id, group["params"])):
            raise ValueError("optimizer: expected parameters of the model only")


def check_alike(model: nn.Module, training: Fp8Training) -> None:
    """Refuse processes whose models or levels differ: they would wait for each other in vain."""
    ours = [repr(training)]
    ours += [f"{name} {tuple(one.shape)} {one.dtype}" for name, one in model.named_parameters()]
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, ours)
    for rank, theirs in enumerate(everyones):
        for first, other in zip_longest(everyones[0], theirs, fillvalue="nothing"):
            if first != other:
                raise ValueError(
                    f"model: expected the same in all processes, got {other} in process {rank} "
                    f"and {first} in process 0"
                )


def clip_grad_norm_(model: nn.Module, optimizer: torch.optim.Optimizer, max_norm: float) -> Tensor:
    """Clip gradients to a norm, at every level; returns what the norm was.

    With O1 and O2 `torch.nn.utils.clip_grad_norm_` does the same.
    """
    if isinstance(optimizer, ZeroAdamW8):
        return optimizer.clip_grad_norm_(max_norm)
    return nn.utils.clip_grad_norm_(model.parameters(), max_norm)


def _equalize(model: nn.Module) -> None:
    """Give all processes the weights of the first one."""
    with torch.no_grad():
        for one in (*model.parameters(), *model.buffers()):
            dist.broadcast(one.detach(), 0)


def _stored(weight: Tensor, kind: str) -> nn.Parameter:
    """The weight in what the optimizer moves."""
    if kind == "float32":
        return nn.Parameter(weight.detach().float(), requires_grad=weight.requires_grad)
    made = ScaledTensor.of(weight.detach(), WEIGHTS[kind])
    return nn.Parameter(made, requires_grad=weight.requires_grad)


def _optimizer(
    old: torch.optim.Optimizer,
    new_of: dict[int, nn.Parameter],
    training: Fp8Training,
    whole: WholeTensors | None,
) -> AdamW8:
    """AdamW8 with the settings and moments of another optimizer."""
    first, second = training.moments()
    is_adam = type(old) is torch.optim.Adam and not old.defaults.get("decoupled_weight_decay")
    groups = []
    for group in old.param_groups:
        kept = {
            key: value for key, value in group.items()
            if key not in ("params", "foreach", "fused", "capturable", "differentiable")
        }  # fmt: skip
        kept |= {"exp_avg": first, "exp_avg_sq": second}
        kept.setdefault("decoupled_weight_decay", not is_adam)
        groups.append({**kept, "params": [new_of.get(id(p), p) for p in group["params"]]})
    settings = {key: old.defaults[key] for key in KEPT}
    settings |= {"exp_avg": first, "exp_avg_sq": second, "decoupled_weight_decay": not is_adam}
    made = ZeroAdamW8(groups, whole, **settings) if whole else AdamW8(groups, **settings)
    place_of = {id(one): i for i, one in enumerate(whole.weights)} if whole else {}
    for parameter, state in old.state.items():
        target = new_of.get(id(parameter), parameter)
        if whole and id(target) in place_of:
            master = whole.masters.get(place_of[id(target)])
            if master is None:
                continue
            target = master
        made.state[target] = dict(state)
    if old.state:
        made.load_state_dict(made.state_dict())
    return made


def _watch(
    model: nn.Module,
    weights: list[nn.Parameter],
    optimizer: AdamW8,
    training: Fp8Training,
    communication: dict[str, Any],
) -> None:
    """Gradients in 8 bits, and delayed scales that follow the steps."""
    dtype = GRADIENTS.get(training.gradient)
    small = weights if dtype else []
    changed = set(map(id, small))
    others = [one for one in model.parameters() if id(one) not in changed]
    is_owned = isinstance(optimizer, ZeroAdamW8)
    gradients = Fp8Gradients(
        small, () if is_owned else others, dtype=dtype or torch.float8_e4m3fn, **communication
    )
    if is_owned:
        # Gradients go to their owners when the optimizer steps; until then they are only stored.
        gradients.is_shared = False
    optimizer.fp8_gradients = gradients
    is_alone = not (dist.is_available() and dist.is_initialized())
    over_processes = None if is_alone else _raise_to_largest
    optimizer.register_step_post_hook(lambda *_: update_scales(model, over_processes))


def _raise_to_largest(magnitudes: Tensor) -> None:
    dist.all_reduce(magnitudes, dist.ReduceOp.MAX)
