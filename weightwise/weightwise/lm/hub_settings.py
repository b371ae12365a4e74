"""What the importers of Hugging Face's model families share: settings, and where a tensor goes.

A family is two tables, one of settings and one of names, and what it must not ask for. Anything
that would make the model another one is refused by the name that it has in ``config.json``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import ValidationError

from weightwise.lm.rope_scaling import LinearScaling, RopeScaling, YarnScaling, yarn_amplitude

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from weightwise.lm.config import ModelConfig
    from weightwise.lm.rope_scaling import AnyRopeScaling

    Shapes = Mapping[str, tuple[int, ...]]

Allowed: TypeAlias = "Mapping[str, tuple[Any, ...]]"
HEAD = "lm_head.weight"
# Not weights: tables that are computed, saved by some trainers.
COMPUTED = re.compile(r".*\.rotary_emb\.(inv_freq|cos_cached|sin_cached)")
OUTER = {
    "embed.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": HEAD,
}
# Our settings by the names that most families have for them.
SETTINGS = {
    "width": "hidden_size",
    "hidden": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_width": "head_dim",
    "max_length": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "qk_norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
    "init_std": "initializer_range",
}
MAX_WINDOW_LAYERS = 28  # where Qwen's settings do not say from which layer on there are windows
# Those of a model that is what its family usually is.
PLAIN: Allowed = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "quantization_config": (None,),
}


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What a tensor of a family is in our model: a parameter, or rows of one expert in it.

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
    order
        Which of its rows is our first, second, …; ``None`` for the same order.
    """

    ours: str
    shape: tuple[int, ...]
    expert: int | None = None
    first_row: int = 0
    order: tuple[int, ...] | None = None

    def of(self, parameter: Tensor) -> Tensor:
        """View of these elements in the parameter."""
        if self.expert is None:
            return parameter
        return parameter[self.expert, self.first_row : self.first_row + self.shape[0]]

    def arranged(self, tensor: Tensor) -> Tensor:
        """The tensor with its rows in our order."""
        return tensor if self.order is None else tensor[list(self.order)]

    def first_element(self, whole: tuple[int, ...]) -> int:
        """Place of the first of these elements in a parameter of this shape, counted in a row."""
        if self.expert is None:
            return 0
        return self.expert * prod(whole[1:]) + self.first_row * whole[2]


def split_name(ours: str) -> tuple[str, str]:
    """Prefix of a layer on disk and the rest of our name; an empty prefix outside of the layers."""
    if not ours.startswith("blocks."):
        return "", ours
    _, layer, rest = ours.split(".", 2)
    return f"model.layers.{layer}.", rest


def renamed(shapes: Shapes, inner: Mapping[str, str]) -> dict[str, Piece]:
    """Every tensor of a checkpoint by its name on disk, where each is one of our parameters.

    Parameters
    ----------
    shapes
        Of our model's parameters, by name.
    inner
        Names inside of a layer, ours and theirs.
    """
    found = {}
    for ours, shape in shapes.items():
        prefix, rest = split_name(ours)
        found[prefix + (inner[rest] if prefix else OUTER[rest])] = Piece(ours=ours, shape=shape)
    return found


STACKS = {"ffn.experts.gate_up": ("gate", "up"), "ffn.experts.down": ("down",)}


def expert_pieces(shapes: Shapes) -> dict[str, Piece]:
    """The tensors of specialised experts by their names on disk, where each expert has its own.

    Parameters
    ----------
    shapes
        Of our model's parameters, by name; others than experts are passed over.
    """
    found = {}
    for ours, shape in shapes.items():
        prefix, rest = split_name(ours)
        roles = STACKS.get(rest, ()) if prefix else ()
        for number, role in enumerate(roles):
            one = (shape[1] // len(roles), shape[2])
            for expert in range(shape[0]):
                name = f"{prefix}mlp.experts.{expert}.{role}_proj.weight"
                first = number * one[0]
                found[name] = Piece(ours=ours, shape=one, expert=expert, first_row=first)
    return found


def read_settings(path: Path) -> dict[str, Any]:
    """The content of a ``config.json``.

    Raises
    ------
    ValueError
        If the file is missing or malformed.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected JSON settings of a checkpoint: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path}: expected an object of settings")  # noqa: TRY004 (user's input)
    return given


def build(
    path: Path,
    given: dict[str, Any],
    allowed: Allowed,
    make: Callable[[dict[str, Any]], ModelConfig],
    names: Mapping[str, str] = SETTINGS,
) -> ModelConfig:
    """Turn settings of a family into ours, with errors that name file and field.

    Parameters
    ----------
    path, given
        The file and what it says.
    allowed
        Values of settings that say nothing new; others are refused.
    make
        Makes our settings; a missing key is a missing setting.
    names
        Their names of our settings.

    Raises
    ------
    ValueError
        If a setting is missing, wrong or not supported.
    """
    try:
        given = without_idle_windows(given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    for name, expected in allowed.items():
        if name in given and given[name] not in expected:
            wanted = " or ".join(map(repr, expected))
            raise ValueError(f"{path}: {name}: expected {wanted}, got {given[name]!r}")
    try:
        return make(given)
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]}: expected a value, got none") from error
    except ValidationError as error:
        raise ValueError(f"{path}: {_explain(error, names)}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def without_idle_windows(given: dict[str, Any]) -> dict[str, Any]:
    """The same settings without windows of attention that hide nothing.

    A token sees ``sliding_window`` tokens, itself included: a window as wide as the longest text
    is none. Mistral has windows in all layers; others where ``layer_types`` says so, or else from
    layer ``max_window_layers`` on, and only with ``use_sliding_window``.

    Parameters
    ----------
    given
        Settings of a checkpoint.

    Raises
    ------
    ValueError
        If a layer has a window that hides tokens.
    """
    is_mistral = given.get("model_type") == "mistral"
    if not is_mistral and "use_sliding_window" not in given:
        return given
    window, longest = given.get("sliding_window"), given.get("max_position_embeddings")
    kinds = given.get("layer_types")
    if not is_mistral and not given["use_sliding_window"]:
        window = None
    elif not is_mistral and isinstance(kinds, list):
        window = window if "sliding_attention" in kinds else None
    elif not is_mistral:
        first = given.get("max_window_layers", MAX_WINDOW_LAYERS)
        window = window if first < given.get("num_hidden_layers", 0) else None
    if window is not None and (not isinstance(window, int) or window < (longest or 0)):
        raise ValueError(
            f"sliding_window: expected none or at least max_position_embeddings {longest}, because "
            f"attention sees all earlier tokens here, got {window}"
        )
    changed: dict[str, Any] = {"sliding_window": None, "use_sliding_window": False}
    if isinstance(kinds, list):
        plain = "full_attention"
        changed["layer_types"] = [plain if one == "sliding_attention" else one for one in kinds]
    return given | changed


def rope_settings(given: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says about its rotary positions.

    Raises
    ------
    ValueError
        If that is no table.
    """
    rope = given.get("rope_parameters") or given.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ValueError(f"rope_scaling: expected an object, got {rope}")  # noqa: TRY004 (user's)
    return rope


def rope_theta(given: dict[str, Any]) -> float:
    """Base of the wavelengths of rotary positions."""
    theta: float = rope_settings(given).get("rope_theta", given.get("rope_theta", 10_000.0))
    return float(theta)


def rope_scaling(given: dict[str, Any]) -> AnyRopeScaling | None:
    """By which rule rotary pairs turn more slowly; ``None`` for no such rule.

    Parameters
    ----------
    given
        Settings of a checkpoint.

    Raises
    ------
    ValueError
        If it is another rule than those of `weightwise.lm.rope_scaling`, or only some of the
        features of a head rotate.
    """
    rope = rope_settings(given)
    share = rope.get("partial_rotary_factor", given.get("partial_rotary_factor"))
    if share not in (None, 1.0):
        raise ValueError(f"partial_rotary_factor: expected 1, got {share}")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in SCALINGS:
        wanted = ", ".join(map(repr, SCALINGS))
        raise ValueError(f"rope_scaling: expected one of the types {wanted}, got {kind!r}")
    return SCALINGS[kind](rope, given["max_position_embeddings"])


def _llama3(rope: dict[str, Any], max_length: int) -> RopeScaling:
    return RopeScaling(
        factor=rope["factor"],
        low_freq_factor=rope["low_freq_factor"],
        high_freq_factor=rope["high_freq_factor"],
        original_length=rope.get("original_max_position_embeddings", max_length),
    )


def _yarn(rope: dict[str, Any], max_length: int) -> YarnScaling:
    original = rope.get("original_max_position_embeddings") or max_length
    factor, attention_factor = rope.get("factor"), rope.get("attention_factor")
    factor = max_length / original if factor is None else factor
    some, all_dim = rope.get("mscale"), rope.get("mscale_all_dim")
    if attention_factor is None and some and all_dim:
        attention_factor = yarn_amplitude(factor, some) / yarn_amplitude(factor, all_dim)
    return YarnScaling(
        factor=factor,
        original_length=original,
        beta_fast=rope.get("beta_fast") or 32.0,
        beta_slow=rope.get("beta_slow") or 1.0,
        is_truncated=rope.get("truncate", True),
        attention_factor=attention_factor,
    )


# The rules by their names in the settings; "default" is none.
SCALINGS: dict[str, Callable[[dict[str, Any], int], AnyRopeScaling | None]] = {
    "default": lambda *_: None,
    "linear": lambda rope, _: LinearScaling(factor=rope["factor"]),
    "llama3": _llama3,
    "yarn": _yarn,
}


def common(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of our model settings that all families call the same."""
    return {
        "vocab_size": given["vocab_size"],
        "width": given["hidden_size"],
        "num_layers": given["num_hidden_layers"],
        "max_length": given["max_position_embeddings"],
        "norm_eps": given.get("rms_norm_eps", 1e-6),
        "tie_embeddings": given.get("tie_word_embeddings", False),
        "init_std": given.get("initializer_range", 0.02),
    }


def _explain(error: ValidationError, names: Mapping[str, str]) -> str:
    """What is wrong with the first setting, by its name in the file."""
    first = error.errors()[0]
    if not first["loc"]:
        return first["msg"].removeprefix("Value error, ")
    ours = str(first["loc"][0])
    return f"{names.get(ours, ours)}: {first['msg']}, got {first['input']!r}"
