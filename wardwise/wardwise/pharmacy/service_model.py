"""How long a pharmacist takes, by drug, packs and person, learnt from a log.

    seconds = (base + per_pack packs + scan [if scanned]) drug factor person factor e^noise

with normal noise. The common part is fitted to the logarithms by least squares. Factors of drugs
and persons are means of what is left over, drawn towards 1 the more, the fewer times there are
(empirical Bayes: weight n / (n + noise variance / factor variance)), so that a drug that was never
seen takes what its packs take. New times update the factors at once, without a new fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import least_squares
from scipy.special import ndtri

from wardwise.pharmacy.service_time import Empirical, Lognormal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike

    from wardwise.pharmacy.problem import Line
    from wardwise.pharmacy.rack import Floats

ROUNDS = 30
QUANTILES = 32  # of each line in a mixture
# Factors are told apart from noise by at least this much; less would be none at all.
LEAST_VARIANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class ServiceRecord:
    """One line of a log: a bin at an I/O point.

    Parameters
    ----------
    seconds
        From the moment the pharmacist had it until done, above 0.
    drug, person
        Whose; empty where unknown.
    packs
        Packs taken, at least 1.
    is_scanned
        Whether packs were scanned.
    """

    seconds: float
    drug: str = ""
    person: str = ""
    packs: int = 1
    is_scanned: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ValueError(
                f"service record: seconds: expected a finite number above 0, got {self.seconds}"
            )
        if self.packs < 1:
            raise ValueError(f"service record: packs: expected at least 1, got {self.packs}")


@dataclass(frozen=True)
class _Left:
    """Number and sum of the logarithms that are left over for one drug or person."""

    count: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ServiceModel:
    """Service times by drug, packs and person; the default has no factors.

    Parameters
    ----------
    base_s, per_pack_s, scan_s
        Seconds of a median bin: in any case, for each pack, and for scanning; their sum for one
        pack is above 0.
    sigma
        Standard deviation of the logarithm for one drug and person, at least 0.01.
    drug_variance, person_variance
        Of the logarithms of their factors.
    """

    base_s: float = 6.0
    per_pack_s: float = 3.0
    scan_s: float = 0.5
    sigma: float = 0.385
    drug_variance: float = LEAST_VARIANCE
    person_variance: float = LEAST_VARIANCE
    _drugs: Mapping[str, _Left] = field(default_factory=dict)
    _persons: Mapping[str, _Left] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("base_s", "per_pack_s", "scan_s", "drug_variance", "person_variance"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(
                    f"service model: {name}: expected a finite number of at least 0, got {value}"
                )
        if self.base_s + self.per_pack_s <= 0:
            raise ValueError("service model: base_s, per_pack_s: expected a sum above 0")
        if not 0.01 <= self.sigma < 10:
            raise ValueError(f"service model: sigma: expected 0.01 to 10, got {self.sigma}")

    def factor(self, *, drug: str = "", person: str = "") -> float:
        """Median time with a drug and a person over that of all."""
        return math.exp(
            _shrunk(self._drugs.get(drug), self.drug_variance, self.sigma)
            + _shrunk(self._persons.get(person), self.person_variance, self.sigma)
        )

    def service(
        self, *, drug: str = "", packs: int = 1, person: str = "", is_scanned: bool = False
    ) -> Lognormal:
        """Distribution of the time for one line."""
        median = self._median_s(packs, is_scanned) * self.factor(drug=drug, person=person)
        return Lognormal.of_logs(math.log(median), self.sigma)

    def expected_max_s(
        self,
        cycle_s: ArrayLike,
        *,
        drug: str = "",
        packs: int = 1,
        person: str = "",
        is_scanned: bool = False,
    ) -> Floats:
        """Mean of max(c, P) for each cycle c, with P the time for this line."""
        line = self.service(drug=drug, packs=packs, person=person, is_scanned=is_scanned)
        return line.expected_max_s(cycle_s)

    def mixture(self, lines: Iterable[Line]) -> Empirical:
        """Distribution over lines that are as likely as each other, persons unknown.

        Each line gives `QUANTILES` equally likely times with its own mean.

        Raises
        ------
        ValueError
            If there are no lines.
        """
        shape = np.exp(self.sigma * ndtri((np.arange(QUANTILES) + 0.5) / QUANTILES))
        shape *= math.exp(self.sigma**2 / 2) / shape.mean()
        medians_s = [
            self._median_s(line.quantity, is_scanned=False) * self.factor(drug=line.drug)
            for line in lines
        ]
        return Empirical(tuple(np.outer(medians_s, shape).ravel().tolist()))

    def observe(self, record: ServiceRecord) -> ServiceModel:
        """The model after one more time: factors move, the common part stays."""
        left = math.log(record.seconds / self._median_s(record.packs, record.is_scanned))
        drug = _shrunk(self._drugs.get(record.drug), self.drug_variance, self.sigma)
        person = _shrunk(self._persons.get(record.person), self.person_variance, self.sigma)
        return replace(
            self,
            _drugs=_with(self._drugs, record.drug, left - person),
            _persons=_with(self._persons, record.person, left - drug),
        )

    def _median_s(self, packs: int, is_scanned: bool) -> float:
        return self.base_s + self.per_pack_s * packs + self.scan_s * is_scanned


def _shrunk(left: _Left | None, variance: float, sigma: float) -> float:
    """Logarithm of a factor, drawn towards 0."""
    return left.total / (left.count + sigma**2 / variance) if left and variance else 0.0


def _with(known: Mapping[str, _Left], name: str, value: float) -> Mapping[str, _Left]:
    if not name:
        return known
    before = known.get(name, _Left())
    return {**known, name: _Left(before.count + 1, before.total + value)}


def fit_service_model(records: Iterable[ServiceRecord]) -> ServiceModel:
    """Fit a model to a log.

    Common part and factors are fitted in turn, and the variances of noise and factors from what is
    left over (method of moments), until nothing changes.

    Raises
    ------
    ValueError
        If there are fewer than three times, or all are the same.
    """
    log = list(records)
    if len(log) < 3:
        raise ValueError(f"service log: expected at least 3 times, got {len(log)}")
    seconds = np.log([record.seconds for record in log])
    if seconds.std() == 0:
        raise ValueError("service log: expected times that differ")
    work = np.array([[1.0, record.packs, record.is_scanned] for record in log])
    drugs = _Group([record.drug for record in log])
    persons = _Group([record.person for record in log])
    coefficients = np.array([0.6 * np.exp(seconds.mean()), 0.3 * np.exp(seconds.mean()), 0.1])
    used = np.ptp(work, axis=0) > 0
    used[0] = True
    for _ in range(ROUNDS):
        before = coefficients.copy()
        rest = seconds - drugs.effect - persons.effect
        coefficients = _common(work, rest, coefficients, used)
        left = seconds - np.log(work @ coefficients)
        drugs.update(left - persons.effect)
        persons.update(left - drugs.effect)
        if np.allclose(before, coefficients, rtol=1e-6, atol=1e-9):
            break
    left = seconds - np.log(work @ coefficients)
    noise = max(float((left - drugs.effect - persons.effect).std()), 0.01)
    return ServiceModel(
        base_s=float(coefficients[0]), per_pack_s=float(coefficients[1]),
        scan_s=float(coefficients[2]), sigma=noise,
        drug_variance=drugs.variance, person_variance=persons.variance,
        _drugs=drugs.left(left - persons.effect), _persons=persons.left(left - drugs.effect),
    )  # fmt: skip


def _common(work: Floats, rest: Floats, start: Floats, used: Floats) -> Floats:
    """Base, seconds a pack and seconds of scanning, by least squares of logarithms.

    What never varies in the log cannot be told from the base and is 0.
    """
    found = np.zeros(3)

    def residuals(values: Floats) -> Floats:
        return np.asarray(np.log(work[:, used] @ values) - rest)

    solution = least_squares(residuals, np.maximum(start[used], 1e-3), bounds=(1e-9, np.inf))
    found[used] = solution.x
    return found


class _Group:
    """Factors of all drugs, or of all persons, in logarithms."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.index = np.unique(names, return_inverse=True)
        self.count = np.bincount(self.index).astype(float)
        self.known = self.names != ""
        self.effect = np.zeros(len(names))
        self.variance = LEAST_VARIANCE

    def update(self, left: Floats) -> None:
        """Means of what is left over, shrunk by their own variance."""
        total = np.bincount(self.index, left)
        mean = total / self.count
        within = float(((left - mean[self.index]) ** 2).sum())
        freedom = len(left) - len(self.names)
        noise = within / freedom if freedom > 0 else float(left.var())
        several = self.known.sum() > 1
        # Variance between groups, less what noise alone puts between their means.
        spread = float((self.count * mean**2)[self.known].sum() - self.known.sum() * noise)
        weight = float(self.count[self.known].sum())
        self.variance = max(spread / weight, LEAST_VARIANCE) if several else LEAST_VARIANCE
        factor = np.where(self.known, total / (self.count + noise / self.variance), 0.0)
        self.effect = factor[self.index]

    def left(self, left: Floats) -> dict[str, _Left]:
        """Counts and sums for later updates."""
        total = np.bincount(self.index, left)
        return {
            str(name): _Left(float(count), float(value))
            for name, count, value in zip(self.names, self.count, total, strict=True)
            if name
        }
