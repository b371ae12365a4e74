"""What a model does with a batch: where it attends, where branches join, what layers are given.

Names and settings do not say these in models of others, so one run tells. The model is put into
evaluation mode for it and gets its modes back.
"""

# Shapes: B images or texts, M heads, C channels, I inputs of a layer, R rows of all batches

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightwise.multiplex.linears import linear_layers
from weightwise.multiplex.plan import Attention, Branch
from weightwise.multiplex.transforms import Intercept, first_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weightwise.multiplex.stages import Stage

Batch = Tensor | Sequence[Any] | Mapping[str, Any]
MOST_PREFIX = 16  # class, distillation and register tokens
LEAST_MAP = 4  # two by two
TOLERANCE = 1e-4


def call(model: nn.Module, batch: Batch) -> Any:
    """Run a model on a tensor, a sequence of arguments, or a mapping of named ones."""
    if isinstance(batch, Tensor):
        return model(batch)
    return model(**batch) if isinstance(batch, Mapping) else model(*batch)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients for a while."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def find_attentions(model: nn.Module, stage: Stage, batch: Batch) -> tuple[Attention, ...]:
    """Find the modules of a stage's blocks that call torch's fused attention.

    Raises
    ------
    ValueError
        If there is none: maps over heads cannot be put there.
    """
    block = stage.blocks(model)[0]
    inside: list[str] = []
    heads: dict[str, int] = {}

    def attend(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if inside and query.dim() == 4:
            heads[inside[-1]] = query.shape[1]
        return F.scaled_dot_product_attention(query, *args, **kwargs)

    with evaluating(model), ExitStack() as stack:
        for name, module in block.named_modules():
            enter = module.register_forward_pre_hook(lambda *_, name=name: inside.append(name))
            leave = module.register_forward_hook(lambda *_: _dropped(inside), always_call=True)
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        stack.enter_context(Intercept(attend))
        call(model, batch)
    if not heads:
        raise ValueError(
            f"mixes: {stage.block_names(model)[0]} does not call "
            "torch.nn.functional.scaled_dot_product_attention, so there is nothing to put maps "
            "into; leave mixes out, or build models of transformers with "
            'attn_implementation="sdpa" and those of timm with fused_attn on'
        )
    return tuple(Attention(name=name, num_heads=number) for name, number in heads.items())


def _dropped(names: list[str]) -> None:
    names.pop()


def find_branch(model: nn.Module, stage: Stage, batch: Batch) -> Branch:
    """Find the module of a stage's blocks whose output is added to the block's input.

    Parameters
    ----------
    model, stage
        Blocks ``x <- x + a(x)``, then more.
    batch
        Input.

    Returns
    -------
    The last module that gives ``a``, so that scales and drop-path lie before the convolution.

    Raises
    ------
    ValueError
        If there is none, or tokens form no map.
    """
    block, name = stage.blocks(model)[0], stage.block_names(model)[0]
    x, given, taken = _record(model, block, batch)
    found = None
    for index, (out, module_name) in given:
        if out.shape == x.shape and out.any():
            wanted = x + out
            later = [one for when, one in taken if when > index and one.numel() == x.numel()]
            if any(_is_close(one.reshape(x.shape), wanted) for one in later):
                found = module_name
    if found is None:
        raise ValueError(f"kernel: no part of {name} gives what is added to the block's input")
    if x.dim() == 4:
        return Branch(name=found, width=x.shape[-1], num_prefix=0)
    if x.dim() != 3:
        raise ValueError(f"kernel: {name} works on {tuple(x.shape)}, not on tokens or a map")
    return Branch(name=found, width=x.shape[-1], num_prefix=_num_prefix(x.shape[1], name))


Calls = list[tuple[int, tuple[Tensor, str]]]


def _record(
    model: nn.Module, block: nn.Module, batch: Batch
) -> tuple[Tensor, Calls, list[tuple[int, Tensor]]]:
    """Input of a block, and what its modules give and take, with the order of calls."""
    inputs: list[Tensor] = []
    given: Calls = []
    taken: list[tuple[int, Tensor]] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = first_tensor(args, kwargs).clone()
        if module is block:
            inputs.append(x)
        else:
            taken.append((len(given), x))

    def after(name: str, out: Any) -> None:
        first = out if isinstance(out, Tensor) else out[0]
        if isinstance(first, Tensor):
            given.append((len(given), (first.clone(), name)))

    with evaluating(model), ExitStack() as stack:
        for name, module in block.named_modules():
            enter = module.register_forward_pre_hook(before, with_kwargs=True)
            leave = module.register_forward_hook(lambda _, __, out, name=name: after(name, out))
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        call(model, batch)
    return inputs[0], given[:-1], taken  # the last output is the block's


def _is_close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).norm() <= TOLERANCE * other.norm())


def _num_prefix(num_tokens: int, name: str) -> int:
    for number in range(MOST_PREFIX + 1):
        rest = num_tokens - number
        if rest >= LEAST_MAP and math.isqrt(rest) ** 2 == rest:
            return number
    raise ValueError(f"kernel: {num_tokens} tokens of {name} are no square map, prefix or not")


def input_products(
    model: nn.Module, stages: Sequence[Stage], batches: Sequence[Batch]
) -> dict[nn.Module, Tensor]:
    """Sum the products of the inputs of all linear layers that can be shared.

    Parameters
    ----------
    model, stages
        Untied model, and its blocks.
    batches
        Inputs; the more, the better they stand for the task.

    Returns
    -------
    ``X^T X`` of each layer that was called, shape (I, I), in float64.
    """
    sums: dict[nn.Module, Tensor] = {}

    def add(layer: nn.Module, args: tuple[Any, ...], _: Any) -> None:
        x_RI = args[0].detach().flatten(0, -2).double()
        product_II = x_RI.T @ x_RI
        sums[layer] = sums[layer] + product_II if layer in sums else product_II

    with evaluating(model), ExitStack() as stack:
        for stage in stages:
            for block in stage.blocks(model):
                for layer in linear_layers(block, stage.shared).values():
                    # After the call: layers with such a hook are really called by all models.
                    stack.callback(layer.register_forward_hook(add).remove)
        for batch in batches:
            call(model, batch)
    return sums
