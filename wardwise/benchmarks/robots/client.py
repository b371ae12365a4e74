"""A pharmacy's side in a process of its own: asks for all orders, ends when all have ended.

    python -m robots.client PORT JOURNAL NUM_ORDERS SEED

Killed and started again with the same journal, it asks for the same orders again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys

from wardwise.dispenser import RobotClient, Timing
from wardwise.io.wwks2.parts import Criteria, OutputPriority

from .orders import draw_orders

HURRY = Timing(
    hello_s=2.0, answer_s=0.4, keep_alive_s=0.4, recheck_s=2.0, poll_s=0.05, backoff_s=0.01,
    most_backoff_s=0.2,
)  # fmt: skip


async def work(port: int, journal: str, count: int, seed: int) -> dict[str, int]:
    """Ask, wait, and tell what the robot has left."""
    async with RobotClient("127.0.0.1", port, timing=HURRY, journal=journal, seed=seed) as client:
        waiting = [
            client.output(
                wish.id,
                [Criteria(article_id=drug, quantity=number) for drug, number in wish.packs],
                destination=wish.place, priority=OutputPriority(wish.priority),
            )
            for wish in draw_orders(count, seed)
        ]  # fmt: skip
        await asyncio.gather(*waiting)
        stock = await client.stock(with_packs=False)
        return {
            "left": sum(article.quantity or 0 for article in stock),
            "connections": client.num_connections,
            "refused": client.num_refused,
            "repeats": client.num_repeats,
        }


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    port, journal, count, seed = sys.argv[1:]
    print(json.dumps(asyncio.run(work(int(port), journal, int(count), int(seed)))))
