"""Packs in the machine: which one is taken next, and what is told about them."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

from wardwise.io.wwks2.parts import Article, Pack, PackState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wardwise.io.wwks2.parts import Criteria, StockCriteria
    from wardwise.pharmacy.problem import Bin

PACKS_PER_BIN = 50
_ID_STEP = 100_000


@dataclass(frozen=True)
class StoredPack:
    """A pack in its cell."""

    article: str
    pack: Pack
    cell: int

    @property
    def urgency(self) -> tuple[date, int]:
        """First expired, first out; packs without a date last, then the oldest."""
        return self.pack.expiry_date or date.max, self.pack.id


class Stock:
    """Packs by article, the next to expire first.

    Parameters
    ----------
    packs
        What is in the machine at the start; ids must differ.

    Raises
    ------
    ValueError
        If two packs have the same id.
    """

    def __init__(self, packs: Iterable[StoredPack]) -> None:
        self._packs: dict[int, StoredPack] = {}
        self._of_article: dict[str, list[StoredPack]] = {}
        for stored in packs:
            self.add(stored)

    @classmethod
    def of_bins(cls, bins: Iterable[Bin], *, most_packs: int = PACKS_PER_BIN) -> Stock:
        """Fill the machine from bins, with at most `most_packs` (1 to 99,999) in each.

        Packs of a recalled bin are there and not available.
        """
        if not 1 <= most_packs < _ID_STEP:
            raise ValueError(f"most_packs: expected 1 to {_ID_STEP - 1}, got {most_packs}")
        return cls(
            StoredPack(
                bin_.drug,
                Pack(
                    id=(number + 1) * _ID_STEP + serial, batch_number=bin_.lot,
                    expiry_date=bin_.expiry,
                    state=PackState.NOT_AVAILABLE if bin_.is_recalled else PackState.AVAILABLE,
                ),
                bin_.cell,
            )
            for number, bin_ in enumerate(bins)
            for serial in range(min(bin_.quantity, most_packs))
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._packs)

    def add(self, stored: StoredPack) -> None:
        """Put a pack in."""
        if stored.pack.id in self._packs:
            raise ValueError(f"pack: id: {stored.pack.id} is there already")
        self._packs[stored.pack.id] = stored
        insort(self._of_article.setdefault(stored.article, []), stored, key=_urgency)

    def remove(self, pack_id: int) -> StoredPack:
        """Take a pack out; raises KeyError if it is not there."""
        stored = self._packs.pop(pack_id)
        self._of_article[stored.article].remove(stored)
        return stored

    def free_cell(self, article: str) -> int:
        """Cell for a pack: where its like stand, else behind all others."""
        alike = self._of_article.get(article)
        return alike[0].cell if alike else 0

    def next_id(self) -> int:
        """Id that no pack has or had, as long as all packs ever seen are here."""
        return max(self._packs, default=0) + 1

    def next_pack(self, criteria: Criteria, *, wanted: int, lot: str | None) -> StoredPack | None:
        """Pack to take next for a criterion.

        Parameters
        ----------
        criteria
            What is wanted.
        wanted
            Packs that are still to come, this one included.
        lot
            With a single batch: the batch of the packs before; None: this is the first.
        """
        if criteria.pack_id:
            stored = self._packs.get(criteria.pack_id)
            fitting = [stored] if stored and _fits(stored, criteria) else []
        else:
            alike = self._of_article.get(criteria.article_id, [])
            fitting = [stored for stored in alike if _fits(stored, criteria)]
        if criteria.single_batch_number:
            lot = _large_lot(fitting, wanted) if lot is None else lot
            fitting = [stored for stored in fitting if stored.pack.batch_number == lot]
        return fitting[0] if fitting else None

    def articles(
        self, criteria: tuple[StockCriteria, ...] = (), *, with_packs: bool = False
    ) -> tuple[Article, ...]:
        """What is in stock; an article that is asked for is told even where there is none."""
        if not criteria:
            return tuple(self._article(name, packs, with_packs) for name, packs in self._all())
        found = []
        for one in criteria:
            for name in [one.article_id] if one.article_id else list(self._of_article):
                packs = [s for s in self._of_article.get(name, []) if _is_asked(s, one)]
                if packs or one.article_id:
                    found.append(self._article(name, packs, with_packs))
        return tuple(found)

    def _all(self) -> list[tuple[str, list[StoredPack]]]:
        return [(name, packs) for name, packs in self._of_article.items() if packs]

    @staticmethod
    def _article(name: str, packs: list[StoredPack], with_packs: bool) -> Article:
        listed = tuple(stored.pack for stored in packs) if with_packs else ()
        return Article(id=name, quantity=len(packs), packs=listed)


def by_article(packs: Iterable[StoredPack], *, destination: int) -> tuple[Article, ...]:
    """Packs as messages list them, each with the place that it was brought to."""
    found: dict[str, list[Pack]] = {}
    for stored in packs:
        pack = replace(stored.pack, output_destination=destination)
        found.setdefault(stored.article, []).append(pack)
    return tuple(Article(id=name, packs=tuple(listed)) for name, listed in found.items())


def _urgency(stored: StoredPack) -> tuple[date, int]:
    return stored.urgency


def _fits(stored: StoredPack, criteria: Criteria) -> bool:
    """Whether a pack may be taken; a pack without a date does not meet a wish for one."""
    pack = stored.pack
    earliest = criteria.minimum_expiry_date
    return (
        pack.state is PackState.AVAILABLE
        and criteria.article_id in ("", stored.article)
        and (earliest is None or (pack.expiry_date is not None and pack.expiry_date >= earliest))
        and criteria.batch_number in ("", pack.batch_number)
        and criteria.external_id in ("", pack.external_id)
        and criteria.serial_number in ("", pack.serial_number)
        and criteria.stock_location_id in ("", pack.stock_location_id)
        and criteria.machine_location in ("", pack.machine_location)
    )


def _is_asked(stored: StoredPack, criteria: StockCriteria) -> bool:
    pack = stored.pack
    return (
        criteria.batch_number in ("", pack.batch_number)
        and criteria.external_id in ("", pack.external_id)
        and criteria.serial_number in ("", pack.serial_number)
        and criteria.stock_location_id in ("", pack.stock_location_id)
        and criteria.machine_location in ("", pack.machine_location)
    )


def _large_lot(packs: list[StoredPack], wanted: int) -> str | None:
    """Batch that expires first among those with enough packs, else the largest one."""
    count: dict[str, int] = {}
    for stored in packs:
        count[stored.pack.batch_number] = count.get(stored.pack.batch_number, 0) + 1
    enough = [lot for lot, size in count.items() if size >= wanted]
    return enough[0] if enough else max(count, key=lambda lot: count[lot], default=None)
