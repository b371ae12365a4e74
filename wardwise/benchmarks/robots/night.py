"""A robot and a client in processes of their own, killed and started again until all is done."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .line import Line, Mischief
from .orders import bins_csv, draw_stock

HERE = Path(__file__).resolve().parent.parent
# An output takes about 20 s of the machine; a stop of the machine lasts 0.1 s of the clock.
SPEED, ROBOT_FAULTS = 20_000, "not-ready=0.001,not-ready-s=2000"
_LOOK_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Night:
    """What was seen.

    Parameters
    ----------
    line
        What passed, and what was done to it.
    told
        Last words of the client.
    robot_kills, client_kills
        How often each process was killed.
    seconds
        From the first start to the end.
    """

    line: Line
    told: dict[str, int]
    robot_kills: int
    client_kills: int
    seconds: float


class Processes:
    """The two processes and the files that they remember by."""

    def __init__(self, folder: Path, line: Line, num_orders: int, seed: int) -> None:
        self.folder, self.line, self.num_orders, self.seed = folder, line, num_orders, seed
        self.robot_journal, self.client_journal = folder / "robot.jsonl", folder / "client.jsonl"
        (folder / "bins.csv").write_text(bins_csv(draw_stock(num_orders, seed)), encoding="utf-8")
        self.robot: asyncio.subprocess.Process | None = None
        self.client: asyncio.subprocess.Process | None = None

    async def start_robot(self) -> None:
        """Start the robot, and wait until it listens."""
        self.robot = await self._start(
            "-m", "wardwise", "wwks2-robot", "--port", "0", "--json", "--packs", "99999",
            "--bins", self.folder / "bins.csv", "--state", self.robot_journal,
            "--speed", SPEED, "--faults", ROBOT_FAULTS, "--seed", self.seed,
        )  # fmt: skip
        assert self.robot.stdout is not None
        told: dict[str, Any] = json.loads(await self.robot.stdout.readline())
        self.line.robot_port = told["port"]

    async def start_client(self, port: int) -> None:
        """Start the client."""
        self.client = await self._start(
            "-m", "robots.client", port, self.client_journal, self.num_orders, self.seed
        )  # fmt: skip

    async def _start(self, *words: object) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, *map(str, words), cwd=HERE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip

    @staticmethod
    async def kill(process: asyncio.subprocess.Process | None) -> None:
        """SIGKILL, unless it has ended."""
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


async def spend(
    folder: Path, num_orders: int, seed: int, kills: tuple[int, int], limit_s: float
) -> Night:
    """Let client and robot work off all orders while robot and client are killed so many times."""
    rng = random.Random(f"kills {seed}")
    due = sorted(
        (rng.uniform(0.02, 0.98) * num_orders, who)
        for who, times in zip(("robot", "client"), kills, strict=True)
        for _ in range(times)
    )
    line = Line(Mischief(), seed)
    processes, begun = Processes(folder, line, num_orders, seed), time.perf_counter()
    try:
        async with asyncio.timeout(limit_s):
            port = await line.start()
            await processes.start_robot()
            await processes.start_client(port)
            for count, who in due:
                await _reach(line, count, processes)
                await processes.kill(getattr(processes, who))
                await (
                    processes.start_robot() if who == "robot" else processes.start_client(port)
                )  # fmt: skip
                print(f"{len(line.ended)} orders, {who} killed", file=sys.stderr)
            assert processes.client is not None
            said, _ = await processes.client.communicate()
    finally:
        for process in (processes.client, processes.robot):
            await processes.kill(process)
        line.close()
    if processes.client.returncode:
        raise SystemExit(f"the client ended with exit code {processes.client.returncode}")
    return Night(
        line=line, told=json.loads(said), robot_kills=kills[0], client_kills=kills[1],
        seconds=time.perf_counter() - begun,
    )  # fmt: skip


async def _reach(line: Line, count: float, processes: Processes) -> None:
    """Wait until so many orders have ended."""
    while len(line.ended) < count:
        await asyncio.sleep(_LOOK_S)
        for process in (processes.client, processes.robot):
            if process is None or process.returncode is not None:
                raise SystemExit("robot or client has ended before its time")
