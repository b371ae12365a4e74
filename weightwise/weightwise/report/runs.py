"""Training curves read back from a run's ``metrics.jsonl``.

The file has one object a line: training rows with ``step``, ``train_loss`` and
``tokens_per_s``, evaluation rows with ``step`` and ``valid_loss``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What one run logged.

    Parameters
    ----------
    train, valid
        Pairs of step and loss in nats per token, by rising step.
    tokens_per_s
        Median over the logged training steps.
    """

    train: tuple[Point, ...]
    valid: tuple[Point, ...]
    tokens_per_s: float

    @property
    def final_loss(self) -> float:
        """Last validation loss in nats per token."""
        return self.valid[-1][1]


def read_curves(path: Path) -> Curves:
    """Read the curves of one run.

    Parameters
    ----------
    path
        The run's ``metrics.jsonl``.

    Raises
    ------
    ValueError
        If the file is missing, a line is no JSON, or there is no training or evaluation row;
        the message names the file.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise ValueError(f"{path}: expected the metrics of a run, got {error}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected one JSON object a line, got {error}") from error
    train = tuple((row["step"], row["train_loss"]) for row in rows if "train_loss" in row)
    valid = tuple((row["step"], row["valid_loss"]) for row in rows if "valid_loss" in row)
    speeds = [row["tokens_per_s"] for row in rows if "tokens_per_s" in row]
    if not train or not valid:
        raise ValueError(
            f"{path}: expected training and evaluation rows, got {len(train)} and {len(valid)}"
        )
    return Curves(train=train, valid=valid, tokens_per_s=median(speeds))


def smooth(points: tuple[Point, ...], window: int) -> tuple[Point, ...]:
    """Average every value with its neighbours, ``window`` values in all and fewer at the ends.

    The reach is the same to both sides, so that a falling curve is not bent at its ends. The last
    points, where less than half of it is left, would show the noise and are left out.

    Parameters
    ----------
    points
        Pairs of step and value.
    window
        Number of values, at least 1; even numbers count as the next odd one.
    """
    reach = window // 2
    values = [value for _, value in points]
    result = []
    for index, (step, _) in enumerate(points[: max(1, len(points) - reach // 2)]):
        side = min(reach, index, len(points) - 1 - index)
        near = values[index - side : index + side + 1]
        result.append((step, sum(near) / len(near)))
    return tuple(result)
