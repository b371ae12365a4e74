"""Runs of equal blocks in any model: what can share one set of weights.

A stage is a run of neighbouring modules of one `torch.nn.ModuleList` or `torch.nn.Sequential` that
are of one class and whose parameters have the same names and shapes. What is no parameter, such as
the shift of a window or a drop-path rate, may differ; nor do transforms of this package count.

Shared are parameters of modules that have a weight of two or more axes: projections with their
biases, convolutions, tables, stacks of experts. What stands in modules of vectors only stays each
block's own: normalizations, scales of layers, gains.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn

from weightwise.multiplex.transforms import TRANSFORMS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

LEAST_MATRICES = 2  # of a block; a single layer is none
MOST_REASONS = 4  # in a message


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A run of blocks that can share weights.

    Parameters
    ----------
    name
        Dotted name of the list that holds the blocks.
    first
        Index of the first block in that list.
    length
        Blocks.
    shared
        Parameters that the blocks can share, by their names within a block.
    num_shared
        Numbers in them, of one block.
    """

    name: str
    first: int
    length: int
    shared: tuple[str, ...]
    num_shared: int

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        """Blocks of the stage in a model."""
        children = list(model.get_submodule(self.name).children())
        return children[self.first : self.first + self.length]

    def block_names(self, model: nn.Module) -> list[str]:
        """Dotted names of the blocks."""
        names = [name for name, _ in model.get_submodule(self.name).named_children()]
        return [_joined(self.name, one) for one in names[self.first : self.first + self.length]]


def find_stages(
    model: nn.Module, *, keep: Collection[str] = (), only: Collection[str] | None = None
) -> list[Stage]:
    """Find the runs of equal blocks.

    Lists inside of a block that is found are its own matter, and lists of experts are not run one
    after the other, so neither is looked at.

    Parameters
    ----------
    model
        Any model.
    keep
        Parts of parameters' dotted names, such as ``router``, that stay each block's own.
    only
        Names of the lists to look at; ``None`` means all.

    Returns
    -------
    Stages in the model's order, at least one.

    Raises
    ------
    ValueError
        If there is none; the message says which blocks differ, and where.
    """
    stages, reasons = _search(model, keep, only)
    if stages:
        return stages
    if only is not None:
        found = ", ".join(name for name, _ in _lists(model)) or "none"
        reasons = reasons or [f"there is no list of blocks {', '.join(only)}, only {found}"]
    some = "; ".join(reasons[:MOST_REASONS]) or "it has no list of blocks"
    raise ValueError(f"model: expected neighbouring blocks with the same parameters: {some}")


def differences(model: nn.Module) -> list[str]:
    """Say where neighbouring blocks differ, so that they cannot share; empty if they all can."""
    return _search(model, (), None)[1]


def _search(
    model: nn.Module, keep: Collection[str], only: Collection[str] | None
) -> tuple[list[Stage], list[str]]:
    stages: list[Stage] = []
    reasons: list[str] = []
    seen: list[str] = []  # blocks of stages, whose insides are not looked at
    for name, container in _lists(model):
        if only is not None and name not in only:
            continue
        if any(name == one or name.startswith(one + ".") for one in seen):
            continue
        for stage, reason in _runs(name, container, keep):
            if stage is not None:
                stages.append(stage)
                seen += stage.block_names(model)
            if reason:
                reasons.append(reason)
    return stages, reasons


def _lists(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Lists that may hold blocks, outer ones first."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential) and "expert" not in name:
            matrices = [_num_matrices(child) for child in module.children()]
            if sum(number >= LEAST_MATRICES for number in matrices) > 1:
                yield name, module


def _num_matrices(block: nn.Module) -> int:
    return sum(one.dim() > 1 for one in _parameters(block).values())


def _runs(
    name: str, container: nn.Module, keep: Collection[str]
) -> Iterator[tuple[Stage | None, str]]:
    """Stages of one list, and reasons why a run ends before the list does."""
    children = list(container.named_children())
    start = 0
    reasons = [_difference(name, one, other) for one, other in pairwise(children)]
    for end, reason in enumerate([*reasons, "end"], start=1):
        if not reason:
            continue
        block = children[start][1]
        shared = _shared(block, keep)
        if end - start > 1 and _num_matrices(block) >= LEAST_MATRICES and shared:
            numbers = _parameters(block)
            yield (
                Stage(
                    name=name,
                    first=start,
                    length=end - start,
                    shared=shared,
                    num_shared=sum(one.numel() for one in {numbers[key] for key in shared}),
                ),
                "",
            )
        if end < len(children):
            yield None, reason
        start = end


def _difference(name: str, one: tuple[str, nn.Module], other: tuple[str, nn.Module]) -> str:
    """How two blocks differ; empty if they can share."""
    pair = f"{_joined(name, one[0])} and {_joined(name, other[0])} differ"
    if type(one[1]) is not type(other[1]):
        return f"{pair}: {type(one[1]).__name__} and {type(other[1]).__name__}"
    first, second = _parameters(one[1]), _parameters(other[1])
    for key in [*first, *second]:
        if key not in first or key not in second:
            where = _joined(name, (one if key in first else other)[0])
            return f"{pair}: {key} is only in {where}"
        if first[key].shape != second[key].shape:
            return f"{pair}: {key} is {tuple(first[key].shape)} and {tuple(second[key].shape)}"
    return ""


def _shared(block: nn.Module, keep: Collection[str]) -> tuple[str, ...]:
    parameters = _parameters(block)
    with_matrix = {name.rpartition(".")[0] for name, one in parameters.items() if one.dim() > 1}
    names = [name for name in parameters if name.rpartition(".")[0] in with_matrix]
    return tuple(one for one in names if set(keep).isdisjoint(one.split(".")))


def _parameters(block: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of a block, but for those that tell executions of shared weights apart."""
    own = [name for name, module in block.named_modules() if isinstance(module, TRANSFORMS)]
    return {
        name: one
        for name, one in block.named_parameters(remove_duplicate=False)
        if not any(name.startswith(f"{prefix}.") for prefix in own)
    }


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
