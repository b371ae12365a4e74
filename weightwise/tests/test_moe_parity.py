"""Mixture of experts against Hugging Face's model of the same family, with the same weights."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, MoEConfig

transformers = pytest.importorskip("transformers")

CONFIG = ModelConfig(
    vocab_size=61,
    width=48,
    num_layers=3,
    max_length=64,
    attention=GQAConfig(num_heads=6, num_kv_heads=2, head_width=12, qk_norm=True),
    ffn=MoEConfig(hidden=40, num_experts=6, top_k=2),
    init_std=0.1,
)
# Our names and theirs, inside a block.
NAMES = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "attention.query_gain": "self_attn.query_layernorm.weight",
    "attention.key_gain": "self_attn.key_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn.router.weight": "mlp.gate.wg.weight",
    "ffn.shared.gate.weight": "mlp.shared_mlp.gate_proj.weight",
    "ffn.shared.up.weight": "mlp.shared_mlp.up_proj.weight",
    "ffn.shared.down.weight": "mlp.shared_mlp.down_proj.weight",
    "ffn.experts.gate_up": "mlp.experts.gate_up_proj",
    "ffn.experts.down": "mlp.experts.down_proj",
}


def their_name(name: str) -> str:
    outer = {"embed.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}
    if name in outer:
        return outer[name]
    _, layer, inner = name.split(".", 2)
    return f"model.layers.{layer}.{NAMES[inner]}"


def build_pair(config: ModelConfig):
    """Our model and theirs; gains differ from 1, so that a swapped norm would show."""
    ours = LanguageModel(config)
    generator = torch.Generator().manual_seed(0)
    ours.initialize(generator)
    with torch.no_grad():
        for weight in ours.parameters():
            if weight.ndim == 1:
                weight.uniform_(0.5, 1.5, generator=generator)
    attention = config.attention
    rope = {"rope_type": "default", "rope_theta": attention.rope_theta}
    if attention.rope_alpha > 1:
        rope |= {"rope_type": "dynamic", "alpha": attention.rope_alpha, "factor": 1.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = transformers.HunYuanMoEV1ForCausalLM(
            transformers.HunYuanMoEV1Config(
                vocab_size=config.vocab_size,
                hidden_size=config.width,
                intermediate_size=config.ffn.hidden,
                num_hidden_layers=config.num_layers,
                num_attention_heads=attention.num_heads,
                num_key_value_heads=attention.kv_heads,
                head_dim=attention.width_per_head(config.width),
                max_position_embeddings=config.max_length,
                rms_norm_eps=config.norm_eps,
                rope_parameters=rope,
                tie_word_embeddings=True,
                num_experts=config.ffn.num_experts,
                moe_topk=config.ffn.top_k,
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=None,
                attn_implementation="eager",
            )
        )
    weights = {their_name(name): weight.clone() for name, weight in ours.state_dict().items()}
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    theirs.load_state_dict(weights)
    return ours, theirs


def gradients(model, logits_BTV: torch.Tensor, token_BT: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), token_BT[:, 1:].flatten()).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("top_k", [2, 3])
@pytest.mark.parametrize("alpha", [1.0, 1000.0])
def test_logits_and_gradients_are_theirs(top_k: int, alpha: float) -> None:
    """Same weights, same tokens: same scores, and the same gradient of every weight."""
    config = replace(
        CONFIG,
        ffn=replace(CONFIG.ffn, top_k=top_k),
        attention=replace(CONFIG.attention, rope_alpha=alpha),
    )
    ours, theirs = build_pair(config)
    token_BT = torch.randint(61, (2, 40), generator=torch.Generator().manual_seed(1))
    got, expected = ours(token_BT), theirs(token_BT).logits
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    wanted = gradients(theirs, expected, token_BT)
    for name, gradient in gradients(ours, got, token_BT).items():
        torch.testing.assert_close(gradient, wanted[their_name(name)], rtol=1e-4, atol=1e-5)


def test_their_top_1_is_ours_with_weights_that_add_up_to_1() -> None:
    """An option of ours; by default the raw probability counts, so that the router learns."""
    renormalized = replace(CONFIG.ffn, top_k=1, renormalize=True)
    ours, theirs = build_pair(replace(CONFIG, ffn=renormalized))
    token_BT = torch.randint(61, (2, 40), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(ours(token_BT), theirs(token_BT).logits, rtol=0, atol=1e-5)
    raw, _ = build_pair(replace(CONFIG, ffn=replace(CONFIG.ffn, top_k=1)))
    assert (raw(token_BT) - ours(token_BT)).abs().max() > 1e-2
