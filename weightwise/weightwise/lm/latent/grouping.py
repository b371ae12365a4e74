"""Which neighbouring layers share a latent best, given how many latents there may be.

Layers differ in how much of their keys and values an earlier layer's input tells: often the first
one tells little of all others, and groups of one size put it in front of some nevertheless. As
many groups of unequal size take the same bytes. `sharing_errors` measures on calibration text what
each layer loses behind each leader, and `best_sizes` splits the layers so that the sum is smallest:
with c(a, b) that of the group of layers a to b - 1, the smallest sum of the first b layers in k
groups is

    E(k, b) = min over a < b of E(k - 1, a) + c(a, b)

All layers count alike, whatever the size of their outputs. What rope keys and ranks lose is left
out: a trial on text shows that.
"""

# Shapes: L layers, D model width

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from weightwise.lm.config import LayerGroup, layer_groups
from weightwise.lm.latent.joint_svd import JointSVD
from weightwise.lm.latent.moments import gather

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from torch import Tensor

    from weightwise.lm.latent.config import LatentConfig
    from weightwise.lm.model import LanguageModel

LONGEST_GROUP = 6  # layers; moments of so many leaders are kept for each layer


def sharing_errors(
    model: LanguageModel, batches: Iterable[Tensor], *, longest: int = LONGEST_GROUP
) -> NDArray[np.float64]:
    """Measure what each layer loses behind each leader, shape (L, L), shares of 1.

    Row a, column b is the share of the weighted keys and values of layer b that no linear map of
    the input of layer a tells. It is infinite where b is before a, or ``longest`` layers behind it.

    Parameters
    ----------
    model
        The model to convert, in evaluation mode and float32; its attention is of one kind.
    batches
        Calibration text: token ids, each of shape (B, T).
    longest
        Layers of the longest group, at least 1.

    Raises
    ------
    ValueError
        If there is no text.
    """
    num_layers = model.config.num_layers
    attention = layer_groups(model.config)[0].attention
    groups = [
        LayerGroup(
            index=first, first=first, end=min(first + longest, num_layers), attention=attention
        )
        for first in range(num_layers)
    ]
    error_LL = np.full((num_layers, num_layers), np.inf)
    for group, moments in zip(groups, gather(model, groups, batches), strict=True):
        error_LL[group.first, group.first : group.end] = JointSVD(moments).sharing_errors()
    return error_LL


def best_sizes(error_LL: NDArray[np.float64], num_groups: int) -> tuple[int, ...] | None:
    """Split layers into groups with the smallest sum of errors.

    Parameters
    ----------
    error_LL
        From `sharing_errors`.
    num_groups
        How many groups, at least 1 and at most as many as there are layers.

    Returns
    -------
    sizes
        Layers of each group; ``None`` if so few groups are longer than was measured.
    """
    num_layers = len(error_LL)
    cost = [np.concatenate(([0.0], np.cumsum(row[at:]))) for at, row in enumerate(error_LL)]
    best = np.full((num_groups + 1, num_layers + 1), np.inf)
    cut = np.zeros((num_groups + 1, num_layers + 1), dtype=int)
    best[0, 0] = 0.0
    for groups in range(1, num_groups + 1):
        for end in range(groups, num_layers + 1):
            sums = [best[groups - 1, at] + cost[at][end - at] for at in range(end)]
            cut[groups, end] = int(np.argmin(sums))
            best[groups, end] = sums[cut[groups, end]]
    if not np.isfinite(best[num_groups, num_layers]):
        return None
    sizes, end = [], num_layers
    for groups in range(num_groups, 0, -1):
        at = int(cut[groups, end])
        sizes.append(end - at)
        end = at
    return tuple(reversed(sizes))


def unequal(layout: LatentConfig, error_LL: NDArray[np.float64]) -> LatentConfig:
    """The same layout with as many groups, of the sizes that lose the least by sharing.

    Parameters
    ----------
    layout
        How layers share, and what they keep.
    error_LL
        From `sharing_errors`.

    Returns
    -------
    layout
        The one that was given, if its sizes are the best already.
    """
    given = layout.sizes(len(error_LL))
    sizes = best_sizes(error_LL, len(given))
    if sizes in (None, given):
        return layout
    return replace(layout, share_factor=1, keep_ends=0, group_sizes=sizes)
