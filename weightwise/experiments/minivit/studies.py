"""What sharing, transforms and distillation do; shrinking; stability; one set of weights."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean, mean, stdev
from typing import TYPE_CHECKING, Any

import torch
from study.rows import claim, differences, figure

from weightwise.multiplex import block_similarity, num_unique_parameters
from weightwise.report.multiplex_figures import stability_figure
from weightwise.report.vision_figures import accuracy_figure
from weightwise.train.files import write_text
from weightwise.vision.deit import DeiT
from weightwise.vision.deit_config import DEIT_VARIANTS, mini_deit

from .shrunk import HALF, MULTIPLEXED, PLAIN, SHARE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from study.rows import Row

    from .runs import MiniRuns

WORDS = {
    "teacher": "teacher, twice as wide",
    "unshared": "six sets of weights",
    "plain": "one set for all, normalizations too",
    "norms": "with own normalizations",
    "mixes": "and maps over heads",
    "multiplexed": "and a 3 x 3 convolution before the MLP",
    "distilled": "and the teacher's predictions",
    "relations": "and relations of its tokens",
    "plain-distilled": "one set, normalizations too, the teacher's predictions",
}
COMPARED = ("unshared", "plain", "multiplexed")
TWELVE = 12  # executions


def ablation(runs: MiniRuns, _figures: Path) -> Iterator[Row]:
    """Accuracy with one part more at a time, all at one rate (abstract and section 3)."""
    found = {arm: runs.accuracies(arm) for arm in WORDS}
    for arm, values in found.items():
        columns = {
            "model": WORDS[arm], "weights": f"{runs.num_parameters(arm):,}",
            "accuracy": plus_minus(values), "seeds": each(values),
        }  # fmt: skip
        detail = {"columns": columns, "rate": runs.common_rate}
        yield figure(f"ablation_{arm}", values, "%", detail=detail)
    yield claim(
        "ablation_multiplexed_loss", "all transforms together win back what sharing costs",
        "meant by the method", differences(found["unshared"], found["multiplexed"]), "points",
        goal=("<=", 5.0),
    )  # fmt: skip
    yield claim(
        "ablation_plain_loss", "plain sharing costs accuracy",
        "does not train stably", differences(found["unshared"], found["plain"]), "points",
        goal=(">=", 5.0),
    )  # fmt: skip
    yield claim(
        "ablation_distilled_gain", "predictions of a teacher help a multiplexed model",
        "meant by the method", differences(found["distilled"], found["multiplexed"]), "points",
    )  # fmt: skip
    gains = differences(found["relations"], found["distilled"])
    yield figure("ablation_relations_gain", gains, "points")
    gains = differences(found["plain-distilled"], found["plain"])
    yield figure("ablation_plain_distilled_gain", gains, "points")


def rates(runs: MiniRuns, figures: Path) -> Iterator[Row]:
    """The three kinds at all rates: how much of the loss by sharing is slow learning."""
    found = {
        arm: {rate: runs.accuracies(arm, rate) for rate in runs.scale.rates} for arm in COMPARED
    }
    for arm, of_rate in found.items():
        for rate, values in of_rate.items():
            yield figure(f"rates_{arm}_{rate:g}", values, "%")
    best = {arm: max(of_rate.values(), key=mean) for arm, of_rate in found.items()}
    for arm in COMPARED[1:]:
        lost = differences(best["unshared"], best[arm])
        yield figure(f"rates_{arm}_loss_at_best", lost, "points")
    drawing = accuracy_figure(
        found, x_label="learning rate", x_log=True, title="Accuracy by the learning rate"
    )
    write_text(figures / "minivit-rates.svg", drawing)


def stability(runs: MiniRuns, figures: Path) -> Iterator[Row]:
    """Gradients of executions in training, and features after it (figures of section 3)."""
    norms = {arm: norms_of(runs, arm) for arm in COMPARED}
    alike = {arm: likeness(runs, arm) for arm in COMPARED}
    sizes, spreads, last = {}, {}, {}
    for arm in COMPARED:
        sizes[arm] = [fmean(map(fmean, of_step.values())) for of_step in norms[arm]]
        spreads[arm] = [fmean(map(variation, of_step.values())) for of_step in norms[arm]]
        last[arm] = [of_block[-1] for of_block in alike[arm]]
        yield figure(f"stability_norm_{arm}", sizes[arm], "")
        yield figure(f"stability_variation_{arm}", spreads[arm], "")
        yield figure(f"stability_last_{arm}", last[arm], "")
    yield claim(
        "stability_norm_plain_over_unshared", "plain sharing makes gradients larger",
        "larger", [a / b for a, b in zip(sizes["plain"], sizes["unshared"], strict=True)], "x",
        goal=(">=", 1.0),
    )  # fmt: skip
    yield claim(
        "stability_variation_plain_below_unshared", "and those of all executions alike",
        "alike", differences(spreads["unshared"], spreads["plain"]), "",
    )  # fmt: skip
    yield claim(
        "stability_last_multiplexed_minus_plain",
        "transforms keep the last features nearer to the original's",
        "higher similarity in the last layers", differences(last["multiplexed"], last["plain"]), "",
    )  # fmt: skip
    drawing = stability_figure(
        {arm: mean_of(found) for arm, found in norms.items()},
        {arm: columns_mean(found) for arm, found in alike.items()},
    )
    write_text(figures / "minivit-stability.svg", drawing)


def norms_of(runs: MiniRuns, arm: str) -> list[dict[int, list[float]]]:
    """Of each seed, by step, the gradient norm of each execution."""
    return [runs.course(arm, seed).norms for seed in runs.scale.seeds]


def likeness(runs: MiniRuns, arm: str) -> list[list[float]]:
    """Of each seed, how much alike blocks are to the unshared model's.

    The unshared model is compared with that of the next seed, which is what new weights alone do.
    """
    seeds, batches = runs.scale.seeds, [runs.test.x]
    found = []
    for place, seed in enumerate(seeds):
        other = seeds[(place + 1) % len(seeds)] if arm == "unshared" else seed
        reference = runs.model("unshared", other)
        alike = block_similarity(runs.model(arm, seed), reference, batches)
        found.append(list(alike.values()))
    return found


def variation(values: Sequence[float]) -> float:
    """Standard deviation over the mean."""
    return stdev(values) / fmean(values)


def mean_of(found: Sequence[Mapping[int, Sequence[float]]]) -> dict[int, list[float]]:
    """Mean over seeds, step by step and execution by execution."""
    return {step: columns_mean([of_seed[step] for of_seed in found]) for step in found[0]}


def columns_mean(rows: Sequence[Sequence[float]]) -> list[float]:
    """Mean of each column."""
    return [fmean(column) for column in zip(*rows, strict=True)]


def one(runs: MiniRuns, _figures: Path) -> Iterator[Row]:
    """Twelve executions of one block (abstract)."""
    for arm in ("twelve-unshared", "twelve-one"):
        yield figure(f"one_{arm}", runs.accuracies(arm), "%")
    sizes = [runs.num_parameters(arm) for arm in ("twelve-unshared", "twelve-one")]
    yield figure("one_ratio", [sizes[0] / sizes[1]], "x", detail={"weights": sizes})
    lost = differences(runs.accuracies("twelve-unshared"), runs.accuracies("twelve-one"))
    yield claim(
        "one_loss", "one set of weights serves twelve blocks, with a teacher",
        "not seriously worse", lost, "points", goal=("<=", 5.0),
    )  # fmt: skip
    whole, released, described = deit_b_sizes()
    detail: dict[str, Any] = {"weights": [whole, released]}
    yield figure("one_deit_b_ratio", [whole / released], "x", detail=detail)
    yield claim(
        "one_deit_b_local_ratio", "DeiT-B gets 9.7 times smaller, with 5 x 5 convolutions",
        "86 to 9 million, 9.7 times", [whole / described], "x", goal=(">=", 9.7),
        detail={"weights": [whole, described]},
    )  # fmt: skip


def deit_b_sizes() -> tuple[int, int, int]:
    """Weights of DeiT-B, of one block executed twelve times as released, and with convolutions."""
    whole = DEIT_VARIANTS["b"]
    released = mini_deit(whole, TWELVE)
    described = replace(released, local="stream", local_kernel=5)
    with torch.device("meta"):  # only counted
        models = [DeiT(config) for config in (whole, released, described)]
    first, second, third = (num_unique_parameters(model) for model in models)
    return first, second, third


def plus_minus(values: Sequence[float]) -> str:
    """Mean, and where there are several the standard deviation."""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def each(values: Sequence[float], digits: int = 1) -> str:
    """Values with so many digits."""
    return ", ".join(f"{value:.{digits}f}" for value in values)


def vision(runs: MiniRuns, _figures: Path) -> Iterator[Row]:
    """A trained vision transformer at half its weights."""
    found = {way: runs.vision(way) for way in (None, MULTIPLEXED, PLAIN, HALF)}
    yield from shrunk_rows(runs, "vision", found, "%")
    kept = [100 * a / b for a, b in zip(found[MULTIPLEXED], found[None], strict=True)]
    yield figure("vision_kept", kept, "% of the accuracy", goal=(">=", 98.0))
    for way in (PLAIN, HALF):
        gains = differences(found[MULTIPLEXED], found[way])
        yield figure(f"vision_over_{way}", gains, "points", goal=(">=", 0.0))


def language(runs: MiniRuns, _figures: Path) -> Iterator[Row]:
    """A trained language model at half its weights."""
    found = {way: runs.language(way) for way in (None, MULTIPLEXED, PLAIN, HALF)}
    yield from shrunk_rows(runs, "language", found, "nats")
    more = [100 * (a / b - 1) for a, b in zip(found[MULTIPLEXED], found[None], strict=True)]
    yield figure("language_more_loss", more, "%", goal=("<=", 3.0))
    for way in (PLAIN, HALF):
        gains = differences(found[way], found[MULTIPLEXED])
        yield figure(f"language_below_{way}", gains, "nats", goal=(">=", 0.0))


def shrunk_rows(
    runs: MiniRuns, kind: str, found: Mapping[str | None, Sequence[float]], unit: str
) -> Iterator[Row]:
    """What the original and all ways of shrinking it reach, and their sizes."""
    original, digits = runs.size(kind), 1 if kind == "vision" else 3
    for way, values in found.items():
        size, name = runs.size(kind, way), way or "original"
        columns = {
            "model": name, "weights": f"{size:,}", "share": f"{size / original:.1%}",
            "mean": f"{mean(values):.{digits}f}", "seeds": each(values, digits),
        }  # fmt: skip
        yield figure(f"{kind}_{name}", values, unit, detail={"columns": columns})
    share = runs.size(kind, MULTIPLEXED) / original
    yield figure(f"{kind}_share", [share], "of the weights", goal=("<=", SHARE))
