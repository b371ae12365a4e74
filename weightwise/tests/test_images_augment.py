"""Drawing plans and carrying them out: published ranges, bounds, the same bits everywhere."""

import hashlib
import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from weightwise.images import (
    CLIP_MEAN,
    CLIP_STD,
    Augmentation,
    Erasing,
    EvalTransform,
    RandAugment,
    TrainTransform,
    View,
    draw_plan,
    sample_seed,
)
from weightwise.images.augment import Plan, render
from weightwise.images.fingerprints import computed_pixels
from weightwise.images.ops import OPERATIONS
from weightwise.images.randomness import VERSION, chance, generator_of, integer, uniform

SEEDS = st.integers(0, 2**31 - 1)
GREY = (124, 116, 104)
SMALL = TrainTransform(views=(View(size=32),))


def picture(width=96, height=80):
    """An image with slopes and edges."""
    return Image.fromarray(computed_pixels()).resize((width, height))


def plans(count=2000, **settings):
    """Plans of many seeds for an image of 320 x 256."""
    config = Augmentation(**settings)
    return [draw_plan(config, seed, 320, 256) for seed in range(count)]


# name: argument at levels 0, 0.9 and 1, with the sign +; with the sign -
RANGES = {
    "auto_contrast": ((0, 0, 0), (0, 0, 0)),
    "equalize": ((0, 0, 0), (0, 0, 0)),
    "invert": ((0, 0, 0), (0, 0, 0)),
    "rotate": ((0, 27, 30), (0, -27, -30)),
    "posterize": ((4, 1, 0), (4, 1, 0)),  # 4 - int(3.6)
    "solarize": ((256, 26, 0), (256, 26, 0)),  # 256 - int(230.4)
    "solarize_add": ((0, 99, 110), (0, 99, 110)),
    "color": ((1, 1.81, 1.9), (1, 0.19, 0.1)),
    "contrast": ((1, 1.81, 1.9), (1, 0.19, 0.1)),
    "brightness": ((1, 1.81, 1.9), (1, 0.19, 0.1)),
    "sharpness": ((1, 1.81, 1.9), (1, 0.19, 0.1)),
    "shear_x": ((0, 0.27, 0.3), (0, -0.27, -0.3)),
    "shear_y": ((0, 0.27, 0.3), (0, -0.27, -0.3)),
    "translate_x": ((0, 0.405, 0.45), (0, -0.405, -0.45)),
    "translate_y": ((0, 0.405, 0.45), (0, -0.405, -0.45)),
}


@pytest.mark.parametrize("name", [*RANGES])
def test_arguments_have_the_published_ranges(name):
    """At no, usual and full strength, both ways."""
    assert list(OPERATIONS) == list(RANGES)
    for sign, expected in zip((1, -1), RANGES[name], strict=True):
        found = [OPERATIONS[name].argument(level, sign) for level in (0, 0.9, 1)]
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("name", [n for n, (up, _) in RANGES.items() if up[1] != up[0]])
def test_level_zero_changes_nothing(name):
    """Except for posterizing, which keeps four bits even then, and contrast-like blends exactly."""
    image = picture()
    op = OPERATIONS[name]
    found = np.asarray(op.apply(image, op.argument(0, 1), GREY))
    before = np.asarray(image)
    assert np.array_equal(found, before & 0xF0 if name == "posterize" else before)


def test_operations_on_values_follow_their_formulas():
    """Against numpy, all 256 values in each channel."""
    ramp = np.arange(256, dtype=np.uint8)
    image = Image.fromarray(np.stack([ramp, ramp[::-1], ramp ^ 85], axis=-1)[None])
    v = np.asarray(image).astype(int)
    expected = {
        ("invert", 0): 255 - v,
        ("posterize", 1): v // 128 * 128,
        ("posterize", 0): 0 * v,
        ("solarize", 26): np.where(v < 26, v, 255 - v),
        ("solarize_add", 99): np.where(v < 128, np.minimum(v + 99, 255), v),
    }
    for (name, argument), wanted in expected.items():
        assert np.array_equal(np.asarray(OPERATIONS[name].apply(image, argument, GREY)), wanted)


def test_shifts_move_whole_pixels_and_fill():
    """A quarter of 32 pixels to the left: eight columns of the colour come in at the right."""
    image = picture(32, 32)
    before = np.asarray(image)
    right = np.asarray(OPERATIONS["translate_x"].apply(image, 0.25, GREY))
    assert np.array_equal(right[:, :24], before[:, 8:])
    assert (right[:, 24:] == GREY).all()
    down = np.asarray(OPERATIONS["translate_y"].apply(image, -0.25, GREY))
    assert np.array_equal(down[8:], before[:24])
    turned = np.asarray(OPERATIONS["rotate"].apply(image, 30.0, GREY))
    assert (turned[0, 0] == GREY).all()


@pytest.mark.parametrize(("name", "axis"), [("shear_x", 0), ("shear_y", 1)])
def test_shears_move_lines_by_their_distance(name, axis):
    """By 2 for each line: centres of line k lie at k + 1/2, so it moves by 2 k + 1, and fills."""
    image = picture(64, 64)
    sheared = np.asarray(OPERATIONS[name].apply(image, 2.0, GREY))
    for line in (0, 3, 30):
        found, before = (np.asarray(x).take(line, axis) for x in (sheared, image))
        assert np.array_equal(found[: 63 - 2 * line], before[2 * line + 1 :])
        assert (found[63 - 2 * line :] == GREY).all()


@given(
    seed=SEEDS, width=st.integers(1, 400), height=st.integers(1, 400),
    low=st.floats(0.01, 1), high=st.floats(0.01, 1),
)  # fmt: skip
def test_crops_lie_inside_and_have_the_area(seed, width, height, low, high):
    """Rounding of both sides changes an area by at most (w + h) / 2 + 1/4 pixels."""
    scale = (min(low, high), max(low, high))
    left, top, w, h = draw_plan(Augmentation(scale=scale), seed, width, height).crop
    assert 0 <= left <= left + w <= width
    assert 0 <= top <= top + h <= height
    assert w > 0 < h
    slack = (w + h) / 2 + 1
    is_fallback = (left, top) == ((width - w) // 2, (height - h) // 2)
    inside = scale[0] * width * height - slack <= w * h <= scale[1] * width * height + slack
    assert inside or is_fallback


def test_impossible_crops_become_the_largest_centred_one():
    """Of 900 x 9 pixels, at most 4/3 as wide as high: 12 x 9, in the middle; and the other way."""
    config = Augmentation(scale=(1.0, 1.0))
    assert draw_plan(config, 0, 900, 9).crop == (444, 0, 12, 9)
    assert draw_plan(config, 0, 9, 900).crop == (0, 444, 9, 12)


@given(seed=SEEDS, size=st.integers(2, 512))
def test_erased_rectangles_lie_inside(seed, size):
    """Any seed, any size of a view; shares of the area up to rounding."""
    erasing = draw_plan(Augmentation(erase_prob=1.0), seed, 100, 100).erasing
    if erasing is None:
        return
    top, left, height, width = erasing.box(size)
    assert 0 <= top <= top + height <= size
    assert 0 <= left <= left + width <= size
    assert 0.02 - 1e-12 <= erasing.height * erasing.width <= 1 / 3
    assert 0.3 - 1e-12 <= erasing.height / erasing.width <= 1 / 0.3 + 1e-12


def test_probabilities_are_those_of_the_settings():
    """2000 seeds: five standard deviations of a share p are 5 sqrt(p (1 - p) / 2000)."""
    found = plans()
    shares = {0.5: np.mean([p.is_flipped for p in found]), 0.25: np.mean([
        p.erasing is not None for p in found
    ])}  # fmt: skip
    for expected, share in shares.items():
        assert share == pytest.approx(expected, abs=5 * math.sqrt(expected / 2 / 2000))
    # Two operations, each with probability 1/2: one on average, each name 1/15 of all.
    counts = Counter(name for plan in found for name, _ in plan.ops)
    assert sum(counts.values()) == pytest.approx(2000, abs=5 * math.sqrt(1000))
    assert set(counts) == set(OPERATIONS)
    assert all(abs(count - 2000 / 15) < 5 * math.sqrt(2000 / 15) for count in counts.values())


def test_magnitudes_are_normal_around_nine():
    """Rotations tell theirs: 30 degrees over 10, both signs equally often, never above 30."""
    degrees = [a for plan in plans(3000) for name, a in plan.ops if name == "rotate"]
    magnitudes = np.abs(degrees) / 3
    assert magnitudes.max() <= 10
    assert magnitudes.mean() == pytest.approx(9, abs=5 * 0.5 / math.sqrt(len(degrees)))
    assert magnitudes.std() == pytest.approx(0.5, rel=0.15)
    assert np.mean(np.array(degrees) > 0) == pytest.approx(0.5, abs=2.5 / math.sqrt(len(degrees)))


def test_without_operations_colours_jitter():
    """Brightness, contrast and saturation, all orders, factors of 0.6 to 1.4."""
    found = plans(300, rand_augment=None)
    orders = {tuple(name for name, _ in plan.ops) for plan in found}
    assert len(orders) == 6
    factors = [factor for plan in found for _, factor in plan.ops]
    assert 0.6 <= min(factors) < 0.62
    assert 1.38 < max(factors) <= 1.4
    assert not any(plan.ops for plan in plans(5, rand_augment=None, jitter=0.0))


@given(seed=st.integers(0, 2**63 - 1))
def test_draws_are_those_of_the_sheet(seed):
    """u(b - a) + a; whole numbers including both ends; the same numbers of PCG64."""
    ours, plain = generator_of(seed), np.random.Generator(np.random.PCG64(seed))
    u = plain.random(3)
    assert uniform(ours, -2.0, 3.0) == -2 + u[0] * 5
    assert integer(ours, 3, 7) == min(int(u[1] * 5) + 3, 7)
    assert chance(ours, 0.5) == (u[2] < 0.5)


def test_what_a_seed_means_is_fixed():
    """Stores keep seeds for years: whoever changes this plan raises `VERSION`."""
    plan = draw_plan(Augmentation(), 17, 320, 256)
    assert VERSION == 1
    assert (plan.crop, plan.is_flipped) == ((42, 6, 212, 229), True)
    (first, factor), (second, shear) = plan.ops
    assert (first, second) == ("brightness", "shear_x")
    assert (factor, shear) == pytest.approx((1.8076669287340592, 0.2395973159113496))
    assert plan.erasing.noise_seed == 354167756
    assert plan.erasing.box(224) == (0, 24, 114, 87)


def test_seeds_of_samples_are_fixed():
    """By the definition: four bytes of BLAKE2b of base/epoch/key, without the lowest bit."""
    digest = hashlib.blake2b(b"7/3/n01/a.jpg", digest_size=4).digest()
    assert sample_seed(7, 3, "n01/a.jpg") == int.from_bytes(digest, "little") // 2
    found = {sample_seed(b, e, str(k)) for b in range(3) for e in range(3) for k in range(300)}
    assert len(found) >= 2699  # 2700^2 / 2^32: a thousandth of a collision is expected
    assert max(found) < 2**31


@given(seed=SEEDS)
def test_the_same_seed_gives_the_same_bits(seed):
    """Twice, with others in between."""
    image = picture()
    first = SMALL(image, seed)[0]
    SMALL(image, seed + 1)
    assert torch.equal(first, SMALL(image, seed)[0])
    assert first.shape == (3, 32, 32)
    assert first.dtype == torch.float32


@pytest.mark.slow
def test_another_process_gives_the_same_bits():
    """A fresh interpreter with other seeds of everything global, in reverse order."""
    code = (
        "import hashlib, random, numpy, torch; from PIL import Image\n"
        "random.seed(9); numpy.random.seed(9); torch.manual_seed(9)\n"
        "from weightwise.images import TrainTransform, View\n"
        "from weightwise.images.fingerprints import computed_pixels\n"
        "t = TrainTransform(views=(View(size=48), View(size=32)))\n"
        "image = Image.fromarray(computed_pixels())\n"
        "found = {s: [x.numpy().tobytes() for x in t(image, s)] for s in reversed(range(40))}\n"
        "print(hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest())"
    )
    transform = TrainTransform(views=(View(size=48), View(size=32)))
    image = Image.fromarray(computed_pixels())
    found = {s: [x.numpy().tobytes() for x in transform(image, s)] for s in range(40)}
    expected = hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()
    package = Path(sys.modules["weightwise"].__file__).parent.parent
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=package, check=True, capture_output=True, text=True
    ).stdout
    assert output.strip() == expected


def test_normalising_agrees_with_the_formula():
    """(v / 255 - mean) / std in float64."""
    view = View(size=80, mean=CLIP_MEAN, std=CLIP_STD)
    image = picture(80, 80)
    expected = (np.asarray(image) / 255 - CLIP_MEAN) / CLIP_STD
    assert np.abs(view.normalize(image) - expected.transpose(2, 0, 1)).max() < 1e-6


@pytest.mark.parametrize("seed", range(12))
def test_views_see_the_same_and_are_normalised_apart(seed):
    """Student's and teacher's pixels agree outside of the noise; the noise agrees as it is."""
    views = (View(size=40), View(size=40, mean=CLIP_MEAN, std=CLIP_STD))
    transform = TrainTransform(augmentation=Augmentation(erase_prob=1.0), views=views)
    ours, theirs = transform(picture(), seed)
    plan = draw_plan(transform.augmentation, seed, 96, 80)
    top, left, height, width = plan.erasing.box(40)
    is_noise = torch.zeros(40, 40, dtype=torch.bool)
    is_noise[top : top + height, left : left + width] = True
    assert torch.equal(ours[:, is_noise], theirs[:, is_noise])
    pixels = [
        x * torch.tensor(view.std).view(3, 1, 1) + torch.tensor(view.mean).view(3, 1, 1)
        for x, view in zip((ours, theirs), views, strict=True)
    ]
    assert (pixels[0] - pixels[1])[:, ~is_noise].abs().max() < 1e-6
    alone = replace(transform, views=views[1:])(picture(), seed)[0]
    assert torch.equal(alone, theirs)


def test_views_of_two_sizes_show_the_same_crop():
    """A larger view, averaged over 2 x 2 pixels, is close to the smaller one."""
    flat = Augmentation(rand_augment=None, jitter=0.0, erase_prob=0.0)
    small, large = TrainTransform(augmentation=flat, views=(View(size=24), View(size=48)))(
        picture(), 5
    )
    assert (torch.nn.functional.avg_pool2d(large, 2) - small).abs().mean() < 0.1 * small.std()


def test_noise_is_normal():
    """Some thousand numbers of mean 0 and deviation 1, in normalised units."""
    transform = TrainTransform(augmentation=Augmentation(erase_prob=1.0))
    x = transform(picture(), 0)[0]
    top, left, height, width = draw_plan(transform.augmentation, 0, 96, 80).erasing.box(224)
    noise = x[:, top : top + height, left : left + width]
    assert noise.mean().abs() < 5 / math.sqrt(noise.numel())
    assert noise.std() == pytest.approx(1, abs=5 / math.sqrt(2 * noise.numel()))


def test_rectangles_stay_below_the_whole_view():
    """Nearly all of 100 pixels: 99, at the top or at the bottom."""
    whole = Erasing(height=0.999, width=0.5, top=0.0, left=0.999, noise_seed=3)
    assert whole.box(100) == (0, 50, 99, 50)
    assert replace(whole, top=0.999).box(100) == (1, 50, 99, 50)


def test_rendering_a_plan_that_does_nothing_keeps_the_image():
    """The whole image at its own size; flipped, it is its mirror image."""
    image = picture(64, 64)
    plan = Plan(crop=(0, 0, 64, 64), is_flipped=False, ops=(), erasing=None)
    assert np.array_equal(np.asarray(render(image, plan, 64, GREY)), np.asarray(image))
    mirrored = np.asarray(render(image, replace(plan, is_flipped=True), 64, GREY))
    assert np.array_equal(mirrored, np.asarray(image)[:, ::-1])


def test_evaluation_cuts_the_middle_or_takes_all():
    """At 224: 512 x 256 stays as it is, columns 144 to 368 and rows 16 to 240; or a square."""
    image = picture(512, 256)
    view = View()
    cut = EvalTransform()(image)[0]
    assert np.array_equal(cut.numpy(), view.normalize(image.crop((144, 16, 368, 240))))
    whole = EvalTransform(fit="square")(image)[0]
    resized = image.resize((224, 224), Image.Resampling.BICUBIC)
    assert np.array_equal(whole.numpy(), view.normalize(resized))
    # 224 * 100 / 60: the shorter side 60 becomes 256, the longer one int(426.67).
    assert EvalTransform()(picture(60, 100))[0].shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandAugment(magnitude=11), "magnitude: expected 0 to 10, got 11"),
        (lambda: RandAugment(prob=2), "prob: expected 0 to 1, got 2"),
        (lambda: Augmentation(scale=(0.5, 0.1)), "scale: expected 0 < lowest"),
        (lambda: Augmentation(ratio=(0, 1)), "ratio: expected 0 < lowest"),
        (lambda: Augmentation(fill=(0, 0, 300)), "fill: expected 0 to 255, got 300"),
        (lambda: View(size=1), "size: expected 2 to 4096 pixels, got 1"),
        (lambda: View(std=(0, 1, 1)), "std: expected values in"),
        (lambda: View(mean=(124, 116, 104)), "mean: expected values in"),
        (lambda: TrainTransform(views=()), "views: expected at least one"),
        (lambda: EvalTransform(fit="pad"), "fit: expected crop or square, got 'pad'"),
    ],
)
def test_wrong_settings_are_refused(build, message):
    """The message names the field."""
    with pytest.raises(ValueError, match=message):
        build()
