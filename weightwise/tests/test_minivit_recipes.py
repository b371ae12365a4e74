"""Recipes of DeiT, Swin and of models that share weights: models, numbers, refusals."""

from dataclasses import replace

import pytest
import torch

from weightwise.multiplex.files import num_unique_parameters
from weightwise.multiplex.plan import Plan, StagePlan, Transforms
from weightwise.recipes.vision import load_vision_recipe
from weightwise.recipes.vision_mini import MINI_RECIPES
from weightwise.train.vision_models import DeiTStudent, SwinStudent, make_model
from weightwise.train.vision_optimizer import vision_rate
from weightwise.train.vision_recipe import (
    read_vision_recipe,
    vision_conflict,
    vision_from_dict,
    vision_to_dict,
    vision_to_toml,
)
from weightwise.vision import vision_groups
from weightwise.vision.deit_config import DEIT_VARIANTS
from weightwise.vision.swin_config import SWIN_VARIANTS, as_published

# Parameters of the published models (instantiated from the released code). With 10 classes instead
# of 1000, Mini-DeiT-B at 384 pixels has 990 * (768 + 1) fewer, and 900 * 769 with 100.
PARAMETERS = {
    "deit-ti": 5_717_416,
    "deit-s": 22_050_664,
    "deit-b": 86_567_656,
    "mini-deit-ti": 3_090_304,
    "mini-deit-s": 11_450_824,
    "mini-deit-b": 44_098_408,
    "mini-deit-b-384": 44_390_248,
    "mini-deit-b-384-cifar10": 44_390_248 - 761_310,
    "mini-deit-b-384-cifar100": 44_390_248 - 692_100,
    "swin-t": 28_288_354,
    "swin-s": 49_606_258,
    "swin-b": 87_768_224,
    "swin-b-384": 87_903_584,
    "mini-swin-t": 12_001_765,
    "mini-swin-s": 26_463_205,
    "mini-swin-b": 46_444_852,
    "mini-swin-b-384": 46_512_532,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_recipes_build_the_published_models(name):
    """As many parameters as the original, each once; every one is in the optimizer once."""
    with torch.device("meta"):
        model = make_model(load_vision_recipe(name).model.build())
    assert num_unique_parameters(model) == PARAMETERS[name]
    groups = vision_groups(model, 0.05)
    held = [weight for group in groups for weight in group["params"]]
    assert len(held) == len({id(weight) for weight in held}) == len(list(model.parameters()))


# Epochs, warm-up, batch, rates at the peak and at the end, decay, drop path, largest norm, repeats.
PUBLISHED = {
    "mini-deit-ti": (310, 5, 1024, 1e-3, 1e-5, 0.05, 0.0, 0.0, 3),
    "mini-deit-s": (310, 5, 1024, 1e-3, 1e-5, 0.05, 0.0, 0.0, 3),
    "mini-deit-b": (310, 5, 1024, 1e-3, 1e-5, 0.05, 0.1, 0.0, 3),
    "mini-deit-b-384": (30, 5, 256, 2.5e-6, 2.5e-8, 1e-8, 0.0, 0.0, 3),
    "mini-deit-b-384-cifar10": (1000, 5, 256, 5e-3, 1e-5, 1e-4, 0.0, 0.0, 3),
    "mini-swin-t": (300, 20, 1024, 1e-3, 1e-5, 0.05, 0.0, 5.0, 1),
    "mini-swin-s": (300, 20, 1024, 1e-3, 1e-5, 0.05, 0.1, 5.0, 1),
    "mini-swin-b": (300, 20, 1024, 1e-3, 1e-5, 0.05, 0.2, 5.0, 1),
    "mini-swin-b-384": (30, 5, 256, 1e-5, 1e-7, 1e-8, 0.2, 5.0, 1),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_have_the_published_numbers(name):
    """The schedule reaches peak and end; what else the table of the released code has."""
    epochs, warmup, batch, peak, last, weight_decay, drop_path, clip, repeats = PUBLISHED[name]
    recipe = load_vision_recipe(name)
    train = recipe.train
    assert (train.epochs, train.batch_size, train.grad_clip, train.repeats) == (
        epochs, batch, clip, repeats,
    )  # fmt: skip
    assert vision_rate(recipe, warmup * 10, 10) == pytest.approx(peak)
    assert vision_rate(recipe, epochs * 10, 10) == pytest.approx(last)
    assert recipe.optimizer.weight_decay == weight_decay
    assert recipe.model.build().drop_path == drop_path
    is_scratch = name in ("mini-deit-ti", "mini-deit-s", "mini-deit-b")
    assert recipe.optimizer.average_decay == (0.99996 if is_scratch else None)
    assert not recipe.optimizer.uses_average
    assert recipe.mixing is not None
    assert recipe.augmentation.erase_prob == (0.0 if "cifar" in name else 0.25)


def test_cool_down_stays_at_the_lowest_rate():
    """Epochs 301 to 310 have 1e-5; the step before them has arrived, the one before not yet."""
    recipe = load_vision_recipe("mini-deit-ti")
    rates = [vision_rate(recipe, step, 10) for step in (2999, 3000, 3001, 3100)]
    assert rates[0] > rates[1]
    assert rates[1:] == pytest.approx([1e-5] * 3)


def test_mini_swin_learns_relations_of_the_published_layers():
    """Six pairs, weights 1 and 0.1, no labels."""
    targets = load_vision_recipe("mini-swin-t").targets
    assert targets.relations.student_layers == (1, 3, 5, 7, 9, 11)
    assert targets.relations.teacher_layers == (1, 3, 9, 15, 21, 23)
    assert (targets.relations.loss.beta, targets.relations.loss.gamma) == (1.0, 0.1)
    assert targets.hard_share == 0


@pytest.mark.parametrize("variant", DEIT_VARIANTS)
def test_all_settings_of_a_deit_can_be_given(variant):
    """By name, or one by one."""
    config = DEIT_VARIANTS[variant]
    assert DeiTStudent(variant=variant).build() == config
    assert DeiTStudent(**vars(config)).build() == config


@pytest.mark.parametrize("variant", SWIN_VARIANTS)
def test_all_settings_of_a_swin_can_be_given(variant):
    """By name, or one by one."""
    config = SWIN_VARIANTS[variant]
    assert SwinStudent(variant=variant).build() == config
    assert SwinStudent(**vars(config)).build() == config


def test_mini_swin_recipes_compute_as_published():
    """The recipes name the switches that the library has a function for."""
    for size in "tsb":
        built = load_vision_recipe(f"mini-swin-{size}").model.build()
        assert built == as_published(SWIN_VARIANTS[f"mini-{size}"])


def test_older_files_have_a_tiny_vit(tmp_path):
    """A model without a kind is one; the kind is written down from now on."""
    recipe = load_vision_recipe("tinyvit-5m")
    text = vision_to_toml(recipe)
    assert 'kind = "tinyvit"' in text
    path = tmp_path / "old.toml"
    path.write_text(text.replace('kind = "tinyvit"\n', ""))
    assert read_vision_recipe(path) == recipe


REFUSED = {
    "model.kind=vgg": "model.kind: expected one of 'tinyvit', 'deit', 'swin', got 'vgg'",
    "model={kind='deit'}": "model.variant: expected a name, or width and num_heads, got none",
    "model={kind='swin'}": "model.variant: expected a name, or width, got none",
    "model.groups=[2,0]": "model.groups: expected numbers of at least 1, got (2, 0)",
    "model.windows=[1,1,1]": "model.windows: expected one of kind, variant, width, num_heads",
    "model.position_std=0": "model.position_std: expected more than 0, got 0",
    "train.grad_clip=-1": "train.grad_clip: expected at least 0, got -1",
    "train.repeats=0": "train.repeats: expected at least 1, got 0",
    "start={path='x', share={}}": "start.share.budget: expected a budget, a plan in sharing, or",
    "start={path='x', share={budget=0}}": "start.share.budget: expected more than 0, got 0",
    "start={path='x', share={budget=0.5, transforms={kernel=2}}}": (
        "start.share.transforms.kernel: expected 0 or an odd number above it, got 2"
    ),
    "targets={kind='store', store='x', relations={}}": (
        "targets.relations.teacher: expected one beside a store, got none"
    ),
    "targets={kind='teacher', teacher={name='x:y'}, relations={student_layers=[1]}}": (
        "targets.relations.student_layers: expected them and teacher_layers, got one of the two"
    ),
    "targets={kind='teacher', teacher={name='x:y'}, relations={loss={beta=-1}}}": (
        "targets.relations.loss.beta: expected a finite number of at least 0, got -1.0"
    ),
    "targets={kind='teacher', teacher={name='x:y'}, relations={loss={hidden='projected'}}}": (
        "targets.relations.loss.hidden: expected a form without weights of its own, got projected"
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.items())
def test_wrong_settings_are_refused_in_one_line(change, message):
    """The line names recipe, field, what was expected and what was found."""
    with pytest.raises(ValueError, match=r"^digits-vit: ") as caught:
        load_vision_recipe("digits-vit", [change])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_stores_have_an_image_once_an_epoch():
    """So none can be repeated in it."""
    wrong = ["targets={kind='store', store='x'}", "train.repeats=3"]
    with pytest.raises(ValueError, match=r"train\.repeats: expected 1 with targets\.kind store"):
        load_vision_recipe("digits-vit", wrong)


def test_plans_survive_a_file(tmp_path):
    """A plan has lists of tables, and parts that are absent."""
    plan = Plan(
        stages=(StagePlan(name="blocks", first=0, groups=(2, 2, 2), deltas=("mlp.fc1",)),),
        transforms=Transforms(rank=2, delta="zero"),
    )
    recipe = replace(load_vision_recipe("digits-vit"), sharing=plan)
    path = tmp_path / "recipe.toml"
    path.write_text(vision_to_toml(recipe))
    assert read_vision_recipe(path) == recipe
    assert vision_from_dict(vision_to_dict(recipe), origin="x") == recipe
    assert "sharing" in vision_conflict(replace(recipe, sharing=None), recipe)


def test_decay_spares_tables_and_positions_and_layers_count_executions():
    """Six executions in three groups: a group learns like its first block, 0 2 4, of six."""
    model = make_model(load_vision_recipe("digits-vit", ["model.groups=[2,2,2]"]).model.build())
    groups = vision_groups(model, 0.05, layer_decay=0.5)
    found = {id(one): group for group in groups for one in group["params"]}

    def settings(name):
        group = found[id(model.get_parameter(name))]
        return group["weight_decay"], group["lr_ratio"]

    assert settings("pos_embed") == (0.0, 0.5**5)
    assert settings("patch_embed.proj.weight") == (0.05, 0.5**5)
    assert settings("blocks.3.attn.qkv.weight") == (0.05, 0.5**3)  # that of block 2
    assert settings("blocks.3.norm1.weight") == (0.0, 0.5**2)  # its own
    assert settings("head.weight") == (0.05, 1.0)
    assert settings("norm.weight") == (0.0, 1.0)
    with torch.device("meta"):
        swin = make_model(SWIN_VARIANTS["mini-t"])
    for group in vision_groups(swin, 0.05, layer_decay=0.5):
        found |= {id(one): group for one in group["params"]}
    table = swin.layers[2].blocks[5].attn.relative_position_bias_table
    # Third stage: one set of weights, whose first execution is number 4 of 12.
    assert (found[id(table)]["weight_decay"], found[id(table)]["lr_ratio"]) == (0.0, 0.5**7)
    merge = swin.layers[2].downsample.reduction.weight
    assert (found[id(merge)]["weight_decay"], found[id(merge)]["lr_ratio"]) == (0.05, 0.5**8)


def test_every_recipe_is_named_after_what_it_is_called_by():
    """Also those that are made of others."""
    assert [recipe().name for recipe in MINI_RECIPES.values()] == list(MINI_RECIPES)
