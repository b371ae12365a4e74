"""The books of robot and client compared, by somebody who knows neither of their programs.

Both journals are read as lines of JSON with XML in them. The robot's says which packs left for
which order, the client's what it was told. An order is lost if the client does not know how it
ended, if the two differ, or if less came than the end says. It is given out twice if more packs
left for it than were asked for, or if a pack left that had left before.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from .orders import Shelf, Wish


@dataclass
class Verdict:
    """What the comparison has found.

    Parameters
    ----------
    lost, twice
        Orders, each with the reason.
    ends
        How many orders ended in which way.
    ordered, given, missing
        Packs asked for, packs that left, and packs that the client was told not to expect.
    """

    lost: dict[str, str] = field(default_factory=dict)
    twice: dict[str, str] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    ordered: int = 0
    given: int = 0
    missing: int = 0

    @property
    def unaccounted(self) -> int:
        """Packs that were asked for and neither left nor were reported missing, or the reverse."""
        return abs(self.ordered - self.given - self.missing)


def compare(
    orders: Iterable[Wish], stock: Iterable[Shelf], robot: Path, client: Path
) -> Verdict:  # fmt: skip
    """Read both journals and judge every order."""
    given, robot_ends = _robot_book(robot)
    told, client_ends = _client_book(client)
    held = Counter[str]()
    for shelf in stock:
        held[shelf.drug] += shelf.quantity
    verdict, wishes = Verdict(), {wish.id: wish for wish in orders}
    drug_of = {pack: drug for packs in told.values() for pack, drug in packs.items()}
    left = Counter(drug_of.get(pack, "?") for packs in given.values() for pack in packs)
    seen: set[int] = set()
    for order_id, packs in given.items():
        if order_id not in wishes:
            verdict.twice[order_id] = "left without an order"
        if len(packs) != len(set(packs)) or seen & set(packs):
            verdict.twice[order_id] = "a pack that had left before"
        seen.update(packs)
    verdict.given = sum(map(len, given.values()))
    for wish in wishes.values():
        verdict.ordered += sum(quantity for _, quantity in wish.packs)
        end = client_ends.get(wish.id, "nothing")
        verdict.ends[end] += 1
        problem = _judge(wish, end, robot_ends.get(wish.id), told[wish.id], given[wish.id])
        got = Counter(told[wish.id].values())
        short = {drug: count - got[drug] for drug, count in wish.packs if got[drug] < count}
        if end in ("Incomplete", "Rejected"):
            verdict.missing += sum(short.values())
        if end == "Incomplete" and any(left[drug] < held[drug] for drug in short):
            problem = problem or "short while there were packs"
        if problem:
            verdict.lost[wish.id] = problem
        wanted = Counter(dict(wish.packs))
        if got - wanted or len(given[wish.id]) > wanted.total():
            verdict.twice[wish.id] = "more packs than were asked for"
    return verdict


def _judge(
    wish: Wish, end: str, robot_end: str | None, told: dict[int, str], given: list[int]
) -> str:
    """Why an order is lost, or nothing."""
    if end == "nothing":
        return "the client does not know how it ended"
    if end == "Rejected":
        is_due = wish.place != 1 and robot_end is None and not given
        return "" if is_due else "rejected without need"
    if end != robot_end:
        return f"{end} for the client, {robot_end} for the robot"
    if sorted(told) != sorted(given):
        return "other packs for the client than for the robot"
    is_full = Counter(told.values()) == Counter(dict(wish.packs))
    if is_full != (end == "Completed"):
        return f"{end} with {len(told)} packs"
    return ""


def _robot_book(path: Path) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Packs and end of each order."""
    given: dict[str, list[int]] = defaultdict(list)
    ends: dict[str, str] = {}
    for event in _events(path):
        if event["event"] == "pack":
            given[event["id"]].append(event["pack"])
        elif event["event"] == "end":
            ends[event["id"]] = event["status"]
    return given, ends


def _client_book(path: Path) -> tuple[dict[str, dict[int, str]], dict[str, str]]:
    """Packs with their drug, and end of each order."""
    told: dict[str, dict[int, str]] = defaultdict(dict)
    ends: dict[str, str] = {}
    for event in _events(path):
        if event["event"] == "end":
            lead = ET.fromstring(event["message"])[0]  # noqa: S314, our own file
            ends[lead.attrib["Id"]] = lead.find("Details").attrib["Status"]  # type: ignore[union-attr]
            for article in lead.iter("Article"):
                for pack in article.iter("Pack"):
                    told[lead.attrib["Id"]][int(pack.attrib["Id"])] = article.attrib["Id"]
    return told, ends


def _events(path: Path) -> Iterator[dict[str, Any]]:
    """Lines that end; what a kill has cut off does not count."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield json.loads(line)
