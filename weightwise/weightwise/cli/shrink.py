"""The command ``weightwise shrink``: blocks of a trained model share weights."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from weightwise.cli.convert import kept_original
from weightwise.cli.law_options import Json, print_json
from weightwise.multiplex import Transforms
from weightwise.train.shrink_language import shrink_language
from weightwise.train.shrink_vision import shrink_vision
from weightwise.train.shrinking import ShrinkConfig, Shrunk, parse_params, shrunk_table
from weightwise.train.vision_start import is_vision_checkpoint

Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")]
TextFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]


@dataclass(frozen=True, kw_only=True)
class OwnOptions:
    """What each use of shared weights keeps of its own, beside its normalizations.

    Parameters
    ----------
    rank
        Rank of what is added to each shared matrix; 0 for nothing.
    mixes
        Maps over the heads of attention, before and after the softmax.
    kernel
        Side of a depthwise convolution before the MLP, for vision models; 0 for none.
    keep
        Parts of names of parameters that no block shares, such as router.
    """

    rank: int = 0
    mixes: bool = False
    kernel: int = 0
    keep: Names = ()


def shrink_command(
    source: tyro.conf.Positional[Path],
    /,
    out: Path,
    params: str,
    by: Literal["sensitivity", "even"] = "sensitivity",
    start: Literal["data", "mean", "first"] = "data",
    own: tyro.conf.OmitArgPrefixes[OwnOptions] = OwnOptions(),
    text: TextFile = None,
    tokens: int = 65_536,
    images: int = 256,
    as_json: Json = False,
) -> int:
    """Make a trained model smaller: neighbouring blocks share one set of weights.

    Blocks are run as often as before, so time and memory of activations stay; weights, gradients,
    optimizer and file shrink. What comes out computes nearly what it did where blocks were alike;
    uptrain lets it learn the rest from the original.

    Args:
        source: Checkpoint or run of a language or vision model of ours, or a language model's
            folder of Hugging Face, which is kept beside OUT as OUT-original.
        out: Folder of the new checkpoint; must be new or empty.
        params: Most parameters: a share such as 50%, or a number such as 3M.
        by: Which blocks share: those that lose the least by it, or runs of even length.
        start: Weights of a group: those that change outputs the least on data, their mean, or the
            first block's.
        own: What each use of shared weights keeps of its own.
        text: Language models: UTF-8 file or folder to measure on instead of the run's documents.
        tokens: Language models: how many tokens of text to measure on.
        images: Vision models: how many training images to measure on.
        as_json: Print the result as one JSON object.
    """
    config = ShrinkConfig(
        params=parse_params(params), by=by, start=start, keep=own.keep,
        transforms=Transforms(rank=own.rank, mixes=own.mixes, kernel=own.kernel),
    )  # fmt: skip
    is_theirs = (source / "config.json").is_file()
    with (
        kept_original(source, out, None) if is_theirs else nullcontext(source) as checkpoint,
        Console(stderr=True).status("measuring and sharing"),
    ):
        if is_vision_checkpoint(checkpoint):
            if text is not None:
                raise ValueError("text: expected only for a language model")
            found = shrink_vision(checkpoint, out, config, num_images=images)
        else:
            found = shrink_language(checkpoint, out, config, text=text, num_tokens=tokens)
    if as_json:
        print_json(**shrunk_table(found))
    else:
        print(_summary(found))
    return 0


def _summary(found: Shrunk) -> str:
    groups = "; ".join(
        f"{stage.name} {'+'.join(map(str, stage.groups))}" for stage in found.plan.stages
    )
    name, before, after = found.measure, found.before, found.after
    share = found.params_after / found.params_before
    size = (
        f"{found.params_before:,} -> {found.params_after:,} parameters ({share:.1%}), "
        f"{found.size.file_bytes / 1e6:.1f} MB: {found.folder}"
    )
    measured = (
        f"held-out {name} {before:.4f} -> {after:.4f} before any training; next: "
        f"weightwise uptrain {found.folder}"
    )
    return "\n".join((size, f"blocks that share: {groups}", measured))
