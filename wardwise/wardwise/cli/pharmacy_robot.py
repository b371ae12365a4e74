"""The command that plays a storage robot."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path  # noqa: TC003, typer reads the types
from typing import Annotated

import typer

from wardwise.cli.common import AsJson, Seed, out, require_writable, talk
from wardwise.dispenser import Faults, Robot, Stock
from wardwise.dispenser.robot import DEVICE, PORT, serve_forever
from wardwise.dispenser.stock import PACKS_PER_BIN
from wardwise.io.pharmacy import read_pharmacy
from wardwise.io.pharmacy_tables import read_bins
from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.rack import Machine


def wwks2_robot(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = PORT,
    bins: Annotated[
        Path | None,
        typer.Option(help="What it holds: a pharmacy day or CSV of bins; none: drawn."),
    ] = None,
    packs: Annotated[
        int, typer.Option(min=1, max=99_999, help="Most packs of a bin.")
    ] = PACKS_PER_BIN,
    seed: Seed = 1,
    speed: Annotated[
        float, typer.Option(min=0.001, max=1e9, help="Seconds of the machine in one of the clock.")
    ] = 1.0,
    faults: Annotated[
        str, typer.Option(help="What goes wrong, as in disconnect=0.01,malformed=0.01.")
    ] = "",
    state: Annotated[
        Path | None, typer.Option(help="Journal by which it remembers after a restart.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="File that gets every message.")] = None,
    device: Annotated[int, typer.Option(min=200, max=999, help="Its number.")] = DEVICE,
    as_json: AsJson = False,
) -> int:
    """Play a storage robot that speaks WWKS 2, until Ctrl-C."""
    for path in (state, log):
        require_writable(path)
    machine, stock = _contents(bins, packs, seed)
    robot = Robot(
        machine, stock, device=device, speed=speed, faults=Faults.of_text(faults), seed=seed,
        state=state, record=log,
    )  # fmt: skip
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    told = {"host": host, "port": port, "device": device, "packs": len(robot.ledger.stock),
            "known_outputs": len(robot.ledger.tasks)}  # fmt: skip

    def started(number: int) -> None:
        if as_json:
            print(json.dumps({**told, "port": number}), flush=True)
        else:
            out.print(f"robot {device} at {host}:{number} with {told['packs']} packs")
            talk.print("Ctrl-C stops it")

    try:
        asyncio.run(serve_forever(robot, host, port, started))
    except KeyboardInterrupt:
        talk.print("stopped")
    return 0


def _contents(bins: Path | None, packs: int, seed: int) -> tuple[Machine, Stock]:
    """Machine and packs of a file, or drawn ones."""
    if bins is None:
        day = generate_pharmacy(seed, num_orders=1)
    elif bins.suffix.lower() == ".csv":
        machine = Machine()
        return machine, Stock.of_bins(read_bins(bins, machine.rack), most_packs=packs)
    else:
        day = read_pharmacy(bins)
    return day.machine, Stock.of_bins(day.bins, most_packs=packs)
