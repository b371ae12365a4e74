"""What the commands that write text share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
import tyro

from weightwise.lm.moe import Router
from weightwise.lm.sampling import SamplingConfig
from weightwise.train import load_model

if TYPE_CHECKING:
    from pathlib import Path

    from weightwise.lm import LanguageModel, Tokenizer

Json = Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff]
Dtype = Literal["float32", "bfloat16"]
Sampling = Annotated[SamplingConfig, tyro.conf.arg(name="")]
Texts = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


def open_model(checkpoint: Path, dtype: Dtype) -> tuple[LanguageModel, Tokenizer, str]:
    """Model, tokenizer and name of a checkpoint, on a GPU if there is one.

    Parameters
    ----------
    checkpoint
        Folder of a checkpoint, or of a run.
    dtype
        Type of the weights; routers stay float32, as their scores must.
    """
    model, tokenizer, recipe = load_model(checkpoint)
    for module in model.modules():
        if not isinstance(module, Router):
            for weight in module.parameters(recurse=False):
                weight.data = weight.data.to(getattr(torch, dtype))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return model, tokenizer, recipe.name
