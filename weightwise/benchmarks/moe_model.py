"""Training, decoding and cache of a whole mixture-of-experts model against transformers' model.

    python weightwise/benchmarks/moe_model.py [--repeats N] [--parts train decode cache]

Both models have the same settings and compute on the same tensors. A training step is forward,
backward and AdamW, the fused one for both; transformers takes the fastest of its ways to compute
experts. In bfloat16 it is measured under autocast and with bfloat16 weights; the row holds the
worse speedup. Decoding goes on behind 1024 tokens, one text, greedily, in a bare loop without the
`generate` of either; transformers takes the fastest of its caches, attentions and experts. All
cores, time on the wall; both take turns; medians of ratios.

Bytes of the cache are those of the tensors that lie in it after a pass, in bfloat16.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from peers import hunyuan
from peers.clock import SEED, Times, compare, emit, threads
from transformers import DynamicCache, StaticCache

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, MoEConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn
    from transformers import Cache, HunYuanMoEV1ForCausalLM

SYSTEM = "moe"
CONFIG = ModelConfig(
    vocab_size=4096,
    width=512,
    num_layers=8,
    max_length=2048,
    attention=GQAConfig(num_heads=8, num_kv_heads=2, qk_norm=True),
    ffn=MoEConfig(hidden=704, num_experts=16, renormalize=True),
)
ABOUT = {"parameters": 154_500_000, "layers": 8, "width": 512, "experts": 16, "top_k": 1}
PARTS = ("train", "decode", "cache")
SEQUENCES, LENGTH = 4, 512
CONTEXT, STEPS, TRIAL_STEPS = 1024, 8, 4
TRAINING_WAYS = ("grouped_mm", "eager")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="repetitions of each timing")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure")
    options = parser.parse_args()
    with threads(os.cpu_count() or 1):
        if "decode" in options.parts:
            measure_decoding(2 * options.repeats)
        if "train" in options.parts:
            measure_training(options.repeats)
        if "cache" in options.parts:
            measure_cache()


def build(share_factor: int = 1) -> LanguageModel:
    """A model with drawn weights."""
    attention = replace(CONFIG.attention, share_factor=share_factor)
    model = LanguageModel(replace(CONFIG, attention=attention))
    model.initialize(torch.Generator().manual_seed(SEED))
    return model


def measure_training(repeats: int) -> None:
    """Rows of the speedup of a training step."""
    ours = build()
    theirs = hunyuan.twin(ours)
    emit_training("float32", {"weights": time_training(ours, theirs, repeats)})
    mixed = time_training(ours, theirs, repeats, is_autocast=True)
    ours.bfloat16()
    theirs.bfloat16()
    hunyuan.share(ours, theirs)
    low = time_training(ours, theirs, repeats)
    emit_training("bfloat16", {"autocast": mixed, "weights": low})


def time_training(
    ours: LanguageModel, theirs: HunYuanMoEV1ForCausalLM, repeats: int, *, is_autocast: bool = False
) -> tuple[Times, str]:
    """Times of our step over theirs, and their fastest way."""
    token_BT = torch.randint(CONFIG.vocab_size, (SEQUENCES, LENGTH + 1))
    peer = step_of(
        lambda token_BT: theirs(token_BT, use_cache=False).logits, theirs, token_BT, is_autocast
    )
    peer()  # makes the state of its optimizer
    way = hunyuan.fastest(theirs, peer, TRAINING_WAYS)
    own = step_of(ours, ours, token_BT, is_autocast)
    times = compare(peer, {"ours": own}, repeats)["ours"]
    for model in (ours, theirs):
        model.zero_grad()
    return times, way


def step_of(
    score: Callable[[Tensor], Tensor], model: nn.Module, token_BT: Tensor, is_autocast: bool
) -> Callable[[], None]:
    """A training step: the weights hardly move, so that routing stays the same."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9, fused=True)

    def work() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
            logits_BTV = score(token_BT[:, :-1])
        F.cross_entropy(logits_BTV.float().flatten(0, 1), token_BT[:, 1:].flatten()).backward()
        optimizer.step()

    return work


def emit_training(dtype: str, found: dict[str, tuple[Times, str]]) -> None:
    """Row of one type of number; the worst of its kinds counts."""
    detail: dict[str, object] = {**ABOUT, "tokens": SEQUENCES * LENGTH, "dtype": dtype}
    speedups = {}
    for kind, (times, way) in found.items():
        speedups[kind] = 1 / times.ratio
        detail[kind] = {"speedup": round(speedups[kind], 3), "its experts": way, **times.detail()}
    print(f"training step, {dtype}: {speedups}", file=sys.stderr)
    emit(
        SYSTEM, name=f"train_step_speedup_{dtype}", value=round(min(speedups.values()), 3),
        unit="x", peer=hunyuan.NAME, goal=(">=", 1.2), detail=detail,
    )  # fmt: skip


@torch.inference_mode()
def measure_decoding(repeats: int) -> None:
    """Rows of the speedup of decoding, with keys of its own in each layer and with shared ones."""
    ours, sharing = build().eval(), build(2).eval()
    theirs = hunyuan.twin(ours).eval()
    token_BT = torch.randint(CONFIG.vocab_size, (1, CONTEXT))
    capacity = CONTEXT + STEPS * (repeats + 2) + 64
    own, own_sharing = (our_steps(model, token_BT, capacity) for model in (ours, sharing))
    peer, way = fastest_decoding(theirs, token_BT, capacity)
    times = compare(peer, {"ours": own, "shared keys": own_sharing}, repeats)
    for name, label in (("ours", ""), ("shared keys", "_shared_keys")):
        seconds = sorted(times[name].seconds)
        rate = STEPS / seconds[len(seconds) // 2]
        print(f"decoding{label}: {1 / times[name].ratio:.2f} x, {rate:.1f}/s", file=sys.stderr)
        emit(
            SYSTEM, name=f"decode_speedup_1k{label}", value=round(1 / times[name].ratio, 3),
            unit="x", peer=hunyuan.NAME, goal=(">=", 1.5), detail={
                **ABOUT, "context": CONTEXT, "dtype": "float32", "tokens_per_s": round(rate, 1),
                "its fastest": way, "steps": STEPS, **times[name].detail(),
            },
        )  # fmt: skip


def our_steps(model: LanguageModel, token_BT: Tensor, capacity: int) -> Callable[[], None]:
    """Some greedy steps behind the context, and further ones with every call."""
    cache = model.new_cache(1, capacity)
    last_BT = model(token_BT, cache)[:, -1:].argmax(-1)

    def work() -> None:
        nonlocal last_BT
        for _ in range(STEPS):
            last_BT = model(last_BT, cache)[:, -1:].argmax(-1)

    return work


def their_steps(
    theirs: HunYuanMoEV1ForCausalLM, token_BT: Tensor, cache: Cache, steps: int = STEPS
) -> Callable[[], None]:
    """The same with their model and one of its caches."""
    last_BT = theirs(token_BT, past_key_values=cache, logits_to_keep=1).logits.argmax(-1)

    def work() -> None:
        nonlocal last_BT
        for _ in range(steps):
            logits_BTV = theirs(last_BT, past_key_values=cache, logits_to_keep=1).logits
            last_BT = logits_BTV.argmax(-1)

    return work


def fastest_decoding(
    theirs: HunYuanMoEV1ForCausalLM, token_BT: Tensor, capacity: int
) -> tuple[Callable[[], None], str]:
    """Their fastest way to decode, and its name."""

    def new_cache(kind: str) -> Cache:
        if kind == "static":
            return StaticCache(config=theirs.config, max_cache_len=capacity)
        return DynamicCache(config=theirs.config)

    seconds = {}
    for kind, attention in itertools.product(("dynamic", "static"), ("sdpa", "eager")):
        theirs.set_attn_implementation(attention)
        theirs.set_experts_implementation("grouped_mm")
        work = their_steps(theirs, token_BT, new_cache(kind), TRIAL_STEPS)
        for experts in hunyuan.EXPERTS:
            theirs.set_experts_implementation(experts)
            work()
            start = time.perf_counter()
            work()
            seconds[kind, attention, experts] = time.perf_counter() - start
    kind, attention, experts = min(seconds, key=lambda way: seconds[way])
    theirs.set_attn_implementation(attention)
    theirs.set_experts_implementation("grouped_mm")
    work = their_steps(theirs, token_BT, new_cache(kind))
    theirs.set_experts_implementation(experts)
    return work, f"{kind} cache, {attention} attention, {experts} experts"


@torch.inference_mode()
def measure_cache() -> None:
    """Rows of the bytes that a token takes in the caches, in bfloat16."""
    sharing, plain = build(2).bfloat16().eval(), build().eval()
    theirs = hunyuan.twin(plain).eval()
    hunyuan.share(plain.bfloat16(), theirs.bfloat16())
    token_BT = torch.randint(CONFIG.vocab_size, (1, 256))
    cache = sharing.new_cache(1, 256)
    sharing(token_BT, cache)
    layers = [layer for layer in cache.layers if layer is not None]
    ours = held(s.memory for layer in layers for s in layer.stores.values()) / 256
    peer_cache = DynamicCache(config=theirs.config)
    theirs(token_BT, past_key_values=peer_cache)
    peers = held(t for layer in peer_cache.layers for t in (layer.keys, layer.values)) / 256
    attention = CONFIG.attention
    groups = CONFIG.num_layers // 2  # of two layers that share keys and values
    formula = 2 * attention.kv_heads * attention.width_per_head(CONFIG.width) * groups * 2
    detail = {**ABOUT, "kv_heads": 2, "head_width": 64, "share_factor": 2, "dtype": "bfloat16"}
    emit(
        SYSTEM, name="kv_bytes_per_token", value=ours, unit="B", peer=hunyuan.NAME,
        goal=("==", formula), detail={**detail, "formula": formula, "its bytes": peers},
    )  # fmt: skip
    emit(
        SYSTEM, name="kv_bytes_over_peer", value=ours / peers, unit="x", peer=hunyuan.NAME,
        goal=("<=", 0.5), detail={**detail, "bytes": ours, "its bytes": peers},
    )  # fmt: skip


def held(tensors: Iterable[Tensor]) -> int:
    """Bytes of memory that tensors keep, views counted with all that is behind them."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


if __name__ == "__main__":
    main()
