"""Names and settings of Hugging Face's HunYuan family.

Two layouts with experts are one family: the released Hunyuan-Large (``model_type`` ``hunyuan``,
cross-layer attention, arXiv 2411.02265) and transformers' ``HunYuanMoEV1ForCausalLM``
(``hunyuan_v1_moe``); ``hunyuan_v1_dense`` is the same without experts, and only comes in.
On disk both name every expert; stacked experts, as transformers has them in memory, are read as
well. A layer without keys of its own has no tensors for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightwise.lm.attention_config import GQAConfig
from weightwise.lm.config import ModelConfig, MoEConfig, SwiGLUConfig
from weightwise.lm.hub_settings import (
    OUTER,
    PLAIN,
    SETTINGS,
    Piece,
    build,
    read_settings,
    rope_settings,
    split_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from weightwise.lm.hub_settings import Shapes

DENSE = "hunyuan_v1_dense"
MODEL_TYPES = ("hunyuan", "hunyuan_v1_moe", DENSE)
INNER = {
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "attention.query_gain": "self_attn.query_layernorm.weight",
    "attention.key_gain": "self_attn.key_layernorm.weight",
    "ffn.gate.weight": "mlp.gate_proj.weight",
    "ffn.up.weight": "mlp.up_proj.weight",
    "ffn.down.weight": "mlp.down_proj.weight",
    "ffn.router.weight": "mlp.gate.wg.weight",
    "ffn.shared.gate.weight": "mlp.shared_mlp.gate_proj.weight",
    "ffn.shared.up.weight": "mlp.shared_mlp.up_proj.weight",
    "ffn.shared.down.weight": "mlp.shared_mlp.down_proj.weight",
}
STACKED = {
    "ffn.experts.gate_up": "mlp.experts.gate_up_proj",
    "ffn.experts.down": "mlp.experts.down_proj",
}
NAMES = SETTINGS | {"qk_norm": "use_qk_norm", "share_factor": "cla_share_factor"}
# Settings that must not say anything else.
ALLOWED = {
    **PLAIN,
    "model_type": MODEL_TYPES,
    "use_mixed_mlp_moe": (True,),
    "moe_layer_num_skipped": (0, None),
    "use_mla": (False, None),
}


def pieces(shapes: Shapes) -> dict[str, Piece]:
    """Every tensor of a checkpoint by its name on disk.

    Parameters
    ----------
    shapes
        Of our model's parameters, by name.
    """
    return dict(_separate(shapes))


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


def config_of(config: ModelConfig) -> dict[str, Any]:
    """The ``config.json`` of a model.

    Raises
    ------
    ValueError
        If the family has no such model.
    """
    attention, ffn = config.attention, config.ffn
    _check_family(config)
    assert isinstance(attention, GQAConfig)
    assert isinstance(ffn, MoEConfig)
    is_shared = attention.share_factor > 1
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": attention.rope_theta}
    if attention.rope_alpha > 1.0:
        rope |= {"rope_type": "dynamic", "alpha": attention.rope_alpha, "factor": 1.0}
    settings = {
        "architectures": ["HunYuanForCausalLM" if is_shared else "HunYuanMoEV1ForCausalLM"],
        "model_type": "hunyuan" if is_shared else "hunyuan_v1_moe",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": ffn.hidden,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": attention.num_heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.width_per_head(config.width),
        "max_position_embeddings": config.max_length,
        "rms_norm_eps": config.norm_eps,
        "initializer_range": config.init_std,
        "hidden_act": "silu",
        "attention_bias": False,
        "rope_theta": attention.rope_theta,
        "rope_parameters": rope,
        "use_qk_norm": True,
        "use_cla": is_shared,
        "cla_share_factor": attention.share_factor,
        "num_experts": ffn.num_experts,
        "num_shared_expert": ffn.num_shared,
        "moe_topk": ffn.top_k,
        "use_mixed_mlp_moe": True,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    return settings | _released_names(config) if is_shared else settings


def _check_family(config: ModelConfig) -> None:
    """Refuse what the family cannot say, by the name of the field."""
    attention, ffn = config.attention, config.ffn
    if not isinstance(attention, GQAConfig) or config.attention_of or not attention.is_uniform:
        raise ValueError(
            "attention: expected kind 'gqa' in all layers, in groups of share_factor, for a "
            "checkpoint of this family"
        )
    if config.first_ffn is not None:
        raise ValueError("first_ffn: expected none for a checkpoint of this family")
    if ffn.kind != "moe" or not ffn.scoring.is_plain:
        raise ValueError(
            "ffn: expected kind 'moe' with plain scoring for a checkpoint of this family"
        )
    if attention.qkv_bias or attention.rope_scaling is not None or attention.qk_gain != "after":
        raise ValueError(
            "attention.qkv_bias, rope_scaling, qk_gain: expected false, none and 'after' for a "
            "checkpoint of this family"
        )
    if not attention.qk_norm or attention.qk_norm_eps != config.norm_eps:
        raise ValueError(
            "attention.qk_norm: expected true, with qk_norm_eps equal to norm_eps, for a "
            "checkpoint of this family"
        )
    if ffn.num_shared < 1:
        raise ValueError("ffn.num_shared: expected at least 1 for this family, got 0")
    if ffn.top_k > 1 and not ffn.is_renormalized:
        raise ValueError("ffn.renormalize: expected true for this family with top_k above 1")


def _released_names(config: ModelConfig) -> dict[str, Any]:
    """What the code of the released model calls otherwise than transformers."""
    attention = config.attention
    scaling = {"type": "dynamic", "alpha": attention.rope_alpha, "factor": 1.0}
    return {
        "attention_head_dim": attention.width_per_head(config.width),
        "rope_scaling": scaling if attention.rope_alpha > 1.0 else None,
    }


def _config(given: dict[str, Any]) -> ModelConfig:
    eps = given.get("rms_norm_eps", 1e-5)
    rope = rope_settings(given)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "dynamic") or rope.get("factor", 1.0) != 1.0:
        raise ValueError(
            f"rope_scaling: expected type 'dynamic' with alpha and factor 1, got {rope}"
        )
    theta = rope.get("rope_theta", given.get("rope_theta", 10_000.0))
    attention = GQAConfig(
        num_heads=given["num_attention_heads"],
        num_kv_heads=given.get("num_key_value_heads"),
        head_width=given.get("head_dim") or given.get("attention_head_dim"),
        rope_theta=theta,
        rope_alpha=rope.get("alpha") or 1.0,
        qk_norm=given.get("use_qk_norm", True),
        qk_norm_eps=eps,
        share_factor=given.get("cla_share_factor", 2) if given.get("use_cla") else 1,
    )
    return ModelConfig(
        vocab_size=given["vocab_size"],
        width=given["hidden_size"],
        num_layers=given["num_hidden_layers"],
        max_length=given["max_position_embeddings"],
        attention=attention,
        ffn=_ffn(given),
        norm_eps=eps,
        tie_embeddings=given.get("tie_word_embeddings", False),
        init_std=given.get("initializer_range", 0.02),
    )


def _ffn(given: dict[str, Any]) -> SwiGLUConfig | MoEConfig:
    if given["model_type"] == DENSE:
        return SwiGLUConfig(hidden=given["intermediate_size"])
    return MoEConfig(
        hidden=_one(given, "moe_intermediate_size", "intermediate_size"),
        num_experts=_one(given, "num_experts"),
        num_shared=_one(given, "num_shared_expert", default=1),
        top_k=_one(given, "moe_topk"),
    )


def _one(given: dict[str, Any], *names: str, default: int | None = None) -> int:
    """A number that may be told once or for every layer."""
    for name in names:
        value = given.get(name)
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        if not values or any(type(one) is not int or one != values[0] for one in values):
            raise ValueError(f"{name}: expected one number for all layers, got {value}")
        number: int = values[0]
        return number
    if default is None:
        raise KeyError(names[-1])
    return default


def _separate(shapes: Shapes) -> Iterator[tuple[str, Piece]]:
    for ours, shape in shapes.items():
        prefix, rest = split_name(ours)
        if rest not in STACKED:
            name = INNER[rest] if prefix else OUTER[rest]
            yield prefix + name, Piece(ours=ours, shape=shape)
            continue
        num_experts, rows, columns = shape
        roles = ("down",) if rest == "ffn.experts.down" else ("gate", "up")
        one = (rows // len(roles), columns)
        for expert in range(num_experts):
            for number, role in enumerate(roles):
                name = f"{prefix}mlp.experts.{expert}.{role}_proj.weight"
                first = number * one[0]
                yield name, Piece(ours=ours, shape=one, expert=expert, first_row=first)
