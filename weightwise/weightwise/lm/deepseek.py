"""Names and settings of Hugging Face's DeepSeek-V2 and V3, dense ones and those with experts.

Their latent attention is ours with ``share_factor`` 1. Rotary pairs are neighbours there
(``rope_interleave``) and halves here, so the rows of rotary features are put into another order:
first those that begin a pair, then the others. Scores do not change, because queries and keys are
reordered alike.

Routers are described by `weightwise.lm.scoring`. On disk every expert has its own tensors; stacked
ones, as transformers has them in memory, are read as well.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from weightwise.lm.config import ModelConfig, MoEConfig, SwiGLUConfig
from weightwise.lm.hub_settings import (
    PLAIN,
    SETTINGS,
    STACKS,
    Piece,
    build,
    common,
    expert_pieces,
    read_settings,
    renamed,
    rope_scaling,
    rope_settings,
    rope_theta,
    split_name,
)
from weightwise.lm.latent.config import LatentConfig
from weightwise.lm.rope_scaling import yarn_amplitude
from weightwise.lm.scoring import ScoringConfig

if TYPE_CHECKING:
    from pathlib import Path

    from weightwise.lm.hub_settings import Shapes

MODEL_TYPES = ("deepseek_v2", "deepseek_v3")
NORM_EPS = 1e-6  # of the norms of latents, which the settings do not reach
INNER = {
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.query_down.weight": "self_attn.q_a_proj.weight",
    "attention.query_gain": "self_attn.q_a_layernorm.weight",
    "attention.query_up.weight": "self_attn.q_b_proj.weight",
    "attention.latent.weight": "self_attn.kv_a_proj_with_mqa.weight",
    "attention.latent_gain": "self_attn.kv_a_layernorm.weight",
    "attention.up": "self_attn.kv_b_proj.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "ffn.gate.weight": "mlp.gate_proj.weight",
    "ffn.up.weight": "mlp.up_proj.weight",
    "ffn.down.weight": "mlp.down_proj.weight",
    "ffn.router.weight": "mlp.gate.weight",
    "ffn.router.bias": "mlp.gate.e_score_correction_bias",
    "ffn.shared.gate.weight": "mlp.shared_experts.gate_proj.weight",
    "ffn.shared.up.weight": "mlp.shared_experts.up_proj.weight",
    "ffn.shared.down.weight": "mlp.shared_experts.down_proj.weight",
}
STACKED = {
    "ffn.experts.gate_up": "mlp.experts.gate_up_proj",
    "ffn.experts.down": "mlp.experts.down_proj",
}
NAMES = SETTINGS | {
    "num_experts": "n_routed_experts",
    "num_shared": "n_shared_experts",
    "top_k": "num_experts_per_tok",
    "scale": "routed_scaling_factor",
    "num_groups": "n_group",
    "top_groups": "topk_group",
}
# Settings that must not say anything else.
ALLOWED = {**PLAIN, "moe_layer_freq": (1,)}


def pieces(shapes: Shapes, config: ModelConfig, *, is_interleaved: bool) -> dict[str, Piece]:
    """Every tensor of a checkpoint by its name on disk.

    Parameters
    ----------
    shapes
        Of our model's parameters, by name.
    config
        Its settings.
    is_interleaved
        Rotary pairs are neighbours on disk.
    """
    plain = {ours: shape for ours, shape in shapes.items() if split_name(ours)[1] not in STACKS}
    found = renamed(plain, INNER) | expert_pieces(shapes)
    if not is_interleaved:
        return found
    attention = config.attention
    assert isinstance(attention, LatentConfig)
    key, _, latent, rope = attention.widths(config.width)
    query_order = tuple(
        head * (key + rope) + row
        for head in range(attention.num_heads)
        for row in (*range(key), *_halves(key, rope))
    )
    orders = {
        "self_attn.q_proj.weight": query_order,
        "self_attn.q_b_proj.weight": query_order,
        "self_attn.kv_a_proj_with_mqa.weight": (*range(latent), *_halves(latent, rope)),
    }
    return {
        name: replace(piece, order=orders.get(name.split(".", 3)[-1]))
        for name, piece in found.items()
    }


def stacked_pieces(shapes: Shapes) -> dict[str, Piece]:
    """The tensors of all experts of a layer in one, which may take the place of separate ones."""
    found = {}
    for ours, shape in shapes.items():
        prefix, rest = split_name(ours)
        if rest in STACKED:
            found[prefix + STACKED[rest]] = Piece(ours=ours, shape=shape)
    return found


def read_config(path: Path) -> ModelConfig:
    """Settings of a checkpoint from its ``config.json``.

    Raises
    ------
    ValueError
        If the file is missing or malformed, or a setting is not supported.
    """
    return build(path, read_settings(path), ALLOWED, _config, NAMES)


def is_interleaved(given: dict[str, Any]) -> bool:
    """Whether rotary pairs are neighbours; V2 has no setting for that, its pairs always are."""
    return given["model_type"] == "deepseek_v2" or bool(given.get("rope_interleave", True))


def _halves(first: int, rope: int) -> tuple[int, ...]:
    """Rows of neighbouring pairs as two halves."""
    return (*range(first, first + rope, 2), *range(first + 1, first + rope, 2))


def _config(given: dict[str, Any]) -> ModelConfig:
    attention = LatentConfig(
        num_heads=given["num_attention_heads"],
        head_width=given["qk_nope_head_dim"],
        value_width=given["v_head_dim"],
        latent_width=given["kv_lora_rank"],
        rope_width=given["qk_rope_head_dim"],
        query_latent_width=given.get("q_lora_rank"),
        rope_theta=rope_theta(given),
        rope_scaling=rope_scaling(given),
        score_factor=_score_factor(given),
        norm_eps=NORM_EPS,
    )
    return ModelConfig(**common(given), attention=attention, **_ffns(given))


def scoring(given: dict[str, Any]) -> ScoringConfig:
    """How the routers of a checkpoint choose and weight experts.

    Parameters
    ----------
    given
        Its settings.

    Raises
    ------
    ValueError
        If that is not one of DeepSeek's ways.
    """
    is_v2 = given["model_type"] == "deepseek_v2"
    methods = ("greedy", "group_limited_greedy") if is_v2 else ("noaux_tc",)
    score, method = "softmax" if is_v2 else "sigmoid", given.get("topk_method", methods[0])
    if given.get("scoring_func", score) != score:
        raise ValueError(f"scoring_func: expected {score!r}, got {given['scoring_func']!r}")
    if method not in methods:
        wanted = " or ".join(map(repr, methods))
        raise ValueError(f"topk_method: expected {wanted}, got {method!r}")
    if is_v2 and given.get("norm_topk_prob"):
        # Transformers passes over the setting, DeepSeek's own code does not scale then.
        raise ValueError("norm_topk_prob: expected False for deepseek_v2, got True")
    has_groups = method != "greedy"
    return ScoringConfig(
        score="softmax" if is_v2 else "sigmoid",
        is_corrected=not is_v2,
        num_groups=given["n_group"] if has_groups else 1,
        top_groups=given["topk_group"] if has_groups else 1,
        experts_per_group=1 if is_v2 else 2,
        scale=given.get("routed_scaling_factor", 1.0 if is_v2 else 2.5),
    )


def _ffns(given: dict[str, Any]) -> dict[str, Any]:
    """Feed-forward layers: dense ones first, then those with experts."""
    num_dense, plain = given.get("first_k_dense_replace") or 0, None
    if num_dense:
        plain = SwiGLUConfig(hidden=given["intermediate_size"])
    if num_dense >= given["num_hidden_layers"] or not given.get("n_routed_experts"):
        return {"ffn": SwiGLUConfig(hidden=given["intermediate_size"])}
    num_experts, top_k = given["n_routed_experts"], given["num_experts_per_tok"]
    rules, is_v2 = scoring(given), given["model_type"] == "deepseek_v2"
    if top_k > num_experts:
        raise ValueError(
            f"num_experts_per_tok: expected at most n_routed_experts {num_experts}, got {top_k}"
        )
    ffn = MoEConfig(
        hidden=given["moe_intermediate_size"],
        num_experts=num_experts,
        num_shared=given.get("n_shared_experts") or 0,
        top_k=top_k,
        renormalize=not is_v2 and given.get("norm_topk_prob", True),
        scoring=rules,
    )
    return {"ffn": ffn, "first_ffn": plain, "num_first": num_dense}


def _score_factor(given: dict[str, Any]) -> float:
    """How much sharper all scores are where rotary positions are scaled (DeepSeek-V2's code)."""
    rope = rope_settings(given)
    weight = rope.get("mscale_all_dim") or 0.0
    if rope.get("factor") is None or not weight:
        return 1.0
    return float(yarn_amplitude(rope["factor"], weight) ** 2)
