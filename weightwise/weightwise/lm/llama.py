"""Names and settings of Hugging Face's Llama, Mistral, Qwen2 and Qwen3, whose layers are all alike.

Qwen2 adds constants to queries, keys and values; Qwen3 norms queries and keys before they are
rotated; any of them may scale rotary positions by a rule of `weightwise.lm.rope_scaling`. Windows
that hide tokens are refused by `weightwise.lm.hub_settings.without_idle_windows`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightwise.lm.attention_config import GQAConfig
from weightwise.lm.config import ModelConfig, SwiGLUConfig
from weightwise.lm.hub_settings import (
    PLAIN,
    build,
    common,
    read_settings,
    renamed,
    rope_scaling,
    rope_theta,
)

if TYPE_CHECKING:
    from pathlib import Path

    from weightwise.lm.hub_settings import Piece, Shapes

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
INNER = {
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.query.bias": "self_attn.q_proj.bias",
    "attention.key.bias": "self_attn.k_proj.bias",
    "attention.value.bias": "self_attn.v_proj.bias",
    "attention.output.weight": "self_attn.o_proj.weight",
    "attention.query_gain": "self_attn.q_norm.weight",
    "attention.key_gain": "self_attn.k_norm.weight",
    "ffn.gate.weight": "mlp.gate_proj.weight",
    "ffn.up.weight": "mlp.up_proj.weight",
    "ffn.down.weight": "mlp.down_proj.weight",
}


def pieces(shapes: Shapes) -> dict[str, Piece]:
    """Every tensor of a checkpoint by its name on disk.

    Parameters
    ----------
    shapes
        Of our model's parameters, by name.
    """
    return renamed(shapes, INNER)


def read_config(path: Path) -> ModelConfig:
    """Settings of a checkpoint from its ``config.json``.

    Raises
    ------
    ValueError
        If the file is missing or malformed, or a setting is not supported.
    """
    return build(path, read_settings(path), PLAIN, _config)


def _config(given: dict[str, Any]) -> ModelConfig:
    kinds = given.get("layer_types") or ["full_attention"]
    if set(kinds) != {"full_attention"}:
        raise ValueError(f"layer_types: expected full_attention in all layers, got {kinds}")
    shared = common(given)
    attention = GQAConfig(
        num_heads=given["num_attention_heads"],
        num_kv_heads=given.get("num_key_value_heads"),
        head_width=given.get("head_dim"),
        rope_theta=rope_theta(given),
        rope_scaling=rope_scaling(given),
        qkv_bias=given["model_type"] == "qwen2",
        qk_norm=given["model_type"] == "qwen3",
        qk_gain="before",
        qk_norm_eps=shared["norm_eps"],
    )
    ffn = SwiGLUConfig(hidden=given["intermediate_size"])
    return ModelConfig(**shared, attention=attention, ffn=ffn)
