"""Linear layers of a model swapped for others of the same parameters, in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def swap_linears(
    model: nn.Module,
    kinds: tuple[type[nn.Linear], ...],
    is_selected: Callable[[str, nn.Linear], bool],
    rebuild: Callable[[nn.Linear], nn.Linear],
) -> list[str]:
    """Rebuild the selected layers in place; a layer under several names is rebuilt once.

    Parameters
    ----------
    model
        Only layers inside of it are swapped.
    kinds
        Exact types of layers that may be. Subclasses of other makers have a forward pass of their
        own: not ours to replace.
    is_selected
        Decides by dotted name and layer.
    rebuild
        Returns a layer that owns the very same parameters.

    Returns
    -------
    Dotted names of the layers swapped, in the order of ``model.named_modules()``.
    """
    rebuilt: dict[nn.Module, nn.Linear] = {}
    names = []
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if not name or type(module) not in kinds:
            continue
        assert isinstance(module, nn.Linear)
        if is_selected(name, module):
            if module not in rebuilt:
                rebuilt[module] = rebuild(module).train(module.training)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, rebuilt[module])
            names.append(name)
    return names


def skipping(skip: Collection[str] | Callable[[str], bool]) -> Callable[[str], bool]:
    """Whether a dotted name is to be skipped: a predicate, or names that stand anywhere in it."""
    return skip if callable(skip) else lambda name: not set(skip).isdisjoint(name.split("."))
