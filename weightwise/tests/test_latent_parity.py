"""Latent attention against Hugging Face's DeepSeek-V3 with the same weights."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from weightwise.lm import LanguageModel, LatentConfig, ModelConfig, SwiGLUConfig, generate

transformers = pytest.importorskip("transformers")

ATTENTION = LatentConfig(
    num_heads=3, head_width=10, value_width=14, latent_width=18, rope_width=6, rope_theta=500.0
)
CONFIG = ModelConfig(
    vocab_size=61,
    width=40,
    num_layers=3,
    max_length=64,
    attention=ATTENTION,
    ffn=SwiGLUConfig(hidden=72),
    tie_embeddings=False,
    init_std=0.1,
)
QUERY_LATENT = replace(CONFIG, attention=replace(ATTENTION, query_latent_width=16))
both_queries = pytest.mark.parametrize("config", [CONFIG, QUERY_LATENT], ids=["plain", "latent"])

# Our names and theirs, inside a block.
NAMES = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.query_down.weight": "self_attn.q_a_proj.weight",
    "attention.query_gain": "self_attn.q_a_layernorm.weight",
    "attention.query_up.weight": "self_attn.q_b_proj.weight",
    "attention.latent.weight": "self_attn.kv_a_proj_with_mqa.weight",
    "attention.latent_gain": "self_attn.kv_a_layernorm.weight",
    "attention.up": "self_attn.kv_b_proj.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn.gate.weight": "mlp.gate_proj.weight",
    "ffn.up.weight": "mlp.up_proj.weight",
    "ffn.down.weight": "mlp.down_proj.weight",
}
OUTER = {
    "embed.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}


def their_name(name: str) -> str:
    if name in OUTER:
        return OUTER[name]
    _, layer, inner = name.split(".", 2)
    return f"model.layers.{layer}.{NAMES[inner]}"


def interleaved(weight_FD: torch.Tensor) -> torch.Tensor:
    """Rows of a rotary part in pairs of neighbours instead of halves."""
    return weight_FD.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1)


def their_weight(name: str, weight: torch.Tensor, *, is_interleaved: bool) -> torch.Tensor:
    if not is_interleaved:
        return weight
    if name.endswith(("query.weight", "query_up.weight")):
        heads = weight.unflatten(0, (3, 16))
        return torch.cat([torch.cat((h[:10], interleaved(h[10:]))) for h in heads])
    if name.endswith("latent.weight"):
        return torch.cat((weight[:18], interleaved(weight[18:])))
    return weight


def build_pair(config: ModelConfig, *, is_interleaved: bool):
    ours = LanguageModel(config)
    generator = torch.Generator().manual_seed(0)
    ours.initialize(generator)
    with torch.no_grad():
        for weight in ours.parameters():  # gains other than 1, so that a swapped norm would show
            if weight.ndim == 1:
                weight.uniform_(0.5, 1.5, generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = transformers.DeepseekV3ForCausalLM(
            transformers.DeepseekV3Config(
                vocab_size=61, hidden_size=40, intermediate_size=72, num_hidden_layers=3,
                num_attention_heads=3, num_key_value_heads=3, max_position_embeddings=64,
                q_lora_rank=config.attention.query_latent_width, kv_lora_rank=18,
                qk_nope_head_dim=10, qk_rope_head_dim=6, v_head_dim=14, first_k_dense_replace=3,
                rope_interleave=is_interleaved, rms_norm_eps=1e-5, tie_word_embeddings=False,
                rope_parameters={"rope_type": "default", "rope_theta": 500.0},
                attn_implementation="eager",
            )
        )  # fmt: skip
    weights = {
        their_name(name): their_weight(name, weight.detach(), is_interleaved=is_interleaved)
        for name, weight in ours.named_parameters()
    }
    theirs.load_state_dict(weights, strict=True)
    return ours.eval(), theirs.eval()


@both_queries
@pytest.mark.parametrize("is_interleaved", [False, True])
def test_logits_equal_those_of_deepseek(config, is_interleaved):
    """Both layouts of rotary pairs, with and without a latent for queries."""
    ours, theirs = build_pair(config, is_interleaved=is_interleaved)
    token_BT = torch.randint(61, (2, 37), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, got = theirs(token_BT).logits, ours(token_BT)
    assert expected.std() > 0.5
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_gradients_equal_those_of_deepseek():
    """The leader's matrix and the up-projection get the same gradients."""
    ours, theirs = build_pair(CONFIG, is_interleaved=False)
    token_BT = torch.randint(61, (2, 21), generator=torch.Generator().manual_seed(2))
    ours(token_BT).logsumexp(-1).mean().backward()
    theirs(token_BT).logits.logsumexp(-1).mean().backward()
    expected = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        other = expected[their_name(name)].grad
        torch.testing.assert_close(weight.grad, other, atol=1e-5, rtol=1e-4, msg=name)


def test_decoding_step_by_step_equals_deepseek():
    """One token at a time from our cache gives the logits of their whole pass."""
    ours, theirs = build_pair(CONFIG, is_interleaved=True)
    token_BT = torch.randint(61, (2, 30), generator=torch.Generator().manual_seed(3))
    cache = ours.new_cache(2)
    with torch.no_grad():
        pieces = [ours(token_BT[:, :20], cache)]
        pieces += [ours(token_BT[:, [i]], cache) for i in range(20, 30)]
        expected = theirs(token_BT).logits
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, atol=1e-5, rtol=0)


def test_greedy_text_equals_that_of_deepseek():
    """Generation picks the same tokens."""
    ours, theirs = build_pair(CONFIG, is_interleaved=False)
    prompt_BT = torch.randint(61, (1, 8), generator=torch.Generator().manual_seed(4))
    mine = generate(ours, prompt_BT, max_new_tokens=24, temperature=0.0)
    with torch.no_grad():
        their = theirs.generate(
            prompt_BT, max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0
        )
    assert mine.tolist() == their.tolist()
