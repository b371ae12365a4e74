"""The study of stored distillation: its recipes, stores, choices, rows and figures."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tinyvit import recipes, studies
from tinyvit.recipes import Scale
from tinyvit.runs import VisionRuns, accuracy, step_losses

from weightwise.distill import SoftLabels, as_tensors
from weightwise.distill.analysis import Saturation
from weightwise.report.vision_figures import accuracy_figure, correlation_figure
from weightwise.train import read_metrics
from weightwise.vision import num_parameters

if TYPE_CHECKING:
    from pathlib import Path

TINY = Scale(
    epochs=2, count=72, valid_count=50, seeds=(1,), shares=(0.0, 0.3), kept=(5, 10, 100)
)  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VisionRuns:
    """An empty folder of runs; one rate and one smoothing are enough to choose from."""
    monkeypatch.setattr("tinyvit.runs.RATES", (recipes.RATE,))
    monkeypatch.setattr("tinyvit.runs.SMOOTHINGS", (recipes.SMOOTHING,))
    return VisionRuns(tmp_path, TINY)


def test_student_has_two_fifths_of_the_weights_of_its_teacher() -> None:
    """558,928 and 216,807, as the module says; all students are one."""
    made = Scale()
    teacher = recipes.teacher(made, 1, 0.0)
    student = recipes.from_labels(made, 1, 0.1, 1e-2, 0.0)
    assert num_parameters(teacher.model.build()) == 558_928
    assert num_parameters(student.model.build()) == 216_807


def test_students_differ_in_their_targets_alone(tmp_path: Path) -> None:
    """Equal steps, images, seed and model; labels of the distilled ones do not count."""
    made = Scale()
    labels = recipes.from_labels(made, 1, 0.0, recipes.RATE, recipes.SMOOTHING)
    for other in (
        recipes.from_store(made, 1, 0.3, tmp_path, 10),
        recipes.from_teacher(made, 1, 0.3, tmp_path),
    ):
        assert replace(other, name=labels.name, targets=labels.targets) == labels
        assert other.targets.hard_share == 0


def test_teacher_and_labels_are_wrong_about_the_same_images() -> None:
    """Both see one share, under one seed; a share of none is no other recipe."""
    teacher = recipes.teacher(Scale(), 2, 0.3)
    alone = recipes.from_labels(Scale(), 2, 0.3, 1e-2, 0.0)
    assert teacher.images == alone.images
    assert (teacher.images.corrupt_share, teacher.images.corrupt_seed) == (0.3, 2)


def test_runs_of_different_settings_have_different_names(tmp_path: Path) -> None:
    """A name stands for one recipe: runs are found by it."""
    made = [recipes.teacher(TINY, seed, share) for seed in (0, 1) for share in (0.0, 0.1)]
    made += [
        recipes.from_labels(TINY, seed, share, rate, smoothing)
        for seed in (0, 1)
        for share in (0.0, 0.1)
        for rate in recipes.RATES
        for smoothing in recipes.SMOOTHINGS
    ]
    made += [
        recipes.from_store(TINY, 1, share, tmp_path / f"{share}-{k}", k)
        for share in (0.0, 0.1)
        for k in (5, 10)
    ]
    made += [recipes.from_teacher(TINY, seed, 0.0, tmp_path) for seed in (1, 2)]
    assert len({recipe.name for recipe in made}) == len(made)


@pytest.mark.slow
def test_student_of_the_store_is_that_of_the_teacher(runs: VisionRuns) -> None:
    """Two steps of 64 images: equal losses with the classes that both keep, others with fewer."""
    rows = list(studies.online(runs, runs.folder))
    assert rows[0]["name"] == "study_stored_minus_online"
    assert rows[0]["value"] <= 1e-4
    stored, fewer = (step_losses(runs.student(1, 0.0, k)) for k in (10, 5))
    assert len(stored) == 2
    assert studies.gap(stored, fewer) > 1e-4


@pytest.mark.slow
def test_stores_go_on_and_are_made_once(runs: VisionRuns) -> None:
    """An epoch that is there is not asked again; that of fewer classes is a part of it."""
    path = runs.store(1, 0.0, 100)
    before = {one: one.stat().st_mtime_ns for one in path.rglob("*.soft")}
    (path / "done").unlink()
    again = VisionRuns(runs.folder, TINY)
    assert again.store(1, 0.0, 100) == path
    assert {one: one.stat().st_mtime_ns for one in path.rglob("*.soft")} == before
    full, part = SoftLabels(path), SoftLabels(again.store(1, 0.0, 5))
    keys = [f"composite-train-0-{number}" for number in range(72)]
    for epoch in (0, 1):
        indices = [as_tensors(one.gather(epoch, keys))[0] for one in (full, part)]
        assert torch.equal(indices[0][:, :5], indices[1])


@pytest.mark.slow
def test_settings_of_labels_are_chosen_on_images_of_their_own(
    runs: VisionRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best of the scores wins, first of the rates, then of the smoothings."""
    scores = {(0.01, 0.1): 50.0, (0.02, 0.1): 60.0, (0.01, 0.3): 90.0, (0.02, 0.3): 65.0}
    monkeypatch.setattr("tinyvit.runs.RATES", (0.01, 0.02))
    monkeypatch.setattr("tinyvit.runs.SMOOTHINGS", (0.1, 0.3))
    monkeypatch.setattr(runs, "_tuned", lambda _, rate, smoothing: scores[rate, smoothing])
    assert runs.chosen(0.3) == (0.02, 0.3)
    tuning = set(runs.tuning().keys)
    assert not tuning & set(runs.test().keys)
    assert all(key.startswith("composite-train-1-") for key in tuning)


@pytest.mark.slow
def test_wrong_labels_are_compared_and_drawn(runs: VisionRuns) -> None:
    """A row for each model and share; goals where labels are wrong; a figure."""
    rows = {row["name"]: row for row in studies.wrong(runs, runs.folder)}
    json.dumps(rows)
    assert len(rows) == 2 * 5
    assert rows["study_wrong_30_distilled_minus_labels"]["goal"] == (">=", 0.0)
    assert rows["study_wrong_0_distilled_minus_labels"]["goal"] is None
    drawing = (runs.folder / "tinyvit-labels.svg").read_text(encoding="utf-8")
    ET.fromstring(drawing)  # noqa: S314, our own drawing
    assert drawing.count("<polyline") == 4
    metrics = read_metrics(runs.labelled(1, 0.3) / "metrics.jsonl")
    assert sum("train_loss" in row for row in metrics) == 2


@pytest.mark.slow
def test_what_was_learned_is_told_and_drawn(runs: VisionRuns) -> None:
    """Rows of resemblance and saturation, and their two figures."""
    names = [row["name"] for row in studies.learned(runs, runs.folder)]
    assert names[2] == "study_resemblance_distilled_minus_labels"
    assert names[-1] == "study_saturation_lead_lost"
    for name in ("classes", "saturation"):
        ET.parse(runs.folder / f"tinyvit-{name}.svg")  # noqa: S314, our own drawing


def test_accuracies_are_compared_seed_by_seed() -> None:
    """Distilled 70 and 80 against 60 and 75: 10 and 5 points; the clean teacher's 90, 90."""
    found = {
        studies.LARGE: {0.0: [95.0, 95.0], 0.3: [85.0, 85.0]},
        studies.TAUGHT: {0.0: [90.0, 90.0], 0.3: [70.0, 80.0]},
        studies.ALONE: {0.0: [88.0, 88.0], 0.3: [60.0, 75.0]},
    }
    chosen = {"rate": 0.02, "smoothing": 0.3}
    rows = {row["name"]: row for row in studies.wrong_rows(found, 0.3, chosen)}
    claimed = rows["study_wrong_30_distilled_minus_labels"]
    assert claimed["detail"]["by_seed"] == [10.0, 5.0]
    assert rows["study_wrong_30_clean_minus_labels"]["detail"]["by_seed"] == [30.0, 15.0]
    columns = rows["study_wrong_30_labels"]["detail"]["columns"]
    # Of 70 and 80: mean 75, deviation sqrt(5^2 + 5^2) = 7.1.
    assert columns["student, distilled"] == "75.0 ± 7.1"
    assert columns["chosen smoothing"] == 0.3


def test_spread_over_classes_begins_at_a_twentieth() -> None:
    """K of 5 and more: means 80.5 and 79, 1.5 apart; deviations sqrt(0.5) and sqrt(2)."""
    row = studies.kept_spread({1: [20.0, 30.0], 5: [80.0, 81.0], 100: [78.0, 80.0]})
    assert row["value"] == pytest.approx(1.5)
    assert row["goal"] == ("<=", pytest.approx((0.5**0.5 + 2**0.5) / 2))
    assert row["detail"]["means"] == {"5": 80.5, "100": 79.0}
    assert studies.kept_spread({5: [80.0], 100: [78.0]})["goal"] == ("<=", 1.0)


def test_lead_without_the_hardest_is_told_in_points() -> None:
    """95 against 80 %, and 99 against 92 % without a tenth: of 15 points 8 are lost."""
    curve = Saturation(
        removed=studies.REMOVED,
        accuracy={
            studies.LARGE: (0.95, 0.97, 0.99, 1.0), studies.ALONE: (0.80, 0.85, 0.92, 0.95)
        },
    )  # fmt: skip
    rows = {row["name"]: row["value"] for row in studies.saturation_rows([curve])}
    assert rows["study_saturation_lead"] == pytest.approx(15)
    assert rows["study_saturation_lead_lost"] == pytest.approx(8)
    twice = studies.mean_curve([curve, replace(curve, accuracy={
        studies.LARGE: (0.85, 0.97, 0.99, 1.0), studies.ALONE: (0.80, 0.85, 0.92, 0.95)
    })])  # fmt: skip
    assert twice.accuracy[studies.LARGE][0] == pytest.approx(0.9)


def test_accuracy_is_the_share_of_first_places() -> None:
    """Two of three rows have their largest logit at the label."""
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]])
    assert accuracy(logits, torch.tensor([0, 1, 1])) == pytest.approx(200 / 3)


def test_accuracies_are_drawn_with_their_range() -> None:
    """A marker at each mean, a bar where seeds differ."""
    drawing = accuracy_figure(
        {"a": {1.0: [50.0, 60.0], 100.0: [70.0]}}, x_label="K", title="T", x_log=True
    )
    root = ET.fromstring(drawing)  # noqa: S314, our own drawing
    bars = [one for one in root.iter() if "tick" in one.get("class", "")]
    assert len(bars) == 1
    assert "a, 1: 55.00 %" in drawing
    assert "a, 100: 70.00 %" in drawing


def test_correlations_of_many_classes_stay_small() -> None:
    """Three matrices in which neighbours always differ: below 100 kB."""
    rng = np.random.default_rng(1)
    matrices = {name: rng.uniform(-1, 1, (100, 100)) for name in ("a", "b", "c")}
    assert len(correlation_figure(matrices).encode()) < 100_000
