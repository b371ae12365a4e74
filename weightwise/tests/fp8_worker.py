"""What processes of an 8-bit run find, for `test_fp8_processes.py`. Argument: file to write."""

import sys
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from weightwise.distributed import Fp8Gradients, Fp8HookState, fp8_hook
from weightwise.distributed.fp8_sum import layout_of, simulated_sum, sum_codes
from weightwise.distributed.tensor_parallel import (
    ColumnParallel,
    RowParallel,
    column_part,
    row_part,
)
from weightwise.fp8 import clip_grad_norm_, prepare
from weightwise.numerics.fp8_linear import Fp8Linear
from weightwise.numerics.scaled_tensor import ScaledTensor, amax_of
from weightwise.numerics.stored import power_of_two_scale, quantize

E4M3 = torch.float8_e4m3fn
SHAPES = ((31, 7), (50,), (3, 40))


def main():
    """Measure everything; the first process writes."""
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    found = {
        "sums": sums(rank, size),
        "gradients": gradients(rank, size),
        "not finite": not_finite(rank),
        "after an error": after_an_error(rank, size),
        "not alike": not_alike(rank),
        "in vain": in_vain(rank, size),
        "hook": hook(rank, size),
        "tensor parallel": tensor_parallel(rank),
        "levels": {level: losses(level, rank, size) for level in ("O1", "O2", "O3")},
    }
    if rank == 0:
        torch.save(found, sys.argv[1])
    dist.barrier()
    dist.destroy_process_group()


def not_alike(rank):
    """What processes say whose models differ, one after the other."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 5 + rank))
    try:
        prepare(model, torch.optim.AdamW(model.parameters()), level="O2")
    except ValueError as error:
        return str(error)
    return "nothing"


def in_vain(rank, size):
    """What the first process says if no other one makes a backward pass, within a second."""
    if size == 1:
        return "nothing"
    group = dist.new_group(timeout=timedelta(seconds=1))
    weight = nn.Parameter(torch.ones(3, 4))
    gradients = Fp8Gradients([weight], group=group)
    said = "nothing"
    if rank == 0:
        try:
            weight.sum().backward()
        except RuntimeError as error:
            said = str(error)
    gradients.close()
    dist.barrier()
    return said


def drawn(size, seed=0):
    """Tensors of all processes, known to all."""
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(s, generator=generator) for s in SHAPES] for _ in range(size)]


def gathered(x):
    """The tensor of every process."""
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x)
    return parts


def sums(rank, size):
    """Largest difference from sums of a single process, for each arithmetic; equal everywhere."""
    worst = {}
    generator = torch.Generator().manual_seed(1)
    x_NE = torch.randn(size, 1000 * size, generator=generator)
    scale = power_of_two_scale(amax_of(x_NE), 448.0) / 2
    codes = torch.stack([quantize(x, E4M3, scale) for x in x_NE])
    layout = layout_of([1000 * size], size)
    for arithmetic in ("exact", "shared", "ring"):
        found = sum_codes(codes[rank].contiguous(), scale.reshape(1), layout, None, arithmetic)
        ours = found.codes.float() / found.scales[0] * scale
        if arithmetic == "ring":
            # A part begins behind the process at which it ends.
            parts = codes.view(size, size, 1000)
            orders = [[(p + 1 + hop) % size for hop in range(size)] for p in range(size)]
            wanted = torch.cat([
                simulated_sum(parts[order, p].contiguous(), "ring")[0]
                for p, order in enumerate(orders)
            ])  # fmt: skip
        else:
            wanted = simulated_sum(codes, arithmetic)[0]
        is_equal = all(torch.equal(one, ours) for one in gathered(ours))
        worst[arithmetic] = (ours - wanted).abs().max().item() if is_equal else float("inf")
    return worst


def gradients(rank, size):
    """Largest error of averaged gradients over the largest magnitude, and bytes kept."""
    torch.manual_seed(5)
    parameters = [nn.Parameter(torch.zeros(s)) for s in SHAPES]
    watched = Fp8Gradients(parameters, bucket_bytes=100)
    values = drawn(size)
    worst = 0.0
    for _ in range(3):
        for one in parameters:
            one.grad = None
        with watched.no_sync():
            sum((p * v).sum() for p, v in zip(parameters, values[rank], strict=True)).backward()
        sum((p * v).sum() for p, v in zip(parameters, values[rank], strict=True)).backward()
        for place, one in enumerate(parameters):
            wanted = 2 * torch.stack([v[place] for v in values]).mean(0)
            assert isinstance(one.grad, ScaledTensor)
            assert one.grad.payload.dtype == E4M3
            error = (one.grad.decode() - wanted).abs().max() / wanted.abs().max()
            worst = max(worst, error.item())
    watched.close()
    return worst


def not_finite(rank):
    """Largest magnitudes after one process had a NaN."""
    parameter = nn.Parameter(torch.zeros(40))
    watched = Fp8Gradients([parameter])
    factor = torch.ones(40)
    if rank == 1:
        factor[3] = torch.nan
    (parameter * factor).sum().backward()
    watched.close()
    return [one.item() for one in gathered(parameter.grad.amax)]


def after_an_error(rank, size):
    """Largest relative error of a mean after a backward pass that failed in all processes."""

    class Failing(torch.autograd.Function):
        @staticmethod
        def forward(_ctx, x):
            return x.clone()

        @staticmethod
        def backward(_ctx, _grad):
            raise RuntimeError("on purpose")

    last, first = nn.Parameter(torch.zeros(40)), nn.Parameter(torch.zeros(40))
    watched = Fp8Gradients([first, last], bucket_bytes=1)
    value = torch.full((40,), float(rank + 1))
    with suppress(RuntimeError):
        (Failing.apply(first) + last * value).sum().backward()
    first.grad = last.grad = None
    ((first + last) * value).sum().backward()
    watched.close()
    wanted = (size + 1) / 2
    return max((one.grad.decode() / wanted - 1).abs().max().item() for one in (first, last))


def hook(rank, size):
    """Largest relative error of gradients that DDP averages through the hook."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 5))
    ddp = nn.parallel.DistributedDataParallel(model, bucket_cap_mb=0.001)
    ddp.register_comm_hook(Fp8HookState(), fp8_hook)
    single = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 5))
    single.load_state_dict(model.state_dict())
    x = torch.randn(8 * size, 20)
    for _ in range(2):
        ddp.zero_grad()
        single.zero_grad()
        ddp(x[8 * rank : 8 * rank + 8]).square().mean().backward()
        single(x).square().mean().backward()
    return max(
        ((a.grad - b.grad).abs().max() / b.grad.abs().max()).item()
        for a, b in zip(model.parameters(), single.parameters(), strict=True)
    )


def tensor_parallel(rank):
    """Errors of output and gradients of parallel layers, and of whole ones in 8 bits."""
    torch.manual_seed(2)
    group = dist.group.WORLD
    size = dist.get_world_size()
    first, second = torch.randn(64, 32) / 6, torch.randn(32, 64) / 6
    x, dy = torch.randn(16 * size, 32), torch.randn(16 * size, 32)
    rows = slice(16 * rank, 16 * rank + 16)
    mine = slice(64 // size * rank, 64 // size * (rank + 1))

    def whole(layers):
        own = x.clone().requires_grad_()
        y = layers[1](F.gelu(layers[0](own)))
        y.backward(dy)
        return [
            y[rows], own.grad[rows], layers[0].weight.grad[mine], layers[1].weight.grad[:, mine]
        ]  # fmt: skip

    layers = [nn.Linear(32, 64, bias=False), nn.Linear(64, 32, bias=False)]
    small = [Fp8Linear(32, 64, bias=False), Fp8Linear(64, 32, bias=False)]
    for pair in (layers, small):
        for layer, weight in zip(pair, (first, second), strict=True):
            layer.weight.data.copy_(weight)
    exact = whole(layers)
    found = {"whole": relative(whole(small), exact)}
    for reduce in ("same", "e5m2"):
        up = ColumnParallel(column_part(first, group), group, reduce)
        down = RowParallel(row_part(second, group), group, reduce)
        own = x[rows].clone().requires_grad_()
        y = down(F.gelu(up(own)))
        y.backward(dy[rows])
        found[reduce] = relative([y, own.grad, up.weight.grad, down.weight.grad], exact)
    return found


def relative(found, exact):
    """Relative errors."""
    return [((a - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]


def losses(level, rank, size):
    """Losses of a small model at a level, on the same global batches whatever the processes."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 16))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model, optimizer = prepare(model, optimizer, level)
    generator = torch.Generator().manual_seed(4)
    teacher = torch.randn(16, 16, generator=generator)
    found = []
    for _ in range(20):
        x = torch.randn(32, 16, generator=generator)
        part = slice(32 // size * rank, 32 // size * (rank + 1))
        loss = (model(x[part]) - (x @ teacher)[part]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model, optimizer, 1.0)
        optimizer.step()
        total = loss.detach().clone()
        dist.all_reduce(total)
        found.append(total.item() / size)
    # Every process must have the same weights.
    for one in model.parameters():
        value = one.detach() + 0.0
        assert all(torch.equal(value, other) for other in gathered(value)), level
    return found


if __name__ == "__main__":
    main()
