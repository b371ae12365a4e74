"""DeiT at another resolution, and Mini-DeiT begun from a DeiT."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from weightwise.vision.deit import DeiT
from weightwise.vision.deit_adapt import resize_positions, to_mini, with_image_size
from weightwise.vision.deit_config import DeiTConfig, mini_deit

TINY = DeiTConfig(width=24, num_heads=3, groups=(1,) * 4, patch=4, image_size=20, num_classes=7)


def model_of(config):
    """A model in evaluation mode with drawn weights."""
    torch.manual_seed(0)
    model = DeiT(config).eval()
    torch.nn.init.normal_(model.pos_embed)
    return model


def test_positions_are_resized_like_an_image():
    """Bicubically, without the class token; the same size stays as it is."""
    embedding = torch.randn(1, 10, 5)
    found = resize_positions(embedding, 3, 6)
    image = embedding[:, 1:].transpose(1, 2).reshape(1, 5, 3, 3)
    wanted = F.interpolate(image, (6, 6), mode="bicubic").flatten(2).transpose(1, 2)
    assert torch.equal(found[:, :1], embedding[:, :1])
    assert torch.allclose(found[:, 1:], wanted)
    assert resize_positions(embedding, 3, 3) is embedding
    level = resize_positions(torch.ones(1, 9, 2, dtype=torch.bfloat16), 3, 7)
    assert torch.equal(level, torch.ones(1, 49, 2, dtype=torch.bfloat16))


@pytest.mark.parametrize("config", [TINY, mini_deit(TINY)], ids=["plain", "mini"])
def test_a_model_for_another_resolution(config):
    """Takes the new size, shares what the old one shares, and keeps all but the positions."""
    model = model_of(config)
    larger = with_image_size(model, 32)
    assert larger.config == replace(config, image_size=32)
    assert larger(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    assert not larger.training
    old, new = dict(model.named_parameters()), dict(larger.named_parameters())
    assert old.keys() == new.keys()
    assert {name for name in old if not torch.equal(old[name], new[name])} <= {"pos_embed"}
    x = torch.randn(2, 3, 20, 20)
    assert torch.equal(with_image_size(model, 20)(x), model(x))
    with pytest.raises(ValueError, match="image_size: expected a multiple of patch 4, got 30"):
        with_image_size(model, 30)


@pytest.mark.parametrize("start", ["mean", "first"])
def test_groups_begin_with_the_mean_or_the_first(start):
    """Weights of a group of 3 and of one of 1; normalizations are each block's own."""
    model = model_of(TINY)
    mini = to_mini(model, replace(mini_deit(TINY), groups=(3, 1)), start)
    given = [block.mlp.fc1.weight for block in model.blocks]
    wanted = torch.stack(given[:3]).mean(0) if start == "mean" else given[0]
    for i in range(3):
        assert torch.allclose(mini.blocks[i].mlp.fc1.weight, wanted, atol=1e-7)
    assert torch.equal(mini.blocks[3].mlp.fc1.weight, given[3])
    for name, one in model.state_dict().items():
        if "norm" in name or name.startswith(("head", "patch")):
            assert torch.equal(mini.state_dict()[name], one), name
    assert torch.equal(mini.pos_embed, model.pos_embed[:, 1:])


def test_a_mini_model_of_equal_blocks_computes_the_same():
    """Nothing is lost where there is nothing to lose: transforms begin neutral."""
    model = model_of(replace(TINY, class_token=False))
    for block in model.blocks[1:]:
        for part in ("attn", "mlp"):
            given = model.blocks[0].get_submodule(part).state_dict()
            block.get_submodule(part).load_state_dict(given)
    mini = to_mini(model, replace(mini_deit(TINY, 4), local="kept"))
    x = torch.randn(2, 3, 20, 20)
    assert torch.allclose(mini(x), model(x), atol=1e-5)


def test_settings_that_do_not_fit_are_refused():
    """Another size, an original that shares, a class token out of nowhere, an unknown start."""
    model = model_of(TINY)
    with pytest.raises(ValueError, match="width: expected the original's 24, got 48"):
        to_mini(model, replace(TINY, width=48))
    with pytest.raises(ValueError, match="depth: expected the original's 4, got 5"):
        to_mini(model, replace(TINY, groups=(3, 2)))
    with pytest.raises(ValueError, match="model: expected one without sharing"):
        to_mini(model_of(mini_deit(TINY)), mini_deit(TINY))
    with pytest.raises(ValueError, match="class_token: expected none"):
        to_mini(model_of(replace(TINY, class_token=False)), TINY)
    with pytest.raises(ValueError, match="start: expected one of"):
        to_mini(model, mini_deit(TINY), "last")
