"""Kinds of attention side by side: loss over the bytes of a cached token, three seeds each."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING

from study.rows import claim, differences, figure

from weightwise.lm import num_stored_parameters
from weightwise.report.latent_figures import variants_figure
from weightwise.train.files import write_text

from .arms import (
    ARMS,
    RATE,
    at_rate,
    bytes_share,
    cache_bytes,
    equal_parameters,
    equal_shape,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from study.rows import Row
    from study.runs import Runs

Losses = dict[str, list[float]]

SHAPE_ARMS = ("MHA", "GQA", "MQA", "CLA", "MLA", "CLLA", "CLLA-quant", "CLLA4")
EQUAL_ARMS = ("MLA", "CLLA")
# Average accuracy on English benchmarks (sheet CLLA, section 4).
PAPER = {"MHA": 56.73, "GQA": 56.83, "MLA": 57.16, "CLLA": 57.97, "CLLA-quant": 57.98}
RATES = (RATE / 2, RATE, 2 * RATE)
MOST_OVER_MLA, MOST_OVER_CLLA = 1.005, 1.003


def losses(runs: Runs, arms: Sequence[str]) -> Losses:
    """Validation losses at equal shape, one a seed."""
    return {arm: runs.losses(equal_shape(arm)) for arm in arms}


def rates(runs: Runs, _figures: Path) -> Iterator[Row]:
    """Whether the learning rate that all arms have is the best for the two ends of the table."""
    for arm in ("MHA", "CLLA"):
        found = dict(zip(RATES, runs.losses(at_rate(arm, rate) for rate in RATES), strict=True))
        best = min(found, key=lambda rate: found[rate])
        name = f"rate_{arm.lower()}"
        yield figure(name, [best], "", detail={"loss": list(found.items()), "used": RATE})


def variants(runs: Runs, figures: Path) -> Iterator[Row]:
    """All arms at equal shape: losses, bytes, and the order that the paper has."""
    loss = losses(runs, SHAPE_ARMS)
    for arm, values in loss.items():
        detail = {"bytes": cache_bytes(ARMS[arm]),
                  "parameters": num_stored_parameters(equal_shape(arm)[0].model)}  # fmt: skip
        yield figure(f"loss_{arm.lower()}", values, "nats", detail=detail)
        yield figure(f"bytes_{arm.lower()}", [bytes_share(ARMS[arm])], "of MHA")
    yield from ordered(loss)
    yield from _ratio("clla_over_mla", loss["CLLA"], loss["MLA"], MOST_OVER_MLA)
    yield from _ratio("quant_over_clla", loss["CLLA-quant"], loss["CLLA"], MOST_OVER_CLLA)
    yield claim(
        "four_minus_two", "two layers a group are better than four",
        "13.95 and 13.60 perplexity (CLA's paper)", differences(loss["CLLA4"], loss["CLLA"]),
        "nats",
    )  # fmt: skip
    shares = {arm: bytes_share(ARMS[arm]) for arm in loss}
    write_text(figures / "clla-variants.svg", variants_figure(loss, shares))


def ordered(loss: Losses) -> Iterator[Row]:
    """The order of the variants in the paper: each no worse than the one before."""
    for words, worse, better in (
        ("grouped queries lose nothing", "MHA", "GQA"),
        ("latents are better than keys and values of all heads", "MHA", "MLA"),
        ("latents that two layers share lose nothing", "MLA", "CLLA"),
        ("they are better than keys and values of all heads", "MHA", "CLLA"),
        ("four bits lose nothing", "CLLA", "CLLA-quant"),
    ):
        yield claim(
            f"{worse.lower()}_minus_{better.lower()}", words,
            f"{PAPER[better]:.2f} and {PAPER[worse]:.2f} % right",
            differences(loss[worse], loss[better]), "nats",
        )  # fmt: skip


def equal(runs: Runs, _figures: Path) -> Iterator[Row]:
    """As many parameters as with MHA: what attention saves goes to the feed-forward layers."""
    mha = losses(runs, ("MHA",))["MHA"]
    loss = {}
    for arm in EQUAL_ARMS:
        recipes = equal_parameters(arm)
        loss[arm] = runs.losses(recipes)
        detail = {"parameters": num_stored_parameters(recipes[0].model),
                  "hidden": recipes[0].model.ffn.hidden}  # fmt: skip
        yield figure(f"equal_loss_{arm.lower()}", loss[arm], "nats", detail=detail)
    yield claim(
        "equal_mla_minus_clla", "latents that two layers share lose nothing, at equal parameters",
        "57.97 and 57.16 % right", differences(loss["MLA"], loss["CLLA"]), "nats",
    )  # fmt: skip
    yield claim(
        "equal_mha_minus_clla",
        "they are better than keys and values of all heads, at equal parameters",
        "57.97 and 56.73 % right", differences(mha, loss["CLLA"]), "nats",
    )  # fmt: skip


def parts(runs: Runs, _figures: Path) -> Iterator[Row]:
    """Up-projections of each layer's own, and a latent of twice the width."""
    loss = losses(runs, ("CLLA", "CLLA-one-up", "CLLA-wide"))
    for arm in ("CLLA-one-up", "CLLA-wide"):
        detail = {"bytes": cache_bytes(ARMS[arm]), "share": bytes_share(ARMS[arm]),
                  "parameters": num_stored_parameters(equal_shape(arm)[0].model)}  # fmt: skip
        yield figure(f"loss_{arm.lower()}", loss[arm], "nats", detail=detail)
    yield claim(
        "one_up_minus_clla", "up-projections of each layer's own make up for sharing",
        "proposed, without figures", differences(loss["CLLA-one-up"], loss["CLLA"]), "nats",
    )  # fmt: skip
    yield claim(
        "clla_minus_wide", "a latent of a third of the width is too narrow",
        "used 4 heads; no sweep", differences(loss["CLLA"], loss["CLLA-wide"]), "nats",
    )  # fmt: skip


def _ratio(name: str, above: Sequence[float], below: Sequence[float], most: float) -> Iterator[Row]:
    """Ratio of mean losses beside the most that it may be."""
    row = figure(name, [mean(above) / mean(below)], "x", goal=("<=", most))
    yield row
