"""What happens to one image in training, drawn from its seed: crop, flip, colours, erasing.

Drawing and doing are apart. `draw_plan` turns a seed into a `Plan`, which says everything in
shares of the image or in its pixels before cropping; `render` carries a plan out for a view of
any size. So a student and a teacher of different sizes see the same crop, the same operations
and the same erased share, and a plan can be read, stored and tested without any pixel.

Order of the draws: crop (area, ratio, place; up to ten times), flip, operations (their numbers;
then for each whether, magnitude and sign), erasing (whether; area, ratio; place; noise).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

from weightwise.images.ops import OPERATIONS, Colour
from weightwise.images.randomness import chance, generator_of, integer, uniform

if TYPE_CHECKING:
    from numpy.random import Generator

# After so many misses, a crop or an erased rectangle is given up (Zhong et al. 2020; Szegedy
# et al. 2015 as commonly implemented).
TRIES = 10
# Of erasing: share of the area, and ratio of height to width (Zhong et al., arXiv 1708.04896).
ERASED_AREA, ERASED_RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)
_NAMES = tuple(OPERATIONS)
_JITTERED = ("brightness", "contrast", "color")


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """A few operations of a set of 15; the default is ``rand-m9-mstd0.5-inc1``.

    Parameters
    ----------
    magnitude, std
        Magnitude of an operation, out of 10, is normal with this mean and deviation, clipped.
    num_ops
        Operations drawn for an image, with replacement.
    prob
        Probability that a drawn operation is applied.
    """

    magnitude: float = 9.0
    std: float = 0.5
    num_ops: int = 2
    prob: float = 0.5

    def __post_init__(self) -> None:
        _require("magnitude", self.magnitude, 0, 10)
        _require("std", self.std, 0, 100)
        _require("num_ops", self.num_ops, 0, 15)
        _require("prob", self.prob, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The random part of training transforms; defaults as in TinyViT's recipes.

    Parameters
    ----------
    scale, ratio
        Ranges of the crop: share of the area, and width over height (log-uniform).
    flip_prob
        Probability of a horizontal flip.
    rand_augment
        Operations, or none.
    jitter
        Without ``rand_augment``: brightness, contrast and saturation, in random order, change by
        a factor in 1 - jitter ... 1 + jitter.
    erase_prob
        Probability that a rectangle becomes normal noise.
    fill
        Colour of what rotations and shifts bring in; ImageNet's mean.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_prob: float = 0.5
    rand_augment: RandAugment | None = field(default_factory=RandAugment)
    jitter: float = 0.4
    erase_prob: float = 0.25
    fill: Colour = (124, 116, 104)

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale: expected 0 < lowest <= highest <= 1, got {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise ValueError(f"ratio: expected 0 < lowest <= highest, got {self.ratio}")
        _require("flip_prob", self.flip_prob, 0, 1)
        _require("jitter", self.jitter, 0, 1)
        _require("erase_prob", self.erase_prob, 0, 1)
        for value in self.fill:
            _require("fill", value, 0, 255)


@dataclass(frozen=True, kw_only=True)
class Erasing:
    """A rectangle that becomes noise.

    Parameters
    ----------
    height, width
        Shares of the sides, below 1.
    top, left
        Place, as a share of the places that there are.
    noise_seed
        Seed of the noise, so that every view has noise of its own size.
    """

    height: float
    width: float
    top: float
    left: float
    noise_seed: int

    def box(self, size: int) -> tuple[int, int, int, int]:
        """Rectangle in a square view.

        Parameters
        ----------
        size
            Side of the view in pixels, S.

        Returns
        -------
        tuple
            Top, left, height and width in pixels; inside the view.
        """
        height, width = (min(round(size * share), size - 1) for share in (self.height, self.width))
        top, left = (
            min(int(share * (size - side + 1)), size - side)
            for share, side in ((self.top, height), (self.left, width))
        )
        return top, left, height, width


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that was drawn for an image.

    Parameters
    ----------
    crop
        Left, top, width and height in pixels of the source.
    is_flipped
        Whether left and right change places.
    ops
        Names and arguments of operations, in order.
    erasing
        The rectangle, or none.
    """

    crop: tuple[int, int, int, int]
    is_flipped: bool
    ops: tuple[tuple[str, float], ...]
    erasing: Erasing | None


def draw_plan(config: Augmentation, seed: int, width: int, height: int) -> Plan:
    """Draw everything for an image.

    Parameters
    ----------
    config
        What may happen.
    seed
        Seed of the sample, at least 0.
    width, height
        Size of the source in pixels.
    """
    rng = generator_of(seed)
    return Plan(
        crop=_draw_crop(rng, config, width, height),
        is_flipped=chance(rng, config.flip_prob),
        ops=_draw_jitter(rng, config.jitter)
        if config.rand_augment is None
        else _draw_ops(rng, config.rand_augment),
        erasing=_draw_erasing(rng) if chance(rng, config.erase_prob) else None,
    )


def render(image: Image.Image, plan: Plan, size: int, fill: Colour) -> Image.Image:
    """Crop, resize, flip and change colours.

    Parameters
    ----------
    image
        RGB image.
    plan
        What to do.
    size
        Side of the square result.
    fill
        Colour of what comes in from outside.

    Returns
    -------
    Image
        RGB image of S x S pixels, not yet erased.
    """
    left, top, width, height = plan.crop
    image = image.crop((left, top, left + width, top + height))
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    if plan.is_flipped:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for name, argument in plan.ops:
        image = OPERATIONS[name].apply(image, argument, fill)
    return image


def _draw_crop(
    rng: Generator, config: Augmentation, width: int, height: int
) -> tuple[int, int, int, int]:
    low, high = math.log(config.ratio[0]), math.log(config.ratio[1])
    for _ in range(TRIES):
        area = width * height * uniform(rng, *config.scale)
        ratio = math.exp(uniform(rng, low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = integer(rng, 0, height - h)
            return integer(rng, 0, width - w), top, w, h
    # The largest centred crop whose ratio lies in the range.
    w = min(width, max(1, round(height * config.ratio[1])))
    h = min(height, max(1, round(width / config.ratio[0])))
    return (width - w) // 2, (height - h) // 2, w, h


def _draw_ops(rng: Generator, config: RandAugment) -> tuple[tuple[str, float], ...]:
    names = [_NAMES[integer(rng, 0, len(_NAMES) - 1)] for _ in range(config.num_ops)]
    ops = []
    for name in names:
        is_applied = chance(rng, config.prob)
        magnitude = min(max(config.magnitude + config.std * rng.standard_normal(), 0.0), 10.0)
        sign = -1 if chance(rng, 0.5) else 1
        if is_applied:
            ops.append((name, OPERATIONS[name].argument(magnitude / 10, sign)))
    return tuple(ops)


def _draw_jitter(rng: Generator, jitter: float) -> tuple[tuple[str, float], ...]:
    if not jitter:
        return ()
    order = sorted((rng.random(), name) for name in _JITTERED)
    return tuple((name, uniform(rng, 1 - jitter, 1 + jitter)) for _, name in order)


def _draw_erasing(rng: Generator) -> Erasing | None:
    low, high = math.log(ERASED_RATIO[0]), math.log(ERASED_RATIO[1])
    for _ in range(TRIES):
        area = uniform(rng, *ERASED_AREA)
        ratio = math.exp(uniform(rng, low, high))
        height, width = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if height < 1 and width < 1:
            return Erasing(
                height=height, width=width, top=rng.random(), left=rng.random(),
                noise_seed=integer(rng, 0, 2**31 - 1),
            )  # fmt: skip
    return None


def _require(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}: expected {low} to {high}, got {value}")
