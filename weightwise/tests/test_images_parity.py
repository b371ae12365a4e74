"""Operations, evaluation and CutMix beside timm's, where timm is installed."""

import random
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from weightwise.images import Augmentation, EvalTransform, View, draw_plan
from weightwise.images.fingerprints import computed_pixels
from weightwise.images.mix import PairMix
from weightwise.images.ops import OPERATIONS

GREY = (124, 116, 104)
NAMES = {
    "auto_contrast": "AutoContrast",
    "equalize": "Equalize",
    "invert": "Invert",
    "rotate": "Rotate",
    "posterize": "PosterizeIncreasing",
    "solarize": "SolarizeIncreasing",
    "solarize_add": "SolarizeAdd",
    "color": "ColorIncreasing",
    "contrast": "ContrastIncreasing",
    "brightness": "BrightnessIncreasing",
    "sharpness": "SharpnessIncreasing",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateXRel",
    "translate_y": "TranslateYRel",
}


@pytest.fixture(scope="module")
def timm():
    """The package timm with its parts for data."""
    path = Path(__file__).with_name("timm_shim.py")
    spec = util.spec_from_file_location("timm_shim", path)
    shim = util.module_from_spec(spec)
    spec.loader.exec_module(shim)
    shim.import_timm()
    import timm.data  # the functions of the data package are not imported by timm itself

    return timm


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES])
def test_operations_are_those_of_the_increasing_set(timm, name, monkeypatch):
    """Same order, same arguments, same pixels, for six magnitudes and both signs."""
    theirs = timm.data.auto_augment
    assert [NAMES[one] for one in OPERATIONS] == theirs._RAND_INCREASING_TRANSFORMS
    image = Image.fromarray(computed_pixels())
    to_argument = theirs.LEVEL_TO_ARG[NAMES[name]]
    for magnitude in (0, 0.3, 4.5, 8.7, 9, 9.9):
        for sign, number in ((1, 0.2), (-1, 0.9)):
            monkeypatch.setattr(random, "random", lambda number=number: number)
            arguments = to_argument(magnitude, {"translate_pct": 0.45}) if to_argument else ()
            argument = OPERATIONS[name].argument(magnitude / 10, sign)
            assert arguments == pytest.approx((argument,) if arguments else ())
            expected = theirs.NAME_TO_OP[NAMES[name]](
                image, *arguments, fillcolor=GREY, resample=Image.Resampling.BICUBIC
            )
            found = OPERATIONS[name].apply(image, argument, GREY)
            assert np.array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(320, 256), (200, 301), (96, 80), (224, 224)])
def test_evaluation_is_timms(timm, size):
    """Resizing by 256/224, bicubic, and the middle; 224 and 384 pixels."""
    image = Image.fromarray(computed_pixels()).resize(size)
    for side in (224, 384):
        theirs = timm.data.create_transform(side, crop_pct=0.875, interpolation="bicubic")
        found = EvalTransform(views=(View(size=side),))(image)[0]
        assert (found - theirs(image)).abs().max() < 1e-5


@pytest.mark.slow
def test_rectangles_of_cutmix_are_timms(timm, monkeypatch):
    """The same centre and share give the same ends, cut at the border."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        lam, row, column = rng.random(3)
        size = int(rng.integers(2, 400))
        centre = iter((min(int(row * size), size - 1), min(int(column * size), size - 1)))
        monkeypatch.setattr(np.random, "randint", lambda *_, **__: next(centre))  # noqa: B023
        top, bottom, left, right = timm.data.mixup.rand_bbox((1, 3, size, size), lam)
        found = PairMix(lam=lam, centre=(row, column)).box(size)
        assert found == (top, left, bottom, right)


@pytest.mark.slow
def test_erased_areas_are_distributed_like_timms(timm):
    """Share of 2000 views that is noise: means within four standard errors, like deviations."""
    random.seed(0)
    torch.manual_seed(0)
    erase = timm.data.random_erasing.RandomErasing(probability=1.0, mode="pixel", device="cpu")
    shares = []
    for _ in range(2000):
        x = torch.full((1, 64, 64), 7.0)
        erase(x)
        shares.append(float((x != 7).float().mean()))
    plans = [draw_plan(Augmentation(erase_prob=1.0), seed, 64, 64) for seed in range(2000)]
    ours = [height * width / 64**2 for _, _, height, width in (p.erasing.box(64) for p in plans)]
    error = np.hypot(np.std(shares), np.std(ours)) / np.sqrt(2000)
    assert np.mean(ours) == pytest.approx(np.mean(shares), abs=4 * error)
    assert np.std(ours) == pytest.approx(np.std(shares), rel=0.1)
