"""The command ``weightwise convert``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from weightwise.cli.law_options import Json, print_json, warn
from weightwise.train.exchange import export_hunyuan, import_hunyuan

TokenizerFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]


def convert_command(
    source: tyro.conf.Positional[Path],
    /,
    out: Path,
    tokenizer: TokenizerFile = None,
    shard_gb: float = 5.0,
    as_json: Json = False,
) -> int:
    """Turn a Hugging Face checkpoint into one of ours, or one of ours into theirs.

    Which way is told by what SOURCE is. The family is Hunyuan-Large and HunYuanMoEV1ForCausalLM.

    Args:
        source: Folder with config.json and safetensors files, or a checkpoint or run of ours.
        out: Folder to make; must be new or empty.
        tokenizer: Coming in: tokenizer.json or .tiktoken file to take instead of the folder's.
        shard_gb: Going out: gigabytes at which a further file of weights begins.
        as_json: Print the result as one JSON object.
    """
    is_theirs = (source / "config.json").is_file()
    if not is_theirs and tokenizer is not None:
        raise ValueError("tokenizer: expected only for a checkpoint that comes in")
    if not shard_gb * 1e9 >= 1:
        raise ValueError(f"shard_gb: expected more than 0, got {shard_gb}")
    with _progress() as progress:
        task = progress.add_task("copying", total=None)

        def on_bytes(num_bytes: int, total: int) -> None:
            progress.update(task, advance=num_bytes, total=total)

        if is_theirs:
            found = import_hunyuan(source, out, tokenizer=tokenizer, on_bytes=on_bytes)
        else:
            shard_bytes = int(shard_gb * 1e9)
            found = export_hunyuan(source, out, max_shard_bytes=shard_bytes, on_bytes=on_bytes)
    if as_json:
        row = asdict(found) | {"folder": str(found.folder)}
        print_json(direction="in" if is_theirs else "out", **row)
        return 0
    kind = "checkpoint" if is_theirs else "Hugging Face checkpoint"
    print(
        f"{source}: {found.num_parameters:,} parameters, {found.num_bytes / 1e9:.3g} GB, "
        f"saved as a {kind} in {found.folder}"
    )
    warn(list(found.notes))
    return 0


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
