"""Vision models in training: exact continuation, stored and live teachers, processes, starts."""

import io
import runpy
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from weightwise.images import Mix
from weightwise.train.parallel import World
from weightwise.train.vision import VisionTrainer, batch_plan, train_vision
from weightwise.train.vision_config import (
    AugmentationConfig,
    StartConfig,
)
from weightwise.train.vision_images import (
    DigitsSource,
    FolderSource,
    ImagesConfig,
    open_images,
)
from weightwise.train.vision_recipe import (
    VisionOptimizerConfig,
    VisionTrainConfig,
    vision_to_toml,
)
from weightwise.train.vision_start import load_vision_model, starting_model
from weightwise.train.vision_statistics import RunningStatistics
from weightwise.train.vision_targets import open_target

SHARED = runpy.run_path(str(Path(__file__).with_name("vision_runs.py")))
ALONE, QUIET, RECIPE, SAVED, STUDENT, losses, rows, trained = (
    SHARED[name]
    for name in ["ALONE", "QUIET", "RECIPE", "SAVED", "STUDENT", "losses", "rows", "trained"]
)


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny matrices gain nothing from a second thread, and other jobs may need it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of six steps with a checkpoint after each."""
    run_dir = tmp_path_factory.mktemp("finished")
    train_vision(SAVED, run_dir, console=QUIET)
    return run_dir


@pytest.mark.slow
def test_continued_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, finished):
    """From within an epoch and from its end: rows, weights, statistics and optimizer state."""
    for step in (2, 3):
        run_dir = shutil.copytree(finished, tmp_path / str(step))
        for later in range(step + 1, 7):
            shutil.rmtree(run_dir / f"checkpoints/step-{later:06d}")
        said = io.StringIO()
        result = train_vision(SAVED, run_dir, console=Console(file=said))
        assert f"going on from step {step}" in said.getvalue()
        assert result.is_complete
        assert rows(run_dir) == rows(finished)
        for name in ("model.safetensors", "optimizer/__0_0.distcp", "recipe.toml"):
            ours = (result.checkpoint / name).read_bytes()
            assert ours == (finished / "checkpoints/step-000006" / name).read_bytes()


def test_rows_count_images_and_say_how_often_the_first_five_are_right(finished):
    """Six steps of 24 images, evaluated after each epoch."""
    found = rows(finished)
    assert [row["images"] for row in found if "train_loss" in row] == [24, 48, 72, 96, 120, 144]
    judged = [row for row in found if "valid_loss" in row]
    assert [row["step"] for row in judged] == [3, 6]
    assert all(0 <= row["valid_top1"] <= row["valid_top5"] <= 1 for row in judged)
    assert not any("tokens" in row for row in found)


def test_evaluation_is_the_one_of_a_saved_model(finished):
    """Loss and share right, computed anew from the checkpoint over all images at once."""
    model, recipe = load_vision_model(finished)
    assert recipe == SAVED
    images = open_images(RECIPE.images, 100, needs_labels=True).valid
    trainer = VisionTrainer(
        RECIPE, open_images(RECIPE.images, 100, needs_labels=True), open_target(RECIPE),
        batch_plan(RECIPE, ALONE), ALONE, None,
    )  # fmt: skip
    (batch,) = trainer._valid.epoch(0)
    assert len(batch) == len(images)
    with torch.no_grad():
        logits = model(batch.views[0])
    row = [row for row in rows(finished) if "valid_loss" in row][-1]
    expected = nn.functional.cross_entropy(logits, batch.labels).item()
    assert row["valid_loss"] == pytest.approx(expected, abs=1e-6)
    right = (logits.argmax(1) == batch.labels).double().mean().item()
    assert row["valid_top1"] == pytest.approx(right)


def test_finished_run_is_left_as_it_is(finished):
    """The same call again makes no step; another recipe is refused with the field."""
    before = (finished / "metrics.jsonl").read_bytes()
    assert train_vision(RECIPE, finished, console=QUIET).step == 6
    assert (finished / "metrics.jsonl").read_bytes() == before
    with pytest.raises(ValueError, match=r"recipe\.toml: seed: expected 1 as in the run so far"):
        train_vision(replace(RECIPE, seed=2), finished, console=QUIET)


def test_micro_batches_of_two_processes_are_those_of_one():
    """Each takes every other one; together they are the images of a step, and none comes twice."""
    recipe = replace(RECIPE, train=replace(RECIPE.train, micro_batch_size=6))
    images, target = open_images(recipe.images, 100, needs_labels=True), open_target(recipe)

    def keys(rank, size, step):
        world = World(rank=rank, size=1, local_rank=rank, device=torch.device("cpu"))
        alone = VisionTrainer(recipe, images, target, batch_plan(recipe, ALONE), ALONE, None)
        batches = alone._batches
        batches._world = replace(world, size=size)
        return [batch.keys for batch in batches.take(step)[1]]

    for step in (1, 3, 5):
        together = keys(0, 1, step)
        assert keys(0, 2, step) == together[::2]
        assert keys(1, 2, step) == together[1::2]
    seen = [key for step in (1, 2, 3) for part in keys(0, 1, step) for key in part]
    assert sorted(seen) == sorted(images.train.key(i) for i in range(72))


def test_running_statistics_move_by_the_mean_of_micro_batches():
    """Means 1 and 3 after micro-batches of 1 and 5 with momentum 0.1: 0.9 * 0 + 0.1 * 3 = 0.3."""
    layer = nn.BatchNorm2d(1)
    statistics = RunningStatistics(layer)
    statistics.begin()
    for value in (1.0, 5.0):
        layer(torch.full((2, 1, 2, 2), value))
        statistics.add()
    statistics.end(2, ALONE)
    assert layer.running_mean.item() == pytest.approx(0.3)
    assert layer.running_var.item() == pytest.approx(0.9)


def test_fine_tuning_begins_where_the_other_run_ended(tmp_path, finished):
    """A new run at step 0 judges the model as it was; frozen statistics stay, weights move."""
    recipe = replace(
        RECIPE, start=StartConfig(path=str(finished)),
        optimizer=VisionOptimizerConfig(weight_decay=1e-8, layer_decay=0.8),
        train=replace(RECIPE.train, epochs=1, batch_norm="running"),
    )  # fmt: skip
    found = trained(recipe, tmp_path / "run")
    assert found[(0, "valid_loss")] == losses(finished)[(6, "valid_loss")]
    before, after = load_vision_model(finished)[0], load_vision_model(tmp_path / "run")[0]
    theirs = after.state_dict()
    for name, weight in before.state_dict().items():
        # A bias that all of a window of one share changes nothing.
        stays = "running" in name or "num_batches" in name or weight.numel() == 1
        assert torch.equal(weight, theirs[name]) == stays, name


def test_starts_are_fitted_to_resolution_and_classes(tmp_path, finished):
    """Tables grow with windows; mapped classes keep their rows, one without has their mean."""
    before, _ = load_vision_model(finished)
    class_map = tmp_path / "map.txt"
    class_map.write_text("7\n-1\n3\n")
    start = StartConfig(path=str(finished), class_map=str(class_map))
    model = replace(STUDENT, image_size=64, windows=(8, 4, 2), num_classes=3)
    source = FolderSource(path="none", valid="none")
    recipe = replace(RECIPE, model=model, start=start, images=replace(RECIPE.images, source=source))
    fitted = starting_model(recipe)
    weight, old = fitted.head.fc.weight, before.head.fc.weight
    assert torch.equal(weight[[0, 2]], old[[7, 3]])
    torch.testing.assert_close(weight[1], (old[7] + old[3]) / 2)
    assert fitted.state_dict()["stages.1.blocks.0.attn.attention_biases"].shape == (1, 64)
    assert fitted.config == model.build()
    other = replace(recipe, model=replace(model, widths=(16, 32, 32, 64)))
    with pytest.raises(ValueError, match=r"model\.widths: expected \(16, 32, 32, 32\) as in start"):
        starting_model(other)
    with pytest.raises(ValueError, match=r"model\.num_classes: expected 3 as in start"):
        starting_model(replace(recipe, model=replace(model, num_classes=4)))
    class_map.write_text("7\nseven\n")
    with pytest.raises(ValueError, match=r"map\.txt: line 2: expected a whole number, got 'seven'"):
        starting_model(recipe)


def test_images_that_cannot_be_read_are_left_out_and_counted(tmp_path):
    """One of twelve files is damaged; the mean is over the others, and the row says so."""
    rng = np.random.default_rng(1)
    for number in range(12):
        folder = tmp_path / "images" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "images/a/4.png").write_bytes(b"no image")
    source = FolderSource(path=str(tmp_path / "images"), valid=str(tmp_path / "images"))
    recipe = replace(
        RECIPE, model=replace(STUDENT, num_classes=2), images=ImagesConfig(source=source),
        train=replace(RECIPE.train, batch_size=12, epochs=1),
        schedule=replace(RECIPE.schedule, warmup_epochs=0),
    )  # fmt: skip
    train_vision(recipe, tmp_path / "run", console=QUIET)
    (row, _) = rows(tmp_path / "run")
    assert row["skipped_images"] == 1
    assert (tmp_path / "run/unreadable-0.txt").read_text().startswith("a/4.png: unreadable: ")
    too_large = replace(recipe, train=replace(recipe.train, batch_size=13))
    with pytest.raises(ValueError, match=r"train\.batch_size: expected at most .* images 12"):
        train_vision(too_large, tmp_path / "other", console=QUIET)
    one_class = replace(recipe, model=replace(STUDENT, num_classes=1))
    with pytest.raises(ValueError, match=r"expected labels of 0 to 0.*got 1 for b/1\.png"):
        train_vision(one_class, tmp_path / "other", console=QUIET)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["adamw8", "bfloat16", "mixing"])
def test_other_settings_train_and_continue(tmp_path, change):
    """Each option makes six steps with finite losses, and goes on from step 3 bit for bit."""
    recipe = RECIPE
    if change == "adamw8":
        recipe = replace(RECIPE, optimizer=VisionOptimizerConfig(kind="adamw8"))
    elif change == "bfloat16":
        recipe = replace(RECIPE, train=replace(RECIPE.train, dtype="bfloat16"))
    else:
        recipe = replace(RECIPE, mixing=Mix(), train=replace(RECIPE.train, micro_batch_size=4))
    found = trained(recipe, tmp_path / "run")
    assert len(found) == 8
    again = shutil.copytree(tmp_path / "run", tmp_path / "again")
    shutil.rmtree(again / "checkpoints/step-000006")
    assert trained(recipe, again) == found


@pytest.mark.slow
def test_digits_are_learnt_from_labels(tmp_path):
    """Two epochs: more than three in ten are right, of ten classes."""
    recipe = replace(
        RECIPE, model=replace(STUDENT, num_classes=10, drop_path=0.0),
        images=ImagesConfig(source=DigitsSource()),
        augmentation=AugmentationConfig(
            scale=(0.7, 1.0), flip_prob=0.0, rand_augment="none", erase_prob=0.0
        ),
        train=VisionTrainConfig(epochs=2, batch_size=32),
    )  # fmt: skip
    train_vision(recipe, tmp_path, console=QUIET)
    assert rows(tmp_path)[-1]["valid_top1"] > 0.3


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one(start, tmp_path):
    """Under data parallelism all losses are those of a single process, also of validation."""
    recipe = replace(RECIPE, train=replace(RECIPE.train, micro_batch_size=6))
    (tmp_path / "tiny.toml").write_text(vision_to_toml(recipe))
    words = ["-m", "weightwise", "distill", "train", tmp_path / "tiny.toml", "--out"]
    launcher = (str(Path(__file__).with_name("launch.py")), "2")
    start(*launcher, *words, tmp_path / "two", OMP_NUM_THREADS=1).finish()
    alone = trained(recipe, tmp_path / "one")
    assert losses(tmp_path / "two") == pytest.approx(alone, abs=1e-5)


@pytest.mark.slow
def test_kill_and_interrupt_change_nothing(start, tmp_path):
    """Killed once, then asked to stop: the third call ends as if nothing had happened."""
    recipe = replace(RECIPE, train=replace(RECIPE.train, epochs=12))
    (tmp_path / "tiny.toml").write_text(vision_to_toml(recipe))
    words = ("-m", "weightwise", "distill", "train", tmp_path / "tiny.toml", "--out")
    whole = trained(recipe, tmp_path / "whole")
    with start(*words, tmp_path / "run") as process:
        process.until(r"step 5/36")
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    with start(*words, tmp_path / "run") as process:
        process.until(r"step 15/36")
        process.send_signal(signal.SIGINT)
        assert process.wait() == 1
        assert "the same command goes on from there" in process.err
    start(*words, tmp_path / "run").finish()
    assert losses(tmp_path / "run") == whole
