"""Tensors in 8 or 16 bits with one scale: what FP8-LM keeps weights, gradients and moments in.

A `ScaledTensor` has a payload and a scale; its values are ``payload / scale`` (arXiv 2310.18313,
section 2; the scale multiplies on the way in). The scale is a power of two by default, so that
another one costs no bit but those of subnormal numbers:

    scale = 2^floor(log2(largest value of the format / amax))

with the largest magnitude ``amax`` of the tensor. Values that a given scale brings beyond the
format become its largest one; whether there was an infinity or NaN, ``amax`` says and never the
payload.

It is a subclass of `torch.Tensor` that looks like a float32 tensor (or the type it is told).
Views share payload and scale. Multiplication in place by a number changes the scale alone, at no
cost: unscaling, clipping, and division by the number of processes. Other operations work on the
values in float32 and return plain tensors; those in place store their result with a new scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from weightwise.numerics.stored import (
    LARGEST,
    UNSCALED,
    dequantize,
    exact_scale,
    largest_magnitude,
    power_of_two_scale,
    quantize,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

aten = torch.ops.aten


class ScaledTensor(Tensor):
    """A tensor kept in few bits with one scale.

    Parameters
    ----------
    payload
        float8_e4m3fn, float8_e5m2, float16, bfloat16 or float32, of any shape.
    scale
        By what values were multiplied, float32 of shape (); 1 with bfloat16 and float32.
    amax
        Largest magnitude of the values, float32 of shape (); infinite if one was not finite.
    dtype
        Type that the tensor has to the outside.

    See Also
    --------
    ScaledTensor.of : From a plain tensor, with the scale that it needs.
    """

    payload: Tensor
    scale: Tensor
    # Hides the method; torch.amax(x) remains.
    amax: Tensor  # type: ignore[assignment]
    whole: ScaledTensor | None  # what a view is a view of

    @staticmethod
    def __new__(
        cls, payload: Tensor, scale: Tensor, amax: Tensor, dtype: torch.dtype = torch.float32
    ) -> ScaledTensor:
        """Make the outside of the tensor."""
        return Tensor._make_wrapper_subclass(
            cls, payload.shape, strides=payload.stride(), storage_offset=payload.storage_offset(),
            dtype=dtype, layout=payload.layout, device=payload.device, requires_grad=False,
        )  # fmt: skip

    def __init__(
        self, payload: Tensor, scale: Tensor, amax: Tensor, dtype: torch.dtype = torch.float32
    ) -> None:
        del dtype
        self.payload, self.scale, self.amax = payload, scale, amax
        self.whole = None

    @classmethod
    def of(
        cls,
        x: Tensor,
        dtype: torch.dtype,
        *,
        scale: Tensor | None = None,
        amax: Tensor | None = None,
        is_exact: bool = False,
    ) -> ScaledTensor:
        """Store a tensor.

        Parameters
        ----------
        x
            float32, float16, bfloat16, or a scaled tensor. From one scaled type to another the
            amax that is known is used.
        dtype
            Type of the payload.
        scale
            By default the one that ``amax`` asks for.
        amax
            Largest magnitude if it is known; otherwise it is found first.
        is_exact
            Whether the scale may be any number, see `exact_scale`.

        Raises
        ------
        ValueError
            If the payload's type or the tensor's is none of these.
        """
        check_dtype(dtype)
        if not x.dtype.is_floating_point or x.layout != torch.strided:
            raise ValueError(
                f"x: expected a dense float32, float16 or bfloat16 tensor, got {x.layout} "
                f"of {x.dtype}"
            )
        amax = amax_of(x) if amax is None else amax
        if dtype in UNSCALED:
            scale = torch.ones((), device=x.device)
        elif scale is None:
            rule = exact_scale if is_exact else power_of_two_scale
            scale = rule(amax, LARGEST[dtype])
        if isinstance(x, ScaledTensor):
            payload = _requantize(x, dtype, scale)
        else:
            payload = quantize(x, dtype, scale)
        return cls(payload, scale, amax, x.dtype)

    def decode(self, dtype: torch.dtype | None = None) -> Tensor:
        """The values as a plain tensor, by default of the outside's type."""
        return dequantize(self.payload, self.scale).to(dtype or self.dtype)

    def has_inf_or_nan(self) -> Tensor:
        """Whether a value was not finite when the tensor was stored; no pass over the data."""
        return ~self.amax.isfinite()

    def num_bytes(self) -> int:
        """Bytes of payload, scale and amax."""
        parts = (self.payload, self.scale, self.amax)
        return sum(part.numel() * part.element_size() for part in parts)

    def t(self) -> ScaledTensor:
        """The matrix with its axes exchanged, a view."""
        return cast("ScaledTensor", super().t())

    def __repr__(self, *, tensor_contents: object = None) -> str:  # type: ignore[override]
        """Values, type of the payload and scale."""
        del tensor_contents
        values = dequantize(self.payload, self.scale)
        return f"ScaledTensor({values!r}, payload={self.payload.dtype}, scale={self.scale})"

    def __tensor_flatten__(self) -> tuple[list[str], torch.dtype]:
        """Names of the inner tensors, for torch's compiler and serializers."""
        return ["payload", "scale", "amax"], self.dtype

    @staticmethod
    def __tensor_unflatten__(
        inner: dict[str, Tensor], dtype: torch.dtype, size: object, stride: object
    ) -> ScaledTensor:
        """Inverse of `__tensor_flatten__`."""
        del size, stride
        return ScaledTensor(inner["payload"], inner["scale"], inner["amax"], dtype)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        kinds: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """What operations do."""
        del kinds
        kwargs = kwargs or {}
        if func in _OPERATIONS:
            return _OPERATIONS[func](func, args, kwargs)
        if func._schema.is_mutable:
            return _in_place(func, args, kwargs)
        args, kwargs = torch.utils._pytree.tree_map_only(
            ScaledTensor, ScaledTensor.decode, (args, kwargs)
        )
        return func(*args, **kwargs)

    # What torch's functions call is dispatched above; nothing else changes.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]


def amax_of(x: Tensor) -> Tensor:
    """Largest magnitude of a tensor, plain or scaled; see `largest_magnitude`."""
    return x.amax if isinstance(x, ScaledTensor) else largest_magnitude(x)


def check_dtype(dtype: torch.dtype) -> None:
    """Refuse payloads that are none of ours."""
    if dtype not in LARGEST and dtype not in UNSCALED:
        names = ", ".join(str(one).removeprefix("torch.") for one in (*LARGEST, *UNSCALED))
        raise ValueError(f"dtype: expected one of {names}, got {dtype}")


def _requantize(x: ScaledTensor, dtype: torch.dtype, scale: Tensor) -> Tensor:
    """The payload with another scale and type: one multiplication and one rounding."""
    if x.payload.dtype == dtype and bool((x.scale == scale).all()):
        return x.payload.clone()
    return quantize(dequantize(x.payload, torch.ones_like(scale)), dtype, scale / x.scale)


def _views(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Views of the payload share the scale."""
    x: ScaledTensor = args[0]
    parts = func(x.payload, *args[1:], **kwargs)
    views = [
        ScaledTensor(part, x.scale, x.amax, x.dtype)
        for part in ([parts] if isinstance(parts, Tensor) else parts)
    ]
    for view in views:
        view.whole = x if x.whole is None else x.whole
    return views[0] if isinstance(parts, Tensor) else views


def _clone(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ScaledTensor:
    x: ScaledTensor = args[0]
    return ScaledTensor(func(x.payload, **kwargs), x.scale.clone(), x.amax.clone(), x.dtype)


def _to_copy(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Another type means plain values; another device alone keeps the payload."""
    x: ScaledTensor = args[0]
    dtype = kwargs.pop("dtype", None)
    if dtype is not None and dtype != x.dtype:
        return cast("Tensor", func(x.decode(), dtype=dtype, **kwargs))
    places = {key: kwargs[key] for key in ("device", "non_blocking") if key in kwargs}
    payload, scale, amax = (func(part, **places) for part in (x.payload, x.scale, x.amax))
    return ScaledTensor(payload, scale, amax, x.dtype)


def _copy(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Into a scaled tensor: stored anew; out of one: its values."""
    target, source = args[:2]
    if not isinstance(target, ScaledTensor):
        return cast("Tensor", func(target, source.decode(), *args[2:], **kwargs))
    _store(target, source)
    return target


def _is_part(x: Tensor) -> bool:
    """Whether a tensor is a view of more than it shows, with which it shares the scale."""
    return isinstance(x, ScaledTensor) and x.whole is not None and x.numel() < x.whole.numel()


def _store(target: ScaledTensor, source: Tensor) -> None:
    """Store values in a scaled tensor, with their own scale."""
    if source.shape != target.shape:
        source = source.expand(target.shape)
    if _is_part(target):
        _store_part(target, source)
        return
    same = isinstance(source, ScaledTensor) and source.payload.dtype == target.payload.dtype
    made = source if same else ScaledTensor.of(source.contiguous(), target.payload.dtype)
    assert isinstance(made, ScaledTensor)
    target.payload.copy_(made.payload)
    target.scale.copy_(made.scale)
    target.amax.copy_(made.amax)


def _store_part(target: ScaledTensor, source: Tensor) -> None:
    """Store values in a part; where they are too large, all of the tensor gets a smaller scale."""
    whole = target.whole
    assert whole is not None
    values = source.decode() if isinstance(source, ScaledTensor) else source
    dtype = target.payload.dtype
    amax = torch.maximum(whole.amax, amax_of(values))
    if dtype in LARGEST:
        scale = power_of_two_scale(amax, LARGEST[dtype], whole.scale)
        stored = dequantize(whole.payload, torch.ones_like(scale))
        whole.payload.copy_(quantize(stored, dtype, scale / whole.scale))
        whole.scale.copy_(scale)
    whole.amax.copy_(amax)
    target.payload.copy_(quantize(values.contiguous(), dtype, whole.scale))


def _times(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """By a number only the scale changes."""
    x, factor = args[:2]
    power = -1 if func in (aten.div_.Scalar, aten.div_.Tensor) else 1
    is_number = not isinstance(factor, Tensor) or factor.dim() == 0
    is_ours = isinstance(x, ScaledTensor) and x.payload.dtype not in UNSCALED
    if not is_ours or not is_number or _is_part(x):
        return _in_place(func, args, kwargs)
    # A factor that is zero or no number is no exception: the values become what they should.
    factor = torch.as_tensor(factor, device=x.device).float() ** power
    x.scale.div_(factor)
    x.amax.mul_(factor.abs())
    return x


def _foreach_times(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Clipping multiplies all gradients by one number."""
    del func, kwargs
    factors = args[1]
    is_many = isinstance(factors, (list, tuple))
    for place, x in enumerate(args[0]):
        x.mul_(factors[place] if is_many else factors)


def _foreach_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """One tensor after the other, so that the values of one only are in memory."""
    del func
    values = (x.decode() if isinstance(x, ScaledTensor) else x for x in args[0])
    return [torch.linalg.vector_norm(x, *args[1:], **kwargs) for x in values]


def _unscale(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Divide by the loss scale, and look for infinities and NaN: no pass over the data."""
    del func, kwargs
    gradients, found, inverse = args
    for x in gradients:
        amax = amax_of(x)
        found.copy_(torch.where(amax.isfinite(), found, torch.ones_like(found)))
        x.mul_(inverse)


def _zero(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ScaledTensor:
    del func, kwargs
    x: ScaledTensor = args[0]
    x.payload.copy_(torch.zeros_like(x.payload, dtype=torch.float32))
    if not _is_part(x):
        x.scale.fill_(1.0)
        x.amax.zero_()
    return x


def _empty(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A buffer of the same kind, which sharding asks for; of another type a plain one."""
    x: ScaledTensor = args[0]
    dtype = kwargs.pop("dtype", None)
    if dtype is not None and dtype != x.dtype:
        return cast("Tensor", func(x.payload, *args[1:], dtype=dtype, **kwargs))
    payload = func(x.payload, *args[1:], **kwargs)
    return ScaledTensor(payload, torch.ones_like(x.scale), torch.zeros_like(x.amax), x.dtype)


def _in_place(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute on the values and store what came out."""
    plain: dict[int, Tensor] = {}

    def values(x: ScaledTensor) -> Tensor:
        return plain.setdefault(id(x), x.decode())

    pairs = torch.utils._pytree.tree_map_only(ScaledTensor, values, (args, kwargs))
    func(*pairs[0], **pairs[1])
    written = [
        (value, argument)
        for value, argument in zip(args, func._schema.arguments, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    for value, _ in written:
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, ScaledTensor):
                _store(one, plain[id(one)])
    first = written[0][0]
    return first if len(func._schema.returns) else None


_OPERATIONS: dict[Any, Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]] = {
    **dict.fromkeys(
        (
            aten.alias.default, aten.as_strided.default, aten.detach.default, aten.expand.default,
            aten.permute.default, aten.select.int, aten.slice.Tensor, aten.split.Tensor,
            aten.split_with_sizes.default, aten.squeeze.dim, aten.t.default,
            aten.transpose.int, aten.unsqueeze.default, aten.view.default,
            aten._unsafe_view.default, aten.unbind.int,
        ),
        _views,
    ),
    aten.clone.default: _clone,
    aten._to_copy.default: _to_copy,
    aten.copy_.default: _copy,
    aten.zero_.default: _zero,
    aten.empty_like.default: _empty,
    aten.new_empty.default: _empty,
    aten.new_zeros.default: _empty,
    **dict.fromkeys(
        (aten.mul_.Tensor, aten.mul_.Scalar, aten.div_.Tensor, aten.div_.Scalar), _times
    ),
    **dict.fromkeys(
        (aten._foreach_mul_.Tensor, aten._foreach_mul_.Scalar, aten._foreach_mul_.ScalarList),
        _foreach_times,
    ),
    aten._foreach_norm.Scalar: _foreach_norm,
    aten._amp_foreach_non_finite_check_and_unscale_.default: _unscale,
}  # fmt: skip

# Files that torch writes may hold such tensors, and are read without running code of theirs.
torch.serialization.add_safe_globals([ScaledTensor])
