"""Programs of torch.export and ONNX hold each weight of a Mini-DeiT once."""

import pytest
import torch

from weightwise.vision.deit import DeiT
from weightwise.vision.deit_config import DeiTConfig, mini_deit
from weightwise.vision.fuse import fuse

# Shared weights are nearly all of it: one set for three executions.
CONFIG = mini_deit(
    DeiTConfig(width=192, num_heads=3, groups=(1,) * 3, patch=8, image_size=32, num_classes=10), 3
)


@pytest.fixture
def model():
    """A model with drawn maps and tables."""
    torch.manual_seed(0)
    built = DeiT(CONFIG).eval()
    for name, one in built.named_parameters():
        if "attend" in name or "table" in name:
            torch.nn.init.normal_(one)
    return built


def program_of(model):
    """A program for any number of images."""
    batch = torch.export.Dim("batch")
    images = torch.zeros(2, 3, 32, 32)
    with torch.no_grad():
        return torch.export.export(fuse(model), (images,), dynamic_shapes=({0: batch},))


@pytest.mark.slow
def test_an_exported_program_takes_any_number_of_images(model, tmp_path):
    """Saved and loaded; three copies of the weights would be more than twice the parameters."""
    path = tmp_path / "model.pt2"
    torch.export.save(program_of(model), path)
    program = torch.export.load(path).module()
    for batch in (1, 3):
        x = torch.randn(batch, 3, 32, 32)
        with torch.no_grad():
            assert torch.allclose(program(x), model(x), atol=1e-5)
    bytes_of_weights = 4 * sum(one.numel() for one in model.parameters())
    assert bytes_of_weights < path.stat().st_size < 1.3 * bytes_of_weights


# Said by torch's exporter about itself.
@pytest.mark.filterwarnings("ignore:`isinstance:FutureWarning")
@pytest.mark.slow
def test_an_onnx_file_holds_each_weight_once(model, tmp_path):
    """Run by onnxruntime; initializers add up to the parameters."""
    pytest.importorskip("onnxscript")
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        program_of(model), (), path, input_names=["images"], output_names=["logits"],
        external_data=False, dynamo=True, verbose=False,
    )  # fmt: skip
    session = runtime.InferenceSession(path)
    for batch in (1, 3):
        x = torch.randn(batch, 3, 32, 32)
        (found,) = session.run(["logits"], {"images": x.numpy()})
        with torch.no_grad():
            assert torch.allclose(torch.from_numpy(found), model(x), atol=1e-4)
    tensors = onnx.load(path).graph.initializer
    floats = sum(
        torch.Size(one.dims).numel() for one in tensors if one.data_type == onnx.TensorProto.FLOAT
    )
    num_parameters = sum(one.numel() for one in model.parameters())
    # Folded tables stand beside what is left of the parameters; shared weights do not repeat.
    assert floats == pytest.approx(num_parameters, rel=0.02)
