"""FP8-LM: bytes of training states, time of an optimizer step, bytes on the wire, error of sums.

``bytes``   live buffers of weight, gradient and moments for each linear weight, by level.
``step``    50 million parameters of GPT-2's shapes: CPU time on one thread beside torch's fused
            AdamW in float32 and torchao's AdamWFp8, and wall time on two threads beside a copy
            that moves the same 11 bytes (6 read, 5 written) a parameter.
``wire``    bytes through the loopback interface for a mean of gradients over gloo processes,
            beside an all-reduce in bfloat16.
``sums``    signal over error of a mean of N simulated processes' 8-bit gradients.

Contenders run in turn, round by round; medians count.

    python weightwise/benchmarks/fp8_lm.py [bytes step wire sums]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from weightwise.distributed import Fp8HookState, fp8_hook
from weightwise.distributed.fp8_sum import simulated_sum
from weightwise.fp8 import prepare
from weightwise.numerics.scaled_tensor import ScaledTensor, amax_of
from weightwise.numerics.stored import power_of_two_scale, quantize
from weightwise.optim import AdamW8

if TYPE_CHECKING:
    from collections.abc import Callable

    from weightwise.fp8.config import Level

SYSTEM = "fp8-lm"
E4M3 = torch.float8_e4m3fn
WIDTH, LAYERS = 768, 7
ROUNDS = 15
MOVED = 11  # bytes a parameter
WIRE_ELEMENTS = 4_000_000


def main() -> None:
    """Measure what the arguments ask for, by default everything."""
    parts = sys.argv[1:] or ["bytes", "step", "wire", "sums"]
    if parts[0] == "wire-worker":
        wire_worker(parts[1])
        return
    for part in parts:
        {"bytes": measure_bytes, "step": measure_step, "wire": measure_wire, "sums": measure_sums}[
            part
        ]()


def emit(name: str, value: float, unit: str, **rest: Any) -> None:
    """Print a measurement."""
    print(json.dumps({"system": SYSTEM, "name": name, "value": value, "unit": unit, **rest}))
    sys.stdout.flush()


def measure_bytes() -> None:
    """Bytes for each weight of the linear layers after a step."""
    wanted: dict[str, tuple[Level | None, float]] = {
        "adamw": (None, 16), "o1": ("O1", 11), "o2": ("O2", 6), "o3": ("O3", 7),
    }  # fmt: skip
    for name, (level, goal) in wanted.items():
        model = nn.Sequential(nn.Linear(512, 2048, bias=False), nn.Linear(2048, 512, bias=False))
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters())
        if level:
            model, optimizer = prepare(model, optimizer, level)
        model(torch.randn(8, 512)).square().mean().backward()
        count = sum(one.numel() for one in model.parameters())
        # Level O3 gives gradients away when it steps, so they are counted before.
        total = sum(size_of(one.grad) for one in model.parameters() if one.grad is not None)
        optimizer.step()
        held = list(model.parameters())
        if level == "O3":
            held += optimizer.whole.masters.values()
        for state in optimizer.state.values():
            held += [value for value in state.values() if value.dim()]
        total += sum(map(size_of, held))
        emit(f"bytes_{name}", total / count, "bytes", goal=["<=", goal + 0.01])


def size_of(x: torch.Tensor) -> int:
    """Bytes of a plain or scaled tensor."""
    return x.num_bytes() if isinstance(x, ScaledTensor) else x.numel() * x.element_size()


def shapes() -> list[tuple[int, ...]]:
    """Matrices and vectors of some layers."""
    d = WIDTH
    one = [(3 * d, d), (3 * d,), (d, d), (d,), (4 * d, d), (4 * d,), (d, 4 * d), (d,)]
    return one * LAYERS


def contender(kind: str) -> Callable[[], object]:
    """A step with fixed gradients of one of the optimizers."""
    generator = torch.Generator().manual_seed(0)
    parameters = []
    for shape in shapes():
        weight = 0.02 * torch.randn(shape, generator=generator)
        gradient = 1e-3 * torch.randn(shape, generator=generator)
        if kind == "ours":
            parameters.append(nn.Parameter(ScaledTensor.of(weight, torch.float16)))
            parameters[-1].grad = ScaledTensor.of(gradient, E4M3)
        else:
            parameters.append(nn.Parameter(weight))
            parameters[-1].grad = gradient
    if kind == "torch":
        return torch.optim.AdamW(parameters, fused=True).step
    if kind == "torchao":
        from torchao.optim import AdamWFp8

        return AdamWFp8(parameters).step
    return AdamW8(parameters).step


def measure_step() -> None:
    """CPU time on one thread, wall time on two."""
    torch.set_num_threads(1)
    kinds = ("ours", "torch", "torchao")
    found = interleaved({kind: contender(kind) for kind in kinds}, time.process_time)
    count = sum(torch.Size(shape).numel() for shape in shapes())
    ms = {kind: round(1e3 * seconds, 1) for kind, seconds in found.items()}
    detail = {"parameters": count, "milliseconds": ms, "threads": 1, "rounds": ROUNDS}
    emit("step_over_torch", found["ours"] / found["torch"], "x", goal=["<=", 0.9],
         peer="torch 2.13.0 AdamW(fused=True), float32", detail=detail)  # fmt: skip
    emit("step_over_torchao", found["ours"] / found["torchao"], "x", goal=["<=", 0.12],
         peer="torchao AdamWFp8", detail=detail)  # fmt: skip
    torch.set_num_threads(2)
    source = torch.zeros(count * MOVED // 2, dtype=torch.uint8)
    target = torch.zeros_like(source)
    found = interleaved(
        {"ours": contender("ours"), "copy": lambda: target.copy_(source)}, time.perf_counter
    )
    ms = {kind: round(1e3 * seconds, 1) for kind, seconds in found.items()}
    detail = {"parameters": count, "milliseconds": ms, "threads": 2, "rounds": ROUNDS}
    emit("step_over_copy", found["ours"] / found["copy"], "x", goal=["<=", 1.5],
         peer="a copy that moves 11 bytes a parameter", detail=detail)  # fmt: skip


def interleaved(
    contenders: dict[str, Callable[[], object]], clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of each, in turn."""
    seconds: dict[str, list[float]] = {kind: [] for kind in contenders}
    for number in range(ROUNDS + 2):
        for kind, step in contenders.items():
            start = clock()
            step()
            if number >= 2:
                seconds[kind].append(clock() - start)
    return {kind: statistics.median(values) for kind, values in seconds.items()}


def measure_wire() -> None:
    """Bytes of a mean over two and four processes."""
    for size in (2, 4):
        sent = {}
        for kind in ("ours", "bf16"):
            words = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                     f"--nproc-per-node={size}", __file__, "wire-worker", kind]  # fmt: skip
            done = subprocess.run(
                words, capture_output=True, text=True, check=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            sent[kind] = float(done.stdout.split()[-1])
        emit(f"wire_{size}", sent["ours"] / sent["bf16"], "x", goal=["<=", 0.51],
             peer="bfloat16 all-reduce of gloo", detail={"elements": WIRE_ELEMENTS,
             "bytes an element": {k: v / WIRE_ELEMENTS for k, v in sent.items()}})  # fmt: skip


def wire_worker(kind: str) -> None:
    """Average a gradient by DDP; the first process prints what went over the interface."""
    dist.init_process_group("gloo")
    model = nn.Linear(WIRE_ELEMENTS // 1000, 1000, bias=False)
    ddp = nn.parallel.DistributedDataParallel(model, bucket_cap_mb=100)
    if kind == "ours":
        ddp.register_comm_hook(Fp8HookState(), fp8_hook)
    else:
        ddp.register_comm_hook(None, bfloat16_hook)
    x = torch.randn(2, WIRE_ELEMENTS // 1000)
    ddp(x).square().mean().backward()  # DDP orders its buckets
    model.zero_grad()
    dist.barrier()
    before = loopback_bytes()
    ddp(x).square().mean().backward()
    dist.barrier()
    if dist.get_rank() == 0:
        print(loopback_bytes() - before)
    dist.barrier()
    dist.destroy_process_group()


def bfloat16_hook(_state, bucket):
    """What torch's own hook does, which wants a GPU."""
    small = bucket.buffer().bfloat16()
    dist.all_reduce(small)
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(small.float() / dist.get_world_size())
    return done


def loopback_bytes() -> int:
    """Bytes that the loopback interface has sent."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[8])
    raise SystemExit("expected a loopback interface in /proc/net/dev, found none")


def measure_sums() -> None:
    """Log-normal gradients with a common mean, from 2 to 1,024 processes."""
    for size in (2, 8, 128, 1024):
        generator = torch.Generator().manual_seed(0)
        count = 200_000 if size <= 128 else 20_000
        mean = torch.randn(count, generator=generator)
        mean = mean * torch.exp(torch.randn(count, generator=generator))
        g_NE = mean + mean.abs() * torch.randn(size, count, generator=generator)
        exact = g_NE.double().mean(0)
        scale = power_of_two_scale(amax_of(g_NE), 448.0)
        found = {}
        ways = {
            "exact": ("exact", 1.0), "before": ("shared", 1 / size), "after": ("shared", 1.0),
            "every hop": ("ring", size**-0.5),
        }  # fmt: skip
        for name, (arithmetic, mu) in ways.items():
            codes = torch.stack([quantize(g_E, E4M3, scale * mu) for g_E in g_NE])
            total, _ = simulated_sum(codes, arithmetic)
            error = total.double() / (scale * mu) / size - exact
            found[name] = 10 * log10(exact.square().sum() / error.square().sum())
        goal = 28.0 if size == 128 else max(found["before"], found["after"])
        columns = {f"{name}, dB": round(value, 1) for name, value in found.items()}
        detail = {"columns": {"processes": size, **columns}}
        emit(f"sum_snr_{size}", found["exact"], "dB", goal=[">=", goal], detail=detail, seed=0)


if __name__ == "__main__":
    main()
