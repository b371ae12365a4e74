"""Laws: published constants, tables and closed forms, and what lies outside of the fit."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from weightwise.laws import (
    BESIROGLU,
    CAPYBARA,
    HOFFMANN,
    KUMAR,
    KUMAR_POST_TRAINING,
    BitsOnly,
    Kumar,
    OpenAI,
    Settings,
    best_layout,
    constants,
    optimal_training,
    predict,
    read_settings,
)
from weightwise.numerics import ScaledFormat

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = st.sampled_from(["e1m1", "e2m1", "e3m2", "e4m3", "e5m2", "e8m7"])
SIZES = st.floats(1e6, 1e12)
TOKENS = st.floats(1e8, 1e15)
BLOCKS = st.sampled_from([16, 32, 128, "channel"])
# Closed forms of appendix E of the paper at B = 128: C, P, D, N, loss.
JOINT = (
    (1e21, 4.190, 8.03e10, 7.93e9, 2.3942),
    (1e22, 4.446, 1.63e11, 3.69e10, 2.2452),
    (1e23, 4.717, 3.29e11, 1.72e11, 2.1417),
    (1e24, 5.005, 6.66e11, 8.00e11, 2.0698),
    (1e25, 5.311, 1.35e12, 3.72e12, 2.0198),
    (1e26, 5.635, 2.73e12, 1.73e13, 1.9851),
    (1e27, 5.979, 5.53e12, 8.07e13, 1.9610),
    (1e29, 6.731, 2.27e13, 1.75e15, 1.9326),
    (1e31, 7.578, 9.30e13, 3.79e16, 1.9189),
    (1e33, 8.531, 3.81e14, 8.2e17, 1.9123),
)


def rows(path: Path) -> list[dict[str, str]]:
    """A table of the scaling-law data."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_capybara_constants_to_the_printed_digits() -> None:
    """The derived constants of appendices C to E."""
    assert round(CAPYBARA.gamma_rho, 3) == 160.697
    assert round(CAPYBARA.gamma_n, 2) == 11125.76
    assert round(CAPYBARA.gamma_tokens, 9) == 2.243280e-3
    assert round(CAPYBARA.gamma_params, 12) == 1.164583e-6
    assert CAPYBARA.lam == pytest.approx(1926.2516, abs=1e-4)


def test_capybara_losses_at_all_371_runs_of_table_3(law_data: Path) -> None:
    """With and without the penalty, wherever B is known."""
    path = law_data / "law_predictions_at_table3.csv"
    settings, found = read_settings(path), rows(path)
    for losses, column in (
        (CAPYBARA.baseline(settings), "loss_bf16_term"),
        (CAPYBARA.loss(settings), "loss_predicted"),
    ):
        expected = np.array([float(row[column] or "nan") for row in found])
        known = np.isfinite(expected)
        assert known.sum() > 340
        np.testing.assert_allclose(losses[known], expected[known], atol=6e-7)


def test_one_scale_per_tensor_lies_in_the_range_of_figure_12(law_data: Path) -> None:
    """Some 16 at the least N / D and 55 at the largest."""
    settings = read_settings(law_data / "table3_configurations.csv")
    settings = settings[settings.granularity == "tensor"]
    log2_block = CAPYBARA.penalty(settings) / CAPYBARA.penalty(
        Settings.of(settings.num_params, settings.num_tokens, "e1m1", 2)
    )
    assert log2_block.min() == pytest.approx(16, rel=0.2)
    assert log2_block.max() == pytest.approx(55, rel=0.2)


def test_critical_tokens_of_a_model_with_1e9_parameters() -> None:
    """1730, 27 and 0.4 trillion in the paper."""
    found = [
        float(CAPYBARA.critical_tokens(Settings.of(1e9, 1e12, name))[0])
        for name in ("e8m7", "e4m3", "e2m1")
    ]
    assert [float(f"{one / 1e12:.4g}") for one in found] == [1730, 27.33, 0.3928]


@given(SIZES, FORMATS, BLOCKS)
def test_loss_is_least_at_the_critical_tokens(size: float, fmt: str, block: int) -> None:
    """A tenth fewer or more tokens are worse."""
    tokens = CAPYBARA.critical_tokens(Settings.of(size, 1e12, fmt, block))
    least, *around = (
        CAPYBARA.loss(Settings.of(size, tokens * factor, fmt, block))[0] for factor in (1, 0.9, 1.1)
    )
    assert least < min(around)


@given(SIZES, TOKENS, FORMATS, BLOCKS)
def test_effective_parameters_reach_the_same_loss_without_quantization(
    size: float, tokens: float, fmt: str, block: int
) -> None:
    """The definition of equation 36."""
    settings = Settings.of(size, tokens, fmt, block)
    fewer = Settings.of(CAPYBARA.effective_params(settings), tokens)
    np.testing.assert_allclose(CAPYBARA.loss(fewer), CAPYBARA.loss(settings), rtol=1e-12)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_integers_count_as_the_uniform_grid_of_as_many_bits(bits: int) -> None:
    """INT4 is E1M2 to a law: seven positive values at equal distances."""
    integer, uniform = (
        Settings.of(1e8, 1e10, name, 32) for name in (f"int{bits}", f"e1m{bits - 2}")
    )
    assert CAPYBARA.loss(integer) == CAPYBARA.loss(uniform)
    assert integer.format_names[0] == f"E1M{bits - 2}"


@given(SIZES, TOKENS, FORMATS)
def test_blocks_of_one_element_cost_nothing(size: float, tokens: float, fmt: str) -> None:
    """Every element has a scale of its own, so nothing is rounded."""
    settings = Settings.of(size, tokens, fmt, 1)
    assert CAPYBARA.loss(settings) == CAPYBARA.loss(Settings.of(size, tokens))
    assert np.isinf(CAPYBARA.critical_tokens(settings))


def test_layouts_from_1_to_16_bits_are_those_of_figure_5(law_data: Path) -> None:
    """Whole and continuous splits, and the second best."""
    labels = "E0M0 E1M0 E1M1 E2M1 E2M2 E3M2 E3M3 E4M3 E4M4 E5M4 E5M5 E6M5 E6M6 E7M6 E7M7 E8M7"
    found = [best_layout(bits) for bits in range(1, 17)]
    assert " ".join("E{}M{}".format(*one.best) for one in found) == labels
    for row, one in zip(rows(law_data / "optimal_layout.csv"), found, strict=True):
        assert one.exponent_bits == pytest.approx(float(row["E_opt_continuous"]), abs=6e-5)
        assert one.mantissa_bits == pytest.approx(float(row["M_opt_continuous"]), abs=6e-5)
        if one.second:
            assert "E{}M{}".format(*one.second) == row["second_best"]
            assert one.second_share == pytest.approx(float(row["second/best"]), abs=6e-5)


@pytest.mark.parametrize(
    ("tokens", "bits"),
    [(1e10, 3.52), (1e11, 4.27), (1e12, 5.18), (1e13, 6.28), (1e14, 7.62), (1e15, 9.25)],
)
def test_best_bits_for_given_tokens(tokens: float, bits: float) -> None:
    """They do not depend on the compute."""
    for compute in (1e21, 1e27):
        found = optimal_training(compute=compute, num_tokens=tokens)
        assert round(found.bits, 2) == bits


def test_best_bits_for_given_parameters_follow_the_closed_form() -> None:
    """Appendix E without overhead."""
    law, size = CAPYBARA, 1e10
    power = law.delta + law.nu + 2 * law.beta
    for compute in (1e21, 1e24, 1e27):
        right = law.gamma_params * (compute / 0.375) ** (2 * law.beta)
        right *= size ** -(law.alpha + 2 * law.beta) * 7
        found = optimal_training(compute=compute, num_params=size)
        assert found.bits == pytest.approx(right ** (1 / power), rel=1e-9)


@pytest.mark.parametrize(("compute", "bits", "tokens", "size", "loss"), JOINT)
def test_joint_optimum_of_bits_parameters_and_tokens(
    compute: float, bits: float, tokens: float, size: float, loss: float
) -> None:
    """Ten orders of magnitude of compute."""
    found = optimal_training(compute=compute)
    assert round(found.bits, 3) == bits
    assert float(f"{found.num_params:.3g}") == size
    # Two printed numbers of tokens lie a digit above the closed form, 8.0247e10 and 1.6249e11,
    # which the minimiser below confirms.
    is_off = compute < 1e23
    assert is_off or float(f"{found.num_tokens:.3g}") == tokens
    assert found.num_tokens == pytest.approx(tokens, rel=4e-3)
    assert round(found.loss, 4) == loss


@pytest.mark.parametrize("overhead", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("fixed", ["nothing", "num_params", "num_tokens", "bits"])
def test_optima_agree_with_a_numerical_minimiser(fixed: str, overhead: float) -> None:
    """Whatever is kept fixed, and with overhead."""
    law, compute = CAPYBARA, 1e23
    given = {"num_params": 1e10, "num_tokens": 1e12, "bits": 5.0}.get(fixed)
    kept = {fixed: given} if given else {}
    found = optimal_training(compute=compute, overhead_bits=overhead, **kept)

    def loss(x: np.ndarray) -> float:
        bits = given if fixed == "bits" else math.exp(x[0])
        work = compute / (0.375 * (bits + overhead))
        data = {"num_tokens": given, "num_params": work / (given or 1)}.get(fixed, math.exp(x[1]))
        size = work / data
        rate = 7 / (law.gamma_rho * bits ** (law.delta + law.nu))
        return (
            law.n / size**law.alpha + law.d / data**law.beta + law.epsilon
            + data**law.beta / size**law.alpha * rate
        )  # fmt: skip

    start = np.array([math.log(5.0), math.log(3e11)])
    best = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15})
    assert found.loss == pytest.approx(best.fun, rel=1e-9)
    if fixed != "bits":
        assert found.bits == pytest.approx(math.exp(best.x[0]), rel=1e-5)


def test_a_table_of_costs_chooses_among_its_own_bits() -> None:
    """Linear costs give the rounded optimum, FP6 at the price of FP8 loses."""
    as_law = optimal_training(compute=1e24, costs={bits: bits / 16 for bits in (4, 5, 6, 8)})
    assert as_law.bits == 5
    same = optimal_training(compute=1e24, costs={6: 0.5, 8: 0.5, 16: 1.0})
    assert same.bits == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute": 0.0}, "compute: expected a finite number above 0, got 0.0"),
        ({"compute": 1e21, "bits": -1.0}, "bits: expected a finite number above 0, got -1.0"),
        ({"compute": 1e21, "num_params": 1e9, "num_tokens": 1e9}, "at most one of"),
        ({"compute": 1e21, "block_size": 1}, "block_size: expected above 1, got 1"),
        ({"compute": 1e21, "overhead_bits": -1}, "overhead_bits: expected at least 0"),
        ({"compute": 1e21, "costs": {4: 0.0}}, "costs: expected"),
        ({"compute": 1e21, "costs": {4: 0.25}, "bits": 6}, "bits: 6 is not in costs"),
    ],
)
def test_impossible_questions_are_refused(options: dict, message: str) -> None:
    """The message names the argument."""
    with pytest.raises(ValueError, match=message):
        optimal_training(**options)


def test_kumar_advises_seven_bits_whatever_the_compute() -> None:
    """With the published constants, and the root without offsets."""
    assert round(KUMAR.optimal_bits(), 2) == 7.00
    equal = Kumar(n=1, alpha=0.5, d=1, beta=0.5, epsilon=1, gammas=(1.0, 1.0, 1.0))
    assert round(equal.optimal_bits(), 5) == 1.90381


def test_kumar_with_many_bits_is_a_law_without_quantization() -> None:
    """Fewer bits only ever cost."""
    assert KUMAR.loss(1e8, 1e10) == KUMAR.n / 1e8**0.4965 + KUMAR.d / 1e10**0.4965 + KUMAR.epsilon
    fewer = KUMAR.loss(1e8, 1e10, weight_bits=4)
    assert fewer > KUMAR.loss(1e8, 1e10, weight_bits=8) > KUMAR.loss(1e8, 1e10)


def test_quantizing_after_training_hurts_beyond_the_critical_tokens() -> None:
    """A tenth fewer or more tokens are worse."""
    tokens = KUMAR_POST_TRAINING.critical_tokens(KUMAR, 1e8, 3)

    def loss(data: float) -> float:
        return float(KUMAR.loss(1e8, data) + KUMAR_POST_TRAINING.loss(1e8, data, 3))

    assert loss(tokens) < min(loss(0.9 * tokens), loss(1.1 * tokens))


def test_bits_alone_cannot_tell_exponent_from_mantissa() -> None:
    """E2M1 and E1M2 are the same to it."""
    law = BitsOnly(n=69.0, alpha=0.24, d=7e4, beta=0.5, epsilon=1.9, gamma=1.5)
    losses = [law.loss(Settings.of(1e8, 1e10, name))[0] for name in ("e2m1", "e1m2", "e8m7", None)]
    assert losses[0] == losses[1] > losses[2] > losses[3]


def test_chinchilla_optimum_beats_its_neighbours() -> None:
    """It spends exactly the compute."""
    for law in (HOFFMANN, BESIROGLU):
        size, tokens = law.optimal(1e22)
        assert 6 * size * tokens == pytest.approx(1e22)
        best, *others = (
            law.loss(Settings.of(size * factor, tokens / factor))[0] for factor in (1, 0.9, 1.1)
        )
        assert best < min(others)
    assert constants(BESIROGLU)["alpha"] == 0.34781


def test_openai_form_meets_chinchilla_where_data_are_endless() -> None:
    """At N = n the loss is 1."""
    law = OpenAI(n=8.8e13, alpha=0.076, d=5.4e13, beta=0.095, epsilon=0.0)
    assert law.loss(Settings.of(8.8e13, 1e40))[0] == pytest.approx(1.0)


def test_questions_outside_of_the_fit_are_answered_with_warnings() -> None:
    """One warning for each field, none inside."""
    inside = predict(CAPYBARA, Settings.of(1e8, 5e10, "e4m3", 128))
    assert not inside.warnings
    assert inside.low is None
    outside = predict(CAPYBARA, Settings.of([1e8, 7e10], 1e13, "e5m5", 128))
    assert [str(one) for one in outside.warnings] == [
        "num_params: 7e+10 lies outside of the fitted 4.089e+07 to 6.795e+08",
        "num_tokens: 1e+13 lies outside of the fitted 1.049e+10 to 1.049e+11",
        "E5M5 was in no run of the fit",
    ]


def test_intervals_hold_the_middle_of_the_samples() -> None:
    """Eleven known laws have known quantiles."""
    settings = Settings.of([1e8, 1e9], 1e10)
    laws = tuple(HOFFMANN.__class__(n=1, alpha=1, d=1, beta=1, epsilon=e) for e in range(11))
    found = predict(laws[5], settings, laws, level=0.8)
    np.testing.assert_allclose(found.low, 1, atol=1e-6)
    np.testing.assert_allclose(found.high, 9, atol=1e-6)
    with pytest.raises(ValueError, match="level"):
        predict(laws[5], settings, laws, level=1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_params": np.array([1e8, 0.0])}, "row 2: num_params: expected a finite number"),
        ({"num_tokens": np.array(np.nan)}, "row 1: num_tokens"),
        ({"exponent_bits": np.array(-1.0)}, "row 1: exponent_bits: expected at least 0"),
        ({"granularity": np.array("row")}, "row 1: granularity: expected"),
        ({"granularity": np.array("channel")}, "row 1: block_size: expected none without blocks"),
        ({"block_size": np.array(0.5)}, "row 1: block_size: expected at least 1"),
        ({"granularity": np.array("none")}, "row 1: exponent_bits: expected none"),
    ],
)
def test_settings_out_of_range_name_row_and_field(change: dict, message: str) -> None:
    """Each array has its own range."""
    good = {
        "num_params": np.array(1e8), "num_tokens": np.array(1e10), "exponent_bits": np.array(4.0),
        "mantissa_bits": np.array(3.0), "granularity": np.array("block"),
        "block_size": np.array(32.0),
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        Settings(**(good | change))


def test_one_object_for_quantizer_and_law(tmp_path: Path) -> None:
    """A format with its scales asks the law for its own block; tables of runs know it as well."""
    fmt = ScaledFormat.parse("mxfp4")
    by_hand = CAPYBARA.loss(Settings.of(1e9, 1e11, "e2m1", 32))
    assert CAPYBARA.loss(Settings.of(1e9, 1e11, fmt)) == by_hand
    assert CAPYBARA.loss(Settings.of(1e9, 1e11, "mxfp4")) == by_hand
    assert Settings.of(1e9, 1e11, "e4m3@tensor").granularity.tolist() == ["tensor"]
    with pytest.raises(ValueError, match="block: expected none with format mxfp4, got 64"):
        Settings.of(1e9, 1e11, fmt, 64)
    path = tmp_path / "asked.csv"
    path.write_text("N,D,format,B\n1e9,1e11,mxfp4,\n1e9,1e11,e2m1,32\n")
    assert CAPYBARA.loss(read_settings(path)).tolist() == [by_hand[0]] * 2
    path.write_text("N,D,format,B\n1e9,1e11,mxfp4,64\n")
    with pytest.raises(ValueError, match="line 2: column block_size: expected none or 32"):
        read_settings(path)
