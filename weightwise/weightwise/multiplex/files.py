"""Tensors of a model with shared weights, each once.

In a model whose blocks share, several names stand for one parameter. A file holds it under the
first of them; reading takes any, so that files survive another order of modules.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_NAMES = 6  # in a message


def unique_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a model, without repetitions.

    Parameters
    ----------
    model
        Any model, tied or not.

    Returns
    -------
    One detached tensor for each storage, under its first name; all are contiguous.
    """
    tensors = model.state_dict(keep_vars=True)
    return {
        names[0]: tensors[names[0]].detach().contiguous() for names in _aliases(tensors).values()
    }


@torch.no_grad()
def load_unique(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a model; nothing is changed unless all fit.

    Parameters
    ----------
    model
        Model whose blocks share as those of the saved one did.
    tensors
        What `unique_state_dict` gave, or a whole state dict.

    Raises
    ------
    ValueError
        If tensors are missing, unknown or of another shape; the message names them.
    """
    own = model.state_dict(keep_vars=True)
    missing, shapes, pairs = [], [], []
    for names in _aliases(own).values():
        name = next((one for one in names if one in tensors), None)
        if name is None:
            missing.append(names[0])
        elif tensors[name].shape != own[name].shape:
            found, wanted = tuple(tensors[name].shape), tuple(own[name].shape)
            shapes.append(f"{name} {found} instead of {wanted}")
        else:
            pairs.append((own[name], tensors[name]))
    problems = {
        "missing": missing,
        "unknown": [name for name in tensors if name not in own],
        "of another shape": shapes,
    }
    lines = [f"{len(names)} {what}: {_some(names)}" for what, names in problems.items() if names]
    if lines:
        raise ValueError(f"tensors: expected those of the model; {'; '.join(lines)}")
    for target, source in pairs:
        target.copy_(source)


def num_unique_parameters(model: nn.Module) -> int:
    """Count each parameter once, as a file and an optimizer hold it."""
    return sum(one.numel() for one in model.parameters())


def num_unrolled_parameters(model: nn.Module) -> int:
    """Count each parameter as often as blocks use it: the size of the model without sharing.

    Uses under names that differ in more than their numbers, such as an output layer tied to the
    embedding, count once, as such models are usually counted.
    """
    return sum(one.numel() * times for one, times in multiplicities(model).items())


def multiplicities(model: nn.Module) -> dict[nn.Parameter, int]:
    """How many blocks use each parameter."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, one in model.named_parameters(remove_duplicate=False):
        names.setdefault(one, []).append(name)
    return {
        one: max(Counter(re.sub(r"\d+", "#", name) for name in known).values())
        for one, known in names.items()
    }


def _aliases(tensors: Mapping[str, Tensor]) -> dict[object, list[str]]:
    """Names of each tensor."""
    found: dict[object, list[str]] = {}
    for name, one in tensors.items():
        found.setdefault(_identity(one), []).append(name)
    return found


def _identity(one: Tensor) -> object:
    if one.is_meta or one.numel() == 0:
        return id(one)  # no storage to tell it by
    place = one.untyped_storage().data_ptr(), one.storage_offset()
    return (*place, one.shape, one.stride(), one.dtype)


def _some(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
