"""The study of latent attention: its arms, its needle task, its arithmetic and its figures."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from latent import arms, codes, needle, variants
from latent.stored import stored_otherwise, validation_loss
from study.runs import Runs

from weightwise.lm import CodeConfig, GQAConfig, LanguageModel, LatentConfig, num_stored_parameters
from weightwise.lm.latent.budget import allocated_bytes_per_token, mha_bytes_per_token
from weightwise.recipes import clla, clla_moe
from weightwise.report.latent_figures import bits_figure, needle_figure, variants_figure
from weightwise.train import load_model

if TYPE_CHECKING:
    from pathlib import Path

    from weightwise.lm.config import AttentionConfig
    from weightwise.train import Recipe


def drawn(attention: LatentConfig, seed: int = 1) -> LanguageModel:
    """A model of the needle task with new weights, large enough that heads differ."""
    model = LanguageModel(replace(needle.model_config(attention), init_std=0.2))
    model.initialize(torch.Generator().manual_seed(seed))
    return model.eval()


@pytest.mark.parametrize(
    ("arm", "percent"),
    [("MHA", 100), ("GQA", 50), ("MQA", 25), ("CLA", 12.5), ("MLA", 22.9), ("CLLA", 11.5),
     ("CLLA4", 5.7), ("CLLA-quant", 4.17)],
)  # fmt: skip
def test_bytes_are_those_of_the_sheet(arm: str, percent: float) -> None:
    """Method sheet, section 4, the table of this shape: padding and scales are counted.

    Of CLLA-quant 32 codes of half a byte with 4 bytes of scale and minimum, 16 with as much, in
    two groups: 64 bytes of 1536.
    """
    assert 100 * arms.bytes_share(arms.ARMS[arm]) == pytest.approx(percent, abs=0.05)


@pytest.mark.parametrize("arm", variants.EQUAL_ARMS)
def test_equal_parameters_are_as_equal_as_whole_widths_allow(arm: str) -> None:
    """A feature of the feed-forward layers is 3 * 96 weights in each of four layers."""
    goal = num_stored_parameters(arms.equal_shape("MHA")[0].model)
    found = num_stored_parameters(arms.equal_parameters(arm)[0].model)
    assert abs(found - goal) <= 3 * 96 * 4 / 2


def test_runs_of_different_settings_have_different_names() -> None:
    """A name stands for one recipe: records are found by it."""
    made: list[Recipe] = [one for arm in arms.ARMS for one in arms.equal_shape(arm)]
    made += [one for arm in variants.EQUAL_ARMS for one in arms.equal_parameters(arm)]
    made += [arms.at_rate(arm, rate) for arm in ("MHA", "CLLA") for rate in variants.RATES]
    made += [codes.trained_recipe(*key, seed) for key in codes.TRAINED for seed in arms.SEEDS]
    by_name = {recipe.name: recipe for recipe in made}
    assert all(by_name[recipe.name] == recipe for recipe in made)
    assert len(by_name) == len(made)


@given(length=st.integers(24, 300), seed=st.integers(0, 99))
def test_every_question_has_one_answer(length: int, seed: int) -> None:
    """The key of a question is said once in the noise, with the value of the answer."""
    token_BT = needle.texts(2, length, torch.Generator().manual_seed(seed))
    body = length - 2 * needle.NUM_NEEDLES
    assert token_BT.shape == (2, length)
    for text in token_BT.tolist():
        said = [token for token in text[:body] if token >= needle.NUM_NOISE]
        assert all(needle.FIRST_NEEDLE <= token < needle.FIRST_ANSWER for token in said)
        pairs = dict(divmod(token - needle.FIRST_NEEDLE, needle.NUM_VALUES) for token in said)
        assert len(pairs) == len(said) == needle.NUM_NEEDLES
        asked = [token - needle.FIRST_QUESTION for token in text[body::2]]
        answers = [token - needle.FIRST_ANSWER for token in text[body + 1 :: 2]]
        assert dict(zip(asked, answers, strict=True)) == pairs


def test_answers_through_the_cache_are_those_of_one_pass() -> None:
    """Read in passes of 512 and then token by token; new weights are right by chance only."""
    model = drawn(LatentConfig(num_heads=4, share_factor=2))
    token_BT = needle.texts(6, 600, torch.Generator().manual_seed(1))
    with torch.no_grad():
        guess_BP = model(token_BT)[:, -2 * needle.NUM_NEEDLES :: 2].argmax(-1)
    answer_BP = token_BT[:, 1 - 2 * needle.NUM_NEEDLES :: 2]
    expected = (guess_BP == answer_BP).float().mean().item()
    assert needle.accuracy(model, 600, 6) == pytest.approx(expected, abs=0.03)
    assert expected < 0.3


@pytest.mark.parametrize("attention", [GQAConfig(num_heads=4), LatentConfig(num_heads=4)])
def test_scores_are_sharper_beyond_the_lengths_of_training(attention: AttentionConfig) -> None:
    """At 4096 tokens queries are ln 4096 / ln 1024 = 12 / 10 as large; at 1024 as they were."""
    model = drawn(attention)
    query = model.blocks[3].attention.query.weight
    for length, factor in ((512, 1.0), (1024, 1.0), (4096, 1.2)):
        other = needle.sharpened(model, length).blocks[3].attention.query.weight
        torch.testing.assert_close(other, query * factor)


def test_no_rotary_pair_of_the_needle_task_is_slower_than_its_training() -> None:
    """The slowest of 4 pairs of latents, and of 8 of MHA, turns around well within 1024 tokens."""
    for features in (8, 16):
        turn = needle.ROPE_THETA ** (2 / features - 1)
        assert 2 * math.pi / turn < needle.STAGES[-1][0] / 2


@pytest.mark.slow
def test_rotated_latents_change_nothing_but_the_codes() -> None:
    """The up-projections undo the rotation; with codes the numbers are others."""
    plain = LatentConfig(num_heads=4, share_factor=2)
    model, token_BT = drawn(plain), needle.texts(2, 40, torch.Generator().manual_seed(2))
    turned = stored_otherwise(model, replace(plain, rotate_latent=True))
    coded = stored_otherwise(model, replace(plain, codes=CodeConfig(bits=2)))
    with torch.no_grad():
        expected, found, other = model(token_BT), turned(token_BT), coded(token_BT)
    scale = expected.abs().max()
    assert (found - expected).abs().max() < 1e-4 * scale
    assert (other - expected).abs().max() > 1e-2 * scale


def test_claims_of_codes_are_computed_seed_by_seed() -> None:
    """Losses 2.0 plain, 2.5 later and 2.25 trained: training repairs a half."""
    plain, keys = [2.0, 2.0], [(bits, sign) for bits in codes.BITS for sign in (True, False)]
    later = {key: [3.0, 3.0] for key in keys}
    later[8, True] = [2.0, 2.002]
    later[2, False] = [2.5, 2.9]
    trained = {key: [2.25, 2.25] for key in codes.TRAINED}
    rows = {row["name"]: row for row in codes.claims(plain, later, trained)}
    repaired = rows["study_qat_int2_asymmetric_repairs"]["detail"]["by_seed"]
    assert repaired == pytest.approx([0.5, 0.65 / 0.9])
    assert "study_qat_int4_symmetric_repairs" not in rows
    gap = rows["study_int2_symmetric_minus_asymmetric"]["detail"]["by_seed"]
    assert gap == pytest.approx([0.5, 0.1])
    assert rows["study_int8_loss"]["value"] == pytest.approx(0.0005)
    assert rows["study_int2_asymmetric_ptq_minus_qat"]["value"] == pytest.approx(0.45)


def test_the_order_of_the_paper_is_kept_by_losses_that_fall() -> None:
    """Each variant better than the one before: every difference is positive, as it claims."""
    loss = {arm: [1.0 - place / 10] for place, arm in enumerate(variants.PAPER)}
    rows = list(variants.ordered(loss))
    assert len(rows) == 5
    assert all(row["value"] > 0 and row["goal"] == (">=", 0.0) for row in rows)
    assert rows[0]["detail"]["paper"] == "56.83 and 56.73 % right"


def test_figures_are_well_formed() -> None:
    """Each parses as XML, says what it is, and keeps its points inside."""
    drawings = [
        variants_figure({"MHA": [1.7, 1.8], "CLLA": [1.75, 1.76]}, {"MHA": 1.0, "CLLA": 0.039}),
        bits_figure(
            [1.7], {(8, True): [1.7], (2, True): [2.2], (2, False): [1.9]}, {(2, True): [1.8]}
        ),
        needle_figure({"CLLA": {512: 1.0, 4096: 0.9}, "int2": {512: 0.5, 4096: 0.0}}),
    ]
    for drawing in drawings:
        root = ET.fromstring(drawing)  # noqa: S314 - our own drawing, nothing foreign in it
        assert root.attrib["aria-label"]
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        marks = [node for node in root.iter() if "mark" in node.attrib.get("class", "")]
        assert marks
        for node in root.iter():
            for name, most in (("cx", width), ("cy", height), ("x1", width), ("y1", height)):
                assert 0 <= float(node.attrib.get(name, 0)) <= most


@pytest.mark.parametrize("recipe", [clla(), clla_moe()], ids=lambda recipe: recipe.name)
def test_recipes_keep_a_fifteenth_of_the_bytes(recipe: Recipe) -> None:
    """A latent of 64 and a rope key of 16 features, two groups of layers.

    40 bytes of codes, and three times 4 of a scale and a minimum: 32, 32 and 16 features share one.

    Keys and values of all heads are 4 layers * 2 * 96 features * 2 bytes = 1536.
    """
    assert allocated_bytes_per_token(recipe.model) == 2 * (40 + 12)
    assert mha_bytes_per_token(recipe.model) == 1536


@pytest.mark.slow
def test_losses_of_kept_runs_are_found_again(tmp_path: Path) -> None:
    """`validation_loss` of the saved weights is the loss of the record."""
    base = arms.small("CLLA-quant", arms.ARMS["CLLA-quant"], 1)
    short = replace(base.train, steps=2, eval_batches=2)
    recipe = replace(base, train=short)
    runs = Runs(tmp_path, 1, "latents")
    (loss,) = runs.losses([recipe])
    model, _, _ = load_model(runs.run_dir(recipe))
    assert validation_loss(model, recipe) == pytest.approx(loss, abs=1e-5)
