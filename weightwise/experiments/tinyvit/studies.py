"""Online and stored teachers, wrong labels, kept classes, and what was learned."""

from __future__ import annotations

from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from study.rows import claim, differences, figure

from weightwise.distill.analysis import (
    Saturation,
    class_correlation,
    hardness,
    resemblance,
    saturation_curve,
)
from weightwise.report.vision_figures import (
    accuracy_figure,
    correlation_figure,
    saturation_figure,
)
from weightwise.train.files import write_text

from .recipes import CLASSES, TOP_K, from_teacher
from .runs import labels_of, logits_of, step_losses, top1

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from study.rows import Row
    from torch import Tensor

    from .runs import VisionRuns

    BySeed = dict[float, list[float]]

ENOUGH = 0.05  # share of the classes from which on more of them change nothing
REMOVED = (0.0, 0.05, 0.1, 0.2)
TAUGHT, ALONE, LARGE = "student, distilled", "student, from labels", "teacher"


def online(runs: VisionRuns, _figures: Path) -> Iterator[Row]:
    """The student of a store beside the student of the same teacher in memory."""
    largest, accuracies = [], []
    for seed in runs.scale.seeds:
        beside = runs.made(from_teacher(runs.scale, seed, 0.0, runs.teacher(seed, 0.0)))
        largest.append(gap(step_losses(runs.student(seed, 0.0)), step_losses(beside)))
        accuracies.append(top1(beside))
    yield claim(
        "stored_minus_online",
        "a student of a store has the losses of one beside the teacher, step by step",
        "meant by construction", [max(largest)], "nats, largest", goal=("<=", 1e-4),
        detail={"by_seed": largest},
    )  # fmt: skip
    yield figure("top1_online", accuracies, "%")


def gap(one: Sequence[float], other: Sequence[float]) -> float:
    """Largest difference of two runs' losses over all steps."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def wrong(runs: VisionRuns, figures: Path) -> Iterator[Row]:
    """Students of teachers and of labels where a share of all labels is wrong."""
    found: dict[str, BySeed] = {LARGE: {}, TAUGHT: {}, ALONE: {}}
    for share in runs.scale.shares:
        seeds = runs.scale.seeds
        found[LARGE][share] = [top1(runs.teacher(seed, share)) for seed in seeds]
        found[TAUGHT][share] = [top1(runs.student(seed, share)) for seed in seeds]
        found[ALONE][share] = [top1(runs.labelled(seed, share)) for seed in seeds]
        rate, smoothing = runs.chosen(share)
        yield from wrong_rows(found, share, {"rate": rate, "smoothing": smoothing})
    lines = {
        name: {100 * share: values for share, values in of_share.items()}
        for name, of_share in found.items()
    }
    lines["of a teacher of right labels"] = dict.fromkeys(lines[TAUGHT], lines[TAUGHT][0.0])
    drawing = accuracy_figure(
        lines, x_label="wrong labels, percent", title="Accuracy with wrong labels"
    )
    write_text(figures / "tinyvit-labels.svg", drawing)


def wrong_rows(
    found: Mapping[str, Mapping[float, Sequence[float]]], share: float, chosen: Mapping[str, float]
) -> Iterator[Row]:
    """Accuracies with a share of wrong labels, and whether distillation is better."""
    taught, alone = found[TAUGHT][share], found[ALONE][share]
    percent, clean = f"{100 * share:g}", found[TAUGHT][0.0]
    values = {LARGE: found[LARGE][share], ALONE: alone, TAUGHT: taught}
    columns: dict[str, Any] = {"wrong labels": f"{percent} %"}
    columns |= {name: plus_minus(one) for name, one in values.items()}
    columns["student of a teacher of right labels"] = plus_minus(clean)
    columns |= {"chosen rate": chosen["rate"], "chosen smoothing": chosen["smoothing"]}
    detail = {"columns": columns}
    yield figure(f"wrong_{percent}_labels", alone, "%", detail=detail)
    yield figure(f"wrong_{percent}_teacher", found[LARGE][share], "%")
    yield figure(f"wrong_{percent}_distilled", taught, "%")
    yield figure(f"wrong_{percent}_clean_minus_labels", differences(clean, alone), "points")
    better = differences(taught, alone)
    name = f"wrong_{percent}_distilled_minus_labels"
    if share == 0:
        yield figure(name, better, "points")
    else:
        yield claim(
            name, f"distilled is better than labels alone with {percent} % wrong labels",
            "83.8 and 84.8 % after ImageNet-21k without and with", better, "points",
        )  # fmt: skip


def plus_minus(values: Sequence[float]) -> str:
    """Mean, and where there are several the standard deviation."""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def kept(runs: VisionRuns, figures: Path) -> Iterator[Row]:
    """How accuracy depends on the number of classes in the store."""
    seeds = runs.scale.seeds
    found = {k: [top1(runs.student(seed, 0.0, k)) for seed in seeds] for k in runs.scale.kept}
    for k, values in found.items():
        yield figure(f"kept_{k}", values, "%")
    yield kept_spread(found)
    teachers = [top1(runs.teacher(seed, 0.0)) for seed in seeds]
    drawing = accuracy_figure(
        {LARGE: dict.fromkeys(found, teachers), TAUGHT: found}, x_log=True,
        x_label="classes kept of an image", title="Accuracy by the number of kept classes",
    )  # fmt: skip
    write_text(figures / "tinyvit-kept.svg", drawing)


def kept_spread(found: Mapping[int, Sequence[float]]) -> Row:
    """How far means over seeds lie apart once enough classes are kept."""
    enough = {k: values for k, values in found.items() if k >= ENOUGH * CLASSES}
    means = {str(k): mean(values) for k, values in enough.items()}
    # Seeds alone move a mean by their deviation: less than that is no difference.
    seeds = mean(stdev(values) if len(values) > 1 else 0.0 for values in enough.values())
    return claim(
        "kept_spread", f"from {100 * ENOUGH:g} % of the classes on, accuracy does not depend on K",
        "83.7 to 83.9 for K of 5 to 1000", [max(means.values()) - min(means.values())], "points",
        goal=("<=", max(1.0, seeds)), detail={"means": means, "deviation of seeds": seeds},
    )  # fmt: skip


def learned(runs: VisionRuns, figures: Path) -> Iterator[Row]:
    """Which classes go together, and on which images small models fail."""
    label_N = labels_of(runs.test())
    by_seed = [_of_seed(runs, seed) for seed in runs.scale.seeds]
    matrices = [{k: class_correlation([x]) for k, x in logits.items()} for logits in by_seed]
    alike = {
        name: [resemblance(one[name], one[LARGE]) for one in matrices] for name in (TAUGHT, ALONE)
    }
    yield figure("resemblance_distilled", alike[TAUGHT], "")
    yield figure("resemblance_labels", alike[ALONE], "")
    yield claim(
        "resemblance_distilled_minus_labels",
        "a distilled student relates classes more as its teacher does",
        "shown as pictures", differences(alike[TAUGHT], alike[ALONE]), "",
    )  # fmt: skip
    first = {name: matrices[0][name].numpy() for name in (LARGE, TAUGHT, ALONE)}
    write_text(figures / "tinyvit-classes.svg", correlation_figure(first))
    curves = []
    for place, logits in enumerate(by_seed):
        # A teacher of another seed judges: none decides itself what is left out of its curve.
        judge = by_seed[(place + 1) % len(by_seed)][LARGE]
        curves.append(saturation_curve(logits, label_N, hardness(judge, label_N), REMOVED))
    yield from saturation_rows(curves)
    write_text(figures / "tinyvit-saturation.svg", saturation_figure(mean_curve(curves)))


def _of_seed(runs: VisionRuns, seed: int) -> dict[str, Tensor]:
    """Logits of the three models on the test split."""
    folders = {
        LARGE: runs.teacher(seed, 0.0),
        TAUGHT: runs.student(seed, 0.0, TOP_K),
        ALONE: runs.labelled(seed, 0.0),
    }
    return {name: logits_of(folder, runs.test()) for name, folder in folders.items()}


def saturation_rows(curves: Sequence[Saturation]) -> Iterator[Row]:
    """How much of the large model's lead is left without the hardest tenth."""
    place = REMOVED.index(0.1)
    leads = [
        [100 * (one.accuracy[LARGE][at] - one.accuracy[ALONE][at]) for one in curves]
        for at in (0, place)
    ]
    yield figure("saturation_lead", leads[0], "points")
    yield figure("saturation_lead_without_10", leads[1], "points")
    yield claim(
        "saturation_lead_lost", "small models fail on hard images: without a tenth they draw near",
        "said of about 10 % of ImageNet-21k", differences(leads[0], leads[1]), "points",
    )  # fmt: skip


def mean_curve(curves: Sequence[Saturation]) -> Saturation:
    """Mean over seeds."""
    accuracy = {
        name: tuple(
            mean(of_share) for of_share in zip(*(one.accuracy[name] for one in curves), strict=True)
        )
        for name in curves[0].accuracy
    }
    return Saturation(removed=curves[0].removed, accuracy=accuracy)
