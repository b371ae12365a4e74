"""Recipes of vision models: reading, checking, overriding, and what they say of a run."""

from dataclasses import replace

import pytest

from weightwise.recipes.vision import VISION_RECIPES, load_vision_recipe
from weightwise.train.vision import vision_rate
from weightwise.train.vision_config import StoreTargets, StudentConfig
from weightwise.train.vision_recipe import (
    read_vision_recipe,
    vision_conflict,
    vision_from_dict,
    vision_to_dict,
    vision_to_toml,
)
from weightwise.vision import VARIANTS, TinyViTConfig

# A change of `composites-teacher`, and the end of the line that it must be refused with.
REFUSED = {
    "train.epochs=0": "train.epochs: expected at least 1, got 0",
    "train.epochs=1.5": "train.epochs: expected a valid integer, got 1.5",
    "train.micro_batch_size=7": "micro_batch_size: expected a divisor of batch_size 64, got 7",
    "train.batch_norm=eval": "train.batch_norm: expected 'batch' or 'running', got 'eval'",
    "train.batch_norm=running": "train.batch_norm: expected batch without a start, got running",
    "train.seq_length=5": (
        "train.seq_length: expected one of epochs, batch_size, micro_batch_size, dtype, repeats, "
        "grad_clip, batch_norm, eval_every, save_every, eval_batch_size, keep_checkpoints, "
        "log_every, tensorboard, got an unknown key"
    ),
    "model.variant=6m": (
        "model.variant: expected '5m', '11m', '21m', '21m-384' or '21m-512', got '6m'"
    ),
    "model.widths=none": "model.variant: expected a name, or widths, got none",
    "model.widths=[16,32,33,32]": (
        "model.widths: expected an even number and three multiples of head_width 32, got "
        "(16, 32, 33, 32)"
    ),
    "model.drop_path=1": "model.drop_path: expected in [0, 1), got 1.0",
    "model.num_classes=99": "model.num_classes: expected at least 100 for images.source, got 99",
    "model.image_size=16": "model.image_size: expected at least 32, got 16",
    "start={}": "start.path: expected a value, got none",
    "images.source.kind=web": (
        "images.source.kind: expected one of 'folder', 'list', 'tar', 'hf', 'digits', "
        "'composites', got 'web'"
    ),
    "images.source={kind='folder', path='x'}": (
        "images.valid_share: expected a share where source.valid is missing"
    ),
    "images.valid_share=0.1": (
        "images.valid_share: expected none where the source has images to judge on, got 0.1"
    ),
    "images.source.size=31": "images.source.size: expected a multiple of 2, got 31",
    "images.std=[0,1,1]": "images.std: expected values in (0, 10], got (0.0, 1.0, 1.0)",
    "images.corrupt_share=1.1": "images.corrupt_share: expected at most 1, got 1.1",
    "images.decoding.max_pixels=0": ("images.decoding.max_pixels: expected 1 to 178956970, got 0"),
    "augmentation.scale=[0, 1]": (
        "augmentation.scale: expected 0 < lowest <= highest <= 1, got (0.0, 1.0)"
    ),
    "augmentation.flip_prob=2": "augmentation.flip_prob: expected 0 to 1, got 2.0",
    "augmentation.flip=1": (
        "augmentation.flip: expected one of scale, ratio, flip_prob, rand_augment, jitter, "
        "erase_prob, got an unknown key"
    ),
    "mixing={mixup=0, cutmix=0}": "mixing.mixup: expected mixup or cutmix above 0, got none",
    "mixing={mixup=0.8, alpha=1}": (
        "mixing.alpha: expected one of mixup, cutmix, switch_prob, prob, got an unknown key"
    ),
    "targets.kind=text": "targets.kind: expected one of 'labels', 'store', 'teacher', got 'text'",
    "targets={kind='store'}": "targets.store: expected a value, got none",
    "targets={kind='teacher', teacher={name='a:b'}, top_k=101}": (
        "targets.top_k: expected at most model.num_classes 100, got 101"
    ),
    "targets={kind='teacher', teacher={name='a:b', size=1.5}}": (
        "targets.teacher.size: expected a valid integer, got 1.5"
    ),
    "optimizer.kind=lion": "optimizer.kind: expected 'adamw', 'adamw8' or 'sgd', got 'lion'",
    "optimizer={kind='sgd', average_decay=0.9}": (
        "optimizer.kind: expected adamw with average_decay, got sgd"
    ),
    "optimizer={kind='sgd', beta1=0}": "optimizer.beta1: expected more than 0 with kind sgd",
    "optimizer.uses_average=true": (
        "optimizer.average_decay: expected a value with uses_average, got none"
    ),
    "optimizer.average_decay=1": "optimizer.average_decay: expected less than 1, got 1",
    "optimizer.layer_decay=0": "optimizer.layer_decay: expected more than 0, got 0",
    "schedule.min_lr=1": "schedule.min_lr: expected at most base_lr ",
    "schedule.warmup_epochs=99": "schedule.warmup_epochs: expected less than train.epochs ",
    "schedule.cooldown_epochs=9": (
        "schedule.cooldown_epochs: expected less than train.epochs 10 without warm-up, got 9"
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.items())
def test_wrong_settings_are_refused_in_one_line(change, message):
    """The line names recipe, field, what was expected and what was found."""
    with pytest.raises(ValueError, match=r"^composites-teacher: ") as caught:
        load_vision_recipe("composites-teacher", [change])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_that_contradict_each_other_are_refused():
    """Labels that nothing looks at; an odd number of images where pairs are mixed."""
    store = "targets={kind='store', store='x'}"
    wrong = [store, "images.corrupt_share=0.3"]
    with pytest.raises(ValueError, match=r"images\.corrupt_share: expected 0 with targets\.kind"):
        load_vision_recipe("composites-teacher", wrong)
    assert load_vision_recipe("composites-teacher", [*wrong, "targets.hard_share=0.1"])
    mixed = ["mixing={mixup=0.8}", "train.batch_size=65"]
    with pytest.raises(ValueError, match=r"train\.micro_batch_size: expected an even number"):
        load_vision_recipe("composites-teacher", mixed)


@pytest.mark.parametrize("name", VISION_RECIPES)
def test_recipes_survive_a_file(tmp_path, name):
    """As TOML and back it is the same recipe, named after what it is called by."""
    recipe = load_vision_recipe(name)
    assert recipe.name == name
    path = tmp_path / "recipe.toml"
    path.write_text(vision_to_toml(recipe))
    assert read_vision_recipe(path) == load_vision_recipe(path) == recipe


def test_absent_operations_survive_a_file(tmp_path):
    """TOML has no word for none, and the default has operations."""
    recipe = load_vision_recipe("tinyvit-5m", ["augmentation.rand_augment=none"])
    assert recipe == load_vision_recipe("tinyvit-5m")  # --set x=none restores the default
    recipe = load_vision_recipe("tinyvit-5m", ["augmentation.rand_augment='none'"])
    assert recipe.augmentation.build().rand_augment is None
    (tmp_path / "x.toml").write_text(vision_to_toml(recipe))
    assert read_vision_recipe(tmp_path / "x.toml") == recipe


def test_unknown_recipes_are_named_with_those_that_there_are():
    """As for language models."""
    with pytest.raises(ValueError, match=r"expected a TOML file or one of composites-teacher, .*"):
        load_vision_recipe("no-such")


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_come_by_name_and_by_their_factors(variant):
    """All settings of a model, given one by one, are the model."""
    config = VARIANTS[variant]
    assert StudentConfig(variant=variant).build() == config
    assert StudentConfig(**vars(config)).build() == config
    other = StudentConfig(variant=variant, num_classes=7, drop_path=0.3).build()
    assert other == replace(config, num_classes=7, drop_path=0.3)
    assert isinstance(other, TinyViTConfig)


# Epochs, warm-up, batch, rates at the peak, before the first step and after the last, decay of
# weights and of layers (arXiv 2207.10666, section 4.1, and its code); rates times batch / 512.
PUBLISHED = {
    "tinyvit-21m": (300, 20, 1024, 1e-3, 1e-6, 1e-5, 0.05, 1.0),
    "tinyvit-21m-distill": (90, 5, 4096, 2e-3, 4e-6, 4e-5, 0.01, 1.0),
    "tinyvit-21m-finetune": (30, 5, 1024, 5e-4, 1e-6, 2e-5, 1e-8, 0.8),
    "tinyvit-21m-384": (30, 5, 1024, 4e-5, 4e-8, 4e-7, 1e-8, 1.0),
    "tinyvit-21m-512": (30, 5, 1024, 4e-5, 4e-8, 4e-7, 1e-8, 1.0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_have_the_published_numbers(name):
    """Peak, start and end of the learning rate are reached with the batch that is published."""
    epochs, warmup, batch, peak, first, last, weight_decay, layer_decay = PUBLISHED[name]
    recipe = load_vision_recipe(name)
    assert (recipe.train.epochs, recipe.train.batch_size) == (epochs, batch)
    assert recipe.schedule.warmup_epochs == warmup
    assert vision_rate(recipe, warmup * 10, 10) == pytest.approx(peak)
    assert vision_rate(recipe, epochs * 10, 10) == pytest.approx(last)
    # A line: step 1 of w warm-up steps is 1 / w of the way from the start to the peak.
    step = (peak - first) / (warmup * 10)
    assert vision_rate(recipe, 1, 10) == pytest.approx(first + step)
    assert vision_rate(recipe, 2, 10) == pytest.approx(first + 2 * step)
    assert (recipe.optimizer.weight_decay, recipe.optimizer.layer_decay) == (
        weight_decay, layer_decay,
    )  # fmt: skip
    is_tuned = name not in ("tinyvit-21m", "tinyvit-21m-distill")
    assert recipe.train.batch_norm == ("running" if is_tuned else "batch")
    assert (recipe.mixing is not None) == (name == "tinyvit-21m")


def test_larger_images_have_the_models_of_the_variants():
    """Windows grow with the side, and the whole image is judged."""
    for side in (384, 512):
        recipe = load_vision_recipe(f"tinyvit-21m-{side}")
        assert recipe.model.build() == VARIANTS[f"21m-{side}"]
        assert recipe.images.fit == "square"


def test_runs_go_on_with_other_files_and_not_with_other_steps():
    """What is written when may change; epochs would change the rates of steps already made."""
    recipe = load_vision_recipe("composites-teacher")
    quieter = replace(recipe, train=replace(recipe.train, log_every=50, save_every=7))
    assert vision_conflict(recipe, quieter) is None
    longer = replace(recipe, train=replace(recipe.train, epochs=99))
    assert vision_conflict(recipe, longer).startswith("train.epochs: expected")
    other = replace(recipe, targets=StoreTargets(store="x"))
    assert vision_conflict(recipe, other).startswith("targets.")


def test_dicts_and_recipes_are_the_same():
    """Nothing is lost or added on the way."""
    recipe = load_vision_recipe("composites-student")
    assert vision_from_dict(vision_to_dict(recipe), origin="x") == recipe
