"""Tables of training runs: what was trained, and the loss that was reached.

CSV with a header, or JSON lines. Columns, with the papers' letters as other names:

* ``num_params`` (N), ``num_tokens`` (D), ``loss`` (L): numbers above 0;
* ``format``: a number format such as ``e4m3``, empty or ``bf16`` without quantization; or the two
  columns ``exponent_bits`` (E) and ``mantissa_bits`` (M);
* ``block_size`` (B): a number, ``channel`` or ``tensor``; empty without quantization, and with
  formats that say so themselves, such as ``mxfp4``;
* ``cost`` (C): FLOP, above 0, of candidates and of runs at equal budgets;
* ``batch_tokens`` (batch) of runs at equal budgets: tokens per step.

Other columns are left alone. A run whose ``status`` is ``diverged`` has no loss and is left out.
"""

from __future__ import annotations

import csv
import json
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from weightwise.laws.law import Settings, sharing_of, split_bits
from weightwise.numerics import ScaledFormat
from weightwise.numerics.scaling import names_scales

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from weightwise.laws.law import Floats

_OTHER_NAMES = {
    "num_params": "N", "num_tokens": "D", "loss": "L", "exponent_bits": "E",
    "mantissa_bits": "M", "block_size": "B", "cost": "C", "batch_tokens": "batch",
}  # fmt: skip
_UNQUANTIZED = ("", "none", "bf16", "fp16", "fp32")

_Row = tuple[float, float, float, float, str, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Runs:
    """Finished runs.

    Parameters
    ----------
    settings, losses
        What was trained and the loss reached, R rows.
    num_diverged
        Runs of the file that are left out because they diverged.
    """

    settings: Settings
    losses: Floats
    num_diverged: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class BudgetRuns:
    """Finished runs at several budgets of compute.

    Parameters
    ----------
    num_params, num_tokens, losses
        N activated parameters, D and nats a token, R rows.
    flop, batch_tokens
        C in FLOP and tokens per step; None if the table has no such column.
    num_diverged
        Runs of the file that are left out because they diverged.
    """

    num_params: Floats
    num_tokens: Floats
    losses: Floats
    flop: Floats | None
    batch_tokens: Floats | None
    num_diverged: int = 0


def read_runs(path: Path) -> Runs:
    """Read a table of runs; the ending ``.jsonl`` means JSON lines, all else CSV.

    Raises
    ------
    ValueError
        If something is missing or out of range, with file, line and column.
    OSError
        If the file cannot be read.
    """
    rows, losses, num_diverged = [], [], 0
    for line, record in _records(path):
        if record.get("status") == "diverged":
            num_diverged += 1
            continue
        with _named(path, line):
            rows.append(_setting(record))
            losses.append(_number(record, "loss"))
    settings = _settings(path, rows)
    return Runs(settings=settings, losses=np.array(losses), num_diverged=num_diverged)


def read_budget_runs(path: Path) -> BudgetRuns:
    """Read a table of runs with their compute and batches, whatever their number format.

    Raises
    ------
    ValueError
        If something is missing or out of range, with file, line and column; a column is filled in
        every row or in none.
    OSError
        If the file cannot be read.
    """
    names = ["num_params", "num_tokens", "loss"]
    rows: list[list[float]] = []
    num_diverged = 0
    for line, record in _records(path):
        if record.get("status") == "diverged":
            num_diverged += 1
            continue
        with _named(path, line):
            filled = [name for name in ("cost", "batch_tokens") if _is_filled(record, name)]
            names = names if rows else [*names, *filled]
            if names[3:] != filled:
                odd = next(iter(set(names[3:]) ^ set(filled)))
                raise ValueError(f"column {odd}: expected a number in every row or in none")
            rows.append([_number(record, name) for name in names])
    if not rows:
        raise ValueError(f"{path}: expected at least one finished run, got none")
    columns = dict(zip(names, np.array(rows).T, strict=True))
    return BudgetRuns(
        num_params=columns["num_params"], num_tokens=columns["num_tokens"],
        losses=columns["loss"], flop=columns.get("cost"),
        batch_tokens=columns.get("batch_tokens"), num_diverged=num_diverged,
    )  # fmt: skip


def read_settings(path: Path) -> Settings:
    """Read a table of settings to ask a law about: as `read_runs`, losses are not looked at."""
    rows = []
    for line, record in _records(path):
        with _named(path, line):
            rows.append(_setting(record))
    return _settings(path, rows)


def read_candidates(path: Path) -> tuple[Settings, Floats]:
    """Read a table of settings with the column ``cost`` (C), FLOP above 0; ``6 N D`` without it."""
    rows, costs = [], []
    for line, record in _records(path):
        with _named(path, line):
            row = _setting(record)
            is_priced = _is_filled(record, "cost")
            costs.append(_number(record, "cost") if is_priced else 6 * row[0] * row[1])
            rows.append(row)
    return _settings(path, rows), np.array(costs)


@contextmanager
def _named(path: Path, line: int) -> Iterator[None]:
    """Put file and line in front of what is wrong."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}, line {line}: {error}") from None


def _settings(path: Path, rows: list[_Row]) -> Settings:
    if not rows:
        raise ValueError(f"{path}: expected at least one finished run, got none")
    params, tokens, exponents, mantissas, sharing, blocks = zip(*rows, strict=True)
    return Settings(
        num_params=np.array(params), num_tokens=np.array(tokens),
        exponent_bits=np.array(exponents), mantissa_bits=np.array(mantissas),
        granularity=np.array(sharing), block_size=np.array(blocks),
    )  # fmt: skip


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a file with the numbers of their lines."""
    try:
        if path.suffix == ".jsonl":
            for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                if text.strip():
                    yield line, _json_object(path, line, text)
            return
        # Spreadsheets put a byte-order mark first.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for record in reader:
                if None in record or None in record.values():
                    columns = len(reader.fieldnames or ())
                    raise ValueError(
                        f"{path}, line {reader.line_num}: expected {columns} columns as in line 1"
                    )
                yield reader.line_num, record
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, byte {error.start} is not") from None


def _json_object(path: Path, line: int, text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {line}, column {error.colno}: expected JSON, {error.msg}"
        ) from None
    if not isinstance(record, dict):
        message = f"{path}, line {line}: expected a JSON object, got {text[:20]!r}"
        raise ValueError(message)  # noqa: TRY004 (the file is wrong, not the call)
    return record


def _setting(record: dict[str, Any]) -> _Row:
    """N, D, E, M, granularity and B of one run."""
    params, tokens = (_number(record, name) for name in ("num_params", "num_tokens"))
    exponent, mantissa = _bits(record)
    if math.isnan(exponent):
        return params, tokens, exponent, mantissa, "none", math.nan
    text = str(_value(record, "block_size") or "").strip().lower()
    name = str(record.get("format") or "")
    if names_scales(name):
        own = str(sharing_of(ScaledFormat.parse(name)))
        if text not in ("", own):
            raise ValueError(f"column block_size: expected none or {own} with {name}, got {text!r}")
        text = own
        record = {**record, "block_size": own}
    if text in ("channel", "tensor"):
        return params, tokens, exponent, mantissa, text, math.nan
    block = _number(record, "block_size", least=1, others="channel or tensor")
    return params, tokens, exponent, mantissa, "block", block


def _bits(record: dict[str, Any]) -> tuple[float, float]:
    """E and M, NaN without quantization."""
    if "format" in record:
        name = str(record["format"] or "").strip().lower()
        if name in _UNQUANTIZED:
            return math.nan, math.nan
        try:
            fmt = ScaledFormat.parse(name).element
        except ValueError as error:
            raise ValueError(f"column format: {error}") from None
        return split_bits(fmt)
    values = [_value(record, name) for name in ("exponent_bits", "mantissa_bits")]
    if all(value is None or str(value).strip() == "" for value in values):
        return math.nan, math.nan
    exponent, mantissa = (
        _number(record, name, least=0) for name in ("exponent_bits", "mantissa_bits")
    )
    return exponent, mantissa


def _value(record: dict[str, Any], name: str) -> Any:
    return record.get(name, record.get(_OTHER_NAMES[name]))


def _is_filled(record: dict[str, Any], name: str) -> bool:
    return str(_value(record, name) or "").strip() != ""


def _number(
    record: dict[str, Any], name: str, *, least: float | None = None, others: str = ""
) -> float:
    """A finite number, above 0 unless another least one is given."""
    other = _OTHER_NAMES[name]
    value = _value(record, name)
    column = other if name not in record and other in record else name
    expected = "a number above 0" if least is None else f"a number of at least {least:g}"
    expected += f", {others}" if others else ""
    if value is None:
        raise ValueError(f"column {name} (or {other}): expected {expected}, got none")
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or (number <= 0 if least is None else number < least):
        raise ValueError(f"column {column}: expected {expected}, got {value!r}")
    return number
