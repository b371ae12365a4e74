"""DeiT beside timm's, and shared weights beside timm's with equal blocks."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from weightwise.vision.deit import SHARED, DeiT
from weightwise.vision.deit_config import DEIT_VARIANTS, DeiTConfig, mini_deit

TINY = DeiTConfig(width=64, num_heads=2, groups=(1,) * 6, patch=8, image_size=40, num_classes=10)


@pytest.fixture
def timm(monkeypatch):
    """The package, where it is installed."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    from timm_shim import import_timm

    return import_timm()


def randomize(model, seed=0):
    """Draw all that starts constant too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, one in model.named_parameters():
            scale = 0.3 if one.dim() < 2 or "token" in name else one[0].numel() ** -0.5
            one += scale * torch.randn(one.shape, generator=generator)
    return model


def vit_of(timm, config):
    """Make timm's model of the same settings."""
    pooling = {} if config.class_token else {"global_pool": "avg", "fc_norm": False}
    return timm.models.VisionTransformer(
        img_size=config.image_size, patch_size=config.patch, embed_dim=config.width,
        depth=config.depth, num_heads=config.num_heads, num_classes=config.num_classes,
        class_token=config.class_token, **pooling,
    )  # fmt: skip


def images_of(config, count=2):
    """Normal pixels."""
    side = config.image_size
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "known"), [("ti", "tiny"), ("s", "small")])
def test_variants_are_those_of_timm(timm, name, known):
    """Logits within a few roundings; the names are the same."""
    wanted = randomize(timm.create_model(f"deit_{known}_patch16_224", num_classes=1000)).eval()
    model = DeiT(DEIT_VARIANTS[name]).eval()
    model.load_state_dict(wanted.state_dict())
    x = images_of(model.config)
    with torch.inference_mode():
        found, logits = model(x), wanted(x)
    assert (found - logits).abs().max() < 1e-5 * logits.abs().max()


@pytest.mark.parametrize("name", ["ti", "s", "b", "b-384"])
def test_variants_hold_the_tensors_of_timm(timm, name):
    """Names and shapes, without memory."""
    known = {"ti": "tiny", "s": "small"}.get(name, "base")
    with torch.device("meta"):
        size = DEIT_VARIANTS[name].image_size
        theirs = timm.create_model(f"deit_{known}_patch16_{size}", num_classes=1000)
        ours = DeiT(DEIT_VARIANTS[name])
    assert {name: one.shape for name, one in ours.state_dict().items()} == {
        name: one.shape for name, one in theirs.state_dict().items()
    }


@pytest.mark.parametrize("class_token", [True, False])
def test_gradients_are_those_of_timm(timm, class_token):
    """Of every parameter of a small model."""
    config = replace(TINY, class_token=class_token)
    wanted = randomize(vit_of(timm, config))
    model = DeiT(config)
    model.load_state_dict(wanted.state_dict())
    x = images_of(config)
    for one in (model, wanted):
        one(x).log_softmax(1)[:, 3].sum().backward()
    theirs = dict(wanted.named_parameters())
    largest = max(one.grad.abs().max() for one in theirs.values())
    for name, one in model.named_parameters():
        assert (one.grad - theirs[name].grad).abs().max() < 1e-5 * largest, name


@pytest.mark.parametrize("groups", [(2, 2, 2), (6,), (3, 1, 2)])
@pytest.mark.parametrize("has_transforms", [True, False])
def test_shared_weights_are_equal_weights(timm, groups, has_transforms):
    """What a model computes whose blocks are equal in groups; gradients add up over a group."""
    config = replace(TINY, groups=groups, class_token=False)
    if has_transforms:  # all of them neutral
        config = replace(config, mixes=True, relative=True, local="kept")
    wanted = randomize(vit_of(timm, replace(TINY, class_token=False)))
    firsts = [sum(groups[:i]) for i in range(len(groups))]
    with torch.no_grad():
        for first, length in zip(firsts, groups, strict=True):
            for block in wanted.blocks[first + 1 : first + length]:
                for part in SHARED:
                    given = wanted.blocks[first].get_submodule(part)
                    block.get_submodule(part).load_state_dict(given.state_dict())
    model = DeiT(config)
    missing = model.load_state_dict(wanted.state_dict(), strict=False)
    assert not missing.unexpected_keys
    x = images_of(config)
    logits = [one(x) for one in (model, wanted)]
    scale = logits[1].abs().max()
    assert (logits[0] - logits[1]).abs().max() < 1e-5 * scale
    with torch.no_grad():
        assert (model(x) - logits[1]).abs().max() < 1e-5 * scale
    for one in logits:
        one.log_softmax(1)[:, 3].sum().backward()
    theirs = {name: one.grad for name, one in wanted.named_parameters()}
    largest = max(one.abs().max() for one in theirs.values())
    for name, one in model.named_parameters():
        if name not in theirs:  # a transform
            continue
        total = theirs[name]
        if name.startswith("blocks.") and name.split(".", 2)[2].startswith(SHARED):
            number, rest = int(name.split(".")[1]), name.split(".", 2)[2]
            length = groups[firsts.index(number)]
            total = sum(theirs[f"blocks.{number + i}.{rest}"] for i in range(length))
        assert (one.grad - total).abs().max() < 1e-5 * largest, name


def test_a_mini_model_of_one_execution_a_group_is_a_whole_model(timm):
    """With neutral transforms it computes what timm's without class token does."""
    config = mini_deit(TINY, 1)
    wanted = randomize(vit_of(timm, replace(TINY, class_token=False))).eval()
    model = DeiT(config).eval()
    assert not model.load_state_dict(wanted.state_dict(), strict=False).unexpected_keys
    x = images_of(config)
    with torch.no_grad():
        assert torch.allclose(model(x), wanted(x), atol=1e-5 * wanted(x).abs().max().item())
