"""From an RGB image and a seed to the tensors that models see.

A view is a size with the mean and deviation a model was trained with. A training transform may
have several, say the student's and the teacher's: the random part is the same for all, pixels are
normalised for each. Evaluation draws nothing.
"""

# Shapes: C = 3 channels, S side of a view, H height, W width

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from PIL import Image

from weightwise.images.augment import Augmentation, draw_plan, render
from weightwise.images.randomness import generator_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from weightwise.images.augment import Erasing

    Array = NDArray[np.float32]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Statistics of CLIP's image towers (Radford et al. 2021, released code).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# Side of the resized image over the side of the crop, in evaluation.
EVAL_RATIO = 256 / 224


@dataclass(frozen=True, kw_only=True)
class View:
    """What one model sees of an image.

    Parameters
    ----------
    size
        Side S of the square in pixels, 2 to 4096.
    mean, std
        Statistics of the three channels, of values in [0, 1]; ImageNet's by default.
    """

    size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not 2 <= self.size <= 4096:
            raise ValueError(f"size: expected 2 to 4096 pixels, got {self.size}")
        if not all(0 <= value <= 1 for value in self.mean):
            raise ValueError(f"mean: expected values in [0, 1], got {self.mean}")
        if not all(0 < value <= 10 for value in self.std):
            raise ValueError(f"std: expected values in (0, 10], got {self.std}")

    def normalize(self, image: Image.Image) -> Array:
        """Turn pixels into numbers of mean 0 and deviation 1.

        Parameters
        ----------
        image
            RGB image of H x W pixels.

        Returns
        -------
        ndarray
            (pixel / 255 - mean) / std, float32, of shape (3, H, W).
        """
        mean_C11, std_C11 = (np.array(values).reshape(3, 1, 1) for values in (self.mean, self.std))
        # One multiplication and one addition, each rounded once: the same on every machine.
        x_CHW = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)).astype(np.float32)
        x_CHW *= (1 / (255 * std_C11)).astype(np.float32)
        x_CHW += (-mean_C11 / std_C11).astype(np.float32)
        return x_CHW


class Transform(Protocol):
    """Anything that turns images into tensors, given a seed."""

    @property
    def views(self) -> tuple[View, ...]:
        """What comes out, in order."""

    def __call__(self, image: Image.Image, seed: int) -> tuple[Tensor, ...]:
        """Tensors of shape (3, S, S), one a view."""


@dataclass(frozen=True, kw_only=True)
class TrainTransform:
    """Augmentation that depends on the seed alone.

    Parameters
    ----------
    augmentation
        The random part, the same for all views.
    views
        What comes out.
    """

    augmentation: Augmentation = field(default_factory=Augmentation)
    views: tuple[View, ...] = (View(),)

    def __post_init__(self) -> None:
        _require_views(self.views)

    def __call__(self, image: Image.Image, seed: int) -> tuple[Tensor, ...]:
        """Augment an image.

        Parameters
        ----------
        image
            RGB image.
        seed
            Seed of the sample, at least 0.

        Returns
        -------
        tuple
            Tensors of shape (3, S, S), float32, one a view.
        """
        plan = draw_plan(self.augmentation, seed, image.width, image.height)
        pixels = {
            size: render(image, plan, size, self.augmentation.fill)
            for size in {view.size for view in self.views}
        }
        found = [view.normalize(pixels[view.size]) for view in self.views]
        if plan.erasing is not None:
            for x_CSS in found:
                _erase(x_CSS, plan.erasing)
        return tuple(torch.from_numpy(x_CSS) for x_CSS in found)


@dataclass(frozen=True, kw_only=True)
class EvalTransform:
    """The middle of an image, or all of it.

    Parameters
    ----------
    views
        What comes out.
    fit
        ``crop``: the shorter side becomes 256/224 of the view's, and the middle is cut out.
        ``square``: the whole image is resized to the square, as TinyViT does at 384 and 512.
    """

    views: tuple[View, ...] = (View(),)
    fit: Literal["crop", "square"] = "crop"

    def __post_init__(self) -> None:
        _require_views(self.views)
        if self.fit not in ("crop", "square"):
            raise ValueError(f"fit: expected crop or square, got {self.fit!r}")

    def __call__(self, image: Image.Image, seed: int = 0) -> tuple[Tensor, ...]:  # noqa: ARG002
        """Resize an image.

        Parameters
        ----------
        image
            RGB image.
        seed
            Unused.

        Returns
        -------
        tuple
            Tensors of shape (3, S, S), float32, one a view.
        """
        return tuple(
            torch.from_numpy(view.normalize(self._fitted(image, view.size))) for view in self.views
        )

    def _fitted(self, image: Image.Image, size: int) -> Image.Image:
        if self.fit == "square":
            return image.resize((size, size), Image.Resampling.BICUBIC)
        shorter = int(size * EVAL_RATIO)
        scale = shorter / min(image.size)
        width, height = (max(shorter, int(scale * side)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - size) / 2), round((height - size) / 2)
        return image.crop((left, top, left + size, top + size))


def _erase(x_CSS: Array, erasing: Erasing) -> None:
    """Normal noise in normalised units, written in place."""
    top, left, height, width = erasing.box(x_CSS.shape[-1])
    rng = generator_of(erasing.noise_seed)
    x_CSS[:, top : top + height, left : left + width] = rng.standard_normal(
        (3, height, width), dtype=np.float32
    )


def _require_views(views: tuple[View, ...]) -> None:
    if not views:
        raise ValueError("views: expected at least one, got none")
