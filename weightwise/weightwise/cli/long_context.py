"""The command ``weightwise long-context``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 (the parser reads annotations)
from typing import TYPE_CHECKING

import tyro  # noqa: TC002 (the parser reads annotations)

from weightwise.cli.law_options import Json, print_json
from weightwise.recipes.long_context import long_context
from weightwise.train import to_dict, to_toml
from weightwise.train.files import write_text

if TYPE_CHECKING:
    from weightwise.train import Recipe


def long_context_command(
    checkpoint: tyro.conf.Positional[Path],
    /,
    seq_length: int,
    tokens: float,
    rope_base: float | None = None,
    long_share: float = 0.25,
    lr_ratio: float = 0.1,
    out: Path | None = None,
    as_json: Json = False,
) -> int:
    """Write the recipe of a long-context stage that begins with a trained model.

    Args:
        checkpoint: Folder of a checkpoint, or of a run, whose newest checkpoint is taken.
        seq_length: Tokens of a sequence, at least as many as before.
        tokens: Tokens of the stage.
        rope_base: Base of the rotary wavelengths, such as 1e9. Default: grown with the sequences.
        long_share: Share of sequences from inside of long documents; 0 for text as it comes.
        lr_ratio: Constant learning rate over the peak of the run before.
        out: Write the recipe to this TOML file instead of standard output.
        as_json: Print the recipe as one JSON object.
    """
    recipe = long_context(
        checkpoint, seq_length=seq_length, tokens=tokens, rope_base=rope_base,
        long_share=long_share or None, lr_ratio=lr_ratio,
    )  # fmt: skip
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, to_toml(recipe))
    if as_json:
        print_json(**to_dict(recipe))
    else:
        print(to_toml(recipe) if out is None else _summary(recipe, out), end="")
    return 0


def _summary(recipe: Recipe, out: Path) -> str:
    train, attention = recipe.train, recipe.model.attention
    return (
        f"{recipe.name}: {train.steps} steps of {train.batch_size} x {train.seq_length} tokens, "
        f"rotary base {attention.rope_base(recipe.model.width):.4g}, in {out}\n"
    )
