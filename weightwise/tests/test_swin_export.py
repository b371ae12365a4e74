"""Mini-Swin as programs of torch.export, torch.compile and ONNX, each weight once."""

import pytest
import torch

from weightwise.multiplex.files import num_unique_parameters
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


@pytest.mark.slow
def test_an_exported_program_holds_each_weight_once(model, tmp_path):
    """After inference at the same size, so that a layout is known; any number of images."""
    with torch.inference_mode():
        model(torch.zeros(1, 3, 64, 64))
    torch.export.save(exported(model, 64), tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2")
    storages = {one.untyped_storage().data_ptr(): one for one in program.state_dict.values()}
    assert sum(one.numel() for one in storages.values()) == num_unique_parameters(model)
    for batch in (1, 3):
        x = torch.randn(batch, 3, 64, 64)
        with torch.no_grad():
            assert torch.allclose(program.module()(x), model(x), atol=1e-4)


# Said by torch's exporter about itself.
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


@pytest.mark.slow
def test_a_compiled_model_computes_the_same(model):
    """Traced as one graph, in inference and in training."""
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 3, 60, 64)
    assert torch.allclose(compiled(x), model(x), atol=1e-4)
    with torch.no_grad():
        assert torch.allclose(compiled(x), model(x), atol=1e-4)
