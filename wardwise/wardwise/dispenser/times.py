"""How long a robot takes, learned from its messages.

The protocol does not say where in the rack a pack stands, so the time of an output cannot be
computed; it is what passes between its request, or the end of the output before, and its message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardwise.io.wwks2 import messages
from wardwise.io.wwks2.parts import OutputStatus

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from wardwise.io.wwks2 import Envelope


@dataclass(frozen=True, kw_only=True)
class OutputTime:
    """One output.

    Parameters
    ----------
    id
        Of its request.
    articles
        What was asked for.
    machine_location
        Machine that gave the first pack, where that is told.
    num_packs
        Packs that came.
    status
        How it ended.
    total_s
        From request to message.
    own_s
        The same without waiting for the output before that brought packs.
    """

    id: str
    articles: tuple[str, ...]
    machine_location: str
    num_packs: int
    status: OutputStatus
    total_s: float
    own_s: float


def output_times(envelopes: Iterable[Envelope]) -> list[OutputTime]:
    """Times of the outputs of a log whose request and end it holds, by the stamps of its messages.

    For one robot that works on one output at a time.
    """
    asked: dict[tuple[int, str], tuple[datetime, tuple[str, ...]]] = {}
    found: list[OutputTime] = []
    last_end: datetime | None = None
    for envelope in envelopes:
        message, at = envelope.message, envelope.time_stamp
        if at is None:
            continue
        if isinstance(message, messages.OutputRequest):
            articles = tuple(criteria.article_id for criteria in message.criteria)
            asked.setdefault((message.source, message.id), (at, articles))
        if not isinstance(message, messages.OutputMessage) or message.details.status is None:
            continue
        begun = asked.pop((message.destination, message.id), None)
        if begun is None or not message.details.status.is_final:
            continue
        packs = [pack for article in message.articles for pack in article.packs]
        start = begun[0] if last_end is None else max(begun[0], last_end)
        if packs:  # else the arm had nothing to do, and may still be at work for another
            last_end = at if last_end is None else max(at, last_end)
        found.append(
            OutputTime(
                id=message.id, articles=begun[1], num_packs=len(packs),
                machine_location=packs[0].machine_location if packs else "",
                status=message.details.status, total_s=(at - begun[0]).total_seconds(),
                own_s=max(0.0, (at - start).total_seconds()),
            )
        )  # fmt: skip
    return found


def input_times(envelopes: Iterable[Envelope]) -> list[float]:
    """Seconds from the scan of each stored pack to its end."""
    asked: dict[tuple[int, str], datetime] = {}
    found: list[float] = []
    for envelope in envelopes:
        message, at = envelope.message, envelope.time_stamp
        if at is None:
            continue
        if isinstance(message, messages.InputRequest):
            asked[message.source, message.id] = at
        elif isinstance(message, messages.InputMessage):
            begun = asked.pop((message.source, message.id), None)
            if begun is not None:
                found.append((at - begun).total_seconds())
    return found


def expected_output_s(times: Iterable[OutputTime], *, weight: float = 3.0) -> dict[str, float]:
    """Seconds that a complete output of each article is likely to take.

    The mean of an article with few outputs is drawn towards that of all, as if there had been
    `weight` more outputs of average length; the key "" is that average.

    Parameters
    ----------
    times
        Outputs; those of one article and one pack that were completed count.
    weight
        At least 0.

    Raises
    ------
    ValueError
        If no output counts.
    """
    if weight < 0:
        raise ValueError(f"weight: expected at least 0, got {weight}")
    of_article: dict[str, list[float]] = {}
    for time in times:
        is_complete = time.status is OutputStatus.COMPLETED
        if is_complete and time.num_packs == 1 and len(time.articles) == 1:
            of_article.setdefault(time.articles[0], []).append(time.own_s)
    all_s = [own_s for listed in of_article.values() for own_s in listed]
    if not all_s:
        raise ValueError("times: expected a completed output of one pack, got none")
    mean_s = sum(all_s) / len(all_s)
    expected = {
        name: (sum(listed) + weight * mean_s) / (len(listed) + weight)
        for name, listed in of_article.items()
    }
    return {"": mean_s, **expected}
