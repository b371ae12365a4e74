"""A trained model turned into a smaller one, whose blocks share their weights: what is common.

What comes out is a checkpoint at step 0 that can be used at once or trained on beside its original
(`weightwise.recipes.uptrain`), and beside it ``conversion.json`` with what was done and lost.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from weightwise.multiplex import Plan, SizeReport, Transforms
from weightwise.train.cache_conversion import REPORT

if TYPE_CHECKING:
    from pathlib import Path

    from weightwise.multiplex.share import By
    from weightwise.multiplex.start import Start

UNITS = {"k": 1e3, "M": 1e6, "B": 1e9}


@dataclass(frozen=True, kw_only=True)
class ShrinkConfig:
    """How small a model is to be, and what its executions keep of their own.

    Parameters
    ----------
    params
        Most parameters, each counted once: a number, or below 1 a share of the model's.
    by, start, transforms, keep
        As in `weightwise.multiplex.multiplex`.
    """

    params: float
    by: By = "sensitivity"
    start: Start = "data"
    transforms: Transforms = field(default_factory=Transforms)
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Shrunk:
    """What has been shrunk, and what that changed.

    Parameters
    ----------
    source, folder
        The old checkpoint and the new one.
    plan
        Which blocks share.
    size
        Parameters and bytes of the new model.
    params_before, params_after
        Parameters, each counted once.
    measure
        What is measured on held-out examples: ``loss``, in nats, or ``top1``, a share.
    before, after
        That of the old model, and of the new one without any training.
    """

    source: Path
    folder: Path
    plan: Plan
    size: SizeReport
    params_before: int
    params_after: int
    measure: str
    before: float
    after: float


def parse_params(text: str) -> float:
    """Read ``50%``, or a number such as ``3000000``, ``3_000_000`` or ``3M``.

    Raises
    ------
    ValueError
        If it is neither.
    """
    bare = text.strip()
    unit = UNITS.get(bare[-1:], 0.01 if bare.endswith("%") else None)
    try:
        value = float(bare[:-1] if unit else bare) * (unit or 1.0)
    except ValueError:
        value = 0.0
    is_share = bare.endswith("%")
    if not 0 < value < float("inf") or (value >= 1) == is_share:
        raise ValueError(
            f"params: expected a share below 100% such as 50%, or a number such as 3M, got {text!r}"
        )
    return value


def shrunk_table(shrunk: Shrunk) -> dict[str, object]:
    """The same as plain values, for JSON."""
    table = asdict(shrunk)
    return table | {"source": str(shrunk.source.resolve()), "folder": str(shrunk.folder)}


def write_report(folder: Path, shrunk: Shrunk) -> None:
    """Put the report beside a checkpoint."""
    (folder / REPORT).write_text(json.dumps(shrunk_table(shrunk), indent=1) + "\n", "utf-8")
