"""Training of a mixture-of-experts model on a GPU: how much of the GPU it uses, and at what speed.

    python weightwise/benchmarks/moe_gpu.py [--parts train decode] [--tiny]

16 layers, 2048 wide, with 8 experts and a shared one of 5632: a token goes through 1.35 of 5.1
billion parameters. A step is forward, backward and AdamW, in bfloat16 throughout, over 4 sequences
of 2048 tokens; medians over CUDA events. FLOP are counted exactly (`weightwise.lm.flops`), and the
share is of what the data sheet of the GPU promises for dense products in bfloat16.

transformers computes on the same tensors, with the faster of its ways to compute experts; that it
computes the same is checked on a small model. The dense model has as many weights and FLOP for a
token. Decoding is greedy behind 1024 tokens, 32 texts at a time, without the `generate` of either.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from peers import gpu, hunyuan
from transformers import DynamicCache

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, MoEConfig, SwiGLUConfig
from weightwise.lm.flops import training_flop
from weightwise.lm.parameters import num_active_parameters, num_stored_parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

SYSTEM = "moe"
PARTS = ("train", "decode")
SHAPE = ModelConfig(
    vocab_size=32_000, width=2048, num_layers=16, max_length=2048,
    attention=GQAConfig(num_heads=16, num_kv_heads=4, qk_norm=True),
    ffn=MoEConfig(hidden=5632, num_experts=8, renormalize=True),
)  # fmt: skip
TINY_SHAPE = ModelConfig(
    vocab_size=64, width=64, num_layers=2, max_length=128,
    attention=GQAConfig(num_heads=4, num_kv_heads=2, qk_norm=True),
    ffn=MoEConfig(hidden=64, num_experts=4, renormalize=True),
)  # fmt: skip
SEQUENCES, TEXTS = 4, 32
EXPERTS = ("grouped_mm", "eager")  # transformers' ways on a GPU
CALLS, REPEATS, STEPS = 3, 5, 16


def main() -> None:
    options = gpu.arguments(__doc__.splitlines()[0], PARTS, "moe_gpu")
    if options is None:
        return
    torch.manual_seed(1)
    shape = TINY_SHAPE if options.tiny else SHAPE
    hunyuan.twin(build(TINY_SHAPE, torch.float32, torch.device("cpu")))  # both compute the same
    if "train" in options.parts:
        measure_training(shape)
    if "decode" in options.parts:
        with torch.inference_mode():
            measure_decoding(shape)


def build(
    config: ModelConfig, dtype: torch.dtype = torch.bfloat16, device: torch.device = gpu.DEVICE
) -> LanguageModel:
    """A model with drawn weights."""
    with device:
        model = LanguageModel(config).to(dtype)
    model.initialize(torch.Generator(device).manual_seed(1))
    return model


def dense_of(shape: ModelConfig) -> ModelConfig:
    """A model without experts that has as many weights for a token."""
    hidden = (shape.ffn.num_shared + shape.ffn.top_k) * shape.ffn.hidden
    return replace(shape, ffn=SwiGLUConfig(hidden=hidden))


def measure_training(shape: ModelConfig) -> None:
    """Rows of the speed of training and of the share of the GPU's peak."""
    length = shape.max_length
    token_BT = torch.randint(shape.vocab_size, (SEQUENCES, length + 1), device=gpu.DEVICE)
    ours = build(shape)
    step_s = {"ours": step_seconds(ours, ours, token_BT)}
    theirs = hunyuan.twin(ours, is_checked=False)
    for way in EXPERTS:
        theirs.set_experts_implementation(way)
        step_s[way] = step_seconds(logits_of(theirs), theirs, token_BT)
    del ours, theirs
    gc.collect()
    dense = build(dense_of(shape))
    step_s["dense"] = step_seconds(dense, dense, token_BT)
    del dense
    gc.collect()
    tokens = SEQUENCES * length
    rates = {name: round(tokens / spent_s) for name, spent_s in step_s.items()}
    detail = about(shape) | {"tokens_of_a_step": tokens, "tokens_per_s": rates}
    print(f"training: {rates} tokens/s", file=sys.stderr)
    gpu.emit(SYSTEM, name="gpu_train", value=rates["ours"], unit="tokens/s", detail=detail)
    peak = gpu.peak_flop_per_s()
    if peak is not None:
        for name, config in (("", shape), ("_dense", dense_of(shape))):
            flop_per_s = training_flop(config, length) * rates[name.lstrip("_") or "ours"]
            gpu.emit(
                SYSTEM, name=f"gpu_train_mfu{name}", value=round(flop_per_s / peak, 4), unit="x",
                peer="peak of the data sheet", goal=None if name else (">=", 0.45),
                detail=detail | {"tflop_per_s": round(flop_per_s / 1e12), "peak": peak / 1e12},
            )  # fmt: skip
    fastest = min(EXPERTS, key=lambda way: step_s[way])
    gpu.emit(
        SYSTEM, name="gpu_train_speedup", value=round(step_s[fastest] / step_s["ours"], 3),
        unit="x", peer=hunyuan.NAME, goal=(">=", 1.2), detail=detail | {"its experts": fastest},
    )  # fmt: skip
    gpu.emit(
        SYSTEM, name="gpu_train_over_dense", value=round(step_s["ours"] / step_s["dense"], 3),
        unit="x", peer="our dense model of equal FLOP", detail=detail,
    )  # fmt: skip


def logits_of(theirs: nn.Module) -> Callable[[Tensor], Tensor]:
    """Their model as a function of tokens."""
    return lambda token_BT: theirs(token_BT, use_cache=False).logits


def about(shape: ModelConfig) -> dict[str, object]:
    """What rows say of the model."""
    return {
        "parameters": num_stored_parameters(shape), "active": num_active_parameters(shape),
        "layers": shape.num_layers, "width": shape.width, "experts": shape.ffn.num_experts,
        "top_k": shape.ffn.top_k, "dtype": "bfloat16",
    }  # fmt: skip


def step_seconds(score: Callable[[Tensor], Tensor], model: nn.Module, token_BT: Tensor) -> float:
    """Time of a training step; the weights hardly move, so that routing stays the same."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9, fused=True)

    def work() -> None:
        optimizer.zero_grad()
        logits_BTV = score(token_BT[:, :-1])
        F.cross_entropy(logits_BTV.flatten(0, 1), token_BT[:, 1:].flatten()).backward()
        optimizer.step()

    spent_s = gpu.seconds(work, calls=CALLS, repeats=REPEATS)
    model.zero_grad()
    optimizer.state.clear()
    gpu.free_bytes()
    return spent_s


def measure_decoding(shape: ModelConfig) -> None:
    """Rows of the speed of decoding."""
    context = shape.max_length // 2
    token_BT = torch.randint(shape.vocab_size, (TEXTS, context), device=gpu.DEVICE)
    ours = build(shape).eval()
    rates = {"ours": our_rate(ours, token_BT)}
    theirs = hunyuan.twin(ours, is_checked=False).eval()
    for way in EXPERTS:
        theirs.set_experts_implementation(way)
        rates[way] = their_rate(theirs, token_BT)
    del ours, theirs
    gc.collect()
    rates["dense"] = our_rate(build(dense_of(shape)).eval(), token_BT)
    rates = {name: round(rate, 1) for name, rate in rates.items()}
    print(f"decoding: {rates} tokens/s", file=sys.stderr)
    fastest = max(EXPERTS, key=lambda way: rates[way])
    gpu.emit(
        SYSTEM, name="gpu_decode_speedup", value=round(rates["ours"] / rates[fastest], 3),
        unit="x", peer=hunyuan.NAME, goal=(">=", 1.5),
        detail=about(shape) | {"texts": TEXTS, "context": context, "tokens_per_s": rates},
    )  # fmt: skip


def our_rate(model: LanguageModel, token_BT: Tensor) -> float:
    """Tokens per second of greedy steps behind a context."""
    cache = model.new_cache(len(token_BT))
    last_BT = model(token_BT, cache, last_only=True).argmax(-1)

    def work() -> None:
        nonlocal last_BT
        for _ in range(STEPS):
            last_BT = model(last_BT, cache, last_only=True).argmax(-1)
        cache.crop(token_BT.shape[1])

    return len(token_BT) * STEPS / gpu.seconds(work, calls=1, repeats=REPEATS)


def their_rate(model: nn.Module, token_BT: Tensor) -> float:
    """The same with their model and its cache."""
    cache = DynamicCache(config=model.config)
    last_BT = model(token_BT, past_key_values=cache, logits_to_keep=1).logits.argmax(-1)

    def work() -> None:
        nonlocal last_BT
        for _ in range(STEPS):
            logits_BTV = model(last_BT, past_key_values=cache, logits_to_keep=1).logits
            last_BT = logits_BTV.argmax(-1)
        cache.crop(-STEPS)

    return len(token_BT) * STEPS / gpu.seconds(work, calls=1, repeats=REPEATS)


if __name__ == "__main__":
    main()
