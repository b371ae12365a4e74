"""The 15 operations of RandAugment whose effect grows with the magnitude.

Every operation turns a level in [0, 1] and a sign into one number, its argument, and applies it
to an RGB image. Ranges at level 1 are those of timm's increasing set, published as
``rand-m9-mstd0.5-inc1`` at magnitude 9 of 10:

==================================== =====================================================
rotate                               30 degrees either way
shear_x, shear_y                     0.3 either way
translate_x, translate_y             0.45 of the side either way
posterize                            4 bits kept at level 0, none at level 1
solarize                             values inverted from 256 (level 0) or 0 (level 1) upwards
solarize_add                         110 added to values below 128
color, contrast, brightness, sharpness  factor 1 plus or minus 0.9, at least 0.1
auto_contrast, equalize, invert      no argument
==================================== =====================================================

Geometric operations sample bicubically and fill with a colour. References: Cubuk et al.,
"RandAugment", arXiv 1909.13719; Cubuk et al., "AutoAugment", arXiv 1805.09501.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from PIL import Image, ImageEnhance, ImageOps

if TYPE_CHECKING:
    from collections.abc import Callable

Colour: TypeAlias = tuple[int, int, int]
_AFFINE, _BICUBIC = Image.Transform.AFFINE, Image.Resampling.BICUBIC


@dataclass(frozen=True)
class Operation:
    """One operation.

    Parameters
    ----------
    argument
        Argument from a level in [0, 1] and a sign, 1 or -1.
    apply
        Image from an image, an argument and the colour of what comes in from outside.
    """

    argument: Callable[[float, int], float]
    apply: Callable[[Image.Image, float, Colour], Image.Image]


def _signed(largest: float) -> Callable[[float, int], float]:
    return lambda level, sign: sign * largest * level


def _no_argument(_level: float, _sign: int) -> float:
    return 0.0


def _bits_kept(level: float, _sign: int) -> float:
    return float(4 - int(4 * level))


def _threshold(level: float, _sign: int) -> float:
    return float(256 - int(256 * level))


def _added(level: float, _sign: int) -> float:
    return float(int(110 * level))


def _factor(level: float, sign: int) -> float:
    return max(0.1, 1 + sign * 0.9 * level)


def _rotate(image: Image.Image, degrees: float, fill: Colour) -> Image.Image:
    return image.rotate(degrees, resample=_BICUBIC, fillcolor=fill)


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: Colour) -> Image.Image:
    return image.transform(image.size, _AFFINE, matrix, resample=_BICUBIC, fillcolor=fill)


def _shear_x(image: Image.Image, factor: float, fill: Colour) -> Image.Image:
    return _affine(image, (1, factor, 0, 0, 1, 0), fill)


def _shear_y(image: Image.Image, factor: float, fill: Colour) -> Image.Image:
    return _affine(image, (1, 0, 0, factor, 1, 0), fill)


def _translate_x(image: Image.Image, share: float, fill: Colour) -> Image.Image:
    return _affine(image, (1, 0, share * image.width, 0, 1, 0), fill)


def _translate_y(image: Image.Image, share: float, fill: Colour) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, share * image.height), fill)


def _posterize(image: Image.Image, bits: float, _fill: Colour) -> Image.Image:
    mask = 256 - (1 << (8 - int(bits)))
    return image.point([value & mask for value in range(256)] * 3)


def _solarize(image: Image.Image, threshold: float, _fill: Colour) -> Image.Image:
    return image.point([v if v < threshold else 255 - v for v in range(256)] * 3)


def _solarize_add(image: Image.Image, added: float, _fill: Colour) -> Image.Image:
    return image.point([min(255, v + int(added)) if v < 128 else v for v in range(256)] * 3)


def _invert(image: Image.Image, _argument: float, _fill: Colour) -> Image.Image:
    return image.point([255 - value for value in range(256)] * 3)


def _auto_contrast(image: Image.Image, _argument: float, _fill: Colour) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, _argument: float, _fill: Colour) -> Image.Image:
    return ImageOps.equalize(image)


def _color(image: Image.Image, factor: float, _fill: Colour) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


def _contrast(image: Image.Image, factor: float, _fill: Colour) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def _brightness(image: Image.Image, factor: float, _fill: Colour) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def _sharpness(image: Image.Image, factor: float, _fill: Colour) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(factor)


# The order is part of the format: an operation is drawn by its number.
OPERATIONS: dict[str, Operation] = {
    "auto_contrast": Operation(_no_argument, _auto_contrast),
    "equalize": Operation(_no_argument, _equalize),
    "invert": Operation(_no_argument, _invert),
    "rotate": Operation(_signed(30.0), _rotate),
    "posterize": Operation(_bits_kept, _posterize),
    "solarize": Operation(_threshold, _solarize),
    "solarize_add": Operation(_added, _solarize_add),
    "color": Operation(_factor, _color),
    "contrast": Operation(_factor, _contrast),
    "brightness": Operation(_factor, _brightness),
    "sharpness": Operation(_factor, _sharpness),
    "shear_x": Operation(_signed(0.3), _shear_x),
    "shear_y": Operation(_signed(0.3), _shear_y),
    "translate_x": Operation(_signed(0.45), _translate_x),
    "translate_y": Operation(_signed(0.45), _translate_y),
}
