"""Few bits in the cache: quantised after training or in it, symmetric or not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from study.rows import claim, differences, figure

from weightwise.lm import CodeConfig, LatentConfig
from weightwise.lm.latent.calibrate import calibrate
from weightwise.report.latent_figures import bits_figure
from weightwise.train import load_model
from weightwise.train.files import write_text

from .arms import ARMS, CLLA, SEEDS, bytes_share, equal_shape, small
from .stored import stored_otherwise, training_text, validation_loss

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from study.rows import Row
    from study.runs import Runs

    from weightwise.train import Recipe

    LossesByCode = dict[tuple[int, bool], list[float]]

BITS = (8, 4, 3, 2)
WORDS = {True: "symmetric", False: "asymmetric"}
# Bits and symmetry of runs that train with codes from the first step on.
TRAINED = ((4, True), (2, True), (2, False))


def after_training(runs: Runs, attention: LatentConfig) -> list[float]:
    """Losses of the trained CLLA models with another cache, one a seed."""
    found = []
    for recipe in equal_shape("CLLA"):
        model = stored_otherwise(load_model(runs.run_dir(recipe))[0], attention)
        if attention.outer_scale:
            calibrate(model, [training_text(recipe)])
        found.append(validation_loss(model, recipe))
    return found


def with_codes(bits: int, is_symmetric: bool) -> LatentConfig:
    """CLLA whose latents and rotary keys are kept in codes."""
    return replace(CLLA, codes=CodeConfig(bits=bits, group_width=16, is_symmetric=is_symmetric))


def trained_recipe(bits: int, is_symmetric: bool, seed: int) -> Recipe:
    """A run that sees its own codes from the first step on."""
    return small(f"CLLA-int{bits}-{WORDS[is_symmetric]}", with_codes(bits, is_symmetric), seed)


def codes(runs: Runs, figures: Path) -> Iterator[Row]:
    """Losses by bits, after training and in training; what each choice is worth."""
    plain = runs.losses(equal_shape("CLLA"))
    later = {}
    for bits in BITS:
        for is_symmetric in (True, False):
            attention = with_codes(bits, is_symmetric)
            later[bits, is_symmetric] = after_training(runs, attention)
            yield figure(
                f"ptq_int{bits}_{WORDS[is_symmetric]}", later[bits, is_symmetric], "nats",
                detail={"share": bytes_share(attention)},
            )  # fmt: skip
    trained = {key: runs.losses(trained_recipe(*key, seed) for seed in SEEDS) for key in TRAINED}
    for (bits, is_symmetric), values in trained.items():
        yield figure(f"qat_int{bits}_{WORDS[is_symmetric]}", values, "nats")
    yield from claims(plain, later, trained)
    yield from _late(runs)
    yield from _choices(runs, later)
    write_text(figures / "clla-bits.svg", bits_figure(plain, later, trained))


def _late(runs: Runs) -> Iterator[Row]:
    """What the codes of CLLA-quant cost when the last tenth of the training sees them, or none."""
    attention = ARMS["CLLA-quant"]
    assert isinstance(attention, LatentConfig)
    later, seen = after_training(runs, attention), runs.losses(equal_shape("CLLA-quant"))
    yield figure("ptq_quant", later, "nats", detail={"share": bytes_share(attention)})
    yield claim(
        "quant_ptq_minus_qat",
        "seeing codes in the last tenth of the training is better than quantising later",
        "trained with codes; no ablation", differences(later, seen), "nats",
    )  # fmt: skip


def _choices(runs: Runs, later: LossesByCode) -> Iterator[Row]:
    """What else may be done for symmetric codes after training."""
    for bits in (4, 2):
        plain, usual = with_codes(bits, True), later[bits, True]
        assert plain.codes is not None
        turned = after_training(runs, replace(plain, rotate_latent=True))
        scaled = after_training(runs, replace(plain, outer_scale=True))
        spanning = replace(plain, codes=replace(plain.codes, scale_rule="range"))
        wide = after_training(runs, spanning)
        for name, values in (("rotated", turned), ("scaled", scaled), ("range", wide)):
            yield figure(f"ptq_int{bits}_{name}", values, "nats")
        for name, words, worse, better in (
            ("rotation", "a fixed rotation of latents helps", usual, turned),
            ("outer_scale", "outer scales of features help", usual, scaled),
            ("least_error", "scales of the least error beat those of the range", wide, usual),
        ):
            yield claim(
                f"int{bits}_{name}_gain", f"{words}, at {bits} bits", "not in the paper",
                differences(worse, better), "nats",
            )  # fmt: skip


def claims(plain: list[float], later: LossesByCode, trained: LossesByCode) -> Iterator[Row]:
    """What few bits cost and what training with them repairs.

    Parameters
    ----------
    plain
        Losses without codes, one a seed.
    later, trained
        Losses with codes after training and in it, by bits and whether they are symmetric.
    """
    lost = [a / b - 1 for a, b in zip(later[8, True], plain, strict=True)]
    yield claim(
        "int8_loss", "eight bits after training are free", "not in the paper", lost,
        "of the loss", goal=("<=", 1e-3),
    )  # fmt: skip
    lost = [a / b - 1 for a, b in zip(later[4, True], plain, strict=True)]
    yield claim(
        "int4_loss", "four bits after training cost next to nothing", "not in the paper", lost,
        "of the loss", goal=("<=", 0.01),
    )  # fmt: skip
    for bits in (4, 3, 2):
        yield claim(
            f"int{bits}_symmetric_minus_asymmetric",
            f"asymmetric codes are better than symmetric ones at {bits} bits",
            "not in the paper", differences(later[bits, True], later[bits, False]), "nats",
        )  # fmt: skip
    for bits, is_symmetric in TRAINED:
        name = f"int{bits}_{WORDS[is_symmetric]}"
        gained = differences(later[bits, is_symmetric], trained[bits, is_symmetric])
        yield claim(
            f"{name}_ptq_minus_qat",
            f"training with {WORDS[is_symmetric]} codes of {bits} bits is better than "
            "quantising later",
            "trained with codes; no ablation", gained, "nats",
        )  # fmt: skip
        if bits == min(BITS):  # more bits do no damage to speak of
            damage = differences(later[bits, is_symmetric], plain)
            repaired = [gain / whole for gain, whole in zip(gained, damage, strict=True)]
            yield figure(f"qat_{name}_repairs", repaired, "of the damage")
