"""What vision models learn: labels, soft labels of a store, and those of a live teacher."""

import re
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from weightwise.distill import (
    SoftLabels,
    StoreConfig,
    StoreWriter,
    augmentation_seeds,
    top_k,
)
from weightwise.distill.replay import Replay
from weightwise.distill.teachers import TeacherConfig
from weightwise.images import Decoding, Mix
from weightwise.train.vision import VisionTrainer, batch_plan, train_vision
from weightwise.train.vision_config import (
    LabelTargets,
    StoreTargets,
    TeacherTargets,
)
from weightwise.train.vision_images import (
    FolderSource,
    ImagesConfig,
    open_images,
)
from weightwise.train.vision_targets import open_target
from weightwise.vision import TinyViT, save_tiny_vit

SHARED = runpy.run_path(str(Path(__file__).with_name("vision_runs.py")))
ALONE, QUIET, RECIPE, STUDENT, stored, trained = (
    SHARED[name] for name in ["ALONE", "QUIET", "RECIPE", "STUDENT", "stored", "trained"]
)


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny matrices gain nothing from a second thread, and other jobs may need it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """File of a small model with weights that say different things of different images."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    config = replace(STUDENT.build(), widths=(16, 32, 32, 64), drop_path=0.0)
    model = TinyViT(config)
    model.initialize(torch.Generator().manual_seed(5))
    with torch.no_grad():
        model.head.fc.weight *= 40
    save_tiny_vit(model, path)
    return path


@pytest.mark.slow
def test_student_from_the_store_equals_the_student_beside_the_teacher(tmp_path, teacher):
    """The same seeds give the same losses: in float32 what is stored is what is said."""
    store = stored(RECIPE, teacher, tmp_path / "store", value_dtype="float32")
    live = TeacherTargets(
        teacher=TeacherConfig(name=str(teacher), device="cpu"), top_k=20, value_dtype="float32"
    )
    targets = StoreTargets(store=str(store), on_missing="refuse")
    ours = trained(replace(RECIPE, targets=targets), tmp_path / "stored")
    theirs = trained(replace(RECIPE, targets=live), tmp_path / "live")
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_stores_that_name_images_by_number_belong_to_the_whole_source(tmp_path, teacher):
    """Where a share is judged on, numbers of the others stay those of the whole list."""
    listed = tmp_path / "images"
    for number in range(40):
        path = listed / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 40), 6 * number, dtype=np.uint8)).save(path)
    images = ImagesConfig(source=FolderSource(path=str(listed)), valid_share=0.3)
    recipe = replace(RECIPE, images=images, train=replace(RECIPE.train, batch_size=8))
    prepared = open_images(images, 100, needs_labels=True)
    assert len(prepared.train) + len(prepared.valid) == 40
    store = stored(recipe, teacher, tmp_path / "store", keys="index")
    recipe = replace(recipe, targets=StoreTargets(store=str(store), on_missing="refuse"))
    target = open_target(recipe)
    source = target.source(prepared)
    names = [f"{'ab'[n % 2]}/{n:02d}.png" for n in (*range(0, 40, 2), *range(1, 40, 2))]
    for number in range(len(source)):
        assert names[int(source.key(number))] == prepared.train.key(number)
    found = trained(replace(recipe, train=replace(recipe.train, epochs=1)), tmp_path / "run")
    assert all(np.isfinite(value) for value in found.values())


def test_store_of_another_augmentation_is_refused_before_anything_is_trained(tmp_path, teacher):
    """One line names the setting; labels that would need other pixels are refused by the canary."""
    store = stored(RECIPE, teacher, tmp_path / "store", epochs=1)
    targets = StoreTargets(store=str(store))
    other = replace(
        RECIPE, targets=targets, augmentation=replace(RECIPE.augmentation, erase_prob=0.5)
    )
    with pytest.raises(ValueError, match=r"augmentation\.erase_prob: expected 0\.25 .*got 0\.5"):
        train_vision(other, tmp_path / "run", console=QUIET)
    assert not list((tmp_path / "run").iterdir())
    fingerprint, _ = Replay(
        augmentation=RECIPE.augmentation.build(), decoding=Decoding()
    ).identity()
    config = StoreConfig(classes=100, k=20, keys="name", fingerprint=fingerprint, canary="0" * 64)
    with StoreWriter(tmp_path / "odd", config, epoch=0) as writer:
        logits = torch.zeros(1, 100)
        writer.append(["a"], augmentation_seeds(0, 0, ["a"]), *top_k(logits, config))
    odd = replace(RECIPE, targets=StoreTargets(store=str(tmp_path / "odd")))
    with pytest.raises(ValueError, match=r"odd: canary: expected .* got 000000000000"):
        train_vision(odd, tmp_path / "run", console=QUIET)


def test_stores_that_do_not_fit_are_refused(tmp_path, teacher):
    """Other classes, too few epochs where they may not be used again, no store at all."""
    store = stored(RECIPE, teacher, tmp_path / "store", epochs=1)
    for recipe, message in (
        (
            replace(
                RECIPE, model=replace(STUDENT, num_classes=101),
                targets=StoreTargets(store=str(store)),
            ),
            "classes: expected 101, got 100",
        ),
        (
            replace(RECIPE, targets=StoreTargets(store=str(store), on_missing="refuse")),
            "epochs: expected all 2 of train.epochs, epoch 1 is not stored",
        ),
        (replace(RECIPE, targets=StoreTargets(store=str(tmp_path / "no"))), "files: expected"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=re.escape(message)):
            train_vision(recipe, tmp_path / "run", console=QUIET)


def test_mixed_images_ask_for_mixed_labels(teacher, tmp_path):
    """The loss of a pair is the mean of both labels' by the share that each has of the image."""
    recipe = replace(
        RECIPE, mixing=Mix(), targets=LabelTargets(smoothing=0.1),
        train=replace(RECIPE.train, micro_batch_size=8),
    )  # fmt: skip
    images, target = open_images(recipe.images, 100, needs_labels=True), open_target(recipe)
    trainer = VisionTrainer(recipe, images, target, batch_plan(recipe, ALONE), ALONE, None)
    _, (batch, *others) = trainer._batches.take(1)
    assert len(batch) == 8
    assert len(others) == 2
    logits = torch.randn(8, 100, generator=torch.Generator().manual_seed(1))
    hot = 0.9 * nn.functional.one_hot(batch.labels, 100) + 0.1 / 100
    share = batch.mixing.lam[:, None]
    dense = share * hot + (1 - share) * hot[batch.mixing.partner]
    expected = nn.functional.cross_entropy(logits, dense)
    torch.testing.assert_close(target.loss(logits, batch, 0), expected)
    # The same with a store: its labels are mixed in the place of classes.
    store = SoftLabels(stored(recipe, teacher, tmp_path / "store", k=100, value_dtype="float32"))
    soft = replace(recipe, targets=StoreTargets(store=str(store.path)))
    probs = torch.zeros(8, 100)
    found = store.gather(0, list(batch.keys))
    probs.scatter_(
        1, torch.from_numpy(found.indices.astype("int64")), torch.from_numpy(found.values.copy())
    )
    dense = share * probs + (1 - share) * probs[batch.mixing.partner]
    expected = nn.functional.cross_entropy(logits, dense)
    torch.testing.assert_close(open_target(soft).loss(logits, batch, 0), expected)
    # A share of labels: of those the mixture has too.
    hot = nn.functional.one_hot(batch.labels, 100).float()
    dense = 0.7 * dense + 0.3 * (share * hot + (1 - share) * hot[batch.mixing.partner])
    expected = nn.functional.cross_entropy(logits, dense)
    soft = replace(soft, targets=replace(soft.targets, hard_share=0.3))
    torch.testing.assert_close(open_target(soft).loss(logits, batch, 0), expected)
