"""The command ``weightwise law next``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 (the parser reads annotations)
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from weightwise.cli.law_options import FittedLaw, Json, block_name, one_setting, print_json
from weightwise.laws import Quantity, Settings, next_runs, read_candidates, read_runs

if TYPE_CHECKING:
    from weightwise.laws import Design

_SETTING = ("params", "tokens", "format", "block")
# What --quantity takes beside the names of constants, and the words that go with each.
_WORDS = {"loss": _SETTING, "critical-tokens": _SETTING, "bits": ("compute", "block")}

Words = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [KEY=VALUE ...]")]


def next_command(
    runs: tyro.conf.Positional[Path],
    /,
    quantity: Words = (),
    candidates: Path | None = None,
    params: tuple[float, ...] = (),
    tokens: tuple[float, ...] = (),
    formats: tuple[str, ...] = (),
    blocks: tuple[str, ...] = (),
    count: int = 3,
    criterion: Literal["c", "d"] = "c",
    per: Literal["run", "flop"] = "run",
    law: FittedLaw = "capybara",
    objective: Literal["huber", "squares"] = "huber",
    as_json: Json = False,
) -> int:
    """Choose the runs to train next, so that a number is known best.

    Args:
        runs: Table of the runs so far, as for fit.
        quantity: What to make known: loss or critical-tokens with params=, tokens=, format= and
            block=; bits (the best ones) with compute= and block=; or the name of a constant.
        candidates: Table of settings to choose from, with a column cost (FLOP) if 6 N D is wrong.
        params: Without a table: sizes of a grid to choose from. Default: those of the runs.
        tokens: Lengths of the grid. Default: those of the runs.
        formats: Formats of the grid, such as bf16 e2m1. Default: those of the runs.
        blocks: Blocks of these formats, channel or tensor. Default: 128.
        count: Runs to choose.
        criterion: c for the variance of the quantity, d for the volume of all constants.
        per: Choose by what a run brings, or by that over its FLOP.
        law: Law to fit.
        objective: Huber losses of log losses, or squares of losses.
        as_json: Print one JSON object.
    """
    table = read_runs(runs)
    asked = _quantity(quantity) if quantity else None
    if candidates is not None:
        if params or tokens or formats or blocks:
            raise ValueError("candidates: expected a table or a grid, got both")
        pool, costs = read_candidates(candidates)
    else:
        pool, costs = _grid(table.settings, params, tokens, formats, blocks), None
    found = next_runs(
        law, table.settings, table.losses, pool, asked,
        count=count, criterion=criterion, per=per, costs=costs, objective=objective,
    )  # fmt: skip
    if as_json:
        print_json(
            law=law, quantity=asked and asked.label, value=found.value, noise=found.noise,
            criterion=criterion, per=per, num_runs=len(table.losses), num_candidates=len(pool),
            runs=_records(found),
        )  # fmt: skip
        return 0
    _show(found, asked, law, len(table.losses), len(pool))
    return 0


def _quantity(words: tuple[str, ...]) -> Quantity:
    """The quantity that the words of --quantity name."""
    name, *pairs = words
    allowed = _WORDS.get(name, ())
    found: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key not in allowed or not value:
            expected = " ".join(f"{one}=" for one in allowed) or "no more words"
            raise ValueError(f"quantity: {name} takes {expected}, got {pair!r}")
        found[key] = value
    block = found.get("block", "128")
    if name not in _WORDS:
        return Quantity.constant(name)
    if name == "bits":
        return Quantity.optimal_bits(_number(name, found, "compute"), _number(name, found | {
            "block": block}, "block"))  # fmt: skip
    size = _number(name, found, "params")
    is_free = name == "critical-tokens" and block != "tensor"  # D plays no part then
    data = 1e12 if is_free and "tokens" not in found else _number(name, found, "tokens")
    setting = one_setting(size, data, found.get("format", "bf16"), block)
    return Quantity.loss(setting) if name == "loss" else Quantity.critical_tokens(setting)


def _number(name: str, words: dict[str, str], key: str) -> float:
    try:
        return float(words[key])
    except (KeyError, ValueError):
        got = repr(words[key]) if key in words else "none"
        raise ValueError(f"quantity: {name}: {key}=: expected a number, got {got}") from None


def _grid(
    runs: Settings,
    params: tuple[float, ...],
    tokens: tuple[float, ...],
    formats: tuple[str, ...],
    blocks: tuple[str, ...],
) -> Settings:
    """Every size with every length and format; what is not given is that of the runs."""
    if blocks and not formats:
        raise ValueError("blocks: expected formats beside them, got none")
    if formats:
        pairs = [(one, block) for one in formats for block in blocks or ("128",)]
    else:
        names = runs.format_names
        pairs = [(str(names[i]), block_name(runs, i)) for i in range(len(runs))]
    # Blocks make no difference without quantization.
    cases = dict.fromkeys(
        ("bf16", "") if one.lower() in ("bf16", "16 bits") else (one, block) for one, block in pairs
    )
    sizes = params or tuple(map(float, np.unique(runs.num_params)))
    lengths = tokens or tuple(map(float, np.unique(runs.num_tokens)))
    rows = [one_setting(n, d, *case) for n in sizes for d in lengths for case in cases]
    return Settings.join(rows)


def _records(found: Design) -> list[dict[str, Any]]:
    """The proposals as rows of a table of candidates, with their standard errors."""
    return [
        {
            "num_params": float(one.settings.num_params[0]),
            "num_tokens": float(one.settings.num_tokens[0]),
            "format": _format(one.settings),
            "block_size": block_name(one.settings, 0) or None,
            "cost": one.cost,
            "before": one.before,
            "after": one.after,
        }
        for one in found.proposals
    ]


def _format(settings: Settings) -> str:
    return str(settings.format_names[0]) if settings.is_quantized[0] else "bf16"


def _show(
    found: Design, asked: Quantity | None, law: str, num_runs: int, num_candidates: int
) -> None:
    """Print a table for people."""
    console = Console()
    what = "standard errors of all constants, relative" if asked is None else "standard error"
    shown = Table("params", "tokens", "format", "block", "FLOP", what)
    for one in _records(found):
        shown.add_row(
            f"{one['num_params']:.4g}", f"{one['num_tokens']:.4g}", one["format"],
            one["block_size"] or "", f"{one['cost']:.3g}",
            f"{one['before']:.4g} -> {one['after']:.4g}",
        )  # fmt: skip
    console.print(shown)
    console.print(
        f"{law}: {num_runs} runs, {num_candidates} candidates"
        + ("" if asked is None else f"; {asked.label} {found.value:.5g}")
    )
