"""Teachers by name give the logits of the libraries that they come from."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from weightwise.distill.teachers import TeacherConfig, load_teacher
from weightwise.images import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, View


def load(config):
    """A teacher that is no path."""
    return load_teacher(config, load_path=None)


def import_timm():
    """Timm beside a torch without CUDA, see timm_shim.py."""
    path = Path(__file__).with_name("timm_shim.py")
    spec = util.spec_from_file_location("timm_shim", path)
    shim = util.module_from_spec(spec)
    spec.loader.exec_module(shim)
    return shim.import_timm()


def draws(size, seed=0):
    """Two images of normal noise."""
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def linear():
    """A model of 8 x 8 images with 5 classes, and a loader of it for paths."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 8 * 8, 5))
    return model, lambda _: (model, View(size=8))


def test_models_are_asked_in_evaluation_mode_and_types_differ_a_little(linear, tmp_path):
    """Dropout is off; bfloat16 has 8 bits, so sums of 192 products are off by some 2^-8."""
    model, load_path = linear
    config = TeacherConfig(name=str(tmp_path))
    teacher = load_teacher(config, load_path)
    x_B3SS = draws(8)
    assert teacher.num_classes == 5 and teacher.view == View(size=8)
    exact = x_B3SS.flatten(1) @ model[2].weight.T + model[2].bias
    torch.testing.assert_close(teacher(x_B3SS), exact)
    low = load_teacher(replace(config, dtype="bfloat16"), load_path)(x_B3SS)
    assert low.dtype == torch.bfloat16
    assert 0 < (low - exact).abs().max() < 2**-5 * exact.abs().max()


def test_name_tells_weights_views_and_texts_apart(linear, tmp_path):
    """The digest changes with any of them and with nothing else."""
    model, load_path = linear
    config = TeacherConfig(name=str(tmp_path))
    first = load_teacher(config, load_path).name
    assert first.startswith(f"{tmp_path.name} 8px ")
    assert load_teacher(replace(config, dtype="bfloat16"), load_path).name == first
    changed = [
        load_teacher(replace(config, mean=(0.5, 0.5, 0.5)), load_path).name,
        load_teacher(replace(config, class_names=("cat",)), load_path).name,
    ]
    with torch.no_grad():
        model[2].bias[4] += 1e-6
    changed.append(load_teacher(config, load_path).name)
    assert len({first, *changed}) == 4


def test_what_fails_or_gives_no_logits_is_told(linear, tmp_path):
    """Errors of foreign code become one line; so does an output of another shape."""
    _, load_path = linear
    with pytest.raises(ValueError, match=r"images of 9 x 9, .* failed: RuntimeError"):
        load_teacher(TeacherConfig(name=str(tmp_path), size=9), load_path)
    with pytest.raises(ValueError, match=r"expected logits of shape \(2, classes\)"):
        load_teacher(TeacherConfig(name=str(tmp_path)), lambda _: (nn.Identity(), View(size=8)))
    with pytest.raises(ValueError, match="size: expected 2 to 4096"):
        load_teacher(TeacherConfig(name=str(tmp_path), size=1), load_path)
    with pytest.raises(ValueError, match="prompt: expected"):
        TeacherConfig(name="a", prompt="a photo")
    with pytest.raises(ValueError, match="dtype: expected"):
        TeacherConfig(name="a", dtype="int8")


@pytest.mark.parametrize("kind", ["timm", "open_clip", "transformers"])
def test_missing_packages_are_named(kind, monkeypatch):
    """Who asks for a teacher of a library that is not there is told what to install."""
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(ValueError, match=r"teacher: expected the package .*: pip install"):
        load(TeacherConfig(name=f"{kind}:some", class_names=("cat",)))


@pytest.mark.slow
def test_classifier_of_transformers_gives_its_own_logits(tmp_path):
    """A tiny ViT saved in a folder; its processor's size and statistics become the view."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=24, patch_size=8, num_labels=7,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor", "size": {"height": 24, "width": 24}, '
        '"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    teacher = load(TeacherConfig(name=f"transformers:{tmp_path}"))
    assert teacher.view == View(size=24, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    x_B3SS = draws(24)
    torch.testing.assert_close(teacher(x_B3SS), model(x_B3SS).logits)
    with pytest.raises(ValueError, match="teacher: expected a model of transformers"):
        load(TeacherConfig(name=f"transformers:{tmp_path}/none"))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A tiny CLIP of transformers with a tokenizer of some words."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("clip")
    words = {"<pad>": 0, "<unk>": 1, "a": 2, "photo": 3, "of": 4, "cat": 5, "dog": 6, ".": 7}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))  # noqa: S106
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
    ).save_pretrained(folder)
    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 16, "projection_dim": 8}  # fmt: skip
    config = transformers.CLIPConfig(
        projection_dim=8,
        text_config=tower | {"vocab_size": 8, "eos_token_id": 7, "max_position_embeddings": 16},
        vision_config=tower | {"image_size": 16, "patch_size": 8},
    )
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "CLIPImageProcessor", "crop_size": {"height": 16, "width": 16}}'
    )
    return folder


@pytest.mark.slow
def test_images_and_texts_of_transformers_give_similarities(clip_folder):
    """What the whole model says of images and the two texts, padded, at once."""
    transformers = pytest.importorskip("transformers")
    names = ("cat", "dog")
    teacher = load(TeacherConfig(name=f"transformers:{clip_folder}", class_names=names))
    assert teacher.view == View(size=16) and teacher.num_classes == 2
    model = transformers.CLIPModel.from_pretrained(clip_folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(clip_folder)
    texts = tokenizer([f"a photo of a {one}." for one in names], return_tensors="pt", padding=True)
    x_B3SS = draws(16)
    with torch.inference_mode():
        expected = model(**texts, pixel_values=x_B3SS).logits_per_image
    torch.testing.assert_close(teacher(x_B3SS), expected, atol=1e-5, rtol=1e-5)


def test_images_and_texts_of_open_clip_give_similarities(monkeypatch):
    """With towers that are tables: cos(image, text) times the scale, for the text of each class."""
    tower = nn.Module()
    tower.visual = SimpleNamespace(image_size=(4, 4), image_mean=None, image_std=None)
    tower.logit_scale = nn.Parameter(torch.tensor(2.0))
    tower.encode_image = lambda x_B3SS: x_B3SS.mean((2, 3))
    tower.encode_text = lambda texts: torch.eye(3)[[len(one) % 3 for one in texts]]
    asked = []

    def create_model(architecture, pretrained):
        asked.append((architecture, pretrained))
        return tower

    package = ModuleType("open_clip")
    package.create_model, package.get_tokenizer = create_model, lambda _: list
    monkeypatch.setitem(sys.modules, "open_clip", package)
    config = TeacherConfig(
        name="open_clip:ViT-B-32/some", class_names=("a", "bc"), prompt="{}", mean=None
    )
    teacher = load(config)
    assert asked == [("ViT-B-32", "some")]
    assert teacher.view == View(size=4, mean=CLIP_MEAN, std=CLIP_STD)
    x_B3SS = draws(4)
    mean_B3 = x_B3SS.mean((2, 3))
    # Texts of 1 and 2 letters are the second and third unit vector.
    expected = torch.exp(torch.tensor(2.0)) * (mean_B3 / mean_B3.norm(dim=1, keepdim=True))[:, 1:]
    torch.testing.assert_close(teacher(x_B3SS), expected)
    with pytest.raises(ValueError, match="class_names: expected"):
        load(TeacherConfig(name="open_clip:ViT-B-32"))


@pytest.mark.slow
def test_pretrained_model_of_timm_gives_its_own_logits(tmp_path):
    """A model in a local folder, with the statistics that its file says."""
    timm = import_timm()
    model = timm.create_model("tiny_vit_5m_224", pretrained=False, num_classes=4)
    timm.models.save_for_hf(model, tmp_path, model_config={"num_classes": 4, "mean": IMAGENET_MEAN})
    teacher = load(TeacherConfig(name=f"timm:local-dir:{tmp_path}", size=64))
    assert teacher.view == View(size=64, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    x_B3SS = draws(64)
    with torch.inference_mode():
        torch.testing.assert_close(teacher(x_B3SS), model.eval()(x_B3SS))
