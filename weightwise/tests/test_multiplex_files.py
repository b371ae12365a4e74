"""Files with each weight once, folders of multiplexed models, reports and diagnosis."""

import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from weightwise.multiplex import (
    SizeReport,
    Transforms,
    block_similarity,
    gradient_norms,
    linear_cka,
    load_multiplexed,
    load_unique,
    multiplex,
    num_unique_parameters,
    num_unrolled_parameters,
    save_multiplexed,
    save_onnx,
    storage,
    transform_macs,
    unique_state_dict,
)

SHARED = runpy.run_path(str(Path(__file__).with_name("multiplex_models.py")))
Plain, batch_of = SHARED["Plain"], SHARED["batch_of"]
ALL = Transforms(mixes=True, mix_bias=True, kernel=3, rank=2)


def multiplexed(seed=0, width=8, transforms=ALL):
    """Four blocks, of which some share, with all transforms, and tokens."""
    torch.manual_seed(seed)
    model, batch = Plain(width=width).eval(), batch_of(f"tokens {width}")
    multiplex(model, 0.95, transforms=transforms, batches=[batch])
    return model, batch


def test_shared_tensors_are_written_once(tmp_path):
    """The file takes the bytes of unique parameters, to 1 %."""
    model, _ = multiplexed(width=64)
    tensors = unique_state_dict(model)
    save_file(tensors, tmp_path / "model.safetensors")
    size = (tmp_path / "model.safetensors").stat().st_size
    assert sum(one.numel() for one in tensors.values()) == num_unique_parameters(model)
    assert size == pytest.approx(4 * num_unique_parameters(model), rel=0.05)
    body = size - int.from_bytes((tmp_path / "model.safetensors").read_bytes()[:8], "little")
    assert body == pytest.approx(4 * num_unique_parameters(model), rel=0.001)


@pytest.mark.slow
def test_files_of_a_usual_size_take_the_bytes_of_their_parameters(tmp_path):
    """Names and shapes are below 1 %: here of 0.8 million parameters."""
    model, _ = multiplexed(width=256)
    save_multiplexed(model, tmp_path / "model")
    size = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert size == pytest.approx(4 * num_unique_parameters(model), rel=0.01)
    assert size == pytest.approx(SizeReport.of(model).file_bytes, rel=0.01)


def test_tensors_come_back_under_any_of_their_names():
    """A whole state dict, and one whose shared tensors stand under another block's name."""
    model, batch = multiplexed()
    other, _ = multiplexed(seed=1)
    load_unique(other, unique_state_dict(model))
    assert torch.equal(other(batch), model(batch))
    other, _ = multiplexed(seed=2)
    load_unique(other, model.state_dict())
    assert torch.equal(other(batch), model(batch))
    tensors = unique_state_dict(model)
    tensors["blocks.1.fc1.weight"] = tensors.pop("blocks.0.fc1.weight")
    other, _ = multiplexed(seed=3)
    load_unique(other, tensors)
    assert torch.equal(other(batch), model(batch))


def test_tensors_that_do_not_fit_are_named_and_nothing_is_changed():
    """All three kinds in one message."""
    model, batch = multiplexed()
    other, _ = multiplexed(seed=1)
    before = other(batch)
    tensors = unique_state_dict(model)
    tensors["new"] = tensors.pop("head.bias")
    tensors["head.weight"] = torch.zeros(3, 9)
    with pytest.raises(ValueError, match="1 missing: head") as error:
        load_unique(other, tensors)
    message = str(error.value)
    assert "head.bias; 1 unknown: new; 1 of another shape: head.weight (3, 9)" in message
    assert torch.equal(other(batch), before)


def test_ties_of_an_output_layer_are_no_repetition():
    """An embedding of 11 x 4 as output layer counts once either way; blocks count by use."""
    model = nn.ModuleDict({"embed": nn.Embedding(11, 4), "out": nn.Linear(4, 11, bias=False)})
    model["out"].weight = model["embed"].weight
    assert num_unique_parameters(model) == num_unrolled_parameters(model) == 44
    assert list(unique_state_dict(model)) == ["embed.weight"]
    plain = num_unique_parameters(Plain())
    model, _ = multiplexed(transforms=Transforms())
    assert num_unrolled_parameters(model) == plain
    assert num_unique_parameters(model) == plain - 2 * 568  # two of four sets of 568 are gone


def test_buffers_and_models_without_memory_keep_their_names():
    """Running statistics of each block, and tensors on the meta device."""
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    assert set(unique_state_dict(model)) == set(model.state_dict())
    with torch.device("meta"):
        assert len(unique_state_dict(Plain())) == len(Plain().state_dict())


def test_models_come_back_from_their_folder(tmp_path):
    """Into a newly made original; outputs to the bit, and a second save replaces the first."""
    model, batch = multiplexed()
    save_multiplexed(model, tmp_path / "model")
    again = Plain().eval()
    assert load_multiplexed(again, tmp_path / "model") == model.multiplex_plan
    assert torch.equal(again(batch), model(batch))
    assert again.blocks[0].fc1.weight is again.blocks[1].fc1.weight
    nn.init.zeros_(model.head.weight)
    save_multiplexed(model, tmp_path / "model")
    again = Plain().eval()
    load_multiplexed(again, tmp_path / "model")
    assert not again.head.weight.any()
    assert [one.name for one in tmp_path.iterdir()] == ["model"]


def test_a_save_that_fails_leaves_the_old_folder(tmp_path, monkeypatch):
    """A full disk, and no rest of the new one."""
    model, batch = multiplexed()
    save_multiplexed(model, tmp_path / "model")

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(storage, "save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        save_multiplexed(model, tmp_path / "model")
    again = Plain().eval()
    load_multiplexed(again, tmp_path / "model")
    assert torch.equal(again(batch), model(batch))
    assert [one.name for one in tmp_path.iterdir()] == ["model"]


def test_folders_that_do_not_fit_are_named(tmp_path):
    """None, one of something else, one of another model."""
    with pytest.raises(ValueError, match="model: expected a multiplexed one"):
        save_multiplexed(Plain(), tmp_path / "model")
    model, _ = multiplexed()
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="other: expected a new folder or a multiplexed model"):
        save_multiplexed(model, tmp_path / "other")
    with pytest.raises(ValueError, match=r"other: .*No such file"):
        load_multiplexed(Plain(), tmp_path / "other")
    save_multiplexed(model, tmp_path / "model")
    with pytest.raises(ValueError, match="model: plan: expected 4 equal blocks in blocks"):
        load_multiplexed(Plain(depth=3), tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    tensors.pop("head.bias")
    save_file(tensors, tmp_path / "model" / "model.safetensors")
    with pytest.raises(ValueError, match=r"model: tensors: .* 1 missing: head.bias"):
        load_multiplexed(Plain(), tmp_path / "model")


# Said by torch's exporter about itself.
@pytest.mark.filterwarnings("ignore:`isinstance:FutureWarning")
@pytest.mark.slow
def test_onnx_files_hold_each_weight_once(tmp_path):
    """Initializers of shared weights are not repeated, and onnxruntime gives the same."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    model, batch = multiplexed(width=32)
    save_onnx(model, batch, tmp_path / "model.onnx")
    weights = onnx.load(tmp_path / "model.onnx").graph.initializer
    assert sum(torch.Size(one.dims).numel() for one in weights) <= num_unique_parameters(model)
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    found = session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), model(batch).detach(), atol=1e-4, rtol=1e-3)


def test_reports_count_by_kind():
    """Three blocks of width 8 and two heads share, the fourth does not."""
    model, _ = multiplexed()
    report = SizeReport.of(model)
    parts = {part.name: (part.unique, part.unrolled) for part in report.parts}
    assert parts == {
        "shared weights": (568, 3 * 568),
        "own weights": (568 + 4 * 32 + 27, 568 + 4 * 32 + 27),
        # Two maps of 2 x 2 and 2; norm and 3 x 3 kernels with bias; rank 2.
        "head mixes": (3 * 12, 3 * 12),
        "local mixes": (3 * (16 + 72 + 8), 3 * (16 + 72 + 8)),
        "low-rank deltas": (3 * 2 * (32 + 16 + 24 + 24), 3 * 2 * (32 + 16 + 24 + 24)),
    }
    assert report.num_unique == num_unique_parameters(model)
    assert report.num_unrolled == num_unrolled_parameters(model)
    assert report.weight_bytes == report.gradient_bytes == 4 * report.num_unique
    assert report.file_bytes == report.weight_bytes
    assert report.optimizer_bytes == 8 * report.num_unique
    assert report.as_dict()["parts"][0]["name"] in parts
    assert "activations as without sharing" in report.text()
    assert f"{report.num_unique:,}" in report.text()
    model.head.requires_grad_(False)
    assert SizeReport.of(model).gradient_bytes == 4 * (report.num_unique - 27)


def test_transforms_cost_what_their_parameters_say():
    """Per block 2 * 16 * 16 * 2^2, 16 * 9 * 8 and 16 * 192 multiply-adds."""
    model, _ = multiplexed()
    assert transform_macs(model, 16, 16) == 3 * (2048 + 1152 + 3072)
    assert transform_macs(Plain(), 16, 16) == 0
    with pytest.raises(ValueError, match="num_keys: expected at least 1, got 0"):
        transform_macs(model, 16, 0)


def test_gradients_of_executions_add_up_and_leave_nothing_behind():
    """Norms are those of an untied model; the model keeps its ties and has no gradients."""
    model, batch = multiplexed(transforms=Transforms())
    untied = Plain().eval()
    untied.load_state_dict(model.state_dict())
    untied(batch).square().sum().backward()
    found = gradient_norms(model, lambda one: one(batch).square().sum())
    assert list(found) == [f"blocks.{index}" for index in range(4)]
    for block, value in zip(untied.blocks, found.values(), strict=True):
        shared = [one.grad for name, one in block.named_parameters() if "norm" not in name]
        wanted = torch.cat([one.flatten() for one in shared]).norm().item()
        assert value == pytest.approx(wanted, rel=1e-4)
    assert model.blocks[0].fc1.weight is model.blocks[1].fc1.weight
    assert all(one.grad is None for one in model.parameters())


def test_gradients_are_measured_with_transforms_too():
    """Executions with transforms and blocks without are blocks of one stage."""
    model = Plain().eval()
    multiplex(model, 0.9, keep=("proj",), transforms=Transforms(rank=1))
    batch = batch_of("tokens 8")
    assert len(gradient_norms(model, lambda one: one(batch).square().sum())) == 4


def test_alignment_sees_through_rotations_and_scales():
    """And the formula by kernels: centred Gram matrices of rows."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(50, n, generator=generator, dtype=torch.float64) for n in (6, 4))
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    assert linear_cka(x, 3 * x @ turn + 1) == pytest.approx(1)
    centre = torch.eye(50, dtype=torch.float64) - 1 / 50
    k, m = (centre @ z @ z.T @ centre for z in (x, y))
    assert linear_cka(x, y) == pytest.approx(((k * m).sum() / (k.norm() * m.norm())).item())
    assert linear_cka(x, torch.ones(50, 2)) == 0
    with pytest.raises(ValueError, match="expected matrices with the same rows"):
        linear_cka(x, y[1:])


def test_blocks_are_compared_with_the_original():
    """Alike with itself; block 1, which has lost its weights, less than block 0."""
    torch.manual_seed(0)
    original, batch = Plain().eval(), batch_of("tokens 8")
    model = Plain().eval()
    model.load_state_dict(original.state_dict())
    assert min(block_similarity(model, original, [batch]).values()) == pytest.approx(1)
    multiplex(model, 0.95, start="first")
    found = block_similarity(model, original, [batch, batch_of("tokens 8", 1)])
    assert found["blocks.0"] == pytest.approx(1)
    assert found["blocks.1"] < 1 - 1e-6
    with pytest.raises(ValueError, match="batches: expected at least 1"):
        block_similarity(model, original, [])
    with pytest.raises(ValueError, match="expected blocks of the same names"):
        block_similarity(model, Plain(depth=3), [batch])
