"""Names and settings of Hugging Face's HunYuan family of mixtures of experts.

Two layouts are one family: the released Hunyuan-Large (``model_type`` ``hunyuan``, cross-layer
attention, arXiv 2411.02265) and transformers' ``HunYuanMoEV1ForCausalLM`` (``hunyuan_v1_moe``).
On disk both name every expert; stacked experts, as transformers has them in memory, are read as
well. A layer without keys of its own has no tensors for them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from weightwise.lm.attention_config import GQAConfig
from weightwise.lm.config import ModelConfig, MoEConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    Shapes = Mapping[str, tuple[int, ...]]

HEAD = "lm_head.weight"
OUTER = {
    "embed.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": HEAD,
}
INNER = {
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "attention.query_gain": "self_attn.query_layernorm.weight",
    "attention.key_gain": "self_attn.key_layernorm.weight",
    "ffn.router.weight": "mlp.gate.wg.weight",
    "ffn.shared.gate.weight": "mlp.shared_mlp.gate_proj.weight",
    "ffn.shared.up.weight": "mlp.shared_mlp.up_proj.weight",
    "ffn.shared.down.weight": "mlp.shared_mlp.down_proj.weight",
}
STACKED = {
    "ffn.experts.gate_up": "mlp.experts.gate_up_proj",
    "ffn.experts.down": "mlp.experts.down_proj",
}
# Our settings by the names that they have there.
SETTINGS = {
    "width": "hidden_size",
    "hidden": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_width": "head_dim",
    "max_length": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "qk_norm": "use_qk_norm",
    "qk_norm_eps": "rms_norm_eps",
    "share_factor": "cla_share_factor",
    "tie_embeddings": "tie_word_embeddings",
    "init_std": "initializer_range",
}
# Not weights: tables that are computed, saved by some trainers.
COMPUTED = re.compile(r".*\.rotary_emb\.(inv_freq|cos_cached|sin_cached)")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What a tensor of the family is in our model: a parameter, or rows of one expert in it.

    Parameters
    ----------
    ours
        Name of the parameter.
    shape
        Shape of the tensor.
    expert
        Which expert of a stack; ``None`` for a whole parameter.
    first_row
        Where the tensor begins in that expert.
    """

    ours: str
    shape: tuple[int, ...]
    expert: int | None = None
    first_row: int = 0

    def of(self, parameter: Tensor) -> Tensor:
        """View of these elements in the parameter."""
        if self.expert is None:
            return parameter
        return parameter[self.expert, self.first_row : self.first_row + self.shape[0]]

    def first_element(self, whole: tuple[int, ...]) -> int:
        """Place of the first of these elements in a parameter of this shape, counted in a row."""
        if self.expert is None:
            return 0
        return self.expert * prod(whole[1:]) + self.first_row * whole[2]


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
        prefix, rest = _split(ours)
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
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected JSON settings of a checkpoint: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path}: expected an object of settings")  # noqa: TRY004 (user's input)
    for name, expected in (
        ("model_type", ("hunyuan", "hunyuan_v1_moe")), ("hidden_act", ("silu",)),
        ("attention_bias", (False,)), ("mlp_bias", (False,)), ("use_mixed_mlp_moe", (True,)),
        ("moe_layer_num_skipped", (0, None)), ("use_mla", (False, None)),
        ("quantization_config", (None,)),
    ):  # fmt: skip
        if name in given and given[name] not in expected:
            wanted = " or ".join(map(repr, expected))
            raise ValueError(f"{path}: {name}: expected {wanted}, got {given[name]!r}")
    try:
        return _config(given)
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]}: expected a value, got none") from error
    except ValidationError as error:
        raise ValueError(f"{path}: {_explain(error)}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def config_of(config: ModelConfig) -> dict[str, Any]:
    """The ``config.json`` of a model.

    Raises
    ------
    ValueError
        If the family has no such model.
    """
    attention, ffn = config.attention, config.ffn
    if not isinstance(attention, GQAConfig) or config.attention_of or not attention.is_uniform:
        raise ValueError(
            "attention: expected kind 'gqa' in all layers, in groups of share_factor, for a "
            "checkpoint of this family"
        )
    if ffn.kind != "moe":
        raise ValueError("ffn.kind: expected 'moe' for a checkpoint of this family, got 'swiglu'")
    if not attention.qk_norm or attention.qk_norm_eps != config.norm_eps:
        raise ValueError(
            "attention.qk_norm: expected true, with qk_norm_eps equal to norm_eps, for a "
            "checkpoint of this family"
        )
    if ffn.num_shared < 1:
        raise ValueError("ffn.num_shared: expected at least 1 for this family, got 0")
    if ffn.top_k > 1 and not ffn.is_renormalized:
        raise ValueError("ffn.renormalize: expected true for this family with top_k above 1")
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
    rope = given.get("rope_parameters") or given.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ValueError(f"rope_scaling: expected an object, got {rope}")  # noqa: TRY004 (user's)
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
    ffn = MoEConfig(
        hidden=_one(given, "moe_intermediate_size", "intermediate_size"),
        num_experts=_one(given, "num_experts"),
        num_shared=_one(given, "num_shared_expert", default=1),
        top_k=_one(given, "moe_topk"),
    )
    return ModelConfig(
        vocab_size=given["vocab_size"],
        width=given["hidden_size"],
        num_layers=given["num_hidden_layers"],
        max_length=given["max_position_embeddings"],
        attention=attention,
        ffn=ffn,
        norm_eps=eps,
        tie_embeddings=given.get("tie_word_embeddings", False),
        init_std=given.get("initializer_range", 0.02),
    )


def _explain(error: ValidationError) -> str:
    """What is wrong with the first setting, by its name in the file."""
    first = error.errors()[0]
    if not first["loc"]:
        return first["msg"].removeprefix("Value error, ")
    ours = str(first["loc"][0])
    return f"{SETTINGS.get(ours, ours)}: {first['msg']}, got {first['input']!r}"


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


def _split(ours: str) -> tuple[str, str]:
    """Prefix of a layer on disk and the rest of our name; an empty prefix outside of the layers."""
    if not ours.startswith("blocks."):
        return "", ours
    _, layer, rest = ours.split(".", 2)
    return f"model.layers.{layer}.", rest


def _separate(shapes: Shapes) -> Iterator[tuple[str, Piece]]:
    for ours, shape in shapes.items():
        prefix, rest = _split(ours)
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
