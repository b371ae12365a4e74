"""Weights of Swin and Mini-Swin in files: layouts, settings, windows, files that do not fit."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from weightwise.multiplex.files import num_unique_parameters, unique_state_dict
from weightwise.vision.swin import Swin
from weightwise.vision.swin_checkpoint import (
    from_official,
    load_swin,
    resize_table,
    save_swin,
    to_official,
    with_window,
)
from weightwise.vision.swin_config import SwinConfig, as_published, mini_swin

TINY = SwinConfig(
    width=8, groups=((1, 1), (1, 1), (1, 1, 1, 1), (1, 1)), window=2, head_width=4, image_size=64,
    num_classes=5, mlp_expansion=1.5,
)  # fmt: skip
MINI = as_published(mini_swin(TINY, (2, 2, 2, 2)))
# Written down from the two public implementations; ours are the left ones.
PLAIN_NAMES = {
    "patch_embed.norm.bias": "patch_embed.norm.bias",
    "layers.0.blocks.1.norm1.weight": "layers.0.blocks.1.norm1.weight",
    "layers.1.downsample.reduction.weight": "layers.0.downsample.reduction.weight",
    "layers.3.downsample.norm.bias": "layers.2.downsample.norm.bias",
    "layers.2.blocks.3.attn.qkv.bias": "layers.2.blocks.3.attn.qkv.bias",
    "norm.weight": "norm.weight",
    "head.fc.weight": "head.weight",
}
MINI_NAMES = {
    "layers.1.downsample.norm.weight": "layers.0.downsample.norm.weight",
    "layers.2.blocks.2.attn.relative_position_bias_table": (
        "layers.2.blocks.1.attn.relative_position_bias_table"
    ),
    "layers.2.blocks.2.mlp.fc1.bias": "layers.2.blocks.1.mlp.fc1.bias",
    "layers.2.blocks.2.norm1.weight": "layers.2.blocks.1.norm1_list.0.weight",
    "layers.2.blocks.3.norm2.bias": "layers.2.blocks.1.norm2_list.1.bias",
    "layers.0.blocks.1.attn.attend.before.weight": "layers.0.blocks.0.proj_l.1.weight",
    "layers.0.blocks.1.attn.attend.after.bias": "layers.0.blocks.0.proj_w.1.bias",
    "layers.3.blocks.1.local.norm.weight": "layers.3.blocks.0.local_norm_list.1.weight",
    "layers.3.blocks.0.local.conv.weight": "layers.3.blocks.0.local_conv_list.0.weight",
    "head.fc.bias": "head.bias",
}


def model_of(config):
    """A small model with drawn weights and transforms."""
    built = Swin(config)
    built.initialize(torch.Generator().manual_seed(0))
    return built


@pytest.mark.parametrize(("names", "config"), [(PLAIN_NAMES, TINY), (MINI_NAMES, MINI)])
def test_names_of_the_two_layouts(names, config):
    """Those written down, and all of a model there and back."""
    assert {name: to_official(name, config) for name in names} == names
    own = list(unique_state_dict(Swin(config)))
    assert [from_official(to_official(name, config), config) for name in own] == own
    assert len({to_official(name, config) for name in own}) == len(own)


def test_names_of_shared_normalizations():
    """Without own ones they are no lists with the authors."""
    config = replace(MINI, own_norms=False, mixes=False, local="none")
    name = "layers.2.blocks.2.norm1.weight"
    assert to_official(name, config) == "layers.2.blocks.1.norm1.weight"
    assert from_official("layers.2.blocks.1.norm1.weight", config) == name


@pytest.mark.parametrize("config", [TINY, MINI])
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("layout", ["timm", "official"])
def test_a_model_comes_back(tmp_path, config, ending, layout):
    """Weights bit for bit; settings are told or read off; no other file is left."""
    model, path = model_of(config), tmp_path / f"model.{ending}"
    save_swin(model, path, layout)
    is_readable = ending == "safetensors" or layout == "official" or config is TINY
    loaded = load_swin(path, None if is_readable else config)
    # Names and shapes do not tell how maps over heads started.
    assert replace(loaded.config, mix_start=config.mix_start) == config
    for name, one in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], one), name
    assert num_unique_parameters(loaded) == num_unique_parameters(model)
    assert list(tmp_path.iterdir()) == [path]


def test_settings_of_a_file_of_ours_come_back_whole(tmp_path):
    """Uneven groups and every switch."""
    config = replace(
        MINI, groups=((2,), (1, 1), (1, 3), (2,)), local="kept", mask_unshifted=False,
        mask_padding=False, drop_path=0.1, image_size=96, mix_start="identity", local_kernel=3,
    )  # fmt: skip
    save_swin(model_of(config), tmp_path / "model.safetensors")
    assert load_swin(tmp_path / "model.safetensors").config == config


def test_layouts_are_what_the_others_read(tmp_path):
    """Bare names in safetensors, the authors' under ``model``; each weight once."""
    plain, mini = model_of(TINY), model_of(MINI)
    save_swin(plain, tmp_path / "a.safetensors")
    assert set(load_file(tmp_path / "a.safetensors")) == set(plain.state_dict())
    save_swin(mini, tmp_path / "b.pth", "official")
    held = torch.load(tmp_path / "b.pth", weights_only=True)["model"]
    assert set(MINI_NAMES.values()) <= set(held)
    assert sum(one.numel() for one in held.values()) == num_unique_parameters(mini)


def test_a_file_holds_each_weight_once(tmp_path):
    """Four bytes for each, and at most 1 % for names."""
    model = Swin(mini_swin(replace(TINY, width=64, head_width=32), (2, 2, 2, 2)))
    save_swin(model, tmp_path / "model.safetensors")
    wanted = 4 * num_unique_parameters(model)
    assert wanted < (tmp_path / "model.safetensors").stat().st_size < 1.01 * wanted


def test_buffers_of_older_files_are_dropped(tmp_path):
    """Index and mask follow from the settings; half precision becomes float32."""
    model = model_of(MINI)
    tensors = {
        to_official(name, MINI): one.half() for name, one in unique_state_dict(model).items()
    }
    tensors["layers.1.blocks.0.attn.relative_position_index"] = torch.zeros(4, 4).long()
    tensors["layers.1.blocks.0.attn_mask"] = torch.zeros(16, 4, 4)
    torch.save({"model": tensors}, tmp_path / "old.pth")
    loaded = load_swin(tmp_path / "old.pth", MINI)
    assert torch.equal(loaded.head.fc.weight, model.head.fc.weight.half().float())


def cubic(table_xx, new):
    """Cubic convolution with a = -3/4 along both axes; places beyond the border are those at it."""
    old = len(table_xx)
    weights = torch.zeros(new, old, dtype=torch.float64)
    for row in range(new):
        place = (row + 0.5) * old / new - 0.5  # centres of cells fall together
        for near in range(math.floor(place) - 1, math.floor(place) + 3):
            t = abs(place - near)
            inner, outer = 1.25 * t**3 - 2.25 * t**2 + 1, -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
            weights[row, min(max(near, 0), old - 1)] += inner if t <= 1 else outer
    return weights @ table_xx.double() @ weights.T


def test_tables_grow_with_the_window():
    """From 13^2 to 23^2 distances, head by head, like a plain loop."""
    table_XM = torch.randn(13**2, 3, generator=torch.Generator().manual_seed(0))
    large_XM = resize_table(table_XM, 12)
    assert large_XM.shape == (23**2, 3)
    for head in range(3):
        wanted = cubic(table_XM[:, head].view(13, 13), 23)
        assert torch.allclose(large_XM[:, head].view(23, 23).double(), wanted, atol=1e-5)
    assert resize_table(table_XM, 7) is table_XM


def test_a_model_gets_another_window(tmp_path):
    """By a function, and by settings for a file; the middle of a table of 3^2 is that of 5^2."""
    model = model_of(MINI)
    resized = with_window(model.eval(), 3, 96)
    assert (resized.config.window, resized.config.image_size) == (3, 96)
    assert not resized.training
    own = model.layers[2].blocks[2].attn.relative_position_bias_table
    table = resized.layers[2].blocks[2].attn.relative_position_bias_table
    assert table.shape == (25, 8)
    assert torch.allclose(table[12], own[4], atol=1e-6)
    assert table is resized.layers[2].blocks[3].attn.relative_position_bias_table
    save_swin(model, tmp_path / "model.pth", "official")
    loaded = load_swin(tmp_path / "model.pth", resized.config)
    for name, one in resized.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], one), name


def test_what_does_not_fit_is_listed(tmp_path):
    """Missing, unknown and mis-shaped tensors of one file, each by name."""
    tensors = unique_state_dict(model_of(MINI))
    del tensors["norm.weight"]
    tensors["layers.4.gain"] = torch.zeros(1)
    tensors["head.fc.bias"] = torch.zeros(11)
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match=r"odd\.safetensors: tensors: expected") as error:
        load_swin(tmp_path / "odd.safetensors", MINI)
    message = str(error.value)
    assert "1 missing: norm.weight" in message
    assert "1 unknown: layers.4.gain" in message
    assert "1 of another shape: head.fc.bias (11,) instead of (5,)" in message


def test_settings_that_cannot_be_read_off_are_named(tmp_path):
    """A file without the head, one whose table is no matrix, one that tells what is none."""
    tensors = unique_state_dict(model_of(TINY))
    table = "layers.0.blocks.0.attn.relative_position_bias_table"
    for name, change, what in (
        ("body", {"head.fc.weight": None}, r"head\.fc\.weight: expected in"),
        ("flat", {table: torch.zeros(9)}, f"{table}: expected 2 axes"),
        ("no", {table: torch.zeros(0, 2)}, rf"{table}: expected 2 axes, got shape \(0, 2\)"),
        ("odd", {table: torch.zeros(9, 5)}, "of another shape: layers.0.blocks.0.attn.rel"),
    ):
        kept = {key: one for key, one in (tensors | change).items() if one is not None}
        save_file(kept, tmp_path / f"{name}.safetensors")
        with pytest.raises(ValueError, match=rf"{name}\.safetensors: .*{what}"):
            load_swin(tmp_path / f"{name}.safetensors")
    for told in ("{", "[]", '{"width": 8}', '{"groups": 3}'):
        save_file(tensors, tmp_path / "told.safetensors", metadata={"config": told})
        with pytest.raises(ValueError, match=r"told\.safetensors: config: expected settings"):
            load_swin(tmp_path / "told.safetensors")


def test_what_cannot_be_saved_is_refused(tmp_path):
    """Uneven groups in the authors' layout, unknown layouts and endings; the file before stays."""
    path = tmp_path / "model.pth"
    path.write_text("before")
    uneven = Swin(replace(MINI, groups=((2,), (2,), (1, 3), (2,))))
    with pytest.raises(ValueError, match="groups: expected even ones in the official layout"):
        save_swin(uneven, path, "official")
    with pytest.raises(ValueError, match="layout: expected timm or official"):
        save_swin(uneven, path, "kornia")
    with pytest.raises(ValueError, match="expected a name that ends in"):
        save_swin(uneven, tmp_path / "model.npz")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
