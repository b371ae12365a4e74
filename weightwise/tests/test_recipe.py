"""Recipes: reading, checking, overriding, writing, and continuing under them."""

import tomllib
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightwise.lm import LanguageModel, num_parameters
from weightwise.recipes import RECIPES, load_recipe, tiny
from weightwise.train import FileSource, from_dict, read_recipe, to_dict, to_toml
from weightwise.train.recipe import override
from weightwise.train.recipe_conflicts import resume_conflict

# Exact N of arXiv 2501.02423, Table 3.
PUBLISHED_N = {
    "fp-41m": 40_894_464,
    "fp-85m": 84_934_656,
    "fp-154m": 154_140_672,
    "fp-679m": 679_477_248,
    "fp-1.2b": 1_233_125_376,
}

# A change, and the end of the line that it must be refused with.
REFUSED = {
    "train.steps=0": "train.steps: expected at least 1, got 0",
    "train.steps=ten": "train.steps: expected a valid integer, got 'ten'",
    "train.steps=1.0": "train.steps: expected a valid integer, got 1.0",
    "train.steps=none": "train.steps: expected a value, got none",
    "train=3": "train: expected a table, got 3",
    "train.tensorboard=1": "train.tensorboard: expected a valid boolean, got 1",
    "train.dtype=float16": "train.dtype: expected 'float32' or 'bfloat16', got 'float16'",
    "train.micro_batch_size=3": "micro_batch_size: expected a divisor of batch_size 8, got 3",
    "train.seq_length=65": "train.seq_length: expected at most model.max_length 64, got 65",
    "schedule.peak_lr=0": "schedule.peak_lr: expected more than 0, got 0",
    "schedule.peak_lr=inf": "schedule.peak_lr: expected a finite number, got inf",
    "schedule.min_lr_ratio=1.5": "schedule.min_lr_ratio: expected at most 1, got 1.5",
    "optimizer.beta1=1.0": "optimizer.beta1: expected less than 1, got 1.0",
    "seed=-1": "seed: expected at least 0, got -1",
    "name='a b'": "name: expected pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$', got 'a b'",
    "model.attention.heads=1": (
        "model.attention.heads: expected one of share_factor, group_sizes, keep_ends, kind, "
        "num_heads, num_kv_heads, head_width, rope_theta, rope_alpha, rope_scaling, qkv_bias, "
        "qk_norm, qk_gain, qk_norm_eps, dropout, got an unknown key"
    ),
    "model.attention.num_kv_heads=3": (
        "model.attention.num_kv_heads: expected a divisor of num_heads 4, got 3"
    ),
    "data.source.kind=web": (
        "data.source.kind: expected one of 'builtin', 'files', 'hf', got 'web'"
    ),
    "data.source={kind='files'}": "data.source.paths: expected a value, got none",
    "data.source={kind='files', paths=[]}": "data.source.paths: expected at least 1 item, got []",
    "data.source={kind='files', path=['a']}": (
        "data.source.path: expected one of kind, paths, suffixes, document_bytes, "
        "got an unknown key"
    ),
    "data.source={kind='files', files=['a']}": (
        "data.source.files: expected one of kind, paths, suffixes, document_bytes, "
        "got an unknown key"
    ),
    "data.source={paths=['a']}": "data.source.kind: expected a value, got none",
    "data.valid_fraction=1": "data.valid_fraction: expected less than 1, got 1",
    "precision.targets=['P7']": (
        "precision.targets.0: expected 'P1', 'P2', 'P3', 'P4', 'P5' or 'P6', got 'P7'"
    ),
    "precision.format=e9m9": "precision.format: expected exponent_bits in 0 to 8, got 9",
}


def write(tmp_path, text):
    """A recipe file with this content."""
    path = tmp_path / "my.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("change", "message"), REFUSED.items())
def test_wrong_setting_is_refused_in_one_line(tmp_path, change, message):
    """The line names the file, the field, what was expected and what was found."""
    path = write(tmp_path, to_toml(tiny()))
    with pytest.raises(ValueError, match="expected") as caught:
        read_recipe(path, [change])
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert line.endswith(message)
    assert "\n" not in line


def test_misspelt_setting_in_a_file_is_named_with_its_neighbours(tmp_path):
    """The first thing said about a file with an unknown key is that key."""
    path = write(tmp_path, to_toml(tiny()).replace("steps = 60", "stepz = 60"))
    with pytest.raises(ValueError, match=r"train\.stepz: expected one of steps, batch_size, "):
        read_recipe(path)


@pytest.mark.parametrize("change", ["steps", "=1", "train.steps.x=3"])
def test_malformed_override_is_refused(change):
    """An override needs a key, an equals sign and tables on the way."""
    with pytest.raises(ValueError, match=r"^--set: expected "):
        load_recipe("tiny", [change])


def test_broken_and_missing_files_are_refused(tmp_path):
    """TOML errors come with their line, missing recipes with what there is."""
    with pytest.raises(ValueError, match=r"my\.toml: expected TOML, got .*line 1"):
        read_recipe(write(tmp_path, "steps = = 3"))
    with pytest.raises(
        ValueError, match=r"expected a TOML file or one of demo, tiny, .*'no\.toml'"
    ):
        load_recipe("no.toml")
    with pytest.raises(ValueError, match="expected a readable file"):
        read_recipe(tmp_path)


def test_overrides_read_toml_values_plain_words_and_none():
    """Quotes may be left out; none restores the default; later changes win."""
    recipe = load_recipe(
        "tiny",
        [
            "train.steps=7",
            "train.steps=8",
            "train.dtype=bfloat16",
            "schedule.peak_lr=1e-3",
            "schedule.warmup_steps=none",
            "precision.targets=['P2']",
            "data.source={kind='files', paths=['a b.txt']}",
        ],
    )
    assert recipe.train.steps == 8
    assert recipe.train.dtype == "bfloat16"
    assert recipe.schedule.peak_lr == 1e-3
    assert recipe.schedule.warmup_steps == 0
    assert recipe.precision.targets == ("P2",)
    assert recipe.data.source == FileSource(paths=("a b.txt",))


def test_override_leaves_its_input_alone():
    """The table of the file is not changed behind the caller's back."""
    table = {"train": {"steps": 1}}
    assert override(table, ["train.steps=2", "new.key=3"]) == {
        "train": {"steps": 2},
        "new": {"key": 3},
    }
    assert table == {"train": {"steps": 1}}


@pytest.mark.parametrize("name", RECIPES)
def test_built_in_recipe_survives_toml_and_dict(tmp_path, name):
    """Writing and reading a recipe gives the same recipe, under its own name."""
    recipe = load_recipe(name)
    assert recipe.name == name
    assert read_recipe(write(tmp_path, to_toml(recipe))) == recipe
    assert from_dict(to_dict(recipe), origin="dict") == recipe


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_any_text_survives_toml(paths):
    """Quotes, control characters and any script come back as they were."""
    source = FileSource(paths=tuple(paths))
    recipe = replace(tiny(), data=replace(tiny().data, source=source))
    assert from_dict(tomllib.loads(to_toml(recipe)), origin="toml") == recipe


@pytest.mark.parametrize(("name", "published"), PUBLISHED_N.items())
def test_scaling_law_recipe_has_the_published_size(name, published):
    """Closed form and built model agree with Table 3 of the paper, to the last weight."""
    config = load_recipe(name).model
    assert num_parameters(config) == published
    with torch.device("meta"):
        model = LanguageModel(config)
    assert sum(w.numel() for w in model.blocks.parameters() if w.ndim == 2) == published


def test_scaling_law_recipe_sees_the_published_tokens():
    """5 000 steps x 1024 sequences x 2048 tokens = 10 485 760 000 tokens."""
    config = load_recipe("fp-41m").train
    assert config.steps * config.batch_size * config.seq_length == 10_485_760_000


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("seed=2", "seed"),
        ("model.width=64", "model.width"),
        ("schedule.peak_lr=0.1", "schedule.peak_lr"),
        ("precision.format=e4m3", "precision.format"),
        ("train.micro_batch_size=2", "train.micro_batch_size"),
        ("data.source.max_bytes=none", "data.source.max_bytes"),
        ("train.steps=70", "train.steps"),
    ],
)
def test_continuing_with_other_results_is_refused(change, field):
    """What changes the numbers may not change half-way; the conflict names the field."""
    conflict = resume_conflict(tiny(), load_recipe("tiny", [change]), 10)
    assert conflict is not None
    assert conflict.startswith(f"{field}: expected ")


def test_continuing_with_other_habits_is_allowed():
    """How often to log, save and evaluate, and how to share the work, are free."""
    changes = ["name=x", "train.log_every=3", "train.save_every=7", "train.strategy=fsdp"]
    assert resume_conflict(tiny(), load_recipe("tiny", changes), 10) is None


def test_steps_may_change_where_no_rate_depends_on_them():
    """With decay_steps set or a constant rate a run can be lengthened, but not below its step."""
    for schedule in ("schedule.decay_steps=60", "schedule.kind=constant"):
        saved = load_recipe("tiny", [schedule])
        assert resume_conflict(saved, load_recipe("tiny", [schedule, "train.steps=90"]), 60) is None
        shorter = load_recipe("tiny", [schedule, "train.steps=50"])
        assert resume_conflict(saved, shorter, 50) is None
        assert "at least 60" in str(resume_conflict(saved, shorter, 60))
