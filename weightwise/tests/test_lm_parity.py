"""The model against Hugging Face's LLaMA with the same weights."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, SwiGLUConfig, generate

transformers = pytest.importorskip("transformers")

CONFIG = ModelConfig(
    vocab_size=61,
    width=48,
    num_layers=3,
    max_length=64,
    attention=GQAConfig(num_heads=6, num_kv_heads=2),
    ffn=SwiGLUConfig(hidden=80),
    init_std=0.1,
)

# Our names and theirs, inside a block.
NAMES = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
}


def their_name(name: str) -> str:
    outer = {"embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
    stem = name.removesuffix(".weight")
    if stem in outer:
        return f"{outer[stem]}.weight"
    _, layer, inner = stem.split(".", 2)
    return f"model.layers.{layer}.{NAMES[inner]}.weight"


def build_pair(config: ModelConfig):
    ours = LanguageModel(config)
    generator = torch.Generator().manual_seed(0)
    ours.initialize(generator)
    with torch.no_grad():
        for block in ours.blocks:  # gains other than 1, so that a swapped norm would show
            for norm in (block.attention_norm, block.ffn_norm):
                norm.weight.uniform_(0.5, 1.5, generator=generator)
    attention = config.attention
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.width,
                intermediate_size=config.ffn.hidden,
                num_hidden_layers=config.num_layers,
                num_attention_heads=attention.num_heads,
                num_key_value_heads=attention.kv_heads,
                head_dim=attention.width_per_head(config.width),
                max_position_embeddings=config.max_length,
                rms_norm_eps=config.norm_eps,
                rope_parameters={"rope_type": "default", "rope_theta": attention.rope_theta},
                tie_word_embeddings=config.tie_embeddings,
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=None,
            )
        )
    weights = {their_name(name): weight.clone() for name, weight in ours.state_dict().items()}
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    theirs.load_state_dict(weights)
    return ours, theirs.eval()


def tokens(batch: int, length: int) -> torch.Tensor:
    return torch.randint(0, 61, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("kv_heads", "head_width", "theta"), [(2, None, 1e4), (6, 10, 5e5)])
def test_logits_and_gradients_are_theirs(tied, kv_heads, head_width, theta):
    """Logits within 1e-5, gradients within 1e-5 of the largest, for every weight."""
    attention = GQAConfig(
        num_heads=6, num_kv_heads=kv_heads, head_width=head_width, rope_theta=theta
    )
    ours, theirs = build_pair(replace(CONFIG, attention=attention, tie_embeddings=tied))
    token_BT = tokens(2, 33)
    our_logits, their_logits = ours(token_BT), theirs(token_BT).logits
    gap = (our_logits - their_logits).abs()
    assert gap.max() <= 1e-5, f"max {gap.max():.2e}, mean {gap.mean():.2e}"
    for logits in (our_logits, their_logits):
        torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), token_BT[:, 1:].flatten()
        ).backward()
    their_grads = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        expected = their_grads[their_name(name)]
        gap = (parameter.grad - expected).abs().max()
        assert gap <= 1e-5 * max(1.0, expected.abs().max()), f"{name}: max {gap:.2e}"


def test_greedy_text_is_theirs():
    """Forty tokens from prompts of ten, both with a cache: the same ids."""
    ours, theirs = build_pair(CONFIG)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.generate(
            tokens(2, 10),
            attention_mask=torch.ones(2, 10, dtype=torch.int64),
            max_new_tokens=40,
            do_sample=False,
        )
    assert torch.equal(generate(ours, tokens(2, 10), max_new_tokens=40, temperature=0), expected)
