"""Mixture-of-experts checkpoints of Hugging Face's HunYuan family, in and out.

Two layouts are one family: the released Hunyuan-Large (``model_type`` ``hunyuan``, cross-layer
attention, arXiv 2411.02265) and transformers' ``HunYuanMoEV1ForCausalLM`` (``hunyuan_v1_moe``).
On disk both name every expert; stacked experts are read as well. Tensors are copied one by one,
from memory-mapped files into the model and from the model into shards, so that beside the model
there is never more than a tensor, or a shard that is being written.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from weightwise.lm.config import GQAConfig, ModelConfig, MoEConfig
from weightwise.lm.model import LanguageModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

INDEX = "model.safetensors.index.json"
OUTER = {
    "model.embed_tokens.weight": "embed.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "head.weight",
}
INNER = {
    "input_layernorm.weight": "attention_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_proj.weight": "attention.query.weight",
    "self_attn.k_proj.weight": "attention.key.weight",
    "self_attn.v_proj.weight": "attention.value.weight",
    "self_attn.o_proj.weight": "attention.output.weight",
    "self_attn.query_layernorm.weight": "attention.query_gain",
    "self_attn.key_layernorm.weight": "attention.key_gain",
    "mlp.gate.wg.weight": "ffn.router.weight",
    "mlp.shared_mlp.gate_proj.weight": "ffn.shared.gate.weight",
    "mlp.shared_mlp.up_proj.weight": "ffn.shared.up.weight",
    "mlp.shared_mlp.down_proj.weight": "ffn.shared.down.weight",
    "mlp.experts.gate_up_proj": "ffn.experts.gate_up",
    "mlp.experts.down_proj": "ffn.experts.down",
}
EXPERT = re.compile(r"mlp\.experts\.(\d+)\.(gate|up|down)_proj\.weight")
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


def read_hunyuan(folder: Path | str) -> LanguageModel:
    """Load a checkpoint.

    Parameters
    ----------
    folder
        Holds ``config.json`` and safetensors files, one or several with an index.

    Returns
    -------
    LanguageModel
        In the precision of the files.

    Raises
    ------
    ValueError
        If a setting is not supported, or a tensor is missing, unknown or of another shape; the
        message names the file and the field or tensor.
    """
    folder = Path(folder)
    config = read_config(folder / "config.json")
    files = _files(folder)
    with torch.device("meta"):
        model = LanguageModel(config)
    model = model.to(dtype=_dtype(files[0])).to_empty(device="cpu")
    parameters = dict(model.named_parameters())
    left = {name: weight.numel() for name, weight in parameters.items()}
    for file in files:
        for name, tensor in _tensors(file):
            if name == "lm_head.weight" and config.tie_embeddings:
                continue
            ours, target = _place(name, parameters, config)
            if target is None:
                raise ValueError(f"{file}: {name}: expected a tensor of this model, got unknown")
            if target.shape != tensor.shape:
                raise ValueError(
                    f"{file}: {name}: expected shape {tuple(target.shape)}, "
                    f"got {tuple(tensor.shape)}"
                )
            with torch.no_grad():
                target.copy_(tensor)
            left[ours] -= target.numel()
    missing = [name for name, count in left.items() if count]
    if missing:
        raise ValueError(f"{folder}: {missing[0]}: expected once and whole in the checkpoint")
    return model


def write_hunyuan(
    model: LanguageModel, folder: Path | str, *, max_shard_bytes: int = 5_000_000_000
) -> None:
    """Save a model so that transformers can load it.

    With cross-layer attention the layout is that of the released Hunyuan-Large, which
    transformers itself has no class for.

    Parameters
    ----------
    model
        With experts; weights are written in their own precision.
    folder
        Made if missing; must hold no ``config.json``.
    max_shard_bytes
        Size at which a further file begins.

    Raises
    ------
    ValueError
        If the model has settings that the family does not know, or the folder is taken.
    """
    folder = Path(folder)
    settings = config_of(model.config)
    if (folder / "config.json").exists():
        raise ValueError(f"{folder}: expected no config.json, another checkpoint is there")
    folder.mkdir(parents=True, exist_ok=True)
    places: dict[str, str] = {}
    shard: dict[str, Tensor] = {}
    num_shards = total = size = 0

    def flush() -> None:
        nonlocal num_shards, size
        num_shards += 1
        name = f"model-{num_shards:05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, name))
        shard.clear()
        size = 0

    for name, tensor in _named(model):
        if shard and size + tensor.nbytes > max_shard_bytes:
            flush()
        shard[name] = tensor.contiguous()
        size, total = size + tensor.nbytes, total + tensor.nbytes
    flush()
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
    # Last, so that a folder with it is whole.
    (folder / "config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")


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
    kinds = ("hunyuan", "hunyuan_v1_moe")
    for name, expected in (
        ("model_type", kinds), ("hidden_act", ("silu",)), ("attention_bias", (False,)),
        ("mlp_bias", (False,)), ("use_mixed_mlp_moe", (True,)),
    ):  # fmt: skip
        if name in given and given[name] not in expected:
            wanted = " or ".join(map(repr, expected))
            raise ValueError(f"{path}: {name}: expected {wanted}, got {given[name]!r}")
    try:
        return _config(given)
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]}: expected a value, got none") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def config_of(config: ModelConfig) -> dict[str, Any]:
    """The ``config.json`` of a model.

    Raises
    ------
    ValueError
        If the family has no such model.
    """
    attention, ffn = config.attention, config.ffn
    if ffn.kind != "moe":
        raise ValueError("ffn.kind: expected 'moe' for a checkpoint of this family, got 'swiglu'")
    if not attention.qk_norm or attention.qk_norm_eps != config.norm_eps:
        raise ValueError(
            "attention.qk_norm: expected true, with qk_norm_eps equal to norm_eps, for a "
            "checkpoint of this family"
        )
    if ffn.num_shared < 1:
        raise ValueError("ffn.num_shared: expected at least 1 for this family, got 0")
    is_shared = attention.share_factor > 1
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": attention.rope_theta}
    if attention.rope_alpha > 1.0:
        rope |= {"rope_type": "dynamic", "alpha": attention.rope_alpha, "factor": 1.0}
    return {
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


def _config(given: dict[str, Any]) -> ModelConfig:
    eps = given.get("rms_norm_eps", 1e-5)
    rope = given.get("rope_parameters") or given.get("rope_scaling") or {}
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
        num_experts=given["num_experts"],
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


def _one(given: dict[str, Any], *names: str, default: int | None = None) -> int:
    """A number that may be told once or for every layer."""
    for name in names:
        value = given.get(name)
        if value is None:
            continue
        values = set(value) if isinstance(value, list) else {value}
        if len(values) != 1:
            raise ValueError(f"{name}: expected one number for all layers, got {value}")
        return int(values.pop())
    if default is None:
        raise KeyError(names[-1])
    return default


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if not index.exists():
        single = folder / "model.safetensors"
        if not single.exists():
            raise ValueError(f"{folder}: expected model.safetensors or {INDEX}")
        return [single]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{index}: expected a weight_map of tensor and file names") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"{index}: weight_map: expected names of files here, got {name!r}")
        if not (folder / name).exists():
            raise ValueError(f"{folder / name}: expected a file that {INDEX} speaks of")
    return [folder / name for name in names]


def _tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118, it is no dict
                yield name, opened.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(f"{file}: expected a whole safetensors file: {error}") from error


def _dtype(file: Path) -> torch.dtype:
    for _, tensor in _tensors(file):
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.float32


def _place(
    name: str, parameters: dict[str, torch.nn.Parameter], config: ModelConfig
) -> tuple[str, Tensor | None]:
    """Our parameter of a tensor, and the part of it that the tensor fills."""
    ours = OUTER.get(name, "")
    found = LAYER.fullmatch(name)
    if found is None:
        return ours, parameters.get(ours)
    layer, inner = found[1], found[2]
    one = EXPERT.fullmatch(inner)
    if one is None:
        ours = f"blocks.{layer}.{INNER.get(inner, '')}"
        return ours, parameters.get(ours)
    expert, role = int(one[1]), one[2]
    ours = f"blocks.{layer}.ffn.experts.{'down' if role == 'down' else 'gate_up'}"
    stack = parameters.get(ours)
    if stack is None or expert >= len(stack):
        return ours, None
    if role == "down":
        return ours, stack.data[expert]
    hidden = config.ffn.hidden
    start = 0 if role == "gate" else hidden
    return ours, stack.data[expert, start : start + hidden]


def _named(model: LanguageModel) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a model under the names that the family has on disk."""
    outer = {ours: theirs for theirs, ours in OUTER.items()}
    inner = {ours: theirs for theirs, ours in INNER.items()}
    for name, weight in model.named_parameters():
        tensor = weight.detach()
        if name in outer:
            yield outer[name], tensor
            continue
        _, layer, rest = name.split(".", 2)
        prefix = f"model.layers.{layer}."
        if rest == "ffn.experts.gate_up":
            for expert, both in enumerate(tensor):
                gate, up = both.chunk(2)
                yield f"{prefix}mlp.experts.{expert}.gate_proj.weight", gate
                yield f"{prefix}mlp.experts.{expert}.up_proj.weight", up
        elif rest == "ffn.experts.down":
            for expert, one in enumerate(tensor):
                yield f"{prefix}mlp.experts.{expert}.down_proj.weight", one
        else:
            yield prefix + inner[rest], tensor
