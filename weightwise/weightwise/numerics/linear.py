"""Linear layers whose six matrix-multiplication operands can each be quantized.

Training a linear layer takes three matrix products, with X the input (T tokens, I features),
W the weight (O features out) and dY the gradient of the output (arXiv 2501.02423, equation 8)::

    forward     Y  = P1(X)   @ P2(W)^T        Y_TO
    backward    dX = P3(dY)  @ P4(W)          dX_TI
                dW = P5(dY)^T @ P6(X)         dW_OI

Each of the six operands P1 to P6 is quantized on its own, from the unquantized original, or not
at all. The paper's law is fitted on P2, P4 and P6. Quantized means fake-quantized: rounded to the
format with a scale per group and scaled back, then multiplied in the compute dtype (autocast's
where it is on, otherwise the dtype of the input). Gradients pass straight through the rounding by
construction, because the backward products are written out; nothing is clipped, so there is no
mask.

Groups run along the contraction axis of each product by default (our choice; the paper is
silent): features in for P1 and P2, features out for P3 and P4, tokens for P5 and P6. Groups along
tokens span all tokens of a micro-batch: only with blocks that divide it does splitting the batch
leave the result unchanged.

Only the input and the weight itself are kept for the backward pass; quantized operands are
recomputed. Weights are quantized from the parameter as it is stored (float32 master weights are
rounded once), and the bias stays unquantized.
"""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from weightwise.numerics.quantize import fake_quantize
from weightwise.numerics.reference import Rounding  # noqa: TC001, pydantic needs it
from weightwise.numerics.scaling import Granularity, ScaledFormat, Scaling, names_scales
from weightwise.numerics.swap import skipping, swap_linears

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


class Target(StrEnum):
    """The six operands of a linear layer's matrix products (arXiv 2501.02423, figure 2)."""

    P1 = "P1"  # X in the forward product
    P2 = "P2"  # W in the forward product
    P3 = "P3"  # dY in the product that gives dX
    P4 = "P4"  # W in the product that gives dX
    P5 = "P5"  # dY in the product that gives dW
    P6 = "P6"  # X in the product that gives dW


# Axis of T x I, O x I or T x O over which each operand's product sums.
_CONTRACTION_AXIS = {
    Target.P1: 1,
    Target.P2: 1,
    Target.P3: 1,
    Target.P4: 0,
    Target.P5: 0,
    Target.P6: 0,
}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", validate_default=True))
class PrecisionConfig:
    """How the linear layers of a model are quantized during training.

    Parameters
    ----------
    format
        Name of a number format (see `weightwise.numerics.ScaledFormat.parse`); None leaves the
        model unquantized. A name that says who shares a scale, such as ``"e4m3@32"`` or
        ``"mxfp4"``, is refused together with `granularity`.
    granularity
        One scale per ``"tensor"``, per ``"channel"`` (the default) or per ``"block"``.
    block_size
        Elements per block, at least 1; needed with blocks and refused without.
    targets
        The operands to quantize, each at most once.
    axis
        ``"contraction"``: groups run along the axis that the product sums over; ``"last"``: along
        the last axis of every operand.
    rounding
        ``"even"``, ``"away"`` or ``"stochastic"``, see `weightwise.numerics.round_to_format`.
        The seeds of stochastic rounding come from torch's default generator, one for each
        operand.

    Raises
    ------
    pydantic.ValidationError
        A ``ValueError`` that names the field and what it accepts.
    """

    format: str | None = None
    granularity: Granularity | None = None
    block_size: Annotated[int | None, Field(ge=1)] = None
    targets: tuple[Target, ...] = (Target.P2, Target.P4, Target.P6)
    axis: Literal["contraction", "last"] = "contraction"
    rounding: Rounding = "even"

    @field_validator("format")
    @classmethod
    def _check_format(cls, name: str | None) -> str | None:
        if name is not None:
            ScaledFormat.parse(name)
        return name

    @field_validator("granularity")
    @classmethod
    def _check_granularity(
        cls, granularity: Granularity | None, info: ValidationInfo
    ) -> Granularity | None:
        name = info.data.get("format") or ""
        if granularity is not None and names_scales(name):
            raise ValueError(f"Expected none with format {name!r}, got {granularity!r}.")
        return granularity

    @field_validator("block_size")
    @classmethod
    def _check_block_size(cls, block_size: int | None, info: ValidationInfo) -> int | None:
        if "granularity" in info.data:  # absent if it was itself refused
            Scaling(granularity=info.data["granularity"] or "channel", block_size=block_size)
        return block_size

    @field_validator("targets")
    @classmethod
    def _check_targets(cls, targets: tuple[Target, ...]) -> tuple[Target, ...]:
        if len(set(targets)) < len(targets):
            raise ValueError(f"Expected each target at most once, got {', '.join(targets)}.")
        return targets

    @property
    def scaled_format(self) -> ScaledFormat | None:
        """The format with its scales; None without quantization."""
        if self.format is None:
            return None
        fmt = ScaledFormat.parse(self.format)
        if self.granularity is None:
            return fmt
        scaling = Scaling(granularity=self.granularity, block_size=self.block_size)
        return ScaledFormat(element=fmt.element, scaling=scaling)


@plain_dataclass(frozen=True, kw_only=True)
class _Quantizer:
    """A `PrecisionConfig` with its names resolved, applied to one operand at a time."""

    fmt: ScaledFormat
    targets: frozenset[Target]
    is_contraction: bool
    rounding: Rounding

    def __call__(self, operand: Tensor, target: Target, dtype: torch.dtype) -> Tensor:
        """Return the operand in ``dtype``, fake-quantized first if it is a target."""
        if target in self.targets:
            seed = int(torch.randint(2**62, ())) if self.rounding == "stochastic" else 0
            operand = fake_quantize(
                operand,
                self.fmt,
                axis=_CONTRACTION_AXIS[target] if self.is_contraction else 1,
                rounding=self.rounding,
                seed=seed,
                # A check would make the host wait for the GPU; the training loop sees the NaN.
                non_finite="propagate",
            )
        return operand.to(dtype)


class _QuantizedProduct(torch.autograd.Function):
    """The forward product and the two backward ones, equation 8 line by line."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x_TI: Tensor,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        quantizer: _Quantizer,
    ) -> Tensor:
        """Return Y = P1(X) @ P2(W)^T + bias in the dtype of X."""
        ctx.save_for_backward(x_TI, weight_OI)
        ctx.quantizer = quantizer  # type: ignore[attr-defined]
        ctx.bias_dtype = None if bias_O is None else bias_O.dtype  # type: ignore[attr-defined]
        dtype = x_TI.dtype
        return F.linear(
            quantizer(x_TI, Target.P1, dtype),
            quantizer(weight_OI, Target.P2, dtype),
            None if bias_O is None else bias_O.to(dtype),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TO: Tensor) -> tuple[Tensor | None, ...]:
        """Return dX = P3(dY) @ P4(W), dW = P5(dY)^T @ P6(X) and, for the bias, the sum of dY."""
        x_TI, weight_OI = ctx.saved_tensors
        quantizer, dtype = ctx.quantizer, x_TI.dtype
        dx_TI = dw_OI = db_O = None
        if ctx.needs_input_grad[0]:
            w_OI = quantizer(weight_OI, Target.P4, dtype)
            dx_TI = quantizer(dy_TO, Target.P3, dtype) @ w_OI
        if ctx.needs_input_grad[1]:
            dy_OT = quantizer(dy_TO, Target.P5, dtype).t()
            dw_OI = (dy_OT @ quantizer(x_TI, Target.P6, dtype)).to(weight_OI.dtype)
        if ctx.needs_input_grad[2]:
            db_O = dy_TO.sum(dim=0).to(ctx.bias_dtype)
        return dx_TI, dw_OI, db_O, None


class QuantizedLinear(nn.Linear):
    """A linear layer that quantizes the operands of its three matrix products.

    Parameters, names and initialization are those of ``nn.Linear``. Without a format or without
    targets the layer is ``nn.Linear``, bit for bit.

    Parameters
    ----------
    in_features, out_features, bias, device, dtype
        As in ``nn.Linear``.
    precision
        What to quantize and how.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        precision: PrecisionConfig,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.precision = precision
        fmt = precision.scaled_format
        self._quantizer = (
            _Quantizer(
                fmt=fmt,
                targets=frozenset(precision.targets),
                is_contraction=precision.axis == "contraction",
                rounding=precision.rounding,
            )
            if fmt is not None and precision.targets
            else None
        )

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name in nn.Linear)
        """Return the layer's output for inputs of shape (..., in_features).

        All leading dimensions together are the token axis.
        """
        if self._quantizer is None:
            return F.linear(input, self.weight, self.bias)
        device_type = input.device.type
        if torch.is_autocast_enabled(device_type):
            input = input.to(torch.get_autocast_dtype(device_type))  # noqa: A001
        x_TI = input.reshape(-1, self.in_features)
        y_TO: Tensor = _QuantizedProduct.apply(  # type: ignore[no-untyped-call]
            x_TI, self.weight, self.bias, self._quantizer
        )
        return y_TO.reshape(*input.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Add the format and the targets to the text of ``nn.Linear``."""
        targets = "+".join(self.precision.targets)
        return f"{super().extra_repr()}, format={self.precision.format}, targets={targets}"


def quantize_model(
    model: nn.Module,
    config: PrecisionConfig,
    *,
    skip: Collection[str] | Callable[[str], bool] = ("head", "lm_head"),
) -> list[str]:
    """Swap the linear layers of a model for quantized ones, in place.

    Parameters and the keys of ``state_dict`` stay the same objects and names. Layers that are
    quantized already take the new configuration. With ``config.format`` None nothing is touched.
    Call it before the model is wrapped for data parallelism or compiled.

    Parameters
    ----------
    model
        The model; a linear layer itself cannot be swapped, only those inside of it.
    config
        What to quantize and how.
    skip
        Layers to leave alone: names that stand anywhere in a layer's dotted path, or a predicate
        on that path. The default leaves the classifier alone, as the paper does.

    Returns
    -------
    Dotted names of the layers swapped, in the order of ``model.named_modules()``.
    """
    if config.format is None:
        return []
    is_skipped = skipping(skip)
    return swap_linears(
        model, KINDS, lambda name, _: not is_skipped(name), lambda one: _rebuild(one, config)
    )


def unquantize_model(model: nn.Module) -> list[str]:
    """Swap all quantized linear layers back for ``nn.Linear``, in place.

    Returns
    -------
    Dotted names of the layers swapped, in the order of ``model.named_modules()``.
    """
    return swap_linears(model, (QuantizedLinear,), lambda *_: True, lambda one: _rebuild(one, None))


def _rebuild(linear: nn.Linear, config: PrecisionConfig | None) -> nn.Linear:
    """Return a layer of the other kind that owns the very same parameters."""
    shape = (linear.in_features, linear.out_features, linear.bias is not None, "meta")
    new = nn.Linear(*shape) if config is None else QuantizedLinear(*shape, precision=config)
    new.weight, new.bias = linear.weight, linear.bias
    return new


KINDS = (nn.Linear, QuantizedLinear)
