"""What is in the machine, and which bin a line may take: first expired, first out (FEFO)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from wardwise.pharmacy.problem import Bin, Line


@dataclass(frozen=True, kw_only=True)
class StockRules:
    """How bins are chosen.

    Parameters
    ----------
    tolerance_days
        A bin may be taken if it expires at most so many days after the first that could be, at
        least 0; among them the arm's way decides.
    min_remaining_days
        Days that packs must still be good for, at least 0; 0: the last day of use itself will do.
    avoids_part_packs
        Bins with opened packs are taken from only if there is no other.
    max_candidates
        Bins of a line that the look-ahead compares, at least 1.
    """

    tolerance_days: int = 0
    min_remaining_days: int = 0
    avoids_part_packs: bool = True
    max_candidates: int = 4

    def __post_init__(self) -> None:
        for name, least in (
            ("tolerance_days", 0), ("min_remaining_days", 0), ("max_candidates", 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(
                    f"stock rules: {name}: expected at least {least}, got {getattr(self, name)}"
                )


class Slot:
    """A bin as it is now."""

    def __init__(self, bin_: Bin, *, is_part: bool = False) -> None:
        self.bin = bin_
        self.quantity = bin_.quantity
        self.is_part = is_part
        self.is_recalled = bin_.is_recalled
        self.point: int | None = None  # where it stands; None: in its cell
        self.is_moving = False  # on the arm, on its way to a point
        self.is_aside = False  # taken away by people

    @property
    def lot(self) -> str:
        """Lot, or the bin itself where none is known."""
        return self.bin.lot or f"bin {self.bin.id}"

    @property
    def expires(self) -> date:
        """Last day of use; the end of time where it is not known."""
        return self.bin.expiry or date.max


@dataclass(frozen=True)
class Choice:
    """Bins that a line may take now, best expiry first, and why; no bins if there are none."""

    slots: tuple[Slot, ...]
    reason: str


class Stock:
    """Bins of the machine with their packs.

    Parameters
    ----------
    bins
        What is in the rack.
    rules
        How bins are chosen.
    today
        Date of the day's first second; None: expiry is not looked at.
    part_bins
        Ids of bins with opened packs.
    """

    def __init__(
        self,
        bins: Iterable[Bin],
        rules: StockRules,
        today: date | None = None,
        part_bins: Collection[str] = (),
    ) -> None:
        self.rules, self.today = rules, today
        self.slots: dict[str, Slot] = {}
        self._of_drug: dict[str, list[Slot]] = {}
        self._at_cell: dict[int, Slot] = {}
        self.blocked: set[int] = set()
        self._handed_out: dict[str, int] = {}
        for bin_ in bins:
            self.add(bin_, is_part=bin_.id in part_bins)

    def add(self, bin_: Bin, *, is_part: bool = False) -> None:
        """Put a bin into its cell; an empty one there makes room."""
        before = self._at_cell.get(bin_.cell)
        if before:
            self._of_drug[before.bin.drug].remove(before)
            del self.slots[before.bin.id]
        slot = Slot(bin_, is_part=is_part)
        self.slots[bin_.id] = self._at_cell[bin_.cell] = slot
        self._of_drug.setdefault(bin_.drug, []).append(slot)

    def has_room(self, bin_: Bin) -> bool:
        """Whether a new bin's cell is empty, or holds an empty bin that makes room."""
        before = self._at_cell.get(bin_.cell)
        if before is None:
            return True
        return not (before.quantity or before.point is not None or before.is_moving)

    def slot_at(self, cell: int) -> Slot | None:
        """Bin that belongs into a cell."""
        return self._at_cell.get(cell)

    def of_drug(self, drug: str) -> list[Slot]:
        """All bins of a drug."""
        return self._of_drug.get(drug, [])

    def day(self, time_s: float) -> date | None:
        """Date at a time."""
        return self.today + timedelta(days=int(time_s // 86_400)) if self.today else None

    def is_good(self, bin_: Bin, line: Line, time_s: float) -> bool:
        """Whether packs of a bin may be handed out by their expiry; looked at when fetched."""
        day = self.day(time_s)
        if bin_.expiry is None:
            return line.min_expiry is None
        if line.min_expiry and bin_.expiry < line.min_expiry:
            return False
        return day is None or bin_.expiry >= day + timedelta(days=self.rules.min_remaining_days)

    def choose(
        self, line: Line, needed: int, time_s: float, *, single_lot: bool = False, lot: str = ""
    ) -> Choice:
        """Bins that a line may take.

        Parameters
        ----------
        line, needed
            The line and the packs that it still needs.
        time_s
            Now.
        single_lot
            All packs of the line are to be of one lot, of `lot` if some are taken already.
        """
        found = [
            slot
            for slot in self.of_drug(line.drug)
            if slot.quantity
            and not (slot.is_recalled or slot.is_aside)
            and (slot.point is not None or slot.bin.cell not in self.blocked)
            and self.is_good(slot.bin, line, time_s)
        ]
        if single_lot:
            found = _one_lot(found, needed, lot)
        if self.rules.avoids_part_packs:
            found = [slot for slot in found if not slot.is_part] or found
        if not found:
            kind = "of one lot " if single_lot else ""
            return Choice((), f"no good packs {kind}of {line.drug} within reach")
        first = min(slot.expires for slot in found)
        room = min(self.rules.tolerance_days, (date.max - first).days)
        allowed = [slot for slot in found if slot.expires <= first + timedelta(days=room)]
        whole = [slot for slot in allowed if slot.quantity >= needed] or allowed
        whole.sort(key=lambda slot: (slot.expires, slot.bin.id))
        text = f"{len(found)} bins can give {line.drug}" if len(found) > 1 else "its only bin"
        if first < date.max and len(found) > 1:
            text += f", first to expire {first.isoformat()}"
            if self.rules.tolerance_days:
                text += f", tolerance {self.rules.tolerance_days} days"
        return Choice(tuple(whole[: self.rules.max_candidates]), text)

    def take(self, slot: Slot, quantity: int) -> None:
        """Packs leave a bin."""
        slot.quantity -= quantity
        drug = slot.bin.drug
        self._handed_out[drug] = self._handed_out.get(drug, 0) + quantity

    def give_back(self, slot: Slot, quantity: int) -> None:
        """Packs that were to leave stay."""
        slot.quantity += quantity
        self._handed_out[slot.bin.drug] -= quantity

    def cover(self, drug: str) -> float:
        """Packs left for each pack handed out so far: the smaller, the more pressing a refill."""
        left = sum(slot.quantity for slot in self.of_drug(drug) if not slot.is_recalled)
        return left / (1 + self._handed_out.get(drug, 0))


def _one_lot(slots: list[Slot], needed: int, lot: str) -> list[Slot]:
    """Bins of the first lot to expire that has enough, or of the lot that was begun."""
    lots: dict[str, list[Slot]] = {}
    for slot in slots:
        lots.setdefault(slot.lot, []).append(slot)
    if lot:
        return lots.get(lot, [])
    enough = [own for own in lots.values() if sum(slot.quantity for slot in own) >= needed]
    return min(enough, key=lambda own: min((s.expires, s.bin.id) for s in own), default=[])
