"""Time of a mixture-of-experts layer against a dense one, the memory, and transformers.

    python weightwise/benchmarks/moe.py [--repeats N]

The layer has 16 experts of which a token uses one, and a shared one; forward passes in float32.
The yardstick for many tokens is a dense layer with as many operations for a token, that for few
is to read all weights that the tokens touch, in the fastest way that torch has. transformers'
layer works on the same tensors. The dense layer is ours, with the same fast products; a further row
compares with one of torch's own linear layers. Every call takes the next of several layers, so
that weights come from memory as they do in a model. All ways take turns; medians of ratios. One
thread: CPU time of the process; two: time on the wall; a row holds the worse of both.

Recycling is what the router takes longer with it than without, over the time of the layer.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from peers import hunyuan
from peers.clock import SEED, Times, compare, emit, threads

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, MoEConfig, SwiGLUConfig
from weightwise.lm.ffn import SwiGLU
from weightwise.lm.routing import route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor
    from transformers import HunYuanMoEV1ForCausalLM

    from weightwise.lm.moe import MixtureOfExperts

SYSTEM = "moe"
# Layers whose touched weights together exceed any cache, even those of one token.
CONFIG = ModelConfig(
    vocab_size=64,
    width=512,
    num_layers=8,
    max_length=64,
    attention=GQAConfig(num_heads=8, qk_norm=True),
    ffn=MoEConfig(hidden=1024, num_experts=16, renormalize=True),
)
# Tokens of a pass, the yardstick, its goal, and repetitions for one of --repeats.
SIZES = (
    (1, "read", 1.5, 20), (16, "read", 1.5, 6), (64, "read", 1.5, 4),
    (512, "dense", 1.35, 2), (2048, "dense", 1.1, 1),
)  # fmt: skip
MOST_BATCHED = 64  # tokens; batched_mm copies all weights of an expert for every token
THREADS = (1, 2)
READS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": torch.sum,
    "amax": torch.amax,
    "dot": lambda weight: torch.dot(weight.view(-1), weight.view(-1)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11, help="repetitions of the slowest timing")
    repeats = parser.parse_args().repeats
    torch.manual_seed(SEED)
    ours = LanguageModel(CONFIG).eval()
    ours.initialize(torch.Generator().manual_seed(SEED))
    theirs = hunyuan.twin(ours).eval()
    dense = [SwiGLU(SwiGLUConfig(hidden=2 * CONFIG.ffn.hidden), CONFIG.width) for _ in ours.blocks]
    plain = [functools.partial(plain_swiglu, layer) for layer in dense]
    with torch.inference_mode():
        for num_tokens, yardstick, goal, factor in SIZES:
            x_BTD = torch.randn(1, num_tokens, CONFIG.width)
            found = {}
            for num_threads in THREADS:
                with threads(num_threads):
                    work = over(dense, x_BTD) if yardstick == "dense" else reading(ours, x_BTD)
                    ways = ways_of(ours, theirs, x_BTD)
                    if yardstick == "dense":
                        ways["torch dense"] = over(plain, x_BTD, CONFIG.num_layers // 2)
                    found[num_threads] = compare(work, ways, factor * repeats)
            report(num_tokens, yardstick, goal, found)
        measure_recycling(ours, 4 * repeats)


def plain_swiglu(layer: SwiGLU, x_BTD: Tensor) -> Tensor:
    """A dense layer by torch's own products, whatever ours are."""
    return layer.down(F.silu(layer.gate(x_BTD)) * layer.up(x_BTD))


def over(
    layers: Iterable[Callable[[Tensor], Tensor]], x_BTD: Tensor, start: int = 0
) -> Callable[[], Tensor]:
    """A pass through the next layer with every call."""
    turns = itertools.cycle(list(layers))
    for _ in range(start):
        next(turns)
    return lambda: next(turns)(x_BTD)


def ways_of(
    ours: LanguageModel, theirs: HunYuanMoEV1ForCausalLM, x_BTD: Tensor
) -> dict[str, Callable[[], object]]:
    """Our layer and transformers' ways, none in the layer that another has just been through."""
    ways: dict[str, Callable[[], object]] = {
        "ours": over((block.ffn for block in ours.blocks), x_BTD)
    }
    for name in hunyuan.EXPERTS:
        if name == "batched_mm" and x_BTD.shape[1] > MOST_BATCHED:
            continue
        layers = over((layer.mlp for layer in theirs.model.layers), x_BTD, 2 * len(ways))

        def work(name: str = name, layers: Callable[[], object] = layers) -> None:
            theirs.config._experts_implementation = name
            layers()

        ways[name] = work
    return ways


def reading(ours: LanguageModel, x_BTD: Tensor) -> Callable[[], None]:
    """To read the weights of the next layer that these tokens touch."""
    touched = [touched_weights(block.ffn, x_BTD) for block in ours.blocks]
    seconds = {name: time_reading(read, touched) for name, read in READS.items()}
    read = READS[min(seconds, key=lambda name: seconds[name])]
    turns = itertools.cycle(touched)

    def work() -> None:
        for weight in next(turns):
            read(weight)

    return work


def touched_weights(layer: MixtureOfExperts, x_BTD: Tensor) -> list[Tensor]:
    """Matrices that a pass of these tokens needs; those of an expert lie in one piece each."""
    layer(x_BTD)
    used = layer.routing.load.nonzero().flatten().tolist()
    stacks = (layer.experts.gate_up, layer.experts.down)
    shared = [linear.weight for linear in (layer.shared.gate, layer.shared.up, layer.shared.down)]
    return [layer.router.weight, *shared, *(stack[expert] for expert in used for stack in stacks)]


def time_reading(read: Callable[[Tensor], Tensor], touched: list[list[Tensor]]) -> float:
    """Shortest time of a few rounds."""
    rounds = []
    for _ in range(3):
        start = time.perf_counter()
        for weight in itertools.chain.from_iterable(touched):
            read(weight)
        rounds.append(time.perf_counter() - start)
    return min(rounds)


def report(
    num_tokens: int, yardstick: str, goal: float, found: dict[int, dict[str, Times]]
) -> None:
    """Rows of one number of tokens: over the yardstick and over transformers' fastest way."""
    about = {"tokens": num_tokens, "width": 512, "hidden": 1024, "experts": 16, "dtype": "float32"}
    ratios, over_peer, peers, detail, over_torch = {}, {}, {}, {}, {}
    for num_threads, times in found.items():
        ours = times["ours"]
        best = min((n for n in times if n in hunyuan.EXPERTS), key=lambda n: times[n].ratio)
        pairs = zip(ours.seconds, times[best].seconds, strict=False)
        label = f"{num_threads}t"
        ratios[label], peers[label] = ours.ratio, best
        over_peer[label] = statistics.median(a / b for a, b in pairs)
        if "torch dense" in times:
            plain = zip(ours.seconds, times["torch dense"].seconds, strict=False)
            over_torch[label] = statistics.median(a / b for a, b in plain)
        detail[label] = {name: time.detail() for name, time in times.items()}
    words = {"read": "reading the weights", "dense": "our dense layer of equal FLOPs"}
    print(f"{num_tokens:>5} tokens over {yardstick}: {ratios}, {over_peer}", file=sys.stderr)
    emit(
        SYSTEM, name=f"layer_{num_tokens}_over_{yardstick}",
        value=round(max(ratios.values()), 3), unit="x", peer=words[yardstick],
        goal=("<=", goal), detail=about | {"by threads": rounded(ratios), "times": detail},
    )  # fmt: skip
    emit(
        SYSTEM, name=f"layer_{num_tokens}_over_transformers",
        value=round(max(over_peer.values()), 3), unit="x", peer=hunyuan.NAME, goal=("<=", 1.0),
        detail=about | {"by threads": rounded(over_peer), "its fastest": peers},
    )  # fmt: skip
    if over_torch:
        emit(
            SYSTEM, name=f"layer_{num_tokens}_over_torch_dense",
            value=round(max(over_torch.values()), 3), unit="x",
            peer="torch nn.Linear, dense layer of equal FLOPs",
            detail=about | {"by threads": rounded(over_torch)},
        )  # fmt: skip


def measure_recycling(ours: LanguageModel, repeats: int) -> None:
    """Row of the share of the layer's time that recycling takes."""
    num_tokens = SIZES[-1][0]
    layer = ours.blocks[0].ffn
    x_BTD = torch.randn(1, num_tokens, CONFIG.width)
    logits_TE = layer.router(x_BTD[0])
    recycling = replace(layer.config, overflow="recycle")
    overflow = route(logits_TE, recycling, has_capacity=True).num_overflow
    layer.config = recycling
    layer.train()
    shares = {}
    for num_threads in THREADS:
        ways = {
            "with": lambda: route(logits_TE, recycling, has_capacity=True),
            "without": lambda: route(logits_TE, recycling, has_capacity=False),
        }
        with threads(num_threads):
            times = compare(lambda: layer(x_BTD), ways, repeats)
        shares[f"{num_threads}t"] = times["with"].ratio - times["without"].ratio
    layer.eval()
    emit(
        SYSTEM, name="recycle_share", value=round(max(shares.values()), 4), unit="of the layer",
        goal=("<=", 0.03), detail={
            "tokens": num_tokens, "overflow": overflow, "capacity_factor": 1.0,
            "by threads": rounded(shares),
        },
    )  # fmt: skip


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Three digits behind the point, or four for small ones."""
    return {name: round(value, 3 if value > 0.1 else 4) for name, value in values.items()}


if __name__ == "__main__":
    main()
