"""Checkpoints of other libraries turned into ours, and ours into theirs.

What comes in is a checkpoint at step 0 with the recipe of its model: it can be generated from,
served and trained further on conversations, but there is no run to go on with. What goes out is
a folder that transformers loads with ``from_pretrained``, tokenizer and chat template included.
Both are written under a temporary name first, weights tensor by tensor.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from math import nan, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from weightwise.lm import Tokenizer
from weightwise.lm.chat import JINJA_TEMPLATE
from weightwise.lm.checkpoint_files import open_checkpoint, own_layouts
from weightwise.lm.convert import SHARD_BYTES, copy_weights, write_json
from weightwise.lm.hunyuan import config_of
from weightwise.lm.tensor_file import DTYPES, fresh_folder, read_layouts
from weightwise.lm.tiktoken import CHAT_TOKENS, END_OF_TEXT, RANK_FILE
from weightwise.train.checkpoint import (
    MODEL_FILES,
    RunState,
    describe_files,
    find_checkpoint,
    verify,
)
from weightwise.train.recipe import Recipe, TrainConfig, read_recipe, to_toml

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from weightwise.lm import ModelConfig
    from weightwise.lm.tensor_file import TensorLayout


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What has been converted.

    Parameters
    ----------
    folder
        Where it lies now.
    num_parameters, num_bytes
        Size of the model and of its weights.
    notes
        What a user should know: tensors without use, differences of the two worlds.
    """

    folder: Path
    num_parameters: int
    num_bytes: int
    notes: tuple[str, ...]


def import_checkpoint(
    folder: Path | str,
    out: Path | str,
    *,
    tokenizer: Path | str | None = None,
    on_bytes: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Turn a checkpoint of Hugging Face's into one of ours.

    Parameters
    ----------
    folder
        Holds ``config.json`` of a family that `weightwise.lm.families` knows, safetensors files
        and ``tokenizer.json`` or ``hy.tiktoken``.
    out
        Folder of the new checkpoint; must be new or empty.
    tokenizer
        Another file to take the tokenizer from.
    on_bytes
        Told after every tensor its size and that of all.

    Raises
    ------
    ValueError
        If the checkpoint is not whole or not supported, has no tokenizer or one with more ids
        than the model, ``out`` is taken or the disk too full. Nothing is written then.
    """
    folder, out = Path(folder), Path(out)
    source = open_checkpoint(folder)
    words = _tokenizer(folder, tokenizer)
    config = source.config
    if words.vocab_size > config.vocab_size:
        raise ValueError(
            f"{folder}: tokenizer: expected at most vocab_size = {config.vocab_size} token ids, "
            f"got {words.vocab_size}"
        )
    recipe = _recipe(folder, config)
    total = source.num_bytes
    with fresh_folder(out, total) as partial:
        source.copy_to(partial / "model.safetensors", _with_total(on_bytes, total))
        write_start(partial, recipe, words)
    return Conversion(
        folder=out,
        num_parameters=_num_parameters(source.layouts),
        num_bytes=total,
        notes=_import_notes(source.left_out),
    )


def write_start(folder: Path, recipe: Recipe, words: Tokenizer) -> None:
    """Make a folder of weights a checkpoint at step 0, by what else belongs to one.

    Parameters
    ----------
    folder
        Holds ``model.safetensors``, and other files if wanted.
    recipe
        With the settings of the model.
    words
        Its tokenizer.
    """
    words.save(folder / "tokenizer.json")
    write_state(folder, to_toml(recipe))


def write_state(folder: Path, recipe: str) -> None:
    """Make a folder with all files of a model, but its recipe, a checkpoint at step 0.

    Parameters
    ----------
    folder
        The folder.
    recipe
        The recipe as TOML.
    """
    (folder / "recipe.toml").write_text(recipe, encoding="utf-8")
    state = RunState(
        step=0,
        tokens=0,
        train_loss=nan,
        valid_loss=None,
        best_valid_loss=None,
        best_step=None,
        data="",
        files=describe_files(folder),
    )
    (folder / "state.json").write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")


def write_weights(folder: Path, model: nn.Module, start: Path) -> None:
    """Write each weight once, in the type that another checkpoint keeps its embedding in.

    Parameters
    ----------
    folder
        Gets ``model.safetensors``.
    model
        Of our own.
    start
        The other checkpoint.
    """
    dtype = DTYPES[read_layouts(start / "model.safetensors")["embed.weight"].dtype]
    weights = {
        name: weight.detach().to("cpu", dtype).contiguous()
        for name, weight in model.named_parameters()
    }
    save_file(weights, folder / "model.safetensors")


def export_hunyuan(
    checkpoint: Path | str,
    out: Path | str,
    *,
    max_shard_bytes: int = SHARD_BYTES,
    on_bytes: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Turn one of our checkpoints into a folder for transformers and vLLM.

    Parameters
    ----------
    checkpoint
        Folder of a checkpoint, or of a run, whose newest checkpoint is taken.
    out
        Folder to make; must be new or empty.
    max_shard_bytes
        Size at which a further file of weights begins, at least 1.
    on_bytes
        Told after every tensor its size and that of all.

    Raises
    ------
    ValueError
        If the checkpoint is damaged, the family has no such model, ``out`` is taken or the disk
        too full. Nothing is written then.
    """
    folder, out = find_checkpoint(Path(checkpoint)), Path(out)
    verify(folder, MODEL_FILES)
    recipe = read_recipe(folder / "recipe.toml")
    if recipe.sharing is not None:
        raise ValueError(f"{folder}: sharing: expected none, other libraries know no such model")
    words = Tokenizer.load(folder / "tokenizer.json")
    settings = config_of(recipe.model)
    weights = folder / "model.safetensors"
    layouts = own_layouts(weights, recipe.model)
    total = sum(layout.num_bytes for layout in layouts.values())
    marks = _marks(words)
    with fresh_folder(out, total) as partial:
        copy_weights(
            weights,
            recipe.model,
            partial,
            max_shard_bytes=max_shard_bytes,
            on_bytes=_with_total(on_bytes, total),
        )
        words.save(partial / "tokenizer.json")
        write_json(partial / "tokenizer_config.json", _tokenizer_settings(words, recipe.model))
        write_json(partial / "generation_config.json", marks)
        write_json(partial / "config.json", settings | marks)
    return Conversion(
        folder=out,
        num_parameters=_num_parameters(layouts),
        num_bytes=total,
        notes=_export_notes(recipe),
    )


def _tokenizer(folder: Path, given: Path | str | None) -> Tokenizer:
    if given is not None:
        return Tokenizer.load(given)
    if (folder / "tokenizer.json").exists():
        return Tokenizer.load(folder / "tokenizer.json")
    if (folder / RANK_FILE).exists():
        return Tokenizer.load(folder / RANK_FILE)
    raise ValueError(
        f"{folder}: expected tokenizer.json or {RANK_FILE}, found none; name a tokenizer with "
        "--tokenizer"
    )


def _recipe(folder: Path, config: ModelConfig) -> Recipe:
    """The least that a recipe says: the model, and a training that has not begun."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).lstrip("._-") or "imported"
    training = TrainConfig(steps=1, batch_size=1, seq_length=min(config.max_length, 2048))
    return Recipe(name=name, model=config, train=training)


def _marks(words: Tokenizer) -> dict[str, Any]:
    """Ids that generation begins, ends and pads with, as transformers names them."""
    special = words.special_tokens
    if _has_chat(words):
        stops = [special[name] for name in ("<|eos|>", "<|extra_5|>", END_OF_TEXT)]
        return {
            "bos_token_id": special["<|startoftext|>"],
            "eos_token_id": stops,
            "pad_token_id": special["<|pad|>"],
        }
    return {"bos_token_id": words.eos_id, "eos_token_id": words.eos_id, "pad_token_id": None}


def _tokenizer_settings(words: Tokenizer, config: ModelConfig) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.max_length,
        "clean_up_tokenization_spaces": False,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
    }
    if not _has_chat(words):
        return settings
    return settings | {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|eos|>",
        "pad_token": "<|pad|>",
        "chat_template": JINJA_TEMPLATE,
    }


def _has_chat(words: Tokenizer) -> bool:
    return all(name in words.special_tokens for name in CHAT_TOKENS)


def _import_notes(left_out: tuple[str, ...]) -> tuple[str, ...]:
    if not left_out:
        return ()
    number, first = len(left_out), left_out[0]
    return (f"{number} tensors that the model has no use for are left out, such as {first}",)


def _export_notes(recipe: Recipe) -> tuple[str, ...]:
    notes = []
    ffn, attention = recipe.model.ffn, recipe.model.attention
    if attention.share_factor > 1:
        notes.append(
            "layers share keys: the layout is that of Hunyuan-Large, for its own code and for "
            "vLLM; transformers has no class for it"
        )
    elif ffn.kind == "moe" and ffn.top_k == 1 and not ffn.is_renormalized:
        notes.append(
            "one expert a token: transformers gives it the weight 1, this library, the released "
            "code and vLLM its probability"
        )
    if recipe.precision.format is not None:
        notes.append("weights are written as they are trained, without the recipe's quantization")
    return tuple(notes)


def _num_parameters(layouts: dict[str, TensorLayout]) -> int:
    return sum(prod(layout.shape) for layout in layouts.values())


def _with_total(
    on_bytes: Callable[[int, int], None] | None, total: int
) -> Callable[[int], None] | None:
    return None if on_bytes is None else lambda num_bytes: on_bytes(num_bytes, total)
