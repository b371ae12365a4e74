"""Fitted laws on disk, one JSON object a file."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from weightwise.laws.dense import Chinchilla, OpenAI
from weightwise.laws.law import Hull, constants
from weightwise.laws.moe import BudgetFit, BudgetLaw, ComputeCost, Valley
from weightwise.laws.precision import BitsOnly, Capybara
from weightwise.laws.qat import QAT

if TYPE_CHECKING:
    from pathlib import Path

    from weightwise.laws.fit import Fit
    from weightwise.laws.law import Law

_CLASSES: dict[str, type[Any]] = {
    "capybara": Capybara,
    "qat": QAT,
    "kumar": BitsOnly,
    "chinchilla": Chinchilla,
    "openai": OpenAI,
}


def save_fit(path: Path, name: str, fit: Fit) -> None:
    """Write a fitted law with its samples; a half-written file never takes the name.

    Parameters
    ----------
    path
        File to write; replaced if it is there.
    name
        Which law it is, as in `weightwise.laws.fit.fit`.
    fit
        The fit.
    """
    hull = fit.law.hull
    record = {
        "law": name,
        "constants": constants(fit.law),
        "fitted": hull
        and {
            "num_params": hull.num_params,
            "num_tokens": hull.num_tokens,
            "formats": sorted(hull.formats),
            "setup": hull.setup,
        },
        "objective": fit.objective,
        "rmse": fit.rmse,
        "samples": [constants(sample) for sample in fit.samples],
    }
    _write(path, record)


def load_fit(path: Path) -> tuple[Law, tuple[Law, ...]]:
    """Read a fitted law and its samples.

    Raises
    ------
    ValueError
        If the file is not one that `save_fit` wrote, with what is wrong.
    OSError
        If it cannot be read.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        cls = _CLASSES[record["law"]]
        fitted = record["fitted"]
        hull = fitted and Hull(
            num_params=tuple(fitted["num_params"]),
            num_tokens=tuple(fitted["num_tokens"]),
            formats=frozenset(map(tuple, fitted["formats"])),
            setup=fitted["setup"],
        )
        tables = [record["constants"], *record["samples"]]
        names = [one.name for one in fields(cls) if one.type == "float"]
        law, *samples = (
            cls(**{name: float(table[name]) for name in names}, hull=hull) for table in tables
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected a law that `law fit --out` wrote: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return law, tuple(samples)


def save_budget_fit(path: Path, fit: BudgetFit, cost: ComputeCost) -> None:
    """Write a fitted law of size, whole or not at all.

    Parameters
    ----------
    path
        File to write; replaced if it is there.
    fit
        The fit.
    cost
        How the compute of its runs was counted.
    """
    parts = asdict(fit)
    constants_of_law = parts.pop("law")
    record = {"law": "isoflop", "constants": constants_of_law, "cost": asdict(cost), **parts}
    _write(path, record)


def load_budget_fit(path: Path) -> tuple[BudgetFit, ComputeCost]:
    """Read a law of size and how compute is counted.

    Raises
    ------
    ValueError
        If the file is not one that `save_budget_fit` wrote, with what is wrong.
    OSError
        If it cannot be read.
    """
    reason: object
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["law"] == "isoflop":
            fit = BudgetFit(
                law=_numbers(BudgetLaw, record["constants"]),
                sizes=tuple(_numbers(Valley, one) for one in record["sizes"]),
                tokens=tuple(_numbers(Valley, one) for one in record["tokens"]),
                samples=tuple(_numbers(BudgetLaw, one) for one in record["samples"]),
            )
            return fit, _numbers(ComputeCost, record["cost"])
        reason = f"it is a law {record['law']}"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = error
    raise ValueError(f"{path}: expected a law of size that `law isoflop --out` wrote: {reason}")


def _write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(".partial-" + path.name)
    partial.write_text(json.dumps(record) + "\n", encoding="utf-8")
    partial.replace(path)


def _numbers(cls: type[Any], table: dict[str, Any]) -> Any:
    return cls(**{name: float(value) for name, value in table.items()})
