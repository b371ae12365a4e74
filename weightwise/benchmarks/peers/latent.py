"""Models to compare latent attention with: Hugging Face's, and a plain prototype of absorption."""

from __future__ import annotations

import itertools
import time
import warnings
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
import transformers
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    QuantizedCache,
    StaticCache,
)

from weightwise.lm.attention import rotary_table, rotate
from weightwise.lm.deepseek import INNER

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from transformers import Cache, PreTrainedModel

    from weightwise.lm import LanguageModel, ModelConfig

NAME = f"transformers {transformers.__version__}"
KINDS = ("dynamic", "static")  # its caches
WAYS = ("sdpa", "eager")  # its attentions


def deepseek(ours: LanguageModel) -> DeepseekV3ForCausalLM:
    """Their multi-head latent attention on our tensors, which must not be shared by layers."""
    config = ours.config
    key, value, latent, rope = config.attention.widths(config.width)
    theirs = build(
        DeepseekV3ForCausalLM,
        DeepseekV3Config(
            **common(config), num_key_value_heads=config.attention.num_heads, q_lora_rank=None,
            kv_lora_rank=latent, qk_nope_head_dim=key, qk_rope_head_dim=rope, v_head_dim=value,
            first_k_dense_replace=config.num_layers, rope_interleave=False,
        ),
    )  # fmt: skip
    parameters = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        parameters.pop(their_name(name)).data = weight.data
    assert not parameters
    token_BT = torch.arange(32).view(1, -1)
    with torch.no_grad():
        torch.testing.assert_close(ours(token_BT), theirs(token_BT).logits, rtol=0, atol=1e-4)
    return theirs


def their_name(name: str) -> str:
    """Name of one of our parameters in their model."""
    outer = {"embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
    first, rest = name.split(".", 1)
    if first in outer:
        return f"{outer[first]}.{rest}"
    layer, inner = rest.split(".", 1)
    return f"model.layers.{layer}.{INNER[inner]}"


def llama(config: ModelConfig, kv_heads: int) -> LlamaForCausalLM:
    """Grouped-query attention in a model of the same size, with weights of its own."""
    return build(LlamaForCausalLM, LlamaConfig(**common(config), num_key_value_heads=kv_heads))


def common(config: ModelConfig) -> dict[str, object]:
    """Settings that all of their models have."""
    return {
        "vocab_size": config.vocab_size, "hidden_size": config.width,
        "intermediate_size": config.ffn.hidden, "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.attention.num_heads, "rms_norm_eps": config.norm_eps,
        "max_position_embeddings": config.max_length, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.attention.rope_theta},
    }  # fmt: skip


def build(kind: type[PreTrainedModel], config: object) -> PreTrainedModel:
    """One of their models, for use without training."""
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind(config).eval()


def prefill(theirs: PreTrainedModel, token_BT: Tensor, cache: Cache | None = None) -> Tensor:
    """Read a prompt, and give the token after it."""
    cache = DynamicCache(config=theirs.config) if cache is None else cache
    logits_BTV = theirs(token_BT, past_key_values=cache, logits_to_keep=1).logits
    return logits_BTV.argmax(-1)


def steps(
    theirs: PreTrainedModel, token_BT: Tensor, cache: Cache, count: int
) -> Callable[[], None]:
    """Greedy steps behind a prompt, and further ones with every call."""
    last_BT = prefill(theirs, token_BT, cache)

    def work() -> None:
        nonlocal last_BT
        for _ in range(count):
            last_BT = prefill(theirs, last_BT, cache)

    return work


def fastest_steps(
    theirs: PreTrainedModel, token_BT: Tensor, capacity: int, count: int
) -> tuple[Callable[[], None], str]:
    """Steps in the fastest of their ways, and its name."""
    theirs.set_attn_implementation("sdpa")
    works = {
        kind: steps(theirs, token_BT, new_cache(theirs, kind, capacity), count) for kind in KINDS
    }
    seconds = {}
    for kind, way in itertools.product(KINDS, WAYS):
        theirs.set_attn_implementation(way)
        works[kind]()
        start = time.perf_counter()
        works[kind]()
        seconds[kind, way] = time.perf_counter() - start
    kind, way = min(seconds, key=lambda one: seconds[one])
    work = works[kind]

    def chosen() -> None:
        theirs.set_attn_implementation(way)
        work()

    return chosen, f"{kind} cache, {way} attention"


def new_cache(theirs: PreTrainedModel, kind: str, capacity: int) -> Cache:
    """One of their caches for whole numbers of floating point."""
    if kind == "static":
        return StaticCache(config=theirs.config, max_cache_len=capacity)
    return DynamicCache(config=theirs.config)


def quantized_cache(theirs: PreTrainedModel, backend: str) -> Cache:
    """Their cache of 4 bits, groups of 32, and 32 tokens as they are."""
    axis = 1 if backend == "hqq" else 0
    return QuantizedCache(
        backend, theirs.config, nbits=4, axis_key=axis, axis_value=axis, q_group_size=32,
        residual_length=32,
    )  # fmt: skip


class Prototype:
    """Decoding with absorption in the fewest operations of torch, for a model without sharing.

    Parameters
    ----------
    model
        Whose weights to use.
    token_BT
        Prompt.
    capacity
        Most tokens.
    """

    def __init__(self, model: LanguageModel, token_BT: Tensor, capacity: int) -> None:
        self.model = model
        cache = model.new_cache(1, capacity)
        self.last_BT = model(token_BT, cache)[:, -1:].argmax(-1)
        self.length = token_BT.shape[1]
        self.kept = []
        for layer in cache.layers:
            kept = torch.cat([layer.stores[name].memory[0] for name in ("latent", "rope")], dim=-1)
            self.kept.append(kept)

    def step(self) -> None:
        """Choose the next token."""
        model, width = self.model, self.model.config.width
        key, _, latent, rope = model.config.attention.widths(width)
        place, heads = self.length, model.config.attention.num_heads
        table = rotary_table(torch.tensor([place]), width=rope, theta=10_000.0)
        x = model.embed(self.last_BT)[0]
        for block, kept in zip(model.blocks, self.kept, strict=True):
            layer, normed = block.attention, block.attention_norm(x)
            both = F.linear(normed, layer.latent.weight)
            norm = F.rms_norm(both[:, :latent], (latent,), layer.latent_gain, eps=1e-6)
            kept[place] = torch.cat((norm, rotate(both[:, latent:], *table)), dim=-1)
            query = F.linear(normed, layer.query.weight).view(heads, 1, key + rope)
            up_key, up_value = layer.up.view(heads, -1, latent).split((key, layer.value_width), 1)
            asked = torch.cat(
                (query[..., :key] @ up_key, rotate(query[..., key:], *table)), dim=-1
            ).squeeze(1)
            score = asked @ kept[: place + 1].T * layer.scale
            mixed = score.softmax(-1) @ kept[: place + 1, :latent]
            value = (up_value @ mixed.unsqueeze(-1)).view(1, -1)
            x = x + F.linear(value, layer.output.weight)
            normed = block.ffn_norm(x)
            gate, up = (
                F.linear(normed, block.ffn.gate.weight),
                F.linear(normed, block.ffn.up.weight),
            )
            x = x + F.linear(F.silu(gate) * up, block.ffn.down.weight)
        self.last_BT = F.linear(model.norm(x), model.head.weight).argmax(-1, keepdim=True)
        self.length += 1
