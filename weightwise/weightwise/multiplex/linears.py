"""The linear layers of a block, seen as matrices, whoever made them.

Besides `torch.nn.Linear` these are the ``Conv1D`` layers of transformers, which hold the transpose.
A subclass counts if it computes what a linear layer does; one with an activation in it does not.
"""

# Shapes: O outputs, I inputs

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

if TYPE_CHECKING:
    from collections.abc import Collection

TRANSPOSED = "Conv1D"


def linear_layers(block: nn.Module, shared: Collection[str]) -> dict[str, nn.Module]:
    """Linear layers of a block whose weight is shared, by their names within it."""
    return {
        name: layer
        for name, layer in block.named_modules()
        if f"{name}.weight" in shared and _is_linear(layer)
    }


def matrix_of(layer: nn.Module) -> Tensor:
    """Weight of a linear layer, shape (O, I), detached; a view."""
    weight = cast("Tensor", layer.weight).detach()
    return weight if isinstance(layer, nn.Linear) else weight.T


def stored(layer: nn.Module, matrix_OI: Tensor) -> Tensor:
    """Turn such a matrix into what the layer keeps."""
    return matrix_OI if isinstance(layer, nn.Linear) else matrix_OI.T.contiguous()


def _is_linear(layer: nn.Module) -> bool:
    if type(layer).__name__ == TRANSPOSED:
        return True
    # Attention of torch reads the weight of such a layer without calling the layer.
    if not isinstance(layer, nn.Linear) or isinstance(layer, NonDynamicallyQuantizableLinear):
        return False
    if type(layer) is nn.Linear or layer.weight.is_meta:
        return True
    # Both signs, so that an activation shows.
    probe = torch.linspace(-2.0, 2.0, 2 * layer.in_features).view(2, -1).to(layer.weight)
    with torch.no_grad():
        return torch.equal(layer(probe), F.linear(probe, layer.weight, layer.bias))
