"""Swin beside timm's, and models with shared weights beside timm's with equal ones."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from weightwise.vision.swin import Swin
from weightwise.vision.swin_config import SWIN_VARIANTS, SwinConfig, mini_swin

TINY = SwinConfig(
    width=16, groups=((1, 1), (1, 1), (1,) * 6, (1, 1)), window=7, head_width=8, image_size=224,
    num_classes=7,
)  # fmt: skip
THEIRS = {"embed_dim": 16, "num_heads": (2, 4, 8, 16), "num_classes": 7, "drop_path_rate": 0.0}


@pytest.fixture
def timm(monkeypatch):
    """The package, where it is installed."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    from timm_shim import import_timm

    return import_timm()


def theirs_of(timm, config, **options):
    """A model of timm of the same size, with drawn weights."""
    options = THEIRS | {"depths": config.depths} | options
    model = timm.create_model("swin_tiny_patch4_window7_224", **options)
    return randomize(model).eval()


@torch.no_grad()
def randomize(model):
    """Draw all that starts constant too: gains, shifts, tables."""
    generator = torch.Generator().manual_seed(0)
    for name, one in model.named_parameters():
        std = 0.3 if one.dim() == 1 or name.endswith("table") else one[0].numel() ** -0.5
        one.copy_(torch.randn(one.shape, generator=generator) * std)
        if one.dim() == 1 and "norm" in name and name.endswith("weight"):
            one.add_(1.0)
    return model


def difference(found, wanted):
    """Largest error over the largest value."""
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def images(*shape):
    """Normal noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def known(name):
    """Name of a variant with timm."""
    config, size = SWIN_VARIANTS[name], {"t": "tiny", "s": "small", "b": "base"}[name[0]]
    return f"swin_{size}_patch4_window{config.window}_{config.image_size}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t", "s", "b", "b-384"])
def test_variants_have_the_names_and_shapes_of_timm(timm, name):
    """All of them, without weights."""
    with torch.device("meta"):
        model, wanted = Swin(SWIN_VARIANTS[name]), timm.create_model(known(name))
    shapes, others = (
        {key: one.shape for key, one in built.state_dict().items()} for built in (model, wanted)
    )
    assert shapes == others


@pytest.mark.slow
def test_the_smallest_variant_is_that_of_timm(timm):
    """Logits and every map."""
    wanted = randomize(timm.create_model(known("t"))).eval()
    model = Swin(SWIN_VARIANTS["t"]).eval()
    model.load_state_dict(wanted.state_dict())
    x = images(1, 3, 224, 224)
    with torch.inference_mode():
        assert difference(model(x), wanted(x)) < 1e-5
        maps = wanted.forward_intermediates(x, intermediates_only=True)
        for one, other in zip(model.pyramid(x), maps, strict=True):
            assert difference(one, other) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("size", "window"), [((384, 384), 12), ((448, 448), 7), ((224, 448), 7)])
def test_larger_images_are_those_of_timm(timm, size, window):
    """Larger windows; a last stage that is shifted too, or along its longer axis only."""
    config = replace(TINY, window=window)
    wanted = theirs_of(timm, config, img_size=size, window_size=window)
    model = Swin(config).eval()
    model.load_state_dict(wanted.state_dict())
    x = images(1, 3, *size)
    with torch.inference_mode():
        assert difference(model(x), wanted(x)) < 1e-5


@pytest.mark.slow
def test_maps_smaller_than_a_window_see_the_middle_of_the_table(timm):
    """112 pixels: an odd map of 7 x 7 to merge, and one of 4 x 4 whose tables timm has cut out."""
    wanted = theirs_of(timm, TINY, img_size=112)
    tensors = wanted.state_dict()
    model = Swin(TINY).eval()
    for name, one in model.state_dict().items():
        if name.startswith("layers.3") and name.endswith("table"):
            table_77M = tensors[name].view(7, 7, -1)  # distances of -3 to 3 of those of -6 to 6
            tensors[name] = one.view(13, 13, -1).clone()
            tensors[name][3:10, 3:10] = table_77M
            tensors[name] = tensors[name].flatten(0, 1)
    model.load_state_dict(tensors)
    x = images(1, 3, 112, 112)
    with torch.inference_mode():
        assert difference(model(x), wanted(x)) < 1e-5


def tied(timm, config):
    """A Swin with shared weights, and timm's with those weights in each block of a group."""
    model = Swin(config).eval()
    randomize(model)
    wanted = theirs_of(timm, config)
    wanted.load_state_dict(model.state_dict(), strict=False)
    return model, wanted


@pytest.mark.slow
@pytest.mark.parametrize("own_norms", [True, False])
def test_shared_weights_compute_what_equal_ones_do(timm, own_norms):
    """Logits to 1e-5; a shared gradient is the sum of those of the group."""
    config = replace(TINY, groups=((2,), (1, 1), (1, 3, 2), (2,)), own_norms=own_norms)
    model, wanted = tied(timm, config)
    x = images(2, 3, 224, 224)
    found, expected = model(x), wanted(x)
    assert difference(found.detach(), expected.detach()) < 1e-5
    for one in (found, expected):
        one.log_softmax(1)[:, 3].sum().backward()
    theirs = dict(wanted.named_parameters())
    largest = max(one.grad.abs().max() for one in theirs.values())
    names = {}
    for name, one in model.named_parameters(remove_duplicate=False):
        names.setdefault(one, []).append(name)
    assert max(map(len, names.values())) == 3
    for one, group in names.items():
        total = sum(theirs[name].grad for name in group)
        assert (one.grad - total).abs().max() < 1e-5 * largest, group


@pytest.mark.slow
def test_neutral_transforms_compute_what_timm_does(timm):
    """Maps over heads at the identity and convolutions at zero, in inference and in training."""
    config = mini_swin(TINY, (2, 2, 3, 2))
    model, wanted = tied(timm, replace(config, mixes=False, local="none"))
    mini = Swin(config).eval()
    mini.load_state_dict(model.state_dict(), strict=False)
    x = images(1, 3, 224, 224)
    expected = wanted(x).detach()
    assert difference(mini(x).detach(), expected) < 1e-5
    with torch.inference_mode():
        assert difference(mini(x), expected) < 1e-5
