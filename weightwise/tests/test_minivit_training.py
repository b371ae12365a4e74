"""Training of models that share weights: going on, averages, repeats, shrinking, relations."""

import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from weightwise.distill.relations import RelationConfig
from weightwise.distill.teachers import TeacherConfig
from weightwise.images import Mix
from weightwise.multiplex.plan import Plan, StagePlan, Transforms
from weightwise.train import read_metrics
from weightwise.train.parallel import World
from weightwise.train.vision import VisionTrainer, batch_plan, train_vision
from weightwise.train.vision_config import (
    RelationTargets,
    ShareConfig,
    StartConfig,
    StoreTargets,
    TeacherTargets,
)
from weightwise.train.vision_images import FolderSource, open_images
from weightwise.train.vision_models import make_model
from weightwise.train.vision_optimizer import vision_optimizer
from weightwise.train.vision_recipe import VisionOptimizerConfig, vision_to_toml
from weightwise.train.vision_start import load_classifier, load_vision_model, starting_model
from weightwise.train.vision_targets import open_target
from weightwise.vision.deit_checkpoint import save_deit
from weightwise.vision.swin_checkpoint import save_swin

RUNS = runpy.run_path(str(Path(__file__).with_name("minivit_runs.py")))
DEIT, SWIN, RECIPE, SHARED = (RUNS[name] for name in ["DEIT", "SWIN", "RECIPE", "SHARED"])
ALONE, QUIET, losses, rows, stored, trained = (
    SHARED[name] for name in ["ALONE", "QUIET", "losses", "rows", "stored", "trained"]
)
LABELS = replace(RECIPE, optimizer=replace(RECIPE.optimizer, average_decay=None))
PLAIN = replace(DEIT, groups=(1,) * 4, relative=False, mixes=False, local="none")


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny matrices gain nothing from a second thread, and other jobs may need it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run of two steps of a DeiT that shares nothing."""
    run_dir = tmp_path_factory.mktemp("plain")
    recipe = replace(
        LABELS, model=PLAIN, train=replace(RECIPE.train, batch_size=72, micro_batch_size=24)
    )
    train_vision(recipe, run_dir, console=QUIET)
    return run_dir


def _trainer(recipe, images=None, target=None):
    images = images or open_images(recipe.images, 100, needs_labels=True)
    target = target or open_target(recipe)
    return VisionTrainer(recipe, images, target, batch_plan(recipe, ALONE), ALONE, None)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["deit", "swin", "average", "sgd", "repeats"])
def test_continued_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, change):
    """From within an epoch: rows, weights and optimizer state."""
    optimizer, train, model = LABELS.optimizer, replace(RECIPE.train, save_every=2), DEIT
    if change == "average":
        optimizer = VisionOptimizerConfig(average_decay=0.9, uses_average=True)
    elif change == "sgd":
        optimizer = VisionOptimizerConfig(kind="sgd", weight_decay=1e-4)
    elif change == "swin":
        model = SWIN
    elif change == "repeats":
        train = replace(train, repeats=3)
    recipe = replace(LABELS, model=model, optimizer=optimizer, train=train)
    whole = tmp_path / "whole"
    train_vision(recipe, whole, console=QUIET)
    again = shutil.copytree(whole, tmp_path / "again")
    for step in (4, 6):
        shutil.rmtree(again / f"checkpoints/step-{step:06d}")
    train_vision(recipe, again, console=QUIET)
    assert rows(again) == rows(whole)
    names = ["model.safetensors", "recipe.toml"]
    # What is read back is contiguous, and momentum begins as a gradient, which need not be.
    for name in names + ["optimizer/__0_0.distcp"] * (change != "sgd"):
        ours, theirs = (run / "checkpoints/step-000006" / name for run in (again, whole))
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one(start, tmp_path):
    """Gradients of shared weights are sums over executions in each, and means over both."""
    recipe = replace(RECIPE, train=replace(RECIPE.train, micro_batch_size=6, repeats=2))
    (tmp_path / "tiny.toml").write_text(vision_to_toml(recipe))
    words = ["-m", "weightwise", "distill", "train", tmp_path / "tiny.toml", "--out"]
    launcher = (str(Path(__file__).with_name("launch.py")), "2")
    start(*launcher, *words, tmp_path / "two", OMP_NUM_THREADS=1).finish()
    alone = trained(recipe, tmp_path / "one")
    assert losses(tmp_path / "two") == pytest.approx(alone, abs=1e-5)


def test_checkpoints_hold_each_weight_once(plain):
    """Two sets of weights of four executions: half of the blocks' matrices are in the file."""
    trainer = _trainer(LABELS)
    held = {id(one) for group in trainer._optimizer.param_groups for one in group["params"]}
    assert len(held) == len(list(trainer.model.parameters()))
    assert trainer.model.blocks[1].mlp.fc1.weight is trainer.model.blocks[0].mlp.fc1.weight
    names = load_file(plain / "checkpoints/step-000002/model.safetensors").keys()
    assert "blocks.1.mlp.fc1.weight" in names
    model, recipe = load_vision_model(plain)
    assert recipe.model == PLAIN
    assert not model.training


def test_average_is_the_one_computed_by_hand():
    """After every step 0.9 of what it was and 0.1 of the weight, from the first weights on."""
    model = make_model(DEIT.build())
    model.initialize(torch.Generator().manual_seed(1))
    optimizer = vision_optimizer(RECIPE, model)
    expected = {name: one.detach().clone() for name, one in model.named_parameters()}
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 0.1
        for weight in model.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()
        for name, weight in model.named_parameters():
            expected[name] = 0.9 * expected[name] + 0.1 * weight.detach()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(optimizer.state[weight]["average"], expected[name])


@pytest.mark.slow
def test_averages_are_judged_and_saved_only_on_request(tmp_path):
    """The same steps either way; with ``uses_average`` other weights are judged and given away."""
    kept = RECIPE
    used = replace(RECIPE, optimizer=replace(RECIPE.optimizer, uses_average=True))
    none = trained(LABELS, tmp_path / "none")
    found = [trained(one, tmp_path / name) for one, name in ((kept, "kept"), (used, "used"))]
    assert found[0] == none
    assert all(found[1][key] == none[key] for key in none if key[1] == "train_loss")
    assert found[1][(6, "valid_loss")] != none[(6, "valid_loss")]
    trainer = _trainer(kept)
    for step in range(1, 7):
        trainer.gradient(step)
        trainer.move(step)
    saved, _ = load_vision_model(tmp_path / "used")
    for name, weight in saved.named_parameters():
        own = trainer.model.get_parameter(name)
        assert torch.equal(weight, trainer._optimizer.state[own]["average"])


def test_repeats_come_in_one_step_with_seeds_of_their_own():
    """72 images, 24 a step, three times each: a step has 8 images, an epoch 24 of 72."""
    recipe = replace(LABELS, train=replace(LABELS.train, repeats=3, micro_batch_size=8))
    trainer = _trainer(recipe)
    seen = []
    for step in (1, 2, 3):
        epoch, batches = trainer._batches.take(step)
        assert epoch == 0
        keys = [[key.partition("*")[0] for key in batch.keys] for batch in batches]
        # The copies of a step are its micro-batches: the same images, in the same order.
        assert keys[0] == keys[1] == keys[2]
        assert len({int(seed) for batch in batches for seed in batch.seeds}) == 24
        assert not torch.equal(batches[0].views[0], batches[1].views[0])
        assert torch.equal(batches[0].labels, batches[2].labels)
        seen += keys[0]
    assert len(set(seen)) == 24
    once = _trainer(LABELS)._batches.take(1)[1][0].keys
    assert list(once[:8]) == seen[:8]  # the order of an epoch without repeats
    assert trainer._batches.take(4)[0] == 1


def test_repeats_are_the_same_over_processes():
    """Each of two takes every other micro-batch of the same order."""
    recipe = replace(LABELS, train=replace(LABELS.train, repeats=3, micro_batch_size=6))

    def keys(rank, size):
        batches = _trainer(recipe)._batches
        batches._world = World(rank=rank, size=size, local_rank=0, device=torch.device("cpu"))
        return [batch.keys for batch in batches.take(2)[1]]

    together = keys(0, 1)
    assert keys(0, 2) == together[::2]
    assert keys(1, 2) == together[1::2]


def test_repeats_that_do_not_divide_a_step_are_no_partners_in_mixing():
    """Copies stand apart, so that neighbours are two images, also where 24 is no multiple of 5."""
    recipe = replace(LABELS, mixing=Mix(), train=replace(LABELS.train, repeats=5))
    batches = _trainer(recipe)._batches
    for step in (1, 2, 3):
        keys = [key.partition("*")[0] for key in batches.take(step)[1][0].keys]
        pairs = list(zip(keys[::2], keys[1::2], strict=True))
        assert all(first != second for first, second in pairs)


@pytest.mark.slow
def test_one_recipe_shrinks_and_distils(tmp_path, plain):
    """At the start the model is the tied one; the checkpoint knows the plan and goes on with it."""
    share = ShareConfig(
        budget=0.7, start="data", num_images=30,
        transforms=Transforms(mixes=True, kernel=3, rank=1),
    )  # fmt: skip
    recipe = replace(
        LABELS, model=PLAIN, start=StartConfig(path=str(plain), share=share),
        targets=TeacherTargets(teacher=TeacherConfig(name=str(plain), device="cpu")),
        train=replace(LABELS.train, save_every=2),
    )  # fmt: skip
    whole = tmp_path / "whole"
    train_vision(recipe, whole, console=QUIET)
    model, found = load_vision_model(whole)
    assert found.sharing == model.multiplex_plan
    assert found.sharing.stages[0].name == "blocks"
    before = sum(one.numel() for one in load_vision_model(plain)[0].parameters())
    assert sum(one.numel() for one in model.parameters()) <= 0.7 * before
    assert model.blocks[1].mlp.fc1.weight is model.blocks[0].mlp.fc1.weight
    again = shutil.copytree(whole, tmp_path / "again")
    for step in (4, 6):
        shutil.rmtree(again / f"checkpoints/step-{step:06d}")
    train_vision(recipe, again, console=QUIET)
    assert rows(again) == rows(whole)
    # A run that begins with a multiplexed one shares as it does; another plan is refused.
    start = StartConfig(path=str(whole))
    begun = starting_model(replace(LABELS, model=PLAIN, start=start))
    assert begun.multiplex_plan == model.multiplex_plan
    for name, weight in model.named_parameters():
        assert torch.equal(begun.get_parameter(name), weight)
    plan = Plan(stages=(StagePlan(name="blocks", first=0, groups=(4,)),), transforms=Transforms())
    with pytest.raises(ValueError, match=r"sharing: expected the plan of start\.path"):
        starting_model(replace(LABELS, model=PLAIN, start=start, sharing=plan))


def test_plans_of_recipes_are_carried_out(plain):
    """On new weights, and on a trained model, whose groups then begin with their mean."""
    plan = Plan(stages=(StagePlan(name="blocks", first=0, groups=(3, 1)),), transforms=Transforms())
    drawn = starting_model(replace(LABELS, model=PLAIN, sharing=plan))
    assert drawn.blocks[2].mlp.fc1.weight is drawn.blocks[0].mlp.fc1.weight
    assert drawn.blocks[3].mlp.fc1.weight is not drawn.blocks[0].mlp.fc1.weight
    start = StartConfig(path=str(plain), share=ShareConfig())
    shared = starting_model(replace(LABELS, model=PLAIN, sharing=plan, start=start))
    before, _ = load_vision_model(plain)
    mean = torch.stack([before.blocks[i].mlp.fc1.weight.detach() for i in range(3)]).mean(0)
    torch.testing.assert_close(shared.blocks[1].mlp.fc1.weight.detach(), mean)


def test_starts_of_another_family_or_shape_are_refused(plain):
    """The line names the field."""
    start = StartConfig(path=str(plain))
    with pytest.raises(ValueError, match=r"model\.kind: expected that of a DeiT as in start"):
        starting_model(replace(LABELS, model=SWIN, start=start))
    with pytest.raises(ValueError, match=r"model\.groups: expected \(1, 1, 1, 1\) as in start"):
        starting_model(replace(LABELS, model=replace(PLAIN, groups=(2, 2)), start=start))
    source = replace(LABELS.images.source, kind="composites")
    fewer = replace(PLAIN, num_classes=120)
    images = replace(LABELS.images, source=source)
    model = starting_model(replace(LABELS, model=fewer, start=start, images=images))
    assert model.head.weight.shape == (120, 16)


def _related(plain, *, loss=None, **settings):
    targets = TeacherTargets(
        teacher=TeacherConfig(name=str(plain), device="cpu"), value_dtype="float32",
        relations=RelationTargets(loss=loss or RelationConfig(), **settings),
    )  # fmt: skip
    return replace(LABELS, targets=targets)


@pytest.mark.slow
def test_relations_of_a_teacher_come_nearer(tmp_path, plain):
    """Both parts fall in some epochs, and stand in the rows beside what is predicted."""
    loss = RelationConfig(attention="kl", gamma=1.0)
    recipe = _related(plain, loss=loss)
    recipe = replace(recipe, train=replace(recipe.train, epochs=8))
    train_vision(recipe, tmp_path, console=QUIET)
    found = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "train_loss" in row]
    for name in ("attention", "hidden"):
        first, last = (np.mean([row[f"train_{name}"] for row in part]) for part in
                       (found[:3], found[-3:]))  # fmt: skip
        assert last < 0.9 * first
    for row in found:
        total = row["train_prediction"] + row["train_attention"] + row["train_hidden"]
        assert row["train_loss"] == pytest.approx(total, abs=1e-5)


def test_student_that_is_its_teacher_gets_no_gradient_from_relations(plain):
    """Same weights, same images, no drop path: attention and hidden losses are 0."""
    recipe = _related(plain, loss=RelationConfig(attention="kl"))
    model = replace(PLAIN, drop_path=0.0)
    recipe = replace(recipe, model=model, start=StartConfig(path=str(plain)))
    found = _trainer(recipe).gradient(1)
    assert found.measures["attention"] == pytest.approx(0, abs=1e-6)
    assert found.measures["hidden"] == pytest.approx(0, abs=1e-6)
    assert found.loss == pytest.approx(found.measures["prediction"], abs=1e-6)


@pytest.mark.slow
def test_predictions_may_come_from_a_store_and_relations_from_memory(tmp_path, plain):
    """In float32 the step is the one beside the teacher."""
    live = _related(plain)
    store = stored(live, plain, tmp_path / "store", value_dtype="float32", k=100)
    relations = RelationTargets(teacher=TeacherConfig(name=str(plain), device="cpu"))
    apart = replace(live, targets=StoreTargets(store=str(store), relations=relations))
    ours, theirs = (_trainer(recipe).gradient(1) for recipe in (apart, live))
    assert ours.measures == pytest.approx(theirs.measures, abs=1e-5)
    assert ours.norm == pytest.approx(theirs.norm, rel=1e-4)


def test_layers_must_be_named_where_they_are_not_known(plain):
    """A Swin and a DeiT have nothing in common; drawn rows are the same in every run."""
    with pytest.raises(
        ValueError, match=r"student_layers: expected numbers of layers.* a Swin and"
    ):
        _trainer(replace(_related(plain), model=SWIN))
    loss = RelationConfig(rows=3, hidden_tokens=5)
    recipe = _related(plain, loss=loss, student_layers=(1, 3), teacher_layers=(1, 3))
    first, second = (_trainer(recipe).gradient(1) for _ in range(2))
    assert first == second
    assert first.measures["hidden"] > 0


def test_starts_are_fitted_to_resolution_and_to_groups(tmp_path, plain):
    """Positions and tables grow with the image; groups of a DeiT begin with the mean of blocks."""
    source = FolderSource(path="none", valid="none")
    images = replace(LABELS.images, source=source)
    start = StartConfig(path=str(plain))
    larger = replace(LABELS, model=replace(PLAIN, image_size=48), start=start, images=images)
    before, _ = load_vision_model(plain)
    grown = starting_model(larger)
    assert grown.pos_embed.shape == (1, 36, 16)
    assert torch.equal(grown.blocks[3].attn.qkv.weight, before.blocks[3].attn.qkv.weight)
    share = replace(start, share=ShareConfig())
    mini = starting_model(replace(LABELS, model=DEIT, start=share))
    weights = [before.blocks[i].attn.qkv.weight.detach() for i in (2, 3)]
    torch.testing.assert_close(mini.blocks[3].attn.qkv.weight.detach(), sum(weights) / 2)
    assert torch.equal(mini.blocks[3].norm1.weight, before.blocks[3].norm1.weight)
    path = tmp_path / "swin.safetensors"
    swin = make_model(SWIN.build())
    swin.initialize(torch.Generator().manual_seed(1))
    save_swin(swin, path)
    wider = replace(SWIN, image_size=64, window=4)
    fitted = starting_model(
        replace(LABELS, model=wider, start=StartConfig(path=str(path)), images=images)
    )
    # 2 * 4 - 1 distances along each side, two heads in the first stage.
    assert fitted.layers[0].blocks[0].attn.relative_position_bias_table.shape == (49, 2)
    assert torch.equal(fitted.head.fc.weight, swin.head.fc.weight)


def test_files_of_all_families_can_teach(tmp_path):
    """The names of tensors tell the family."""
    for student, save in ((DEIT, save_deit), (SWIN, save_swin)):
        model = make_model(student.build()).eval()
        model.initialize(torch.Generator().manual_seed(1))
        path = tmp_path / f"{student.kind}.safetensors"
        save(model, path)
        found, view = load_classifier(path)
        assert view.size == 32
        x_B3SS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(found(x_B3SS), model(x_B3SS))


@pytest.mark.slow
def test_mini_swin_learns_beside_a_wider_swin(tmp_path):
    """Widths and heads differ, windows do not; rows have all three losses, and they are finite."""
    teacher = make_model(replace(SWIN, width=16, mixes=False, local="none").build())
    teacher.initialize(torch.Generator().manual_seed(1))
    save_swin(teacher, tmp_path / "teacher.safetensors")
    recipe = replace(_related(tmp_path / "teacher.safetensors"), model=SWIN, mixing=Mix())
    recipe = replace(recipe, train=replace(recipe.train, micro_batch_size=12, dtype="bfloat16"))
    train_vision(recipe, tmp_path / "run", console=QUIET)
    found = [row for row in read_metrics(tmp_path / "run/metrics.jsonl") if "train_loss" in row]
    for row in found:
        parts = row["train_prediction"] + row["train_attention"] + 0.1 * row["train_hidden"]
        assert row["train_loss"] == pytest.approx(parts, rel=1e-5)
