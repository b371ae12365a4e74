"""Every move of the tabu search written down plainly: lists in, lists out.

Tests hold the compiled moves to it; nothing else uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.search.segments import weigh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wardwise.fleet.search.packed import Floats, Ints, Packed

Plan = dict[int, list[int]]
"""Robot to its chain, depots included."""


def tidy(chain: list[int]) -> list[int]:
    """Without trips that have no stops."""
    kept = [0]
    for node in chain[1:]:
        if node or kept[-1]:
            kept.append(node)
    return kept if len(kept) > 1 else [0, 0]


def total(packed: Packed, plan: Plan) -> Floats:
    """Distance, overload, time warp and robots in use."""
    sums = [(*weigh(packed, robot, chain), float(len(chain) > 2)) for robot, chain in plan.items()]
    whole: Floats = np.sum(sums, axis=0)
    return whole


def is_allowed(packed: Packed, plan: Plan) -> bool:
    """No robot makes too many trips."""
    return all(
        chain == [0, 0] or chain.count(0) - 1 <= packed.max_trips[robot]
        for robot, chain in plan.items()
    )


def where(plan: Plan) -> dict[int, tuple[int, int]]:
    """Robot and position of every stop."""
    return {n: (r, k) for r, chain in plan.items() for k, n in enumerate(chain) if n}


def fronts(packed: Packed, plan: Plan) -> list[tuple[int, int]]:
    """Gaps behind depots; of idle robots of a kind only the first."""
    found = []
    for robot, chain in plan.items():
        twin = int(packed.twin[robot])
        if chain == [0, 0] and twin >= 0 and plan[twin] == [0, 0]:
            continue
        found += [(robot, k) for k in range(len(chain) - 1) if chain[k] == 0]
    return found


def pieces(chain: list[int], i: int, *, is_first: bool) -> Iterator[tuple[int, int, list[int]]]:
    """Pieces that begin (end) with position `i` when driven: start, size, nodes as driven."""
    for size in (1, 2, 3):
        for start, is_backward in ((i, not is_first), (i + 1 - size, is_first)):
            nodes = chain[max(start, 0) : start + size]
            if start < 1 or len(nodes) < size or 0 in nodes or (size == 1 and is_backward):
                continue
            yield start, size, nodes[::-1] if is_backward else nodes


def between(
    packed: Packed, plan: Plan, near_before: Ints, near_after: Ints, kind: Ints
) -> Iterator[Plan]:
    """Plans after every move between two chains."""
    place = where(plan)
    for u, (a, i) in place.items():
        behind = [place[v] for v in near_before[u] if v in place]
        ahead = [(b, p - 1) for b, p in (place[v] for v in near_after[u] if v in place)]
        extra = fronts(packed, plan)
        for side, gaps in enumerate((behind + extra, ahead)):
            for c, (b, p) in enumerate(gaps):
                if b == a:
                    continue
                one, two = plan[a], plan[b]
                for start, size, nodes in pieces(one, i, is_first=side == 0):
                    if side == 0 and c >= len(behind) and size > 1:
                        continue
                    rest = tidy(one[:start] + one[start + size :])
                    if rest == [0, 0] and two == [0, 0] and kind[a] == kind[b]:
                        continue
                    yield plan | {a: rest, b: two[: p + 1] + nodes + two[p + 1 :]}
                other = p + 1 - side
                if two[other] and (side == 1 or c < len(behind)):
                    yield plan | {
                        a: [*one[:i], two[other], *one[i + 1 :]],
                        b: [*two[:other], one[i], *two[other + 1 :]],
                    }
                if side == 0 and kind[a] == kind[b] and (i, p) != (1, 0):
                    yield plan | {
                        a: tidy(one[:i] + two[p + 1 :]),
                        b: tidy(two[: p + 1] + one[i:]),
                    }


def within(chain: list[int]) -> Iterator[list[int]]:
    """Chains after every move within one."""
    for i in range(1, len(chain) - 1):
        if chain[i] == 0:
            yield chain[:i] + chain[i + 1 :]
            continue
        if chain[i + 1]:
            yield [*chain[: i + 1], 0, *chain[i + 1 :]]
        for size in (1, 2, 3):
            nodes = chain[i : i + size]
            if 0 in nodes or len(nodes) < size or (chain[i - 1] == 0 == chain[i + size]):
                break
            rest = chain[:i] + chain[i + size :]
            for p in range(len(rest) - 1):
                if p != i - 1:
                    yield rest[: p + 1] + nodes + rest[p + 1 :]
                    yield rest[: p + 1] + nodes[::-1] + rest[p + 1 :]
        end = i + 1
        while chain[end]:
            yield chain[:i] + chain[i : end + 1][::-1] + chain[end + 1 :]
            end += 1
