"""Linear layers on 8-bit products, as FP8-LM and Transformer Engine train them.

With X the input, W the weight and dY the gradient of the output (arXiv 2310.18313, section 2)::

    forward     Y  = x8 @ w8^T      x8 = E4M3(X),  w8 = E4M3(W)
    backward    dX = dy8 @ w8       dy8 = E5M2(dY)
                dW = dy8^T @ x8

Only x8 and w8 are kept for the backward pass. Where the hardware has 8-bit products they are used
(`torch._scaled_mm`, sums in float32); elsewhere the same 8-bit numbers are multiplied in float32,
which gives what an 8-bit product with exact sums would.

A scale comes from the tensor's own largest magnitude (``"current"``), or from those of the last
steps (``"delayed"``): then the input needs one pass instead of two, and what exceeds its past
saturates. A step that is not finite starts the history anew.
"""

# Shapes: T tokens, I features in, O features out

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from weightwise.numerics.scaled_tensor import ScaledTensor, amax_of
from weightwise.numerics.stored import LARGEST, exact_scale, power_of_two_scale
from weightwise.numerics.swap import skipping, swap_linears

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
# What 8-bit products of CUDA devices need of the summed and the last axis.
MULTIPLE = 16
LEAST_CAPABILITY = (8, 9)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Fp8Config:
    """How linear layers are multiplied in 8 bits.

    Parameters
    ----------
    scaling
        ``"current"`` or ``"delayed"``, see the module's text. Weights always have their own scale.
    window
        Steps that a delayed scale looks back, 1 to 4096; for as many steps from the start scales
        are current.
    margin
        Binades that scales leave free, 0 to 8.
    power_of_two
        Whether scales are powers of two.
    """

    scaling: Literal["current", "delayed"] = "current"
    window: int = Field(default=16, ge=1, le=4096)
    margin: int = Field(default=0, ge=0, le=8)
    power_of_two: bool = True


class Scaler(nn.Module):
    """Scale of one operand from step to step; its buffers are part of checkpoints.

    Parameters
    ----------
    config
        How.
    dtype
        What the operand is cast to.
    """

    history: Tensor
    count: Tensor
    scale: Tensor

    def __init__(self, config: Fp8Config, dtype: torch.dtype) -> None:
        super().__init__()
        self.config, self.dtype = config, dtype
        if config.scaling == "delayed":
            self.register_buffer("history", torch.zeros(config.window))
            self.register_buffer("count", torch.zeros((), dtype=torch.int64))
            self.register_buffer("scale", torch.ones(()))

    def cast(self, x: Tensor) -> ScaledTensor:
        """The operand in 8 bits."""
        amax = amax_of(x)
        scale = self._scale_for(amax)
        if self.config.scaling == "delayed":
            if self.training:
                # Several passes of a step: the largest of them counts.
                self.history[0] = torch.maximum(self.history[0], amax)
            scale = torch.where(self.count < self.config.window, scale, self.scale)
        # No payload tells of infinities and NaN: all of the products then become NaN.
        scale = torch.where(amax.isfinite(), scale, torch.nan)
        return ScaledTensor.of(x, self.dtype, scale=scale, amax=amax)

    def _scale_for(self, amax: Tensor, previous: Tensor | float = 1.0) -> Tensor:
        limit, margin = LARGEST[self.dtype], self.config.margin
        if self.config.power_of_two:
            return power_of_two_scale(amax, limit, previous, margin)
        return exact_scale(amax, limit / 2**margin, previous)


@torch.no_grad()
def update_scales(
    model: nn.Module, over_processes: Callable[[Tensor], object] | None = None
) -> None:
    """Take a step's largest magnitudes into all delayed scales of a model.

    Call it after the optimizer's step. Layers that saw no input in training since the last call
    are left alone.

    Parameters
    ----------
    model
        With any number of `Fp8Linear`.
    over_processes
        Raises magnitudes, float32 of shape (layers,), to the largest of all processes, in place,
        so that all have the same scales.
    """
    scalers = [
        one
        for one in model.modules()
        if isinstance(one, Scaler) and one.config.scaling == "delayed"
    ]
    groups: dict[tuple[Fp8Config, torch.dtype, torch.device], list[Scaler]] = {}
    for one in scalers:
        groups.setdefault((one.config, one.dtype, one.history.device), []).append(one)
    for members in groups.values():
        _update(members, over_processes)


def _update(scalers: list[Scaler], over_processes: Callable[[Tensor], object] | None) -> None:
    """The rule for scalers of one kind together."""
    history_LW = torch.stack([one.history for one in scalers])
    count_L = torch.stack([one.count for one in scalers])
    scale_L = torch.stack([one.scale for one in scalers])
    newest_L = history_LW[:, 0].clone()
    if over_processes is not None:
        over_processes(newest_L)
    is_bad_L, was_used_L = ~newest_L.isfinite(), newest_L > 0
    history_LW[:, 0] = torch.where(is_bad_L, 0.0, newest_L)
    new_L = scalers[0]._scale_for(history_LW.amax(1), scale_L)
    rolled_LW = history_LW.roll(1, 1)
    rolled_LW[:, 0] = 0.0
    count_L = torch.where(is_bad_L, 0, count_L + 1)
    for one, used, history, count, scale in zip(
        scalers, was_used_L, rolled_LW, count_L, new_L, strict=True
    ):
        one.history.copy_(torch.where(used, history, one.history))
        one.count.copy_(torch.where(used, count, one.count))
        one.scale.copy_(torch.where(used, scale, one.scale))


def has_fp8_products(device: torch.device) -> bool:
    """Whether a device multiplies 8-bit numbers by itself."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= LEAST_CAPABILITY


def product(a_MK: ScaledTensor, b_NK: ScaledTensor, dtype: torch.dtype, is_fast: bool) -> Tensor:
    """``a @ b^T`` of two 8-bit matrices.

    Parameters
    ----------
    a_MK, b_NK
        Matrices whose last axis is summed.
    dtype
        float32, bfloat16 or float16.
    is_fast
        Whether sums may be kept in fewer bits where the hardware can.
    """
    if not has_fp8_products(a_MK.device):
        return (a_MK.decode(torch.float32) @ b_NK.decode(torch.float32).t()).to(dtype)
    rows, columns = a_MK.shape[0], b_NK.shape[0]
    a, b = (_padded(one.payload) for one in (a_MK, b_NK))
    found = torch._scaled_mm(
        a, b.t(), scale_a=a_MK.scale.reciprocal(), scale_b=b_NK.scale.reciprocal(),
        out_dtype=dtype, use_fast_accum=is_fast,
    )  # fmt: skip
    return found[:rows, :columns]


def _padded(payload: Tensor) -> Tensor:
    """Rows of zeros and columns of zeros up to the multiple that devices need."""
    rows, columns = (-size % MULTIPLE for size in payload.shape)
    if not rows and not columns:
        return payload.contiguous()
    return F.pad(payload.view(torch.uint8), (0, columns, 0, rows)).view(payload.dtype)


class _Product(torch.autograd.Function):
    """The three products, in 8 bits each."""

    @staticmethod
    def forward(
        ctx: Any, x_TI: Tensor, weight_OI: Tensor, x_scaler: Scaler, dy_scaler: Scaler,
    ) -> Tensor:  # fmt: skip
        x8_TI = x_scaler.cast(x_TI)
        w8_OI = weight_in_8_bits(weight_OI, x_scaler)
        ctx.save_for_backward(x8_TI.payload, x8_TI.scale, w8_OI.payload, w8_OI.scale)
        ctx.dy_scaler, ctx.dtype, ctx.weight_dtype = dy_scaler, x_TI.dtype, weight_OI.dtype
        return product(x8_TI, w8_OI, x_TI.dtype, is_fast=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TO: Tensor) -> tuple[Tensor | None, ...]:
        x_payload, x_scale, w_payload, w_scale = ctx.saved_tensors
        nothing = x_scale.new_zeros(())
        dy8_TO = ctx.dy_scaler.cast(dy_TO)
        dx_TI = dw_OI = None
        if ctx.needs_input_grad[0]:
            w8_IO = ScaledTensor(w_payload.t(), w_scale, nothing)
            dx_TI = product(dy8_TO, w8_IO, ctx.dtype, is_fast=False)
        if ctx.needs_input_grad[1]:
            x8_IT = ScaledTensor(x_payload.t(), x_scale, nothing)
            dw_OI = product(dy8_TO.t(), x8_IT, ctx.weight_dtype, is_fast=False)
        return dx_TI, dw_OI, None, None


def weight_in_8_bits(weight: Tensor, scaler: Scaler) -> ScaledTensor:
    """E4M3 of a weight; from a scaled weight its amax is known, and 8-bit weights are ready."""
    weight = weight.detach()
    if isinstance(weight, ScaledTensor) and weight.payload.dtype == E4M3:
        return weight
    amax = amax_of(weight)
    return ScaledTensor.of(weight, E4M3, scale=scaler._scale_for(amax), amax=amax)


class Fp8Linear(nn.Linear):
    """A linear layer with 8-bit products.

    Parameters, names and initialization are those of `torch.nn.Linear`; the weight may be a
    `weightwise.numerics.ScaledTensor`.

    Parameters
    ----------
    in_features, out_features, bias, device, dtype
        As in `torch.nn.Linear`.
    config
        How it multiplies.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        config: Fp8Config | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.config = config or Fp8Config()
        self.input_scaler = Scaler(self.config, E4M3)
        self.gradient_scaler = Scaler(self.config, E5M2)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name in nn.Linear)
        """Output for inputs of shape (..., in_features), in autocast's type or the input's."""
        if torch.is_autocast_enabled(input.device.type):
            input = input.to(torch.get_autocast_dtype(input.device.type))  # noqa: A001
        x_TI = input.reshape(-1, self.in_features)
        y_TO: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
            x_TI, self.weight, self.input_scaler, self.gradient_scaler
        )
        if self.bias is not None:
            y_TO = y_TO + self.bias.to(y_TO.dtype)
        return y_TO.reshape(*input.shape[:-1], self.out_features)


def fp8_model(
    model: nn.Module,
    config: Fp8Config | None = None,
    *,
    skip: Collection[str] | Callable[[str], bool] = ("head", "lm_head"),
) -> list[str]:
    """Swap the linear layers of a model for 8-bit ones, in place; parameters stay the same objects.

    Parameters
    ----------
    model
        The model; only layers inside of it are swapped. A layer with an attribute
        ``use_fp32_linear`` that is true is left alone.
    config
        How they multiply.
    skip
        Layers to leave alone: names that stand anywhere in a dotted path, or a predicate on it.

    Returns
    -------
    Dotted names of the layers swapped.
    """
    return swap_linears(model, (nn.Linear,), selecting(skip), lambda one: _rebuild(one, config))


def selecting(
    skip: Collection[str] | Callable[[str], bool],
) -> Callable[[str, nn.Linear], bool]:
    """Whether a layer of a name is to have 8 bits, see `fp8_model`."""
    is_skipped = skipping(skip)
    return lambda name, layer: not (is_skipped(name) or getattr(layer, "use_fp32_linear", False))


def _rebuild(linear: nn.Linear, config: Fp8Config | None) -> Fp8Linear:
    """The 8-bit layer of the same parameters."""
    shape = (linear.in_features, linear.out_features, linear.bias is not None, "meta")
    new = Fp8Linear(*shape, config=config)
    new.weight, new.bias = linear.weight, linear.bias
    new.input_scaler.to(linear.weight.device)
    new.gradient_scaler.to(linear.weight.device)
    return new
