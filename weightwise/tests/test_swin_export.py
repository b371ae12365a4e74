"""Mini-Swin as programs of torch.export, torch.compile and ONNX, each weight once."""

import pytest
import torch

from weightwise.vision.swin import Swin
from weightwise.vision.swin_config import SwinConfig, mini_swin

MINI = mini_swin(
    SwinConfig(
        width=32, groups=((1,), (1,), (1, 1, 1), (1,)), window=4, head_width=16, image_size=64,
        num_classes=10,
    ),
    (1, 1, 3, 1),
)  # fmt: skip


@pytest.fixture
def model():
    """A small model with drawn weights and transforms."""
    built = Swin(MINI)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in built.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return built.eval()


def exported(model, side):
    """A program for any number of images."""
    sizes = ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        return torch.export.export(model, (torch.zeros(2, 3, side, side),), dynamic_shapes=sizes)


@pytest.mark.filterwarnings("ignore:`isinstance:FutureWarning")
@pytest.mark.slow
def test_an_onnx_file_holds_each_weight_once(model, tmp_path):
    """Run by onnxruntime at a size whose windows must be filled up."""
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        exported(model, 72), (), path, input_names=["images"], output_names=["logits"],
        external_data=False, dynamo=True, verbose=False,
    )  # fmt: skip
    # Two layers of the MLP, of 128 and 512 channels, serve the three executions of stage 3.
    held = onnx.load(path).graph.initializer
    assert sum(sorted(one.dims) == [128, 512] for one in held) == 2
    session = runtime.InferenceSession(path)
    x = torch.randn(3, 3, 72, 72)
    (found,) = session.run(["logits"], {"images": x.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(found), model(x), atol=1e-4)
