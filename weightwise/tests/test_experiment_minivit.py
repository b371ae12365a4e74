"""The study of shared weights: its models, lessons, runs, ways to shrink, rows and figures."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from minivit import studies
from minivit.digits import (
    ARMS,
    Arm,
    Images,
    Lesson,
    Training,
    accuracy,
    label_norms,
    load_parts,
    make,
    train,
)
from minivit.runs import MiniRuns, Scale
from minivit.shrunk import (
    HALF,
    MULTIPLEXED,
    PLAIN,
    WAYS,
    every_second,
    language_original,
    language_shrunk,
    vision_original,
    vision_shrunk,
)
from rich.console import Console
from safetensors.torch import load_file
from study.runs import Runs
from torch.nn import functional as F

from weightwise.multiplex import num_unique_parameters
from weightwise.report.multiplex_figures import stability_figure
from weightwise.train import load_model
from weightwise.train import train as train_language
from weightwise.train.checkpoint import find_checkpoint
from weightwise.train.vision import train_vision
from weightwise.train.vision_start import load_vision_model

if TYPE_CHECKING:
    from pathlib import Path

TINY = Scale(
    seeds=(1,), rates=(2e-3,), training=Training(steps=4, batch_size=4, norms_every=2),
    epochs=1, steps=2,
)  # fmt: skip
QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny matrices gain nothing from a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def runs(tmp_path: Path) -> MiniRuns:
    """An empty folder of short runs."""
    return MiniRuns(Runs(tmp_path, 1, "minivit"), TINY)


@pytest.fixture
def images() -> Images:
    """Eight images of noise."""
    generator = torch.Generator().manual_seed(5)
    return Images(x=torch.randn(8, 3, 8, 8, generator=generator), label=torch.arange(8))


def test_arms_have_the_sizes_of_their_parts() -> None:
    """Counted by hand: width 32, patches of 2 x 2 x 3, 16 places, 10 classes, 6 executions."""
    block = 32 * 96 + 96 + 32 * 32 + 32 + 32 * 128 + 128 + 128 * 32 + 32  # 12,576
    norms, rest = 4 * 32, 12 * 32 + 32 + 16 * 32 + 2 * 32 + 32 * 10 + 10
    mixes, local = 2 * 4 * 4, 2 * 32 + 9 * 32 + 32
    expected = {
        "unshared": 6 * (block + norms),
        "plain": block + norms,
        "norms": block + 6 * norms,
        "mixes": block + 6 * (norms + mixes),
        "multiplexed": block + 6 * (norms + mixes + local),
        "twelve-one": block + 12 * (norms + mixes + local),
    }
    found = {arm: num_unique_parameters(make(ARMS[arm], 1)) for arm in expected}
    assert found == {arm: size + rest for arm, size in expected.items()}


def test_parts_of_the_digits_have_no_image_in_common() -> None:
    """500 to train, 297 to choose with, 1000 to judge on, of all 1797; values from -1 to 1."""
    parts = load_parts()
    assert [len(part.label) for part in parts] == [500, 297, 1000]
    assert parts[0].x.shape == (500, 3, 8, 8)
    assert (parts[0].x.min(), parts[0].x.max()) == (-1, 1)


def test_models_of_one_seed_begin_with_one_block_where_they_share() -> None:
    """The shared block of all kinds is the first one drawn, and transforms change nothing yet."""
    one, other = (make(ARMS[arm], 3).eval() for arm in ("norms", "multiplexed"))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    weights = [model.blocks[0].attn.qkv.weight for model in (one, other)]
    assert torch.equal(*weights)
    assert one.blocks[5].attn.qkv.weight is one.blocks[0].attn.qkv.weight
    plain = make(ARMS["plain"], 3)
    assert plain.blocks[5].norm2 is plain.blocks[0].norm2
    torch.testing.assert_close(one(x), plain.eval()(x))


def test_lessons_are_the_sum_of_their_parts(images: Images) -> None:
    """Cross-entropy with labels; with the teacher's probabilities; relations come on top."""
    model, teacher = make(ARMS["multiplexed"], 1), make(ARMS["teacher"], 2).eval()
    found = {
        taught: Lesson(taught, model, teacher).loss(images.x, images.label)
        for taught in ("labels", "prediction", "relations")
    }
    with torch.no_grad():
        logits, said = model(images.x), teacher(images.x)
    assert found["labels"].item() == pytest.approx(
        -logits.log_softmax(1)[range(8), images.label].mean().item(), rel=1e-5
    )
    expected = -(said.softmax(1) * logits.log_softmax(1)).sum(1).mean().item()
    assert found["prediction"].item() == pytest.approx(expected, rel=1e-5)
    # An attention relation of 16 tokens that is nearly even has an entropy near log 16 = 2.77.
    more = (found["relations"] - found["prediction"]).item()
    assert 2.0 < more < 4.0
    found["relations"].backward()
    assert all(one.grad is None for one in teacher.parameters())


def test_training_is_repeatable_and_lowers_the_loss(images: Images) -> None:
    """Equal seeds give equal losses; eight images are learned by heart."""
    config = Training(lr=4e-3, steps=40, batch_size=8, norms_every=20)
    courses = []
    for _ in range(2):
        model = make(replace(ARMS["norms"], groups=(2,)), 1)
        courses.append(train(model, Lesson("labels", model, model), images, 1, config))
    assert courses[0] == courses[1]
    assert courses[0].losses[-1] < 0.5 * courses[0].losses[0]
    assert [len(row) for row in courses[0].norms.values()] == [2, 2]
    assert not model.training
    assert accuracy(model, images) > 50


def test_gradients_of_executions_sum_to_that_of_the_shared_weight(images: Images) -> None:
    """By the triangle inequality no larger than the sum of their norms, which training records."""
    model = make(ARMS["norms"], 1)
    norms = label_norms(model, images)
    F.cross_entropy(model(images.x), images.label).backward()
    shared = [one.grad for name, one in model.blocks[0].named_parameters() if "norm" not in name]
    total = sum(float(one.square().sum()) for one in shared) ** 0.5
    assert len(norms) == 6
    assert max(norms) < total * 6
    assert total <= sum(norms)


@pytest.mark.slow
def test_runs_are_made_once_and_read_back(runs: MiniRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second look trains nothing; the saved model says the same; its teacher is made with it."""
    first = runs.model("distilled", 1)
    course = runs.course("distilled", 1)
    names = {path.name for path in (runs._folder / "digits").iterdir()}
    # The common rate is chosen with a run of seed 0.
    assert names == {"distilled-lr0.002-s1", "teacher-lr0.002-s1", "unshared-lr0.002-s0"}
    monkeypatch.setattr("minivit.runs.train", lambda *_: pytest.fail("trained again"))
    again = MiniRuns(Runs(runs._folder, 1, "minivit"), TINY)
    second = again.model("distilled", 1)
    assert torch.equal(first(runs.test.x[:9]), second(runs.test.x[:9]))
    assert again.course("distilled", 1) == course
    assert list(course.norms) == [2, 4]


def test_common_rate_is_that_of_the_unshared_model(
    runs: MiniRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On images for tuning, with a seed that no comparison has."""
    asked = []
    runs.scale = replace(TINY, rates=(1e-3, 2e-3, 4e-3))
    monkeypatch.setattr(runs, "model", lambda *key: asked.append(key) or key[2])
    monkeypatch.setattr(
        "minivit.runs.accuracy",
        lambda rate, part: {1e-3: 50.0, 2e-3: 70.0, 4e-3: 60.0}[rate] + 0 * len(part.label),
    )
    assert runs.common_rate == 2e-3
    assert {key[:2] for key in asked} == {("unshared", 0)}


def test_every_second_block_stays() -> None:
    """Of blocks 0 to 3 those with numbers 1 and 3, as 0 and 1; the rest is as it was."""
    names = ["embed", "blocks.0.a.w", "blocks.1.a.w", "blocks.2.a.w", "blocks.3.a.w", "head"]
    kept = every_second({name: torch.tensor(place) for place, name in enumerate(names)})
    assert {name: int(one) for name, one in kept.items()} == {
        "embed": 0, "blocks.0.a.w": 2, "blocks.1.a.w": 4, "head": 5,
    }  # fmt: skip


@pytest.mark.slow
def test_vision_models_shrink_in_three_ways(tmp_path: Path) -> None:
    """To half the weights or nearly; recipes differ in what they begin with and in sharing."""
    recipe = vision_original(1)
    recipe = replace(
        recipe,
        train=replace(recipe.train, epochs=1, batch_size=256),
        schedule=replace(recipe.schedule, warmup_epochs=0),
    )
    train_vision(recipe, tmp_path / "whole", console=QUIET)
    whole = load_file(find_checkpoint(tmp_path / "whole") / "model.safetensors")
    made = {}
    for way in WAYS:
        made[way] = vision_shrunk(tmp_path / "whole", way, tmp_path / way, epochs=1)
        size = sum(one.numel() for one in load_file(tmp_path / way / "model.safetensors").values())
        assert 0.3 < size / sum(one.numel() for one in whole.values()) < 0.52
        load_vision_model(tmp_path / way)
    base = made[MULTIPLEXED]
    for way in (PLAIN, HALF):
        other = replace(made[way], name=base.name, start=base.start, sharing=base.sharing)
        assert replace(other, model=base.model) == base
    assert made[HALF].model.groups == (1, 1, 1)
    kept, _ = load_vision_model(tmp_path / HALF)
    assert torch.equal(kept.blocks[2].mlp.fc1.weight, whole["blocks.5.mlp.fc1.weight"])
    train_vision(made[HALF], tmp_path / "run", console=QUIET)


@pytest.mark.slow
def test_language_models_shrink_in_three_ways(tmp_path: Path) -> None:
    """As vision models do; equal steps, rates and teachers."""
    recipe = language_original(1)
    recipe = replace(
        recipe,
        model=replace(recipe.model, width=16, attention=replace(recipe.model.attention)),
        train=replace(
            recipe.train, steps=2, batch_size=2, micro_batch_size=2, seq_length=32, eval_batches=1
        ),
        schedule=replace(recipe.schedule, warmup_steps=1),
    )
    train_language(recipe, tmp_path / "whole", console=QUIET)
    made = {way: language_shrunk(tmp_path / "whole", way, tmp_path / way, steps=2) for way in WAYS}
    base = made[MULTIPLEXED]
    assert base.distillation is not None
    for way in (PLAIN, HALF):
        other = replace(made[way], name=base.name, start=base.start, sharing=base.sharing)
        assert replace(other, model=base.model) == base
    half, *_ = load_model(tmp_path / HALF)
    whole, *_ = load_model(tmp_path / "whole")
    assert torch.equal(half.blocks[0].ffn.up.weight, whole.blocks[1].ffn.up.weight)
    assert len(half.blocks) == 3


def test_ablation_has_a_row_for_each_arm_and_its_claims(
    runs: MiniRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unshared 80, plain 70, multiplexed 78, distilled 79: 2 lost, 10 lost, 1 gained."""
    known = {"unshared": 80.0, "plain": 70.0, "multiplexed": 78.0, "distilled": 79.0}
    monkeypatch.setattr(runs, "accuracies", lambda arm: [known.get(arm, 60.0)])
    monkeypatch.setattr(type(runs), "common_rate", 2e-3)
    rows = {row["name"]: row for row in studies.ablation(runs, runs._folder)}
    json.dumps(rows)
    values = {name.removeprefix("study_ablation_"): row["value"] for name, row in rows.items()}
    assert values["multiplexed_loss"] == 2.0
    assert values["plain_loss"] == 10.0
    assert values["distilled_gain"] == 1.0
    assert rows["study_ablation_plain"]["detail"]["columns"]["weights"] == "14,026"
    assert sum("columns" in row["detail"] for row in rows.values()) == 9


def test_rates_compare_each_kind_at_its_best(
    runs: MiniRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unshared 80 at its best, plain 82 at its own: it loses -2; a figure of three lines."""
    runs.scale = replace(TINY, rates=(1e-3, 2e-3))
    known = {
        ("unshared", 1e-3): 70.0, ("unshared", 2e-3): 80.0, ("plain", 1e-3): 82.0,
        ("plain", 2e-3): 60.0, ("multiplexed", 1e-3): 79.0, ("multiplexed", 2e-3): 85.0,
    }  # fmt: skip
    monkeypatch.setattr(runs, "accuracies", lambda arm, rate: [known[arm, rate]])
    rows = {row["name"]: row["value"] for row in studies.rates(runs, runs._folder)}
    assert rows["study_rates_plain_loss_at_best"] == -2.0
    assert rows["study_rates_multiplexed_loss_at_best"] == -5.0
    drawing = (runs._folder / "minivit-rates.svg").read_text("utf-8")
    assert drawing.count("<polyline") == 3


@pytest.mark.slow
def test_stability_is_told_and_drawn(runs: MiniRuns) -> None:
    """Nine figures, three claims and a drawing of three models in two panels."""
    runs.scale = replace(TINY, seeds=(1, 2))
    rows = {row["name"]: row for row in studies.stability(runs, runs._folder)}
    assert len(rows) == 12
    # An unshared model is compared with another one, else it would be like itself.
    assert rows["study_stability_last_unshared"]["value"] < 0.999
    drawing = (runs._folder / "minivit-stability.svg").read_text("utf-8")
    ET.fromstring(drawing)  # noqa: S314, our own drawing
    assert drawing.count("<polyline") == 3 * 3 + 3


def test_variation_is_relative() -> None:
    """Of 1 and 3: mean 2, deviation sqrt(2)."""
    assert studies.variation([1.0, 3.0]) == pytest.approx(2**0.5 / 2)
    assert studies.variation([10.0, 30.0]) == pytest.approx(2**0.5 / 2)


def test_sizes_of_deit_b_with_one_set_of_weights() -> None:
    """The published sizes, 9.98 and 9.71 times apart."""
    assert studies.deit_b_sizes() == (86_567_656, 8_674_408, 8_914_024)


def test_figure_of_stability_refuses_a_single_step() -> None:
    """A line needs two points."""
    with pytest.raises(ValueError, match="at least two"):
        stability_figure({"a": {1: [1.0, 2.0]}}, {"a": [0.5, 0.6]})
    drawing = stability_figure({"a": {1: [1.0, 2.0], 2: [0.1, 0.4]}}, {"a": [0.5, 0.6]})
    root = ET.fromstring(drawing)  # noqa: S314, our own drawing
    marks = [one for one in root.iter() if one.get("class", "").startswith("mark")]
    assert len(marks) == 2
    assert "a, block 2: 0.600" in drawing


def test_arm_of_a_seed_differs_from_another() -> None:
    """New weights are a matter of the seed alone."""
    arm = Arm(groups=(2,))
    first, again, other = (make(arm, seed).head.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
