"""Outputs as the client keeps them: what is asked, how patient it is, how it ended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wardwise.io.wwks2 import parts
from wardwise.io.wwks2.parts import OutputPriority
from wardwise.pharmacy.problem import Priority

if TYPE_CHECKING:
    import asyncio

    from wardwise.io.wwks2 import messages
    from wardwise.io.wwks2.parts import OutputStatus
    from wardwise.pharmacy.problem import Order

PRIORITIES = {
    Priority.STAT: OutputPriority.HIGHEST,
    Priority.URGENT: OutputPriority.HIGH,
    Priority.ROUTINE: OutputPriority.NORMAL,
}
_RANKS = {priority: rank for rank, priority in enumerate(OutputPriority)}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an output ended.

    Parameters
    ----------
    id
        Of the request.
    status
        Completed, Incomplete, Aborted or Rejected.
    articles
        Packs that were given out, by article.
    """

    id: str
    status: OutputStatus
    articles: tuple[parts.Article, ...] = ()

    @property
    def packs(self) -> tuple[parts.Pack, ...]:
        """All packs."""
        return tuple(pack for article in self.articles for pack in article.packs)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How patient the client is, in seconds.

    Parameters
    ----------
    hello_s
        For the connection and the first answer.
    answer_s
        For any other answer.
    keep_alive_s
        Silence after which it asks whether the line is alive.
    recheck_s
        Silence after which it asks what has become of an output that was queued.
    poll_s
        Between two looks at these, and at a machine that is not ready.
    backoff_s, most_backoff_s
        Before the second try to connect, and at most; it doubles, less up to a half by chance.
    """

    hello_s: float = 5.0
    answer_s: float = 10.0
    keep_alive_s: float = 30.0
    recheck_s: float = 120.0
    poll_s: float = 1.0
    backoff_s: float = 0.5
    most_backoff_s: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < float("inf"):
                raise ValueError(f"timing: {name}: expected a finite number above 0, got {value}")


@dataclass(eq=False)
class OnItsWay:
    """An output that has not ended, as far as the client knows.

    Parameters
    ----------
    request, number
        What is asked, and its number in the sequence of asking.
    done
        Gets the outcome.
    is_doubtful
        The robot may know it, and has to be asked.
    is_accepted
        The robot has said that it is queued.
    is_rejected
        The robot has turned it down, and nobody knows why yet.
    is_cancelled
        It is no longer wanted.
    num_rejections
        How often a robot that was ready turned it down.
    heard_at
        When something was last heard of it.
    boxed
        Packs that have left in boxes before the end.
    """

    request: messages.OutputRequest
    number: int
    done: asyncio.Future[Outcome]
    is_doubtful: bool = False
    is_accepted: bool = False
    is_rejected: bool = False
    is_cancelled: bool = False
    num_rejections: int = 0
    heard_at: float = 0.0
    boxed: tuple[parts.Article, ...] = ()

    def __lt__(self, other: OnItsWay) -> bool:
        return self._turn < other._turn

    @property
    def _turn(self) -> tuple[int, int]:
        return _RANKS[self.request.details.priority], self.number

    def with_boxed(self, articles: tuple[parts.Article, ...]) -> tuple[parts.Article, ...]:
        """Articles of the last message, and the packs of boxes that it does not tell again."""
        known = {pack.id for article in articles for pack in article.packs}
        missing = []
        for article in self.boxed:
            packs = tuple(pack for pack in article.packs if pack.id not in known)
            known.update(pack.id for pack in packs)
            if packs:
                missing.append(replace(article, packs=packs))
        return (*missing, *articles)


def criteria_of(order: Order) -> tuple[parts.Criteria, ...]:
    """What the machine is asked for an order: its lines that are not taken by hand."""
    return tuple(
        parts.Criteria(
            article_id=line.drug, quantity=line.quantity, minimum_expiry_date=line.min_expiry
        )
        for line in order.lines
        if not line.is_manual
    )  # fmt: skip
