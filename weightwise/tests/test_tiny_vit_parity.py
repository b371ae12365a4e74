"""TinyViT beside timm's, and its fused copy beside itself."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from weightwise.vision import VARIANTS, TinyViT, TinyViTConfig, fuse

TINY = TinyViTConfig(
    widths=(8, 32, 32, 48), depths=(1, 1, 2, 1), windows=(4, 4, 2), head_width=16, image_size=64,
    num_classes=10,
)  # fmt: skip


@pytest.fixture
def timm(monkeypatch):
    """The package, where it is installed."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    from timm_shim import import_timm

    return import_timm()


def randomize(model, seed=0):
    """Draw all that starts constant too: statistics, gains, shifts, tables."""
    generator = torch.Generator().manual_seed(seed)
    for name, one in model.state_dict().items():
        if name.endswith(("running_var", "norm.weight", "bn.weight")):
            one.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("running_mean", "bias", "attention_biases")):
            one.normal_(0.0, 0.3, generator=generator)
        elif one.is_floating_point():
            one.normal_(0.0, one[0].numel() ** -0.5, generator=generator)
    return model


def difference(found, wanted):
    """Largest error over the largest value."""
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(VARIANTS))
def test_variants_are_those_of_timm(timm, name):
    """Logits and every map of the pyramid within a few roundings; the names are the same."""
    config = VARIANTS[name]
    known = f"tiny_vit_{name.partition('-')[0]}_{config.image_size}"
    wanted = randomize(timm.create_model(known, num_classes=1000)).eval()
    model = TinyViT(config).eval()
    model.load_state_dict(wanted.state_dict())
    side = config.image_size
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        last, wanted_maps = wanted.forward_intermediates(x)
        logits, maps = wanted.forward_head(last), model.pyramid(x)
        for one, other in zip(maps, wanted_maps, strict=True):
            assert one.shape == other.shape
            assert difference(one, other) < 1e-5
        assert difference(model.head(maps[3]), logits) < 1e-5
        assert difference(fuse(model)(x), logits) < 1e-5


@pytest.mark.slow
def test_sizes_that_windows_do_not_fill_are_those_of_timm(timm):
    """200 x 180 pixels: maps of 25 x 23, 13 x 12 and 7 x 6."""
    wanted = randomize(timm.create_model("tiny_vit_5m_224", num_classes=7)).eval()
    model = TinyViT(replace(VARIANTS["5m"], num_classes=7)).eval()
    model.load_state_dict(wanted.state_dict())
    x = torch.randn(2, 3, 200, 180, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert difference(model(x), wanted(x)) < 1e-5


@pytest.mark.slow
def test_gradients_are_those_of_timm(timm):
    """In training mode, without drop-path, at a size that needs filling up."""
    options = {
        "embed_dims": (8, 32, 32, 48), "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 3),
        "window_sizes": (4, 4, 4, 2), "drop_path_rate": 0.0, "num_classes": 10,
    }  # fmt: skip
    wanted = randomize(timm.create_model("tiny_vit_5m_224", **options)).train()
    model = TinyViT(TINY).train()
    model.load_state_dict(wanted.state_dict())
    x = torch.randn(4, 3, 72, 60, generator=torch.Generator().manual_seed(0))
    for one in (wanted, model):
        one(x).log_softmax(1)[:, 3].sum().backward()
    theirs = dict(wanted.named_parameters())
    largest = max(one.grad.abs().max() for one in theirs.values())
    for name, one in model.named_parameters():
        assert (one.grad - theirs[name].grad).abs().max() < 1e-5 * largest, name
    for name, one in model.named_buffers():
        assert torch.allclose(one, wanted.get_buffer(name), rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("size", [(64, 64), (60, 41)])
@pytest.mark.parametrize("has_grad", [False, True])
def test_a_fused_model_computes_the_same(size, has_grad):
    """Through oneDNN's passes, and through plain layers where gradients are asked for."""
    model = randomize(TinyViT(TINY)).eval()
    x = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
    before = {name: one.clone() for name, one in model.state_dict().items()}
    fused = fuse(model)
    found = fused(x.requires_grad_(has_grad))
    assert difference(found.detach(), model(x).detach()) < 1e-5
    if has_grad:
        wanted = torch.autograd.grad(model(x).square().sum(), x)[0]
        assert difference(torch.autograd.grad(found.square().sum(), x)[0], wanted) < 1e-4
    assert not any(isinstance(one, torch.nn.BatchNorm2d) for one in fused.modules())
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_a_fused_model_folds_in_the_precision_of_the_weights():
    """In float64 it is the model to 1e-12; in bfloat16 it runs and is near."""
    model = randomize(TinyViT(TINY)).eval()
    x = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    wanted = model.double()(x.double()).detach()
    assert difference(fuse(model)(x.double()), wanted) < 1e-12
    with torch.no_grad():
        found = fuse(model.bfloat16())(x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert difference(found.double(), wanted) < 0.05
