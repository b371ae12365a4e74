"""What the law commands share: their options, and how they tell results and warnings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import numpy as np
import tyro
from rich.console import Console

from weightwise.laws import (
    BESIROGLU,
    CAPYBARA,
    HOFFMANN,
    QAT_W4A4,
    QAT_W4A16,
    QAT_W16A4,
    Settings,
    load_fit,
)

if TYPE_CHECKING:
    from weightwise.laws import Law

Json = Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff]
FittedLaw = Literal["capybara", "qat", "kumar", "chinchilla", "openai"]
ALL_LAWS: tuple[FittedLaw, ...] = ("capybara", "qat", "kumar", "chinchilla", "openai")
PUBLISHED: dict[str, Law] = {
    "capybara": CAPYBARA, "hoffmann": HOFFMANN, "besiroglu": BESIROGLU,
    "qat-w4a4": QAT_W4A4, "qat-w4a16": QAT_W4A16, "qat-w16a4": QAT_W16A4,
}  # fmt: skip


def load_law(name: str) -> tuple[Law, tuple[Law, ...]]:
    """A published law by its name, or a fitted one with its samples from a file."""
    if name in PUBLISHED:
        return PUBLISHED[name], ()
    path = Path(name)
    if not path.exists():
        raise ValueError(
            f"law: expected {', '.join(PUBLISHED)} or a file that `weightwise law fit --out` "
            f"wrote, got {name!r}"
        )
    return load_fit(path)


def one_setting(params: float, tokens: float, fmt: str, block: str | None) -> Settings:
    """A setting in the words of the command line."""
    if fmt.lower() in ("bf16", "fp16", "fp32", "none"):
        return Settings.of(params, tokens)
    if block is None:
        return Settings.of(params, tokens, fmt)
    if block in ("channel", "tensor"):
        return Settings.of(params, tokens, fmt, cast('Literal["channel", "tensor"]', block))
    try:
        size = int(block)
    except ValueError:
        raise ValueError(
            f"block: expected a whole number, channel or tensor, got {block!r}"
        ) from None
    return Settings.of(params, tokens, fmt, size)


def block_name(settings: Settings, row: int) -> str:
    """What shares a scale in a row, as the command line calls it; empty without quantization."""
    sharing = str(settings.granularity[row])
    return {"block": f"{settings.block_size[row]:g}", "none": ""}.get(sharing, sharing)


def warn(warnings: list[str]) -> None:
    """Tell warnings on standard error."""
    console = Console(stderr=True)
    for warning in warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False)


def finite(value: float) -> float | None:
    """JSON has no infinity: None stands for it."""
    return float(value) if np.isfinite(value) else None


def print_json(**record: Any) -> None:
    """Print one JSON object."""
    print(json.dumps(record))


def require_positive(**values: float | None) -> None:
    """Refuse options that are given and not finite numbers above 0."""
    for name, value in values.items():
        if value is not None and not 0 < value < np.inf:
            raise ValueError(f"{name}: expected a finite number above 0, got {value}")
