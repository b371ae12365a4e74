"""The command ``weightwise convert``."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from weightwise.cli.law_options import Json, print_json, warn
from weightwise.cli.train import Overrides, flat
from weightwise.report.conversion_figure import conversion_figure
from weightwise.report.law_figures import check_figure, write_figure
from weightwise.train.cache_conversion import (
    CacheBudget,
    CacheConversion,
    convert_cache,
    report_table,
)
from weightwise.train.exchange import export_hunyuan, import_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

TokenizerFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
TextFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]


def convert_command(
    source: tyro.conf.Positional[Path],
    /,
    out: Path,
    tokenizer: TokenizerFile = None,
    shard_gb: float = 5.0,
    cache: str | None = None,
    overrides: Overrides = (),
    text: TextFile = None,
    tokens: int = 65_536,
    figure: Path | None = None,
    as_json: Json = False,
) -> int:
    """Exchange checkpoints with Hugging Face's libraries, or make the cache of a model small.

    Which way is told by what SOURCE is. Llama, Mistral, Qwen2, Qwen3, DeepSeek and HunYuan come
    in, HunYuan goes out. With --cache a model becomes one of ours whose layers share latents; one
    that comes in is kept beside it as OUT-original, for uptrain to learn from.

    Args:
        source: Folder with config.json and safetensors files, or a checkpoint or run of ours.
        out: Folder to make; must be new or empty.
        tokenizer: Coming in: tokenizer.json or .tiktoken file to take instead of the folder's.
        shard_gb: Going out: gigabytes at which a further file of weights begins.
        cache: What a token may cost: 2% of multi-head attention in bfloat16, or bytes such as 4096.
        overrides: With --cache: change settings of the layout, such as share_factor=1.
        text: With --cache: UTF-8 file or folder to calibrate with instead of the run's documents.
        tokens: With --cache: how many tokens of text to calibrate with.
        figure: With --cache: draw what each group of layers loses into this SVG file.
        as_json: Print the result as one JSON object.
    """
    is_theirs = (source / "config.json").is_file()
    if not is_theirs and tokenizer is not None:
        raise ValueError("tokenizer: expected only for a checkpoint that comes in")
    if not shard_gb * 1e9 >= 1:
        raise ValueError(f"shard_gb: expected more than 0, got {shard_gb}")
    if cache is None:
        if overrides or text is not None or figure is not None:
            raise ValueError("set, text, figure: expected only together with --cache")
        return _exchange(source, out, tokenizer, shard_gb, as_json=as_json)
    check_figure(figure)
    budget = CacheBudget.parse(cache)
    with kept_original(source, out, tokenizer) if is_theirs else nullcontext(source) as start:
        report = _make_small(start, out, budget, flat(overrides), text, tokens)
    if figure is not None:
        write_figure(figure, conversion_figure(report.groups))
    if as_json:
        print_json(**report_table(report))
    else:
        print(_summary(report))
    return 0


@contextmanager
def kept_original(source: Path, out: Path, tokenizer: Path | None) -> Iterator[Path]:
    """A checkpoint that comes in beside OUT, and is gone again if anything fails."""
    original = out.with_name(f"{out.name}-original")
    import_checkpoint(source, original, tokenizer=tokenizer)
    try:
        yield original
    except BaseException:
        rmtree(original)
        raise


def _exchange(
    source: Path, out: Path, tokenizer: Path | None, shard_gb: float, *, as_json: bool
) -> int:
    is_theirs = (source / "config.json").is_file()
    with _progress(DownloadColumn()) as progress:
        task = progress.add_task("copying", total=None)

        def on_bytes(num_bytes: int, total: int) -> None:
            progress.update(task, advance=num_bytes, total=total)

        if is_theirs:
            found = import_checkpoint(source, out, tokenizer=tokenizer, on_bytes=on_bytes)
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


def _make_small(
    source: Path,
    out: Path,
    budget: CacheBudget,
    overrides: list[str],
    text: Path | None,
    tokens: int,
) -> CacheConversion:
    with _progress(MofNCompleteColumn()) as progress:
        task = progress.add_task("calibrating", total=None)

        def on_batch(number: int, total: int) -> None:
            progress.update(task, completed=number, total=total)

        return convert_cache(
            source, out, budget, overrides=overrides, text=text, num_tokens=tokens,
            on_batch=on_batch,
        )  # fmt: skip


def _summary(report: CacheConversion) -> str:
    first = (
        f"{report.source}: {report.bytes_before:g} bytes a token -> {report.bytes_per_token:g} "
        f"({report.percent:.3g} % of multi-head attention in bfloat16), "
        f"loss {report.loss_before:.4f} -> {report.loss_after:.4f} before training, "
        f"saved in {report.folder}"
    )
    lines = [
        first,
        *(
            f"tried: {_shared(sizes)}, {size:g} bytes a token, loss {loss:.4f}"
            for sizes, size, loss in report.tried
        ),
        "layers   bits  lost by sharing  rotation  rank    wrong at the output",
    ]
    for group in report.groups:
        last = group.end - 1
        layers = f"{group.first}-{last}" if last > group.first else f"{last}"
        wrong = " ".join(f"{100 * error:.1f} %" for error in group.coded_error)
        lines.append(
            f"{layers:<8} {group.bits:<5} {group.sharing_error:<16.1%} {group.rope_error:<9.1%} "
            f"{group.rank_error:<7.1%} {wrong}"
        )
    return "\n".join([*lines, "go on with: weightwise uptrain " + str(report.folder)])


def _shared(sizes: tuple[int, ...]) -> str:
    """Which layers share, in words; only the last of equal groups may be shorter."""
    if len(set(sizes[:-1])) <= 1 and sizes[-1] <= sizes[0]:
        return f"{sizes[0]} layers share"
    return f"groups of {', '.join(map(str, sizes))} layers"


def _progress(amount: ProgressColumn) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        amount,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
