"""Names and settings of Hugging Face's DeepSeek-V2 and V3 without experts.

Their latent attention is ours with ``share_factor`` 1. Rotary pairs are neighbours there
(``rope_interleave``) and halves here, so the rows of rotary features are put into another order:
first those that begin a pair, then the others. Scores do not change, because queries and keys are
reordered alike. Models with layers of experts are refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from weightwise.lm.config import ModelConfig, SwiGLUConfig
from weightwise.lm.hub_settings import (
    PLAIN,
    build,
    common,
    read_settings,
    renamed,
    rope_scaling,
    rope_settings,
    rope_theta,
)
from weightwise.lm.latent.config import LatentConfig
from weightwise.lm.rope_scaling import yarn_amplitude

if TYPE_CHECKING:
    from pathlib import Path

    from weightwise.lm.hub_settings import Piece, Shapes

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
}


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
    found = renamed(shapes, INNER)
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


def read_config(path: Path) -> ModelConfig:
    """Settings of a checkpoint from its ``config.json``.

    Raises
    ------
    ValueError
        If the file is missing or malformed, or a setting is not supported.
    """
    return build(path, read_settings(path), PLAIN, _config)


def is_interleaved(given: dict[str, Any]) -> bool:
    """Whether rotary pairs are neighbours; V2 has no setting for that, its pairs always are."""
    return given["model_type"] == "deepseek_v2" or bool(given.get("rope_interleave", True))


def _halves(first: int, rope: int) -> tuple[int, ...]:
    """Rows of neighbouring pairs as two halves."""
    return (*range(first, first + rope, 2), *range(first + 1, first + rope, 2))


def _config(given: dict[str, Any]) -> ModelConfig:
    dense, layers = given.get("first_k_dense_replace", 0), given["num_hidden_layers"]
    if dense < layers and given.get("n_routed_experts"):
        raise ValueError(
            f"first_k_dense_replace: expected at least num_hidden_layers {layers}, because layers "
            f"of experts are not supported, got {dense}"
        )
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
    ffn = SwiGLUConfig(hidden=given["intermediate_size"])
    return ModelConfig(**common(given), attention=attention, ffn=ffn)


def _score_factor(given: dict[str, Any]) -> float:
    """How much sharper all scores are where rotary positions are scaled (DeepSeek-V2's code)."""
    rope = rope_settings(given)
    weight = rope.get("mscale_all_dim") or 0.0
    if rope.get("factor") is None or not weight:
        return 1.0
    return float(yarn_amplitude(rope["factor"], weight) ** 2)
