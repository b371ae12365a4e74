"""What `wardwise plan` is asked to keep, beside what FILE says: recharging and promises."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from wardwise.fleet.chance.certify import CONFIDENCE, least_scenarios
from wardwise.fleet.randomness import MOST_SHARE, Promise, Scope
from wardwise.fleet.sizing.result import CLASSES

if TYPE_CHECKING:
    from wardwise.fleet.energy import Recharge
    from wardwise.fleet.problem import Instance


# Shares are given in percent, with more digits than anybody promises.
DIGITS = 12


def with_terms(
    instance: Instance, *, recharge: Recharge | None, promise: str | None, scope: Scope | None
) -> Instance:
    """Set options on an instance; what is not given stays as it is.

    Raises
    ------
    ValueError
        Naming the option, when it is out of range, or says how to charge robots without
        batteries, or for what a promise holds that nobody gives; or when a promise is too
        strict to be certified.
    """
    if recharge is not None:
        if not instance.batteries:
            raise ValueError("--recharge: expected robots with batteries, got none")
        instance = replace(instance, recharge=recharge)
    given = instance.promise
    if promise is not None:
        given = given or Promise()
        given = replace(given, late_share=_late_shares(promise, given.late_share))
    if scope is not None:
        if given is None:
            raise ValueError("--scope: expected a promise, by --promise or in FILE, got none")
        given = replace(given, scope=scope)
    if given is not None:
        least_scenarios(given, CONFIDENCE)
    return replace(instance, promise=given)


def _late_shares(text: str, before: tuple[float, float, float]) -> tuple[float, float, float]:
    """Shares of late requests from percent on time: one for all, or some by name."""
    if "=" not in text:
        share = late_share("--promise", text)
        return share, share, share
    shares = dict(zip(CLASSES, before, strict=True))
    seen: set[str] = set()
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in shares or name in seen:
            raise ValueError(
                f"--promise: expected each of {', '.join(CLASSES)} at most once, as in "
                f"stat=99,routine=90, got {text!r}"
            )
        seen.add(name)
        shares[name] = late_share("--promise", value)
    return shares["stat"], shares["urgent"], shares["routine"]


def late_share(option: str, text: str) -> float:
    """Share of late requests from percent on time.

    Raises
    ------
    ValueError
        Naming the option, if it is out of range.
    """
    least_pct = 100 * (1 - MOST_SHARE)
    try:
        on_time_pct = float(text)
    except ValueError:
        on_time_pct = math.nan
    share = round((100 - on_time_pct) / 100, DIGITS)
    if not 0 < share <= MOST_SHARE:
        raise ValueError(
            f"{option}: expected {least_pct:g} to below 100 percent on time, got {text!r}"
        )
    return share
