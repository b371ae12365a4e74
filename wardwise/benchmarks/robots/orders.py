"""What a dispensing robot holds, and what is asked of it: drawn from a seed, plain values."""

from __future__ import annotations

import random
from dataclasses import dataclass

NUM_DRUGS, NUM_COLUMNS, NUM_ROWS = 200, 40, 15
PLACE, NO_PLACE = 1, 9
STRANGER = "D9999"
PRIORITIES = ("Normal", "Normal", "Normal", "High", "Highest", "Low")
PACKS_PER_ORDER = 2.4  # what draw_orders comes to on average


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One order: packs by drug, where to, and how urgently."""

    id: str
    packs: tuple[tuple[str, int], ...]
    place: int
    priority: str


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Packs of one drug and lot in one cell."""

    id: str
    drug: str
    column: int
    row: int
    expiry: str
    quantity: int


def draw_orders(count: int, seed: int) -> list[Wish]:
    """Orders of one to three drugs; one in fifty for a drug or a place that is not there."""
    rng = random.Random(f"orders {seed}")
    return [_wish(rng, number) for number in range(count)]


def _wish(rng: random.Random, number: int) -> Wish:
    names = {_drug(rng) for _ in range(rng.choices((1, 2, 3), (6, 3, 1))[0])}
    if rng.random() < 0.01:
        names.add(STRANGER)
    packs = {name: rng.choices((1, 2, 3), (6, 3, 1))[0] for name in sorted(names)}
    place = NO_PLACE if rng.random() < 0.01 else PLACE
    return Wish(
        id=f"RX{number:06d}", packs=tuple(packs.items()), place=place,
        priority=rng.choice(PRIORITIES),
    )  # fmt: skip


def draw_stock(num_orders: int, seed: int) -> list[Shelf]:
    """One shelf a cell; in all about a tenth more than is asked for, so that some drugs run out."""
    rng = random.Random(f"stock {seed}")
    most = round(2 * 1.1 * PACKS_PER_ORDER * num_orders / (NUM_COLUMNS * NUM_ROWS))
    return [
        Shelf(
            id=f"B{cell:03d}", drug=_drug(rng) if cell >= NUM_DRUGS else f"D{cell:04d}",
            column=cell % NUM_COLUMNS, row=cell // NUM_COLUMNS, quantity=rng.randint(0, most),
            expiry=f"20{rng.randint(27, 30)}-{rng.randint(1, 12):02d}-28",
        )
        for cell in range(NUM_COLUMNS * NUM_ROWS)
    ]  # fmt: skip


def _drug(rng: random.Random) -> str:
    """A drug, the first ones most often."""
    return f"D{int(NUM_DRUGS * rng.random() ** 2):04d}"


def bins_csv(stock: list[Shelf]) -> str:
    """The stock as a table of bins."""
    rows = [
        f"{shelf.id},{shelf.drug},{shelf.column},{shelf.row},L{shelf.id},{shelf.expiry},"
        f"{shelf.quantity}"
        for shelf in stock
    ]
    return "\n".join(["bin_id,drug,col,row,lot,expiry,qty", *rows, ""])
