"""What a contraction search is asked for, and what it tells."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import ceil
from typing import TYPE_CHECKING

from weightwise.vision.contract_space import Space

if TYPE_CHECKING:
    from weightwise.vision.config import TinyViTConfig


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Upper bounds of the result; None for what may be anything.

    Parameters
    ----------
    num_params
        Parameters, head included.
    macs
        Multiply-accumulates for one image, `weightwise.vision.Macs.total`.
    latency_s
        Seconds that the given measure takes.
    """

    num_params: float | None = None
    macs: float | None = None
    latency_s: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if not given:
            raise ValueError("bounds: expected at least one of num_params, macs, latency_s")
        for name, value in given.items():
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}: expected a finite number above 0, got {value}")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a search goes.

    Parameters
    ----------
    space
        What a neighbour is.
    steps
        Steps from the start to the bounds, at least 1.
    keep
        Models that are bases of the next step, at least 1.
    limit
        Candidates of a step that are scored, those of most `expressivity`; all by default.
    survivors
        Share of the candidates, above 0 and at most 1, that the next of several scores is asked
        about.
    """

    space: Space = field(default_factory=Space)
    steps: int = 3
    keep: int = 1
    limit: int | None = None
    survivors: float = 0.5

    def __post_init__(self) -> None:
        for name in ("steps", "keep", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if not 0 < self.survivors <= 1:
            raise ValueError(f"survivors: expected above 0 and at most 1, got {self.survivors}")

    def counts(self, num_candidates: int, num_scores: int) -> list[int]:
        """Candidates that each of some scores is asked about, of those of a step."""
        found = [num_candidates]
        while len(found) < num_scores:
            found.append(ceil(self.survivors * found[-1]))
        return found


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model, what it costs and how good it is.

    Parameters
    ----------
    config
        Its factors.
    num_params, macs
        Its costs.
    latency_s
        Measured seconds; None where no bound asks for them.
    score
        More is better.
    rung
        Which of several scores, from 0. Whoever got a later one is better than the others.
    """

    config: TinyViTConfig
    num_params: int
    macs: int
    latency_s: float | None
    score: float
    rung: int = 0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a search stands.

    Parameters
    ----------
    step, steps
        The current one, from 1, and all.
    done, total
        Scores of this step that are known, and all.
    best
        The best one of this step so far; None before the first.
    """

    step: int
    steps: int
    done: int
    total: int
    best: Candidate | None
