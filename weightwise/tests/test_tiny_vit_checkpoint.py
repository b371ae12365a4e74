"""Weights in files: layouts, endings, what is read off them, and files that do not fit."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from weightwise.vision import TinyViT, TinyViTConfig, fuse, load_tiny_vit, save_tiny_vit
from weightwise.vision.checkpoint import from_official, to_official

TINY = TinyViTConfig(
    widths=(8, 32, 32, 48), depths=(1, 1, 2, 1), windows=(4, 4, 2), head_width=16, image_size=64,
    num_classes=10, mlp_expansion=1.5,
)  # fmt: skip
# Written down from the two public implementations; ours are the left ones.
NAMES = {
    "patch_embed.conv1.conv.weight": "patch_embed.seq.0.c.weight",
    "patch_embed.conv2.bn.running_var": "patch_embed.seq.2.bn.running_var",
    "stages.0.blocks.0.conv2.conv.weight": "layers.0.blocks.0.conv2.c.weight",
    "stages.0.blocks.0.conv3.bn.num_batches_tracked": (
        "layers.0.blocks.0.conv3.bn.num_batches_tracked"
    ),
    "stages.1.downsample.conv1.conv.weight": "layers.0.downsample.conv1.c.weight",
    "stages.3.downsample.conv3.bn.bias": "layers.2.downsample.conv3.bn.bias",
    "stages.2.blocks.1.attn.attention_biases": "layers.2.blocks.1.attn.attention_biases",
    "stages.2.blocks.1.attn.qkv.weight": "layers.2.blocks.1.attn.qkv.weight",
    "stages.3.blocks.0.local_conv.conv.weight": "layers.3.blocks.0.local_conv.c.weight",
    "stages.3.blocks.0.mlp.norm.bias": "layers.3.blocks.0.mlp.norm.bias",
    "head.norm.weight": "norm_head.weight",
    "head.fc.weight": "head.weight",
    "head.fc.bias": "head.bias",
}


@pytest.fixture
def model():
    """A small model with drawn weights."""
    built = TinyViT(TINY)
    built.initialize(torch.Generator().manual_seed(0))
    return built


def test_names_of_the_two_layouts():
    """Those written down, and all of a model there and back."""
    assert {name: to_official(name) for name in NAMES} == NAMES
    with torch.device("meta"):
        names = list(TinyViT(TINY).state_dict())
    assert [from_official(to_official(name)) for name in names] == names
    assert len({to_official(name) for name in names}) == len(names)


@pytest.mark.parametrize("ending", ["safetensors", "pth", "pt", "bin"])
@pytest.mark.parametrize("layout", ["timm", "official"])
def test_a_model_comes_back(model, tmp_path, ending, layout):
    """Weights bit for bit, and settings read off the shapes; no other file is left."""
    path = tmp_path / f"model.{ending}"
    save_tiny_vit(model, path, layout)
    loaded = load_tiny_vit(path)
    assert loaded.config == TINY
    for name, one in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], one), name
    assert list(tmp_path.iterdir()) == [path]


def test_layouts_are_what_the_others_read(model, tmp_path):
    """Timm's names bare in safetensors, the authors' under ``model``."""
    save_tiny_vit(model, tmp_path / "a.safetensors")
    assert set(load_file(tmp_path / "a.safetensors")) == set(model.state_dict())
    save_tiny_vit(model, tmp_path / "a.pth", "official")
    held = torch.load(tmp_path / "a.pth", weights_only=True)["model"]
    assert set(held) == {to_official(name) for name in model.state_dict()}


def test_the_index_of_biases_is_no_weight(model, tmp_path):
    """Older files of the authors hold it; half precision becomes float32."""
    tensors = {to_official(name): one.half() for name, one in model.state_dict().items()}
    tensors["layers.1.blocks.0.attn.attention_bias_idxs"] = torch.zeros(16, 16).long()
    torch.save(tensors, tmp_path / "old.pth")
    loaded = load_tiny_vit(tmp_path / "old.pth", TINY)
    assert torch.equal(loaded.head.fc.weight, model.head.fc.weight.half().float())


def test_what_does_not_fit_is_listed(model, tmp_path):
    """Missing, unknown and mis-shaped tensors of one file, each by name."""
    tensors = model.state_dict()
    del tensors["head.norm.weight"]
    tensors["stages.4.gain"] = torch.zeros(1)
    tensors["head.fc.bias"] = torch.zeros(11)
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match=r"odd\.safetensors: expected the tensors") as error:
        load_tiny_vit(tmp_path / "odd.safetensors")
    message = str(error.value)
    assert "1 missing: head.norm.weight" in message
    assert "1 unknown: stages.4.gain" in message
    assert "1 of another shape: head.fc.bias (11,) instead of (10,)" in message
    with pytest.raises(ValueError, match="attention_biases"):
        load_tiny_vit(tmp_path / "odd.safetensors", replace(TINY, windows=(4, 2, 2)))


def test_settings_that_cannot_be_read_off_are_named(model, tmp_path):
    """A file without the head, and one whose table is no matrix."""
    tensors = model.state_dict()
    del tensors["head.fc.weight"]
    save_file(tensors, tmp_path / "body.safetensors")
    with pytest.raises(ValueError, match=r"body\.safetensors: head\.fc\.weight: expected in"):
        load_tiny_vit(tmp_path / "body.safetensors")
    name = "stages.1.blocks.0.attn.attention_biases"
    save_file(model.state_dict() | {name: torch.zeros(3)}, tmp_path / "flat.safetensors")
    with pytest.raises(ValueError, match="attention_biases: expected 2 axes"):
        load_tiny_vit(tmp_path / "flat.safetensors")
    save_file(model.state_dict() | {name: torch.zeros(0, 16)}, tmp_path / "no.safetensors")
    with pytest.raises(ValueError, match="expected tensors of a TinyViT, got empty ones"):
        load_tiny_vit(tmp_path / "no.safetensors")


class Hostile:
    """Code in a pickle."""

    def __reduce__(self):
        return (print, ("executed",))


def test_damaged_and_hostile_files_are_refused(model, tmp_path, capsys):
    """One line that names the file; nothing in them is executed."""
    save_tiny_vit(model, tmp_path / "cut.safetensors")
    save_tiny_vit(model, tmp_path / "cut.pth")
    for path in (tmp_path / "cut.safetensors", tmp_path / "cut.pth"):
        path.write_bytes(path.read_bytes()[:-1000])
    torch.save({"model": Hostile()}, tmp_path / "code.pth")
    torch.save({"model": {"a": 1}}, tmp_path / "numbers.pth")
    (tmp_path / "empty.pth").touch()
    for name in (
        "cut.safetensors", "cut.pth", "code.pth", "numbers.pth", "empty.pth", "absent.pth",
        "model.onnx",
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name}: expected") as error:
            load_tiny_vit(tmp_path / name)
        assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_what_cannot_be_saved_is_refused(model, tmp_path):
    """Fused models, unknown layouts and endings; the file before stays."""
    path = tmp_path / "model.pth"
    path.write_text("before")
    with pytest.raises(ValueError, match="got a fused one"):
        save_tiny_vit(fuse(model), path)
    with pytest.raises(ValueError, match="layout: expected timm or official"):
        save_tiny_vit(model, path, "kornia")
    with pytest.raises(ValueError, match="expected a name that ends in"):
        save_tiny_vit(model, tmp_path / "model.npz")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
