"""The law of quantization-aware training: published constants, turning point, fits."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightwise.laws import (
    BESIROGLU,
    CAPYBARA,
    QAT_W4A4,
    QAT_W4A16,
    QAT_W16A4,
    Settings,
    constants,
    fit,
    load_fit,
    predict,
    save_fit,
)

if TYPE_CHECKING:
    from pathlib import Path

PUBLISHED = {"W4A4": QAT_W4A4, "W4A16": QAT_W4A16, "W16A4": QAT_W16A4}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_penalty_has_the_published_constants(law_data: Path, name: str) -> None:
    """Each of the three tables has four of them."""
    with (law_data / "law_constants.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row[0] == f"qat_chen_{name}"]
    assert len(rows) == 4
    found = constants(PUBLISHED[name])
    assert {row[1].lower(): float(row[2]) for row in rows} == {
        one: found[one] for one in ("k", "gamma_n", "gamma_d", "gamma_g")
    }


def test_penalty_of_one_setting_by_hand() -> None:
    """Groups of four elements count as log2 G = 2."""
    # 1e10^0.0745 = 5.559, 2^0.7779 = 1.715, 1e8^0.2186 = 56.08: 0.1582 * 5.559 * 1.715 / 56.08.
    settings = Settings.of(1e8, 1e10, "e1m2", 4)
    assert QAT_W4A4.penalty(settings)[0] == pytest.approx(0.02689, rel=1e-3)
    plain = BESIROGLU.loss(settings)[0]
    assert QAT_W4A4.loss(settings)[0] == pytest.approx(plain + 0.02689, abs=3e-5)


def test_without_rounding_there_is_no_penalty() -> None:
    """16-bit training, and groups of one element."""
    for settings in (Settings.of(1e8, 1e10), Settings.of(1e8, 1e10, "e1m2", 1)):
        assert QAT_W4A4.loss(settings) == BESIROGLU.loss(settings)
        assert np.isinf(QAT_W4A4.critical_tokens(settings))


@given(
    law=st.sampled_from(sorted(PUBLISHED)),
    size=st.floats(1e7, 1e10),
    block=st.sampled_from([16, 32, 128]),
)
def test_loss_is_least_at_the_critical_tokens(law: str, size: float, block: int) -> None:
    """A fifth fewer or more tokens are worse."""
    tokens = PUBLISHED[law].critical_tokens(Settings.of(size, 1e12, "e1m2", block))
    least, *around = (
        PUBLISHED[law].loss(Settings.of(size, tokens * factor, "e1m2", block))[0]
        for factor in (1, 0.8, 1.2)
    )
    assert least < min(around)


def test_effective_parameters_reach_the_same_loss_without_quantization() -> None:
    """Fewer of them in 16 bits."""
    settings = Settings.of([1e8, 5e8], 1e11, "e1m2", 128)
    fewer = Settings.of(QAT_W4A4.effective_params(settings), 1e11)
    assert np.all(fewer.num_params < settings.num_params)
    np.testing.assert_allclose(QAT_W4A4.loss(fewer), QAT_W4A4.loss(settings), rtol=1e-12)


def test_questions_outside_of_the_runs_are_answered_with_warnings() -> None:
    """Sizes, tokens, and a format that is not INT4."""
    assert not predict(QAT_W4A4, Settings.of(1e8, 5e10, "e1m2", 32)).warnings
    asked = predict(QAT_W4A4, Settings.of(1e9, 1e12, "e2m1", 32))
    assert [one.field for one in asked.warnings] == ["num_params", "num_tokens", "format"]


def grid(formats: tuple[tuple[str | None, int | str], ...]) -> Settings:
    """Three sizes, three lengths, and each format with its blocks."""
    return Settings.join(
        [
            Settings.of(size, tokens, fmt, block)  # type: ignore[arg-type]
            for size in (8e7, 2e8, 6e8)
            for tokens in (1e10, 3e10, 1e11)
            for fmt, block in formats
        ]
    )


def test_groups_of_one_size_keep_the_published_power() -> None:
    """Only the product with k is known then, and it is found."""
    settings = grid(((None, 32), ("e1m2", 32)))
    law = replace(QAT_W4A4, k=0.2, gamma_g=0.5)
    found = fit("qat", settings, law.loss(settings))
    assert found.rmse < 1e-7
    assert found.law.gamma_g == QAT_W4A4.gamma_g
    product = 0.2 * 5**0.5
    assert found.law.k * 5**QAT_W4A4.gamma_g == pytest.approx(product, rel=1e-3)
    assert found.num_constants == 8


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        (((None, 32),), "qat: expected runs with quantization"),
        ((("e2m1", 32), ("e1m2", 32)), "expected runs of one number format, got E1M2, E2M1"),
        ((("e1m2", 32), ("e1m2", "channel")), "row 2: granularity: expected blocks"),
        ((("e1m2", 1),), "block_size: expected groups of more than one element"),
    ],
)
def test_runs_that_the_law_is_not_about_are_refused(
    formats: tuple[tuple[str | None, int | str], ...], message: str
) -> None:
    """Formats, blocks and no quantization at all."""
    settings = grid(formats)
    with pytest.raises(ValueError, match=message):
        fit("qat", settings, BESIROGLU.loss(settings))


def test_a_fitted_law_comes_back_from_its_file(tmp_path: Path) -> None:
    """With constants, range and samples."""
    settings = grid(((None, 32), ("e1m2", 32), ("e1m2", 128)))
    found = fit("qat", settings, QAT_W4A16.loss(settings), num_samples=2)
    save_fit(tmp_path / "law.json", "qat", found)
    assert load_fit(tmp_path / "law.json") == (found.law, found.samples)


def test_information_criteria_count_constants() -> None:
    """Akaike charges 2 for each, Bayes log R; both prefer the law that made the runs."""
    settings = grid((("e1m2", 32), ("e2m1", 32), ("e3m2", 64)))
    noise = 0.002 * np.random.default_rng(1).standard_normal(len(settings))
    own, other = (fit(name, settings, CAPYBARA.loss(settings) + noise) for name in
                  ("capybara", "chinchilla"))  # fmt: skip
    assert own.bic - own.aic == pytest.approx(8 * (np.log(27) - 2))
    assert own.aic < other.aic
    assert own.bic < other.bic
