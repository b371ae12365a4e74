"""Programs of torch.export and ONNX for any number of images."""

import pytest
import torch

from weightwise.vision import TinyViT, TinyViTConfig, export, save_onnx

TINY = TinyViTConfig(
    widths=(8, 32, 32, 48), depths=(1, 1, 1, 1), windows=(4, 4, 2), head_width=16, image_size=64,
    num_classes=10, mask_padding=True,
)  # fmt: skip


@pytest.fixture
def model():
    """A small model with drawn weights and tables."""
    built = TinyViT(TINY)
    built.initialize(torch.Generator().manual_seed(0))
    for name, one in built.named_parameters():
        if name.endswith("attention_biases"):
            torch.nn.init.normal_(one)
    return built.eval()


@pytest.mark.slow
def test_an_exported_program_takes_any_number_of_images(model, tmp_path):
    """Saved and loaded; in the last stage the map is the window."""
    torch.export.save(export(model), tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 64, 64)
        with torch.no_grad():
            assert torch.allclose(program(x), model(x), atol=1e-5)


# Said by torch's exporter about itself.
@pytest.mark.filterwarnings("ignore:`isinstance:FutureWarning")
@pytest.mark.slow
def test_an_onnx_file_takes_any_number_of_images(model, tmp_path):
    """Run by onnxruntime; windows must be filled up; one file holds all."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    save_onnx(model, tmp_path / "model.onnx", (72, 60))
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    for batch in (1, 3):
        x = torch.randn(batch, 3, 72, 60)
        (found,) = session.run(["logits"], {"images": x.numpy()})
        with torch.no_grad():
            assert torch.allclose(torch.from_numpy(found), model(x), atol=1e-5)


def test_sizes_below_one_are_refused(model):
    """One side is enough."""
    with pytest.raises(ValueError, match="image_size: expected at least 1, got"):
        export(model, (64, 0))
