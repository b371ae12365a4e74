"""Quantized linear layers: products and gradients, swapping, data parallelism, compilation."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightwise.numerics import (
    PrecisionConfig,
    QuantizedLinear,
    ScaledFormat,
    Target,
    fake_quantize,
    quantize_model,
    unquantize_model,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer(precision: PrecisionConfig, *, bias: bool = True) -> QuantizedLinear:
    """A layer of 24 features in and 40 out with seeded normal parameters."""
    linear = QuantizedLinear(24, 40, bias, precision=precision)
    with torch.no_grad():
        for seed, parameter in enumerate(linear.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=10 + seed))
    return linear


def run(linear: nn.Linear, x: Tensor) -> list[Tensor]:
    """Output, input gradient and parameter gradients for a fixed output gradient."""
    x = x.clone().requires_grad_()
    linear.zero_grad()
    y = linear(x)
    y.backward(normal(*y.shape, seed=99).to(y.dtype))
    gradients = [p.grad for p in (x, *linear.parameters())]
    return [y.detach(), *(g for g in gradients if g is not None)]


def written_out(
    linear: QuantizedLinear, x: Tensor, targets: set[Target], fmt: ScaledFormat, contraction: bool
) -> list[Tensor]:
    """Equation 8 by hand for two-dimensional input, groups along each product's inner axis."""

    def q(operand: Tensor, target: Target, inner: int) -> Tensor:
        if target not in targets:
            return operand
        axis = inner if contraction else -1
        return fake_quantize(operand, fmt, axis=axis)

    w, dy = linear.weight.detach(), normal(len(x), linear.out_features, seed=99)
    y = q(x, Target.P1, 1) @ q(w, Target.P2, 1).T
    dx = q(dy, Target.P3, 1) @ q(w, Target.P4, 0)
    dw = q(dy, Target.P5, 0).T @ q(x, Target.P6, 0)
    bias = linear.state_dict().get("bias")
    return [y, dx, dw] if bias is None else [y + bias, dx, dw, dy.sum(0)]


CASES = [{target} for target in Target] + [{Target.P2, Target.P4, Target.P6}, set(Target)]


@pytest.mark.parametrize("axis", ["contraction", "last"])
@pytest.mark.parametrize("block_size", [None, 7])
@pytest.mark.parametrize("targets", CASES, ids=lambda targets: "+".join(sorted(targets)))
def test_products_equal_the_written_out_ones(
    targets: set[Target], block_size: int | None, axis: str
) -> None:
    """With each target alone and with several, output and gradients follow equation 8."""
    precision = PrecisionConfig(
        format="e2m1",
        granularity="channel" if block_size is None else "block",
        block_size=block_size,
        targets=tuple(sorted(targets)),
        axis=axis,  # type: ignore[arg-type]
    )
    linear, x = layer(precision, bias=block_size is None), normal(33, 24)
    fmt = precision.scaled_format
    assert fmt is not None
    expected = written_out(linear, x, targets, fmt, axis == "contraction")
    for got, want in zip(run(linear, x), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    # The targets leave a trace exactly where they take part.
    plain = run(layer(PrecisionConfig(), bias=block_size is None), x)
    changed = [not torch.allclose(a, b, atol=1e-3) for a, b in zip(expected, plain, strict=True)]
    pairs = ({Target.P1, Target.P2}, {Target.P3, Target.P4}, {Target.P5, Target.P6})
    assert changed[:3] == [bool(targets & pair) for pair in pairs]


@pytest.mark.parametrize("is_autocast", [False, True])
@pytest.mark.parametrize("shape", [(24,), (16, 24), (2, 8, 24)])
@pytest.mark.parametrize("bias", [False, True])
def test_without_targets_it_is_the_plain_layer(
    shape: tuple[int, ...], bias: bool, is_autocast: bool
) -> None:
    """Output and all gradients are those of nn.Linear, bit for bit."""
    x = normal(*shape)
    for precision in (PrecisionConfig(), PrecisionConfig(format="e4m3", targets=())):
        linear = layer(precision, bias=bias)
        plain = nn.Linear(24, 40, bias)
        plain.load_state_dict(linear.state_dict())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_autocast):
            pairs = zip(run(linear, x), run(plain, x), strict=True)
            assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)


@pytest.mark.parametrize("shape", [(24,), (33, 24), (3, 11, 24), (2, 0, 24)])
def test_leading_dimensions_are_tokens(shape: tuple[int, ...]) -> None:
    """Inputs of any rank give what the same tokens give as a matrix."""
    linear = layer(PrecisionConfig(format="e4m3", targets=tuple(Target)))
    x = normal(*shape)
    matrix = x.reshape(-1, 24)
    for got, want in zip(run(linear, x), run(linear, matrix), strict=True):
        assert torch.equal(got.reshape(want.shape), want)


def test_autocast_multiplies_in_bfloat16() -> None:
    """Under autocast the operands are rounded to bfloat16; master gradients stay float32."""
    precision = PrecisionConfig(format="e4m3", targets=(Target.P1, Target.P2))
    linear, x = layer(precision), normal(32, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, dx, dw, db = run(linear, x)
    assert (y.dtype, dx.dtype, dw.dtype, db.dtype) == (torch.bfloat16, *[torch.float32] * 3)
    # The activation arrives in bfloat16, the weight is quantized from its float32 master.
    expected = F.linear(
        fake_quantize(x.bfloat16(), "e4m3"),
        fake_quantize(linear.weight.detach(), "e4m3").bfloat16(),
        linear.bias.detach().bfloat16(),
    )
    assert torch.equal(y, expected)


def test_frozen_parameters_and_inputs_get_no_gradient() -> None:
    """Only what asks for a gradient gets one."""
    linear = layer(PrecisionConfig(format="e4m3"))
    linear.weight.requires_grad_(False)
    x = normal(4, 24)
    linear(x).sum().backward()
    assert linear.weight.grad is None
    assert linear.bias.grad is not None
    assert torch.equal(linear.bias.grad, torch.full((40,), 4.0))


class Tiny(nn.Module):
    """A model in the shape of the language model: blocks between an embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        shared = nn.Linear(16, 16, bias=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16), shared) for _ in range(2)
        )
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 11, bias=False)

    def forward(self, token_BT: Tensor) -> Tensor:
        """Return logits of shape (B, T, 11)."""
        x = self.embed(token_BT)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


INNER = [f"blocks.{block}.{layer}" for block in (0, 1) for layer in (0, 2, 3)]


def test_model_is_swapped_and_swapped_back() -> None:
    """Layers inside the blocks change class; parameters, their names and the head do not."""
    torch.manual_seed(0)
    model = Tiny()
    keys, parameters = list(model.state_dict()), list(model.parameters())
    tokens = torch.arange(22).view(2, 11) % 11
    before = model(tokens)

    assert quantize_model(model, PrecisionConfig(format="e1m1")) == INNER
    assert type(model.head) is nn.Linear
    # A layer that two blocks share is still shared.
    assert model.get_submodule("blocks.0.3") is model.get_submodule("blocks.1.3")
    assert list(model.state_dict()) == keys
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    quantized = model(tokens)
    assert not torch.allclose(quantized, before, atol=1e-3)
    assert torch.equal(deepcopy(model)(tokens), quantized)

    # Quantizing again replaces the configuration.
    assert quantize_model(model, PrecisionConfig(format="e5m10")) == INNER
    assert torch.allclose(model(tokens), before, atol=1e-2)

    assert unquantize_model(model) == INNER
    assert torch.equal(model(tokens), before)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))


def test_skipping() -> None:
    """Names and predicates leave layers out, and without a format nothing is touched."""
    precision = PrecisionConfig(format="e4m3")
    assert quantize_model(Tiny(), PrecisionConfig()) == []
    assert quantize_model(Tiny(), precision, skip=("1", "head")) == INNER[:3]
    assert quantize_model(Tiny(), precision, skip=lambda name: "blocks" in name) == ["head"]
    assert quantize_model(Tiny(), precision, skip=()) == [*INNER, "head"]


def test_text_of_a_layer() -> None:
    """Printing a model shows what is quantized."""
    assert "bias=True, format=e4m3, targets=P2+P4+P6" in repr(layer(PrecisionConfig(format="e4m3")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "e4"}, r"format\n.*Unknown number format 'e4'"),
        ({"granularity": "row"}, r"granularity\n.*'tensor', 'channel' or 'block'"),
        ({"granularity": "block"}, r"block_size\n.*block_size >= 1 with blocks, got None"),
        ({"granularity": "block", "block_size": 0}, r"block_size\n.*greater than or equal to 1"),
        ({"block_size": 32}, r"block_size\n.*only with blocks, got 32"),
        ({"targets": ["P7"]}, r"targets.0\n.*'P1', 'P2'"),
        ({"targets": ["P1", "P1"]}, r"targets\n.*at most once, got P1, P1"),
        ({"axis": "first"}, r"axis\n.*'contraction' or 'last'"),
        ({"rounding": "up"}, r"rounding\n.*'even', 'away' or 'stochastic'"),
        ({"format": "mxfp4", "granularity": "channel"}, r"granularity\n.*none with format 'mxfp4'"),
        ({"fmt": "e4m3"}, r"fmt\n.*[Uu]nexpected"),
    ],
)
def test_wrong_configurations_are_refused(settings: dict[str, object], message: str) -> None:
    """The message names the field and what it accepts."""
    with pytest.raises(ValueError, match=message):
        PrecisionConfig(**settings)  # type: ignore[arg-type]


def test_targets_may_be_text() -> None:
    """A recipe file gives targets as strings."""
    precision = PrecisionConfig(format="e4m3", targets=["P2", "P6"])  # type: ignore[arg-type]
    assert precision.targets == (Target.P2, Target.P6)
    assert hash(precision) == hash(PrecisionConfig(format="e4m3", targets=(Target.P2, Target.P6)))


# Every process takes half of the batch; blocks of 8 tokens divide it, so that the groups along
# the token axis are those of the whole batch.
WORKER = """
import os
import sys
import torch
from torch import distributed as dist, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from weightwise.numerics import PrecisionConfig, Target, quantize_model

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
x, goal = torch.randn(2, 64, 16)
quantize_model(model, PrecisionConfig(
    format="e2m1", granularity="block", block_size=8, targets=tuple(Target), axis="contraction"))
strategy, result = sys.argv[1:]
wrapped = model
if strategy != "single":
    dist.init_process_group("gloo")
    half = slice(32 * dist.get_rank(), 32 * dist.get_rank() + 32)
    x, goal = x[half], goal[half]
    if strategy == "ddp":
        wrapped = nn.parallel.DistributedDataParallel(model)
    else:
        for layer in (model[0], model[2]):
            fully_shard(layer)
        fully_shard(model)
(wrapped(x) - goal).square().mean().mul(32).backward()
gradients = [p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad
             for p in model.parameters()]
if strategy == "single" or dist.get_rank() == 0:
    torch.save(gradients, result)
if strategy != "single":
    dist.barrier()  # gloo may abort a process that leaves while the other still talks to it
    dist.destroy_process_group()
    os._exit(0)  # a thread of gloo that still runs at the end may abort the process
"""


@pytest.mark.slow
def test_two_processes_equal_one(start: Callable[..., Any], tmp_path: Path) -> None:
    """Gradients of two data-parallel processes, DDP or FSDP2, are those of a single one."""
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    in_two = [str(Path(__file__).with_name("launch.py")), "2"]
    gradients = {}
    for strategy in ("single", "ddp", "fsdp"):
        result = tmp_path / f"{strategy}.pt"
        launcher = in_two if strategy != "single" else []
        start(*launcher, worker, strategy, result).finish()
        gradients[strategy] = torch.load(result)
    for strategy in ("ddp", "fsdp"):
        torch.testing.assert_close(gradients[strategy], gradients["single"], rtol=1e-5, atol=1e-6)


# torch's compiler calls deprecated parts of torch.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
def test_compiled_layer_equals_the_eager_one() -> None:
    """torch.compile takes the layer without a graph break and keeps its numbers."""
    linear = layer(PrecisionConfig(format="e4m3", targets=tuple(Target)))
    x = normal(3, 11, 24)
    eager = run(linear, x)
    linear.compile(fullgraph=True)
    for got, want in zip(run(linear, x), eager, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


# torch's compiler calls deprecated parts of torch.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
def test_compiled_rounding_is_bit_identical() -> None:
    """Compilation may not simplify (v + c) - c away, nor lose the sign of zero."""
    x = torch.cat([normal(64, 32), torch.zeros(1, 32), -torch.zeros(1, 32)])
    for name in ("e4m3@10", "mxfp4", "nvfp4", "e8m7@16"):
        fmt = ScaledFormat.parse(name)

        def quantize(x: Tensor, fmt: ScaledFormat = fmt) -> Tensor:
            return fake_quantize(x, fmt, non_finite="propagate")

        got, want = torch.compile(quantize, fullgraph=True)(x), quantize(x)
        assert torch.equal(got.view(torch.int32), want.view(torch.int32))
