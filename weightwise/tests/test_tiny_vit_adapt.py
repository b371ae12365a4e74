"""Other resolutions and classes; groups of parameters; frozen statistics."""

import pytest
import torch
import torch.nn.functional as F

from weightwise.vision import (
    VARIANTS,
    TinyViT,
    TinyViTConfig,
    freeze_batch_norm,
    map_logits,
    vision_groups,
    with_classes,
    with_mapped_classes,
    with_resolution,
)
from weightwise.vision.adapt import resize_table

TINY = TinyViTConfig(
    widths=(8, 32, 32, 48), depths=(1, 1, 2, 1), windows=(4, 4, 2), head_width=16, image_size=64,
    num_classes=5,
)  # fmt: skip


def model_of(config=TINY, seed=0):
    """A model with drawn weights and tables."""
    generator = torch.Generator().manual_seed(seed)
    model = TinyViT(config)
    model.initialize(generator)
    for name, one in model.named_parameters():
        if name.endswith("attention_biases"):
            one.data.normal_(generator=generator)
    return model.eval()


def cubic(distance):
    """Weight of a sample in cubic convolution with a = -0.75 (Keys, 1981, equation 4)."""
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def test_tables_are_resized_as_images():
    """Rows, then columns, by the formula; the same size is the same table."""
    table = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    weights = torch.zeros(12, 8)
    for i in range(12):
        place = (i + 0.5) * 8 / 12 - 0.5
        for j in range(int(place) - 3, int(place) + 4):  # samples beyond the border repeat it
            weights[i, min(max(j, 0), 7)] += cubic(place - j)
    wanted = weights @ table.view(2, 8, 8) @ weights.T
    assert torch.allclose(resize_table(table, 12), wanted.flatten(1), atol=1e-5)
    assert torch.equal(resize_table(table, 8), table)


def test_windows_grow_with_the_image():
    """224 to 384 and 512 gives the published windows."""
    model = TinyViT(TinyViTConfig(widths=(2, 4, 4, 4), head_width=4))
    assert model.config.windows == VARIANTS["21m"].windows
    for name in ("21m-384", "21m-512"):
        made = with_resolution(model, VARIANTS[name].image_size)
        assert made.config.windows == VARIANTS[name].windows
        table = made.stages[2].blocks[0].attn.attention_biases
        assert table.shape == (1, VARIANTS[name].windows[1] ** 2)


def test_a_new_resolution_keeps_all_but_the_tables():
    """Twice the size: windows 8, 8 and 4; the old model stays as it is."""
    model = model_of()
    made = with_resolution(model, 128)
    assert (made.config.windows, made.config.image_size) == ((8, 8, 4), 128)
    assert not made.training
    for name, one in made.state_dict().items():
        before = model.state_dict()[name]
        if name.endswith("attention_biases"):
            assert torch.equal(one, resize_table(before, round(one.shape[1] ** 0.5)))
        else:
            assert torch.equal(one, before)
    assert made(torch.zeros(1, 3, 128, 128)).shape == (1, 5)
    kept = with_resolution(model, 128, windows=TINY.windows)
    x = torch.randn(2, 3, 128, 128)
    assert torch.equal(kept(x), model(x))


def test_new_classes_have_a_new_head():
    """Drawn with deviation 0.02 from the generator; all before it stays."""
    model = model_of()
    made = with_classes(model, 300, torch.Generator().manual_seed(1))
    again = with_classes(model, 300, torch.Generator().manual_seed(1))
    weight = made.head.fc.weight
    assert torch.equal(weight, again.head.fc.weight)
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not made.head.fc.bias.any()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(made.features(x), model.features(x))
    assert weight.requires_grad
    with pytest.raises(ValueError, match="num_classes: expected at least 1"):
        with_classes(model, 0, torch.Generator())


def test_mapped_classes_take_rows_of_the_old_head():
    """Class 1 has no source: the mean of rows 4 and 2, and logit 0 where logits are mapped."""
    model, sources = model_of(), [4, -1, 2]
    model.head.fc.bias.data.normal_()
    made = with_mapped_classes(model, sources)
    old, new = model.head.fc, made.head.fc
    for before, after in ((old.weight, new.weight), (old.bias, new.bias)):
        assert torch.equal(after[0], before[4])
        assert torch.equal(after[2], before[2])
        assert torch.allclose(after[1], (before[4] + before[2]) / 2)
    x = torch.randn(2, 3, 64, 64)
    logits = map_logits(model(x), sources)
    assert torch.allclose(made(x)[:, [0, 2]], logits[:, [0, 2]], atol=1e-6)
    assert logits[:, 1].tolist() == [0, 0]
    assert made.config.num_classes == 3


@pytest.mark.parametrize(
    ("sources", "message"),
    [([0, 5], "expected -1 to 4, got 5 for class 1"), ([0, -2], "got -2"), ([-1], "got none")],
)
def test_classes_that_the_model_lacks_are_refused(sources, message):
    """The message names the entry."""
    with pytest.raises(ValueError, match=message):
        with_mapped_classes(model_of(), sources)
    with pytest.raises(ValueError, match=message):
        map_logits(torch.zeros(1, 5), sources)


def test_vectors_and_tables_do_not_decay():
    """Every parameter once, in one of two groups."""
    model = model_of()
    decayed, kept = vision_groups(model, 0.05)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.05, 0.0)
    names = {id(one): name for name, one in model.named_parameters()}
    found = {names[id(one)] for one in kept["params"]}
    assert len(decayed["params"]) + len(found) == len(names)
    wanted = {n for n, one in model.named_parameters() if one.dim() == 1 or "attention_b" in n}
    assert found == wanted


def test_learning_rates_fall_towards_the_stem():
    """Five blocks with 0.5: 1/16, 1/8, 1/4, 1/2, 1; merges go with the block before them."""
    model = model_of()
    groups = vision_groups(model, 0.05, layer_decay=0.5)
    names = {id(one): name for name, one in model.named_parameters()}
    ratio = {names[id(one)]: group["lr_ratio"] for group in groups for one in group["params"]}
    assert set(ratio) == set(names.values())
    wanted = {
        "patch_embed": 1 / 16, "stages.0.blocks.0": 1 / 16, "stages.1.downsample": 1 / 16,
        "stages.1.blocks.0": 1 / 8, "stages.2.downsample": 1 / 8, "stages.2.blocks.0": 1 / 4,
        "stages.2.blocks.1": 1 / 2, "stages.3.downsample": 1 / 2, "stages.3.blocks.0": 1,
        "head": 1,
    }  # fmt: skip
    for name, value in ratio.items():
        (part,) = [part for part in wanted if name.startswith(part + ".")]
        assert value == wanted[part], name
    assert {group["weight_decay"] for group in groups} == {0.0, 0.05}


def test_bad_groups_are_refused():
    """Negative decay; a ratio of 0 or above 1."""
    with pytest.raises(ValueError, match="weight_decay: expected at least 0"):
        vision_groups(model_of(), -0.1)
    for decay in (0.0, 1.1):
        with pytest.raises(ValueError, match="layer_decay: expected in"):
            vision_groups(model_of(), 0.1, layer_decay=decay)


def test_frozen_statistics_stay_while_weights_learn():
    """Running means as before, gains with gradients; train() undoes it."""
    model = model_of().train()
    freeze_batch_norm(model)
    norm = model.patch_embed.conv1.bn
    before = norm.running_mean.clone()
    F.cross_entropy(model(torch.randn(2, 3, 64, 64)), torch.tensor([0, 1])).backward()
    assert torch.equal(norm.running_mean, before)
    assert norm.weight.grad.any()
    assert model.stages[1].blocks[0].drop_path.training
    model.train()(torch.randn(2, 3, 64, 64))
    assert not torch.equal(norm.running_mean, before)
