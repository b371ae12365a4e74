"""Service times learnt from a log: by drug, packs and person."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardwise.pharmacy.service_model import ServiceModel, ServiceRecord, fit_service_model

PERSONS = (0.8, 1.0, 1.25)


def log_of(num: int, seed: int, drug_sd: float = 0.25) -> tuple[list[ServiceRecord], np.ndarray]:
    """Times of a known model, popular drugs more often, and the factors of the drugs."""
    rng = np.random.default_rng(seed)
    factors = np.exp(np.random.default_rng(99).normal(0, drug_sd, 60))
    records = []
    for _ in range(num):
        drug, person, packs = int(60 * rng.random() ** 2), int(rng.integers(3)), rng.integers(1, 5)
        is_scanned = bool(rng.integers(2))
        median = (6 + 3 * packs + 2 * is_scanned) * factors[drug] * PERSONS[person]
        records.append(
            ServiceRecord(
                seconds=float(median * np.exp(rng.normal(0, 0.3))), drug=f"D{drug}",
                person=f"P{person}", packs=int(packs), is_scanned=is_scanned,
            )
        )  # fmt: skip
    return records, factors


def test_fit_finds_the_model_of_its_log() -> None:
    """Of 5,000 times the fit finds noise, persons, drugs and what packs take."""
    records, factors = log_of(5000, 1)
    model = fit_service_model(records)
    assert model.sigma == pytest.approx(0.3, rel=0.03)
    assert model.drug_variance == pytest.approx(np.log(factors).var(), rel=0.25)
    ratio = model.factor(person="P2") / model.factor(person="P0")
    assert ratio == pytest.approx(1.25 / 0.8, rel=0.03)
    known = np.array([model.factor(drug=f"D{k}") for k in range(60)])
    assert np.corrcoef(np.log(known), np.log(factors))[0, 1] > 0.97
    for packs in (1, 4):
        median = float(np.exp(model.service(packs=packs, person="P1").mu))
        assert median == pytest.approx((6 + 3 * packs) * np.exp(np.log(factors).mean()), rel=0.12)


def test_rare_drugs_are_drawn_to_all() -> None:
    """Shrinking beats both raw means and no factors on new times; unknown drugs have factor 1."""
    records, factors = log_of(300, 2)
    model = fit_service_model(records)
    assert model.factor(drug="never seen", person="new") == 1.0
    logs = np.log(factors)
    shrunk = np.array([np.log(model.factor(drug=f"D{k}")) for k in range(60)])
    raw = np.zeros(60)
    left = [
        np.log(r.seconds / (6 + 3 * r.packs + 2 * r.is_scanned) / PERSONS[int(r.person[1:])])
        for r in records
    ]
    for k in range(60):
        own = [value for value, r in zip(left, records, strict=True) if r.drug == f"D{k}"]
        raw[k] = np.mean(own) if own else 0.0
    error = ((shrunk - shrunk.mean() - logs + logs.mean()) ** 2).mean()
    assert error < ((raw - logs) ** 2).mean()
    assert error < logs.var()


def test_without_differences_there_are_no_factors() -> None:
    """Where all drugs are alike factors stay within a few per cent of 1."""
    records, _ = log_of(3000, 3, drug_sd=0.0)
    model = fit_service_model(records)
    assert all(abs(model.factor(drug=f"D{k}") - 1) < 0.06 for k in range(60))


def test_new_times_move_the_factors() -> None:
    """A drug that always takes twice as long gets there step by step, others stay."""
    model = fit_service_model(log_of(500, 4)[0])
    before = model.factor(drug="D3"), model.factor(drug="D55")
    factors = []
    for _ in range(40):
        median = np.exp(model.service(packs=2).mu)
        model = model.observe(ServiceRecord(seconds=float(2 * median), drug="new", packs=2))
        factors.append(model.factor(drug="new"))
    assert 1 < factors[0] < factors[5] < factors[-1] < 2
    assert factors[-1] == pytest.approx(2, rel=0.1)
    assert (model.factor(drug="D3"), model.factor(drug="D55")) == before


def test_observing_equals_counting_at_once() -> None:
    """The factor after n updates is the sum of logarithms over n plus the prior weight."""
    model = ServiceModel(drug_variance=0.04, sigma=0.3)
    for seconds in (12.0, 15.0, 9.0):
        model = model.observe(ServiceRecord(seconds=seconds, drug="D"))
    total = sum(np.log(seconds / 9.0) for seconds in (12.0, 15.0, 9.0))
    assert model.factor(drug="D") == pytest.approx(np.exp(total / (3 + 0.09 / 0.04)))


@given(st.integers(1, 6), st.booleans(), st.floats(1, 60))
def test_expected_maximum_of_a_line(packs: int, is_scanned: bool, cycle: float) -> None:
    """E[max(c, P)] of a line lies above cycle and mean, and below their sum."""
    model = ServiceModel()
    value = float(model.expected_max_s(cycle, packs=packs, is_scanned=is_scanned))
    mean = model.service(packs=packs, is_scanned=is_scanned).mean_s
    assert max(cycle, mean) <= value + 1e-9
    assert value < cycle + mean


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ServiceRecord(seconds=0), "seconds: expected a finite number above 0, got 0"),
        (lambda: ServiceRecord(seconds=1, packs=0), "packs: expected at least 1, got 0"),
        (lambda: ServiceModel(base_s=-1), "base_s: expected a finite number of at least 0"),
        (lambda: ServiceModel(base_s=0, per_pack_s=0), "base_s, per_pack_s: expected a sum"),
        (lambda: ServiceModel(sigma=0), "sigma: expected 0.01 to 10, got 0"),
        (lambda: fit_service_model([]), "service log: expected at least 3 times, got 0"),
        (lambda: fit_service_model([ServiceRecord(seconds=5)] * 4), "expected times that differ"),
    ],
)
def test_bad_input_is_named(make, message: str) -> None:
    """What is wrong is said with field and range."""
    with pytest.raises(ValueError, match=message):
        make()
