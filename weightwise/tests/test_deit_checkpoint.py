"""DeiT in files: layouts, sizes, what is read off them, and files that do not fit."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from weightwise.vision.deit import DeiT
from weightwise.vision.deit_checkpoint import from_official, load_deit, save_deit, to_official
from weightwise.vision.deit_config import DeiTConfig, mini_deit

# Heads of 64 channels, which shapes alone do not say without maps over heads.
TINY = DeiTConfig(width=128, num_heads=2, groups=(1,) * 5, patch=4, image_size=12, num_classes=7)
MINI = mini_deit(replace(TINY, width=24, num_heads=3, mlp_expansion=2.0))
# Written down from the published code: groups of 2, 2 and 1.
NAMES = {
    "pos_embed": "pos_embed",
    "patch_embed.proj.bias": "patch_embed.proj.bias",
    "norm.weight": "norm.weight",
    "head.bias": "head.bias",
    "blocks.0.attn.qkv.weight": "blocks.0.block.attn.qkv.weight",
    "blocks.2.mlp.fc2.bias": "blocks.1.block.mlp.fc2.bias",
    "blocks.1.norm1.weight": "blocks.0.block.norm1.instances.1.weight",
    "blocks.2.norm2.bias": "blocks.1.block.norm2.instances.0.bias",
    "blocks.3.attn.position.table": "blocks.1.block.attn.rpe_k.instances.1.lookup_table_weight",
    "blocks.0.attn.attend.before.weight": "blocks.0.block.attn.conv_l.instances.0.weight",
    "blocks.4.attn.attend.after.weight": "blocks.2.block.attn.conv_w.instances.0.weight",
}


def model_of(config):
    """A model with nothing constant in it."""
    model = DeiT(config)
    with torch.no_grad():
        for one in model.parameters():
            one.normal_(generator=torch.Generator().manual_seed(one.numel()))
    return model


def is_same(model, other):
    """Whether all tensors are equal."""
    found, wanted = model.state_dict(), other.state_dict()
    return found.keys() == wanted.keys() and all(torch.equal(found[n], wanted[n]) for n in wanted)


def test_names_of_the_two_layouts():
    """Those written down, and all of a model there and back."""
    assert {name: to_official(name, MINI.groups) for name in NAMES} == NAMES
    names = list(dict(DeiT(MINI).named_parameters()))
    official = [to_official(name, MINI.groups) for name in names]
    assert [from_official(name, MINI.groups) for name in official] == names
    assert len(set(official)) == len(names)


def test_tensors_have_the_published_shapes(tmp_path):
    """Maps as 1 x 1 filters, tables for one head, a set of weights for a group."""
    save_deit(model_of(MINI), tmp_path / "a.pth", "official")
    held = torch.load(tmp_path / "a.pth", weights_only=True)["model"]
    start = "blocks.1.block.attn"
    assert held[f"{start}.conv_l.instances.1.weight"].shape == (3, 3, 1, 1)
    assert held[f"{start}.conv_w.instances.0.weight"].shape == (3, 3, 1, 1)
    assert held[f"{start}.rpe_k.instances.1.lookup_table_weight"].shape == (1, 8, 49)
    assert held[f"{start}.qkv.weight"].shape == (72, 24)
    assert sum("attn.qkv.weight" in name for name in held) == 3


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("layout", ["timm", "official"])
@pytest.mark.parametrize("config", [TINY, MINI, replace(MINI, groups=(5,))], ids=str)
def test_a_model_comes_back(tmp_path, ending, layout, config):
    """Weights bit for bit, still shared, and settings; no other file is left."""
    model, path = model_of(config), tmp_path / f"model.{ending}"
    save_deit(model, path, layout)
    loaded = load_deit(path)
    assert loaded.config == config
    assert is_same(loaded, model)
    assert len(list(loaded.parameters())) == len(list(model.parameters()))
    assert list(tmp_path.iterdir()) == [path]


def test_settings_that_shapes_do_not_tell_come_back(tmp_path):
    """From the head of a safetensors file; other files need them given."""
    config = replace(MINI, local="kept", local_kernel=3, drop_path=0.1, mix_start="published")
    model = model_of(config)
    save_deit(model, tmp_path / "a.safetensors")
    assert load_deit(tmp_path / "a.safetensors").config == config
    save_deit(model, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: config: expected for a model with convolutions"):
        load_deit(tmp_path / "a.pth")
    assert is_same(load_deit(tmp_path / "a.pth", config), model)


def test_a_file_holds_each_weight_once(tmp_path):
    """Four bytes a parameter, to 1 % (names and settings take the rest)."""
    config = replace(mini_deit(TINY, 5), width=192, num_heads=3)
    model = model_of(config)
    num_parameters = sum(one.numel() for one in model.parameters())
    for name in ("a.safetensors", "a.pth"):
        save_deit(model, tmp_path / name)
        size = (tmp_path / name).stat().st_size
        assert size == pytest.approx(4 * num_parameters, rel=0.01), name


def test_unshared_weights_have_timms_names(tmp_path):
    """As a state dict; half precision becomes float32."""
    model = model_of(TINY)
    save_deit(model, tmp_path / "a.safetensors")
    assert set(load_file(tmp_path / "a.safetensors")) == set(model.state_dict())
    torch.save({name: one.half() for name, one in model.state_dict().items()}, tmp_path / "h.pth")
    loaded = load_deit(tmp_path / "h.pth")
    assert torch.equal(loaded.head.weight, model.head.weight.half().float())


def test_what_does_not_fit_is_listed(tmp_path):
    """Missing, unknown and mis-shaped tensors of one file, each by name."""
    tensors = {name: one.contiguous() for name, one in model_of(TINY).state_dict().items()}
    del tensors["norm.weight"]
    tensors["dist_token"] = torch.zeros(1, 1, 128)
    tensors["head.bias"] = torch.zeros(8)
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match=r"odd\.safetensors: tensors: expected") as error:
        load_deit(tmp_path / "odd.safetensors")
    message = str(error.value)
    assert "1 missing: norm.weight" in message
    assert "1 unknown: dist_token" in message
    assert "1 of another shape: head.bias (8,) instead of (7,)" in message


def test_settings_that_cannot_be_read_off_are_named(tmp_path):
    """No head, a flat embedding, an empty filter, no block, settings of something else."""
    tensors = {name: one.contiguous() for name, one in model_of(TINY).state_dict().items()}
    blocks = {name for name in tensors if name.startswith("blocks")}
    for name, changed, said in (
        ("body", {"head.weight": None}, "head.weight: expected in the checkpoint"),
        ("flat", {"pos_embed": torch.zeros(9)}, "pos_embed: expected 3 axes"),
        ("no", {"patch_embed.proj.weight": torch.zeros(0, 3, 4, 4)}, "got shape"),
        ("stem", dict.fromkeys(blocks), "expected in the checkpoint"),
        ("gap", {"blocks.99999999.norm1.weight": torch.zeros(128)}, "blocks: expected numbers"),
    ):
        held = {n: one for n, one in (tensors | changed).items() if one is not None}
        save_file(held, tmp_path / f"{name}.safetensors")
        with pytest.raises(ValueError, match=rf"{name}\.safetensors: .*{said}"):
            load_deit(tmp_path / f"{name}.safetensors")
    for told in ("{}", "[", '{"width": 8, "num_heads": 1, "groups": [1], "colour": 1}', "3"):
        save_file(tensors, tmp_path / "told.safetensors", metadata={"config": told})
        with pytest.raises(ValueError, match=r"told\.safetensors: config: expected settings"):
            load_deit(tmp_path / "told.safetensors")


def test_damaged_files_are_refused(tmp_path):
    """One line that names the file."""
    for name in ("cut.safetensors", "cut.pth"):
        path = tmp_path / name
        save_deit(model_of(MINI), path)
        path.write_bytes(path.read_bytes()[:-1000])
    for name in ("cut.safetensors", "cut.pth", "absent.pth", "model.onnx"):
        with pytest.raises(ValueError, match=f"{name}: expected") as error:
            load_deit(tmp_path / name)
        assert "\n" not in str(error.value)


def test_what_cannot_be_saved_is_refused(tmp_path):
    """Unknown layouts and endings, convolutions in the official layout; the file before stays."""
    path = tmp_path / "model.pth"
    path.write_text("before")
    model = DeiT(MINI)
    with pytest.raises(ValueError, match="layout: expected timm or official"):
        save_deit(model, path, "kornia")
    with pytest.raises(ValueError, match="expected a name that ends in"):
        save_deit(model, tmp_path / "model.npz")
    with pytest.raises(ValueError, match="local: expected none in the official layout, got kept"):
        save_deit(DeiT(replace(MINI, local="kept")), path, "official")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
