"""Gradients in 8 bits, averaged over processes in 8 bits (FP8-LM level O1, arXiv 2310.18313, 2.1).

`Fp8Gradients` watches parameters. As soon as autograd has finished a gradient it is replaced by a
`ScaledTensor` of one byte an element. With several processes, gradients are gathered in buckets in
the order in which they usually come, and a full bucket is averaged while the backward pass goes on:

    1. largest magnitude of every tensor, the maximum over all processes (a NaN counts as infinite)
    2. one power of two for all processes, times mu where sums can overflow
    3. codes into one buffer of bytes, which is summed, see `weightwise.distributed.fp8_sum`
    4. the division by N is one of the scales

A gradient that is infinite or NaN in any process ends with an infinite ``amax`` in all of them,
which `weightwise.optim.AdamW8` answers by skipping the step.

`fp8_hook` does the same for `torch.nn.parallel.DistributedDataParallel`, whose own buckets stay in
float32: it saves what travels, not what is stored.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Variable

from weightwise.distributed.auto_scale import AutoScale, Scaling
from weightwise.distributed.fp8_sum import Arithmetic, Layout, layout_of, sum_codes
from weightwise.numerics.scaled_tensor import ScaledTensor, amax_of
from weightwise.numerics.stored import LARGEST, power_of_two_scale

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

E4M3 = torch.float8_e4m3fn
BUCKET_BYTES = 25 * 2**20


def average(
    gradients: Sequence[Tensor],
    layout: Layout,
    scaler: AutoScale,
    group: dist.ProcessGroup | None = None,
    arithmetic: Arithmetic = "exact",
    dtype: torch.dtype = E4M3,
) -> list[ScaledTensor]:
    """Mean of gradients over the processes of a group, in 8 bits.

    Parameters
    ----------
    gradients
        Of this process, plain or scaled; of the same shapes in all processes.
    layout
        Of their sizes, see `layout_of`.
    scaler
        mu of each; used where sums keep their scale (``"shared"``, ``"ring"``), and moved on.
    group, arithmetic
        See `weightwise.distributed.fp8_sum.sum_codes`.
    dtype
        An 8-bit type.

    Returns
    -------
    list
        Scaled tensors in it, the same in all processes.
    """
    size = dist.get_world_size(group)
    amax = torch.stack([amax_of(one) for one in gradients])
    dist.all_reduce(amax, dist.ReduceOp.MAX, group=group)
    scales = power_of_two_scale(amax, LARGEST[dtype])
    if arithmetic != "exact":
        scales = scales * scaler.mu.to(scales)
    codes = torch.zeros(layout.num_elements, dtype=torch.uint8, device=amax.device)
    for gradient, scale, start, stop in zip(
        gradients, scales, layout.starts, layout.stops, strict=True
    ):
        made = ScaledTensor.of(gradient.contiguous(), dtype, scale=scale, amax=scale)
        codes[start:stop] = made.payload.reshape(-1).view(torch.uint8)
    found = sum_codes(codes.view(dtype), scales, layout, group, arithmetic)
    scaler.update(found.full_share.cpu() if scaler.is_due() else None)
    amaxes = torch.where(amax.isfinite(), found.amaxes / size, torch.inf)
    return [
        ScaledTensor(
            found.codes[start:stop].view(gradient.shape), found.scales[i] * size, amaxes[i],
            gradient.dtype,
        )
        for i, (gradient, start, stop) in enumerate(
            zip(gradients, layout.starts, layout.stops, strict=True)
        )
    ]  # fmt: skip


def average_plain(gradients: Sequence[Tensor], group: dist.ProcessGroup | None) -> list[Tensor]:
    """Mean of gradients over the processes of a group, in their own type."""
    flat = torch.cat([one.reshape(-1) for one in gradients])
    dist.all_reduce(flat, group=group)
    flat.div_(dist.get_world_size(group))
    parts = flat.split([one.numel() for one in gradients])
    return [part.view(one.shape) for part, one in zip(parts, gradients, strict=True)]


class _Bucket:
    """Parameters whose gradients travel together, in 8 bits or as they are."""

    def __init__(self, parameters: list[Tensor], scaler: AutoScale | None, size: int) -> None:
        self.parameters = parameters
        self.scaler = scaler
        self.layout = layout_of([one.numel() for one in parameters], size)
        self.waiting = set(map(id, parameters))
        self.result: Future[Sequence[Tensor]] | None = None


class Fp8Gradients:
    """Keeps the gradients of parameters in 8 bits, and averages them over processes.

    Parameters
    ----------
    parameters
        Parameters whose gradients are kept in 8 bits; each is watched from now on.
    others
        Parameters whose gradients stay as they are and are only averaged.
    dtype
        What gradients are kept in, an 8-bit type.
    group
        Processes to average over; a group of its own, all processes by default. Without
        processes gradients are only stored in 8 bits.
    arithmetic
        See `weightwise.distributed.fp8_sum`.
    scaling, interval
        See `AutoScale`.
    bucket_bytes
        A bucket is full when it has this many bytes, at least 1.

    Notes
    -----
    All processes must use the same parameters in every backward pass. What has no gradient at the
    end of a pass takes part with zeros.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        others: Iterable[Tensor] = (),
        *,
        dtype: torch.dtype = E4M3,
        group: dist.ProcessGroup | None = None,
        arithmetic: Arithmetic = "exact",
        scaling: Scaling = "auto",
        interval: int = 10,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        if bucket_bytes < 1:
            raise ValueError(f"bucket_bytes: expected at least 1, got {bucket_bytes}")
        watched = [one for one in parameters if one.requires_grad]
        self.arithmetic, self.dtype = arithmetic, dtype
        self.is_shared = dist.is_available() and dist.is_initialized()
        # A group of its own: its messages must not mix with those of other threads.
        self.group = (group or dist.new_group()) if self.is_shared else None
        size = dist.get_world_size(self.group) if self.is_shared else 1
        self.buckets = [
            _Bucket(part, AutoScale(len(part), size, scaling, interval), size)
            for part in buckets_of(watched, bucket_bytes)
        ]
        plain = [one for one in others if one.requires_grad]
        self.buckets += [_Bucket(part, None, size) for part in buckets_of(plain, bucket_bytes)]
        self._bucket_of = {id(one): bucket for bucket in self.buckets for one in bucket.parameters}
        self._is_averaging = True
        self._pass: int | None = None  # the backward pass that is under way
        self._next = 0
        self._pool = ThreadPoolExecutor(1, "weightwise-gradients") if self.is_shared else None
        self._hooks = [
            one.register_post_accumulate_grad_hook(self._note) for one in (*watched, *plain)
        ]

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Only store gradients: for all backward passes of a step but the last."""
        before, self._is_averaging = self._is_averaging, False
        try:
            yield
        finally:
            self._is_averaging = before

    def sync(self, *, is_last: bool) -> AbstractContextManager[None]:
        """`no_sync` for all backward passes of a step but the last."""
        return nullcontext() if is_last else self.no_sync()

    def close(self) -> None:
        """Watch no more."""
        for hook in self._hooks:
            hook.remove()
        if self._pool is not None:
            self._pool.shutdown()

    def _note(self, parameter: Tensor) -> None:
        """A gradient is there: store it, or send its bucket once it is whole."""
        gradient = parameter.grad
        assert gradient is not None
        if not self.is_shared or not self._is_averaging:
            is_plain = self._bucket_of[id(parameter)].scaler is None
            if not is_plain and not isinstance(gradient, ScaledTensor):
                parameter.grad = ScaledTensor.of(gradient, self.dtype)
            return
        this_pass = torch._C._current_graph_task_id()
        if this_pass != self._pass:
            # One that ended by an error has left its marks: begin anew.
            self._begin(this_pass)
            Variable._execution_engine.queue_callback(self._finish)
        self._bucket_of[id(parameter)].waiting.discard(id(parameter))
        self._send_whole()

    def _begin(self, this_pass: int | None) -> None:
        """Wait for all gradients."""
        self._pass, self._next = this_pass, 0
        for bucket in self.buckets:
            bucket.result = None
            bucket.waiting = set(map(id, bucket.parameters))

    def _send_whole(self) -> None:
        """Send the buckets that are whole, in the same order in all processes."""
        while self._next < len(self.buckets) and not self.buckets[self._next].waiting:
            self._send(self.buckets[self._next])

    def _send(self, bucket: _Bucket) -> None:
        gradients = [
            torch.zeros(one.shape, dtype=one.dtype, device=one.device) if one.grad is None
            else one.grad for one in bucket.parameters
        ]  # fmt: skip
        assert self._pool is not None
        if bucket.scaler is None:
            bucket.result = self._pool.submit(average_plain, gradients, self.group)
        else:
            bucket.result = self._pool.submit(
                average, gradients, bucket.layout, bucket.scaler, self.group, self.arithmetic,
                self.dtype,
            )  # fmt: skip
        self._next += 1

    def _finish(self) -> None:
        """At the end of a backward pass: wait for all means and hand them out."""
        while self._next < len(self.buckets):
            self._send(self.buckets[self._next])
        for bucket in self.buckets:
            assert bucket.result is not None
            try:
                means = bucket.result.result()
            except RuntimeError as error:
                raise RuntimeError(
                    f"gradients: process {dist.get_rank(self.group)} waited in vain for another "
                    "one; all must make the same backward passes of the same model"
                ) from error
            for parameter, mean in zip(bucket.parameters, means, strict=True):
                parameter.grad = mean
        self._begin(None)

    def state_dict(self) -> dict[str, Any]:
        """Mu of all tensors; their order is that of the parameters."""
        scalers = (bucket.scaler for bucket in self.buckets)
        return {"buckets": [one.state_dict() for one in scalers if one is not None]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the mu of another run."""
        scalers = (bucket.scaler for bucket in self.buckets if bucket.scaler is not None)
        for scaler, saved in zip(scalers, state["buckets"], strict=True):
            scaler.load_state_dict(saved)


def buckets_of(parameters: Sequence[Tensor], bucket_bytes: int) -> list[list[Tensor]]:
    """Parameters from the last to the first, a byte an element, in buckets that are just full."""
    buckets: list[list[Tensor]] = []
    filled = bucket_bytes
    for one in reversed(parameters):
        if filled >= bucket_bytes or buckets[-1][0].device != one.device:
            buckets.append([])
            filled = 0
        buckets[-1].append(one)
        filled += one.numel()
    return buckets


class Fp8HookState:
    """What `fp8_hook` remembers: ``model.register_comm_hook(Fp8HookState(), fp8_hook)``.

    Parameters
    ----------
    arithmetic, scaling, interval
        As in `Fp8Gradients`.
    group
        Processes; the model's, all by default.
    """

    def __init__(
        self,
        *,
        group: dist.ProcessGroup | None = None,
        arithmetic: Arithmetic = "exact",
        scaling: Scaling = "auto",
        interval: int = 10,
    ) -> None:
        self.group, self.arithmetic = group, arithmetic
        self._scaling, self._interval = scaling, interval
        self._scalers: dict[tuple[int, int], AutoScale] = {}

    def average(self, bucket: Any) -> Tensor:
        """Put means into a bucket's buffer, and return that; see `torch.distributed.GradBucket`."""
        gradients = bucket.gradients()
        size = dist.get_world_size(self.group)
        # DDP orders its buckets anew after the first step; mu then starts again.
        key = (bucket.index(), len(gradients))
        if key not in self._scalers:
            self._scalers[key] = AutoScale(len(gradients), size, self._scaling, self._interval)
        layout = layout_of([one.numel() for one in gradients], size)
        means = average(gradients, layout, self._scalers[key], self.group, self.arithmetic)
        for gradient, mean in zip(gradients, means, strict=True):
            # An infinity must not be lost on the way.
            lost = torch.where(mean.amax.isfinite(), 0.0, torch.inf)
            gradient.copy_(mean.decode() + lost)
        return cast("Tensor", bucket.buffer())


# DDP compares the annotations of hooks themselves, and those of this module are text.
def fp8_hook(state, bucket):  # type: ignore[no-untyped-def]
    """Communication hook of DDP that averages gradients in 8 bits.

    Parameters
    ----------
    state
        `Fp8HookState`.
    bucket
        `torch.distributed.GradBucket`.

    Returns
    -------
    torch.futures.Future
        Of the bucket's buffer, with the means.
    """
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(state.average(bucket))
    return done
