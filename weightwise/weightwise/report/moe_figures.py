"""Figures of laws for mixtures of experts: budgets, sizes around the best one, the noise batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from weightwise.report.law_figures import LOSS, WIDTH, padded, sheet
from weightwise.report.svg import (
    NUM_COLOURS,
    Frame,
    labels,
    marker,
    polyline,
    power,
    text,
    x_axis,
    y_axis,
)

if TYPE_CHECKING:
    from weightwise.laws.moe import BudgetFit, Floats
    from weightwise.laws.moe_plan import SizePlan
    from weightwise.optim import NoiseFit
    from weightwise.report.svg import Range

_POINTS = 120


def isoflop_figure(fit: BudgetFit, num_params: Floats, losses: Floats, compute: Floats) -> str:
    """Draw the parabola of each budget with its runs, and the power through the bottoms.

    Parameters
    ----------
    fit
        The fit.
    num_params, losses, compute
        Its runs, shape (R,): N, nats a token and C_min.

    Returns
    -------
    str
        An SVG file.
    """
    top, bottom = _parabolas(fit, num_params, losses, compute), _bottoms(fit)
    height = 430 + 320
    below = f'<g transform="translate(0 430)">{bottom}</g>'
    return sheet(height, f"Loss against size at {len(fit.sizes)} budgets", [top, below])


def _parabolas(fit: BudgetFit, size_R: Floats, loss_R: Floats, compute_R: Floats) -> str:
    frame = Frame(
        width=WIDTH, height=420, x_log=True, left=50, right=104, top=30, bottom=44,
        x_range=_spread(size_R), y_range=padded(float(loss_R.min()), float(loss_R.max())),
    )  # fmt: skip
    parts = [y_axis(frame, LOSS), x_axis(frame, "activated parameters")]
    centres = np.log([valley.compute for valley in fit.sizes])
    budget_R = np.abs(np.log(compute_R)[:, None] - centres).argmin(axis=1)
    curves = []
    for index, valley in enumerate(fit.sizes):
        own = size_R[budget_R == index]
        sizes = np.geomspace(own.min(), own.max(), _POINTS)
        line = list(zip(sizes, valley.least + valley.penalty(sizes), strict=True))
        parts.append(polyline(frame, line, f"thick s{index % NUM_COLOURS}"))
        css = f"named s{index % NUM_COLOURS}"
        curves.append((f"{power(valley.compute)} FLOP", line, css))
    for size, loss, index in zip(size_R, loss_R, budget_R, strict=True):
        hint = f"{power(size)} parameters: {loss:.4f}"
        parts.append(marker(frame.x(size), frame.y(loss), int(index), hint))
    return "".join([*parts, labels(frame, curves)])


def _bottoms(fit: BudgetFit) -> str:
    compute_K = np.array([valley.compute for valley in fit.sizes])
    best_K = np.array([valley.best for valley in fit.sizes])
    edges = _spread(compute_K)
    place_P = np.geomspace(*edges, _POINTS)
    line_P = fit.law.best_size(place_P)
    ends = np.array([fit.size_interval(float(place)) for place in place_P])
    shown = np.concatenate([line_P, best_K, ends[np.isfinite(ends)]])
    frame = Frame(
        width=WIDTH, height=310, x_log=True, y_log=True, left=62, right=104, top=30, bottom=44,
        x_range=edges, y_range=_spread(shown),
    )  # fmt: skip
    parts = []
    if np.isfinite(ends).all():
        corners = [*zip(place_P, ends[:, 0], strict=True)]
        corners += [*zip(place_P[::-1], ends[::-1, 1], strict=True)]
        places = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in corners)
        parts.append(f'<polygon points="{places}" class="band"/>')
    parts += [y_axis(frame, "best size, with 95 % of resampled fits"), x_axis(frame, "FLOP")]
    parts.append(polyline(frame, list(zip(place_P, line_P, strict=True)), "thick s0"))
    for index, valley in enumerate(fit.sizes):
        hint = f"{power(valley.compute)} FLOP: {power(valley.best)} parameters"
        parts.append(marker(frame.x(valley.compute), frame.y(valley.best), index, hint))
    exponent = f"C^{fit.law.size_power:.3f}"
    parts.append(labels(frame, [(exponent, [(place_P[-1], line_P[-1])], "named s0")]))
    return "".join(parts)


def size_figure(plan: SizePlan, tolerance: float) -> str:
    """Draw what other sizes than the best one cost, and those within a tolerance.

    Parameters
    ----------
    plan
        A plan with a valley.
    tolerance
        Penalty in nats a token that is still fine.

    Returns
    -------
    str
        An SVG file.
    """
    assert plan.valley is not None
    low, high = plan.valley.flat_region(tolerance)
    best = plan.num_params
    edges = min(best / 4, low / 1.5), max(best * 4, high * 1.5)
    sizes = np.geomspace(*edges, _POINTS)
    penalty = plan.valley.penalty(sizes)
    frame = Frame(
        width=WIDTH, height=400, x_log=True, left=58, right=30, top=30, bottom=44,
        x_range=edges, y_range=(0.0, 1.08 * float(penalty.max())),
    )  # fmt: skip
    base, left, right = frame.height - frame.bottom, frame.x(low), frame.x(high)
    parts = [
        (
            f'<rect x="{left:.1f}" y="{frame.top}" width="{right - left:.1f}" '
            f'height="{base - frame.top}" class="band"/>'
        ),
        y_axis(frame, "nats a token above the least loss"),
        x_axis(frame, "activated parameters"),
        polyline(frame, list(zip(sizes, penalty, strict=True)), "thick s0"),
        marker(frame.x(best), frame.y(0.0), 1, f"best: {power(best)}", shape=3),
    ]
    for line, words in enumerate((
        f"best: {power(best)} parameters, {power(float(plan.tokens(best)))} tokens",
        f"within {tolerance:g} nats: {power(low)} to {power(high)}",
    )):  # fmt: skip
        css = "label" if line == 0 else ""
        place = frame.top + 16 + 18 * line
        parts.append(text(frame.x(best), place, words, anchor="middle", css=css))
    return sheet(frame.height, f"Loss of other sizes at {power(plan.compute)} FLOP", parts)


def noise_figure(fit: NoiseFit, target: float) -> str:
    """Draw steps against tokens of runs to one loss, with the fitted curve and its limits.

    Parameters
    ----------
    fit
        The line through the runs.
    target
        Their loss, nats a token.

    Returns
    -------
    str
        An SVG file.
    """
    noise = fit.noise_batch
    reach = 4 * max(float(fit.batches.max()), noise), min(float(fit.batches.min()), noise) / 4
    batch_P = np.geomspace(*reach, _POINTS)
    steps_P = fit.least_steps * (1 + noise / batch_P)
    tokens_P = fit.least_tokens * (1 + batch_P / noise)
    token_R = fit.steps * fit.batches
    frame = Frame(
        width=WIDTH, height=420, x_log=True, y_log=True, left=62, right=110, top=30, bottom=44,
        x_range=_spread(np.array([0.9 * fit.least_tokens, *tokens_P, *token_R])),
        y_range=_spread(np.array([0.85 * fit.least_steps, *steps_P, *fit.steps])),
    )  # fmt: skip
    parts = [
        y_axis(frame, f"steps to {target:.4g} nats a token"),
        x_axis(frame, "tokens"),
        _guide(frame, (fit.least_tokens, frame.y_range[0]), (fit.least_tokens, frame.y_range[1])),
        _guide(frame, (frame.x_range[0], fit.least_steps), (frame.x_range[1], fit.least_steps)),
        polyline(frame, list(zip(tokens_P, steps_P, strict=True)), "thick s0"),
    ]
    for batch, steps, tokens in zip(fit.batches, fit.steps, token_R, strict=True):
        hint = f"{batch:g} tokens a step: {steps:.4g} steps"
        parts.append(marker(frame.x(tokens), frame.y(steps), 0, hint))
    x, y = frame.x(2 * fit.least_tokens), frame.y(2 * fit.least_steps)
    parts.append(marker(x, y, 1, f"noise batch: {noise:.4g} tokens", shape=3))
    parts.append(text(x + 10, y - 8, f"noise batch {power(noise)} tokens", css="label"))
    return sheet(frame.height, f"Steps against tokens to a loss of {target:.4g}", parts)


def _guide(frame: Frame, start: tuple[float, float], end: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = start, end
    return (
        f'<line x1="{frame.x(x1):.1f}" x2="{frame.x(x2):.1f}" '
        f'y1="{frame.y(y1):.1f}" y2="{frame.y(y2):.1f}" class="guide"/>'
    )


def _spread(values: Floats) -> Range:
    """Edges a little outside of values above 0, in equal factors."""
    low, high = float(values.min()), float(values.max())
    room = max((high / low) ** 0.05, 1.05)
    return low / room, high * room
