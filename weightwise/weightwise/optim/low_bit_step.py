"""A step of Adam over weights, gradients and moments that may all be kept in few bits.

New moments need their scale before they are written. Two ways to know it:

``"bound"``  one pass. With the largest magnitudes a of the stored moments and of the gradient,
             |m'| <= b1 a_m + (1 - b1) a_g and v' <= b2 a_v + (1 - b2) a_g^2. A power of two that
             holds the bound never overflows and costs at most one binade of range.
``"exact"``  two passes, as in the paper's code (arXiv 2310.18313, appendix A): the first finds the
             largest magnitudes of what the second writes.

A weight of few bits is its own master (levels O1 and O2). How far Adam moves it has no useful
bound, so its scale is a guess that is put right where it fails.

On CPUs a compiled loop takes each tensor through memory once, on GPUs a kernel of Triton;
elsewhere, and as the reference, torch's operations do the same arithmetic in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from math import ceil, inf, sqrt
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from weightwise.numerics.kernels.numbers import STORED, Numbers
from weightwise.numerics.scaled_tensor import ScaledTensor, amax_of
from weightwise.numerics.stored import LARGEST, UNSCALED, power_of_two_scale, quantize

if TYPE_CHECKING:
    from collections.abc import Sequence

ScaleRule = Literal["bound", "exact"]
# Largest relative error of rounding a normal number: what is stored may exceed its amax by it.
ROUNDING = {torch.float8_e4m3fn: 2.0**-4, torch.float8_e5m2: 2.0**-3, torch.float16: 2.0**-11}
# Learning rates by which a weight may grow in one step before its scale is put right.
USUAL_CHANGE = 4.0
HAS_TRITON = find_spec("triton") is not None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a parameter group.

    Parameters
    ----------
    lr, beta1, beta2, eps, weight_decay
        As in `torch.optim.AdamW`.
    is_decoupled
        Weight decay as in AdamW; otherwise as in Adam, added to the gradient.
    is_corrected
        Whether moments are corrected for their start at zero.
    maximizes
        Whether the gradient is climbed.
    scale_rule
        See the module's text.
    """

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    is_decoupled: bool = True
    is_corrected: bool = True
    maximizes: bool = False
    scale_rule: ScaleRule = "bound"


class Slot(NamedTuple):
    """A parameter with what belongs to it; all of one shape, plain or scaled.

    Parameters
    ----------
    weight, gradient, first, second
        The tensors; all but the gradient are changed.
    step
        Number of the step for this parameter, from 1.
    gradient_amax
        Largest magnitude of the gradient, float32 of shape ().
    """

    weight: Tensor
    gradient: Tensor
    first: Tensor
    second: Tensor
    step: int
    gradient_amax: Tensor


def step_all(slots: Sequence[Slot], settings: Settings) -> None:
    """Move all parameters of a group, in place."""
    if not slots:
        return
    on_cpu = [slot for slot in slots if is_compiled(slot)]
    on_gpu = [slot for slot in slots if is_for_triton(slot)]
    compiled = set(map(id, (*on_cpu, *on_gpu)))
    others = [slot for slot in slots if id(slot) not in compiled]
    for part, move_part in ((on_cpu, _move_on_cpu), (on_gpu, _move_on_gpu), (others, _move)):
        if part:
            move_part(part, settings, new_scales(part, settings))


def new_scales(slots: Sequence[Slot], settings: Settings) -> Tensor:
    """Scales of new weights (a guess) and moments, float32 of shape (slots, 3)."""
    if settings.scale_rule == "bound":
        bounds = bounds_of(slots, settings)
    elif all(map(is_compiled, slots)):
        passes = [_Pass.of(*one, settings, (1.0, 1.0, 1.0)) for one in _inputs(slots)]
        _through(passes, writes=False)
        bounds = torch.tensor([one.amaxes() for one in passes])
    else:
        bounds = torch.stack([_try(slot, settings) for slot in slots])
    limit = torch.tensor(
        [[_limit(one) for one in (s.weight, s.first, s.second)] for s in slots],
        device=bounds.device,
    )
    scales = power_of_two_scale(bounds, limit.clamp(min=1.0))
    return torch.where(limit > 0, scales, 1.0)


def is_compiled(slot: Slot) -> bool:
    """Whether the compiled loop takes these tensors."""
    return all(
        one.device.type == "cpu" and one.dtype in STORED and one.is_contiguous() and one.numel() > 0
        for one in map(payload_of, slot[:4])
    )


def is_for_triton(slot: Slot) -> bool:
    """Whether the kernels for GPUs take these tensors."""
    return HAS_TRITON and all(
        one.device.type == "cuda"
        and one.dtype in STORED
        and one.is_contiguous()
        and one.numel() > 0
        for one in map(payload_of, slot[:4])
    )


def payload_of(x: Tensor) -> Tensor:
    """What is stored of a tensor."""
    return x.payload if isinstance(x, ScaledTensor) else x.detach()


def scale_of(x: Tensor) -> Tensor:
    """By what the stored values were multiplied."""
    return x.scale if isinstance(x, ScaledTensor) else torch.ones((), device=x.device)


def bounds_of(slots: Sequence[Slot], settings: Settings) -> Tensor:
    """Bounds on new weights (a guess), first and second moments, float32 of shape (slots, 3)."""
    gradient = torch.stack([slot.gradient_amax.float() * _excess(slot.gradient) for slot in slots])
    weight = torch.stack([_amax_kept(slot.weight) for slot in slots])
    first = torch.stack([_amax_kept(slot.first) for slot in slots])
    second = torch.stack([_amax_kept(slot.second) for slot in slots])
    if not settings.is_decoupled and settings.weight_decay:
        gradient = gradient + settings.weight_decay * torch.stack(
            [_amax_kept(s.weight) if _limit(s.weight) else amax_of(s.weight) for s in slots]
        )
    beta1, beta2 = settings.beta1, settings.beta2
    change = USUAL_CHANGE * settings.lr
    return torch.stack(
        (
            weight + change,
            beta1 * first + (1 - beta1) * gradient,
            beta2 * second + (1 - beta2) * gradient.square(),
        ),
        dim=1,
    )


def move(slot: Slot, settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    """New weight and moments in float32: the definition, which the compiled loop follows."""
    downs = [scale_of(one).reciprocal().item() for one in slot[:4]]
    numbers: Any = Numbers(*map(float, numbers_of(slot.step, settings, downs)))  # type: ignore[arg-type]
    stored = [payload_of(one).float() for one in slot[:4]]
    gradient = stored[1] * numbers.gradient_down
    if numbers.pull:
        gradient = gradient + numbers.pull * (stored[0] * numbers.weight_down)
    first = stored[2] * numbers.keep_first + numbers.take_first * gradient
    square = gradient * gradient
    second = stored[3] * numbers.keep_second + numbers.take_second * square
    # torch's own root of float32 is not always the nearest one on CPUs; by way of float64 it is.
    root = second.double().sqrt().float() if second.device.type == "cpu" else second.sqrt()
    change = numbers.step * first / (root + numbers.eps)
    return stored[0] * numbers.shrink - change, first, second


def numbers_of(
    step: int, settings: Settings, downs: Sequence[float], scales: Sequence[float] = (1, 1, 1)
) -> Numbers:
    """Settings and scales as the compiled loop takes them.

    Parameters
    ----------
    step, settings
        Number of the step, and how it is made.
    downs
        One over the scales of weight, gradient and moments.
    scales
        Scales of the new weight and moments.
    """
    s = settings
    rate, eps = _corrected(step, s)
    sign = -1.0 if s.maximizes else 1.0
    weight, gradient, first, second = downs
    shrink = 1 - s.lr * s.weight_decay if s.is_decoupled else 1.0
    return Numbers(*map(np.float32, (
        weight, sign * gradient, s.beta1 * first, s.beta2 * second, scales[1], scales[2],
        1 - s.beta1, 1 - s.beta2, rate, eps, shrink * weight,
        0.0 if s.is_decoupled else s.weight_decay,
    )))  # fmt: skip


def _corrected(step: int, settings: Settings) -> tuple[float, float]:
    """Learning rate and eps with the corrections of both moments in them."""
    if not settings.is_corrected:
        return settings.lr, settings.eps
    root_correction = sqrt(1 - settings.beta2**step)
    rate = settings.lr * root_correction / (1 - settings.beta1**step)
    return rate, settings.eps * root_correction


def _amax_kept(x: Tensor) -> Tensor:
    """Upper bound on the magnitudes that are stored; 0 for tensors that need no scale."""
    if not isinstance(x, ScaledTensor) or x.payload.dtype in UNSCALED:
        return torch.zeros((), device=x.device)
    return x.amax * _excess(x)


def _excess(x: Tensor) -> float:
    """By what stored values may exceed the largest magnitude."""
    return 1 + ROUNDING.get(x.payload.dtype, 0.0) if isinstance(x, ScaledTensor) else 1.0


def _limit(x: Tensor) -> float:
    """Largest value of what a tensor is stored in; 0 where no scale is needed."""
    return LARGEST.get(x.payload.dtype, 0.0) if isinstance(x, ScaledTensor) else 0.0


def _try(slot: Slot, settings: Settings) -> Tensor:
    """Largest magnitudes of new weight and moments."""
    return torch.stack([amax_of(one) for one in move(slot, settings)])


def _move(slots: Sequence[Slot], settings: Settings, scales: Tensor) -> None:
    """Move parameters by torch's operations."""
    for slot, row in zip(slots, scales, strict=True):
        targets = (slot.weight, slot.first, slot.second)
        for target, value, scale in zip(targets, move(slot, settings), row, strict=True):
            if not isinstance(target, ScaledTensor):
                target.detach().copy_(value)
                continue
            amax = amax_of(value)
            if target is slot.weight and target.payload.dtype in LARGEST:
                limit = LARGEST[target.payload.dtype]
                scale = torch.minimum(scale, power_of_two_scale(amax, limit, scale))
            target.payload.copy_(quantize(value, target.payload.dtype, scale))
            target.scale.copy_(scale)
            target.amax.copy_(amax)


def _inputs(slots: Sequence[Slot]) -> list[tuple[Slot, list[float]]]:
    """Slots with what their weight, gradient and moments are multiplied by on the way in."""
    scales = torch.stack([scale_of(one) for slot in slots for one in slot[:4]])
    return list(zip(slots, scales.reciprocal().view(-1, 4).tolist(), strict=True))


class _Pass(NamedTuple):
    """A tensor on its way through the compiled loop, in parts for several threads.

    Parameters
    ----------
    arrays
        Memory of weight, gradient and moments.
    numbers, largest
        See `weightwise.numerics.kernels.adam.move_part`.
    part
        Elements of a part.
    tops, ups
        What is found: bits of largest magnitudes, and scales of new weights, of each part.
    """

    arrays: list[Any]
    numbers: Numbers
    largest: np.float32
    part: int
    tops: Any
    ups: Any

    @classmethod
    def of(
        cls, slot: Slot, downs: Sequence[float], settings: Settings, scales: Sequence[float]
    ) -> _Pass:
        """Make one; ``scales`` are those of new weight and moments."""
        from weightwise.numerics.kernels.casts import part_size
        from weightwise.numerics.kernels.storage import memory_of

        payloads = [payload_of(one) for one in slot[:4]]
        size = payloads[0].numel()
        part = part_size(size)
        count = ceil(size / part)
        is_scaled = isinstance(slot.weight, ScaledTensor)
        return cls(
            arrays=[memory_of(one) for one in payloads],
            numbers=numbers_of(slot.step, settings, downs, scales),
            largest=np.float32(LARGEST.get(payloads[0].dtype, inf) if is_scaled else inf),
            part=part,
            tops=np.zeros((count, 4), np.int32),
            ups=np.full(count, scales[0], np.float32),
        )

    def amaxes(self) -> list[float]:
        """Largest magnitudes of new weight and moments."""
        found: list[float] = self.tops[:, :3].max(0).view(np.float32).tolist()
        return found

    def settle(self) -> float:
        """Bring all parts of the new weight to one scale; returns it."""
        from weightwise.numerics.kernels.storage import cast_line

        least = self.ups.min()
        for place in np.flatnonzero(self.ups != least):
            piece = self.arrays[0][place * self.part : (place + 1) * self.part]
            cast_line(piece, piece, np.float32(least / self.ups[place]))
        return float(least)


def _through(passes: Sequence[_Pass], *, writes: bool) -> None:
    """Send tensors through the compiled loop, their parts shared by threads."""
    # Loaded where it is needed: the compiler takes a second.
    from weightwise.numerics.kernels import adam
    from weightwise.numerics.kernels.cpu import shared

    def work(job: tuple[_Pass, int]) -> int:
        one, place = job
        pieces = [array[place * one.part : (place + 1) * one.part] for array in one.arrays]
        top, up = one.tops[place], one.ups[place]
        if writes:
            one.ups[place] = adam.move_part(*pieces, one.numbers, up, one.largest, top)
        else:
            adam.try_part(*pieces, one.numbers, top)
        return 0

    # Every thread takes the part of its number of each tensor.
    jobs = [(one, place) for one in passes for place in range(len(one.ups))]
    shared(work, jobs, sum(len(one.arrays[0]) for one in passes))


def _move_on_cpu(slots: Sequence[Slot], settings: Settings, scales: Tensor) -> None:
    """Move parameters by the compiled loop."""
    rows = scales.tolist()
    passes = [
        _Pass.of(slot, downs, settings, row)
        for (slot, downs), row in zip(_inputs(slots), rows, strict=True)
    ]
    _through(passes, writes=True)
    scales[:, 0] = torch.tensor([one.settle() for one in passes])
    _note(slots, scales, torch.tensor([one.amaxes() for one in passes]))


def _note(slots: Sequence[Slot], scales: Tensor, amaxes: Tensor) -> None:
    """Write new scales and largest magnitudes, both of shape (slots, 3), to where they belong."""
    targets = [one for slot in slots for one in (slot.weight, slot.first, slot.second)]
    values = zip(targets, scales.reshape(-1).unbind(), amaxes.reshape(-1).unbind(), strict=True)
    pairs = [
        pair
        for target, scale, amax in values
        if isinstance(target, ScaledTensor)
        for pair in ((target.scale, scale), (target.amax, amax))
    ]
    if pairs:
        torch._foreach_copy_([part for part, _ in pairs], [value for _, value in pairs])


def _move_on_gpu(slots: Sequence[Slot], settings: Settings, scales: Tensor) -> None:
    """Move parameters by the kernels of Triton, and note their new scales; nothing waits."""
    from weightwise.numerics.kernels import gpu_adam

    s = settings
    constants = []
    for slot in slots:
        rate, eps = _corrected(slot.step, s)
        constants.append(gpu_adam.Constants(
            -1.0 if s.maximizes else 1.0, s.beta1, s.beta2, 1 - s.beta1, 1 - s.beta2, rate, eps,
            1 - s.lr * s.weight_decay if s.is_decoupled else 1.0,
            0.0 if s.is_decoupled else s.weight_decay,
        ))  # fmt: skip
    amaxes, weight_scales = gpu_adam.move_tensors(
        [[payload_of(one) for one in slot[:4]] for slot in slots],
        [[scale_of(one) for one in slot[:4]] for slot in slots],
        scales, constants, [_limit(slot.weight) or inf for slot in slots],
    )  # fmt: skip
    _note(slots, torch.cat((weight_scales[:, None], scales[:, 1:]), dim=1), amaxes)
