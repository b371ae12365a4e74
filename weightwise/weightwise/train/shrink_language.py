"""A trained language model turned into a smaller one, whose blocks share their weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from weightwise.lm.tensor_file import fresh_folder
from weightwise.multiplex import SizeReport, multiplex, num_unique_parameters
from weightwise.train.calibration import calibration_text, text_loss
from weightwise.train.checkpoint import find_checkpoint, load_model
from weightwise.train.data import DataConfig
from weightwise.train.exchange import write_start, write_weights
from weightwise.train.shrinking import Shrunk, write_report

if TYPE_CHECKING:
    from weightwise.train.shrinking import ShrinkConfig


def shrink_language(
    checkpoint: Path | str,
    out: Path | str,
    config: ShrinkConfig,
    *,
    text: Path | None = None,
    num_tokens: int = 65_536,
    cache_dir: Path | None = None,
) -> Shrunk:
    """Let blocks of a trained language model share weights until it is small enough.

    Parameters
    ----------
    checkpoint
        Folder of a checkpoint, or of a run, whose newest checkpoint is taken.
    out
        Folder of the new checkpoint; must be new or empty.
    config
        How small, and how.
    text
        UTF-8 file, or folder of such files, to calibrate with instead of the run's documents.
    num_tokens
        Tokens of calibration text, at least 1.
    cache_dir
        Folder of prepared data, see `weightwise.train.default_cache_dir`.

    Raises
    ------
    ValueError
        If the checkpoint is damaged, its blocks cannot share or not so much, ``out`` is taken or
        the disk too full. Nothing is written then.
    """
    start, out = find_checkpoint(Path(checkpoint)), Path(out)
    if num_tokens < 1:
        raise ValueError(f"tokens: expected at least 1, got {num_tokens}")
    model, tokenizer, recipe = load_model(start)
    if recipe.sharing is not None:
        raise ValueError(f"{start}: sharing: expected a model without, got one that is shrunk")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    found = calibration_text(recipe, start, text=text, cache_dir=cache_dir)
    held_out = [one.to(device) for one in found.held_out()]
    params_before, before = num_unique_parameters(model), text_loss(model, *held_out)
    with fresh_folder(out, sum(weight.nbytes for weight in model.parameters())) as partial:
        plan = multiplex(
            model, config.params, by=config.by, start=config.start, transforms=config.transforms,
            batches=[one.to(device) for one in found.batches(num_tokens)], keep=config.keep,
        )  # fmt: skip
        shrunk = Shrunk(
            source=start, folder=out, plan=plan, size=SizeReport.of(model),
            params_before=params_before, params_after=num_unique_parameters(model),
            measure="loss", before=before, after=text_loss(model, *held_out),
        )  # fmt: skip
        write_weights(partial, model, start)
        write_report(partial, shrunk)
        data = recipe.data if isinstance(recipe.data, DataConfig) else DataConfig()
        name = f"{recipe.name}-shrunk"
        write_start(
            partial, replace(recipe, name=name, start=None, sharing=plan, data=data), tokenizer
        )
    return shrunk
