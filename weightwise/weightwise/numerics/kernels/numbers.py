"""What callers must know of the loops over stored elements: their types, and a step of Adam."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    import numpy as np

STORED = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
REFUSED = 3  # place in an array of largest magnitudes, behind weights and both moments


class Numbers(NamedTuple):
    """What a step needs to know of a tensor, float32 each.

    Parameters
    ----------
    weight_down, gradient_down
        Multiply what is stored, on the way in; the gradient's also has the sign.
    keep_first, keep_second
        The same for moments, times the share of them that is kept.
    first_up, second_up
        Multiply new moments, on the way out.
    take_first, take_second
        Shares of the gradient and of its square in new moments.
    step
        Learning rate over the bias corrections of both moments.
    eps
        Added to the root, over the second moment's correction.
    shrink
        What decoupled weight decay leaves of a parameter, times ``weight_down``.
    pull
        Share of the parameter that is added to the gradient: decay as in Adam.
    """

    weight_down: np.float32
    gradient_down: np.float32
    keep_first: np.float32
    keep_second: np.float32
    first_up: np.float32
    second_up: np.float32
    take_first: np.float32
    take_second: np.float32
    step: np.float32
    eps: np.float32
    shrink: np.float32
    pull: np.float32
