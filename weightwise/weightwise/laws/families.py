"""Shapes of laws for fitting: linear in some constants once the others are known.

With the exponents theta given, every law here is ``L = sum_j c_j F_j(theta)`` with coefficients
``c_j >= 0``. So good starting points come from non-negative least squares over a coarse grid of
exponents, and no coefficient needs a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from weightwise.laws.dense import Chinchilla, OpenAI
from weightwise.laws.precision import CAPYBARA, BitsOnly, Capybara

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from weightwise.laws.law import Floats, Hull, Law, Settings

SIZE_POWERS = DATA_POWERS = (0.2, 0.35, 0.5)


class Family(Protocol):
    """A law whose constants are open, on the settings of some runs.

    J coefficients, K exponents, R runs.
    """

    num_coefficients: ClassVar[int]

    def starts(self) -> Iterator[Floats]:
        """Coarse grid of exponents, each of shape (K,)."""
        ...

    def features(self, theta: Floats) -> tuple[Floats, Floats]:
        """Features of shape (J, R) and their derivatives by the exponents, (J, K, R)."""
        ...

    def law(self, theta: Floats, coefficients: Floats, hull: Hull | None) -> Law:
        """The law of given exponents and coefficients."""
        ...


def _dense_features(settings: Settings, theta: Floats) -> tuple[Floats, Floats]:
    """``N^-alpha``, ``D^-beta`` and 1 with their derivatives by alpha and beta."""
    log_size, log_data = np.log(settings.num_params), np.log(settings.num_tokens)
    size, data = np.exp(-theta[0] * log_size), np.exp(-theta[1] * log_data)
    slopes = np.zeros((3, 2, len(settings)))
    slopes[0, 0], slopes[1, 1] = -log_size * size, -log_data * data
    return np.stack([size, data, np.ones_like(size)]), slopes


@dataclass(frozen=True)
class ChinchillaFamily:
    """Exponents alpha, beta; coefficients n, d, epsilon."""

    settings: Settings
    num_coefficients: ClassVar[int] = 3

    def starts(self) -> Iterator[Floats]:
        """Nine pairs."""
        yield from map(np.array, product(SIZE_POWERS, DATA_POWERS))

    def features(self, theta: Floats) -> tuple[Floats, Floats]:
        """See `Family`."""
        return _dense_features(self.settings, theta)

    def law(self, theta: Floats, coefficients: Floats, hull: Hull | None) -> Chinchilla:
        """See `Family`."""
        n, d, epsilon = map(float, coefficients)
        alpha, beta = map(float, theta)
        return Chinchilla(n=n, alpha=alpha, d=d, beta=beta, epsilon=epsilon, hull=hull)


@dataclass(frozen=True)
class OpenAIFamily:
    """``d^beta (r N^(-alpha / beta) + 1 / D)^beta + epsilon``, where ``r = n^(alpha / beta) / d``.

    Exponents alpha, beta, log r; coefficients ``d^beta`` and epsilon.
    """

    settings: Settings
    num_coefficients: ClassVar[int] = 2

    def starts(self) -> Iterator[Floats]:
        """Pairs of powers, each with size and data weighing alike in the middle of the runs."""
        log_size = float(np.log(self.settings.num_params).mean())
        log_data = float(np.log(self.settings.num_tokens).mean())
        for alpha, beta in product(SIZE_POWERS, DATA_POWERS):
            yield np.array([alpha, beta, alpha / beta * log_size - log_data])

    def features(self, theta: Floats) -> tuple[Floats, Floats]:
        """See `Family`."""
        alpha, beta, log_r = theta
        log_size, log_data = np.log(self.settings.num_params), np.log(self.settings.num_tokens)
        left, right = log_r - alpha / beta * log_size, -log_data
        log_sum = np.logaddexp(left, right)
        share, value = np.exp(left - log_sum), np.exp(beta * log_sum)
        slopes = np.zeros((2, 3, len(self.settings)))
        slopes[0, 0] = -value * share * log_size
        slopes[0, 1] = value * (log_sum + share * alpha / beta * log_size)
        slopes[0, 2] = value * beta * share
        return np.stack([value, np.ones_like(value)]), slopes

    def law(self, theta: Floats, coefficients: Floats, hull: Hull | None) -> OpenAI:
        """See `Family`."""
        alpha, beta, log_r = map(float, theta)
        log_d = float(np.log(coefficients[0])) / beta
        n = float(np.exp((log_r + log_d) * beta / alpha))
        epsilon = float(coefficients[1])
        d = float(np.exp(log_d))
        return OpenAI(n=n, alpha=alpha, d=d, beta=beta, epsilon=epsilon, hull=hull)


@dataclass(frozen=True)
class BitsOnlyFamily:
    """Exponents alpha, beta, log gamma; coefficients n, d, epsilon.

    Raises
    ------
    ValueError
        If no run is quantized.
    """

    settings: Settings
    num_coefficients: ClassVar[int] = 3

    def __post_init__(self) -> None:
        _require_quantized("kumar", self.settings)

    def starts(self) -> Iterator[Floats]:
        """Nine pairs with three gammas."""
        grid = product(SIZE_POWERS, DATA_POWERS, (0.5, 1.0, 2.0))
        yield from (np.array([alpha, beta, np.log(gamma)]) for alpha, beta, gamma in grid)

    def features(self, theta: Floats) -> tuple[Floats, Floats]:
        """See `Family`."""
        dense, dense_slopes = _dense_features(self.settings, theta)
        bits = np.where(self.settings.is_quantized, self.settings.bits, np.inf)
        steps = bits / self._gamma(theta)
        kept = -np.expm1(-steps)
        size = dense[0] * kept ** -theta[0]
        slopes = np.zeros((3, 3, len(self.settings)))
        slopes[:, :2] = dense_slopes
        slopes[0, 0] = -size * (np.log(self.settings.num_params) + np.log(kept))
        with np.errstate(invalid="ignore"):
            rate = np.where(np.isinf(steps), 0.0, steps * np.exp(-steps) / kept)
        slopes[0, 2] = size * theta[0] * rate
        return np.stack([size, dense[1], dense[2]]), slopes

    def law(self, theta: Floats, coefficients: Floats, hull: Hull | None) -> BitsOnly:
        """See `Family`."""
        n, d, epsilon = map(float, coefficients)
        alpha, beta, gamma = float(theta[0]), float(theta[1]), self._gamma(theta)
        return BitsOnly(n=n, alpha=alpha, d=d, beta=beta, epsilon=epsilon, gamma=gamma, hull=hull)

    def _gamma(self, theta: Floats) -> float:
        """Gamma, kept finite where a search strays."""
        return float(np.exp(np.clip(theta[2], -20, 20)))


class CapybaraFamily:
    """Exponents alpha, beta, delta, nu; coefficients n, d, epsilon, ``1 / gamma``.

    Beside runs with blocks, runs of one scale a channel add log2 B of a channel to the exponents,
    and runs of one scale a tensor the two constants of its mapping. Without blocks only their
    product with ``1 / gamma`` is known, so they keep their published values.

    Raises
    ------
    ValueError
        If no run is quantized.
    """

    num_coefficients: ClassVar[int] = 4

    def __init__(self, settings: Settings) -> None:
        _require_quantized("capybara", settings)
        self.settings = settings
        sharing = settings.granularity
        self._is_channel, self._is_tensor = sharing == "channel", sharing == "tensor"
        has_blocks = bool((sharing == "block").any())
        self._fits_channel = has_blocks and bool(self._is_channel.any())
        self._fits_tensor = has_blocks and bool(self._is_tensor.any())

    def starts(self) -> Iterator[Floats]:
        """Pairs of powers with one shape of the penalty; the rest as published."""
        for alpha, beta in product(SIZE_POWERS, DATA_POWERS):
            yield np.array([alpha, beta, 2.5, 2.5, *self._extra_start()])

    def _extra_start(self) -> list[float]:
        """Logarithm of log2 B of channels; of the tensor's scale, and its power."""
        extra = [float(np.log(CAPYBARA.log2_channel))] if self._fits_channel else []
        if self._fits_tensor:
            extra += [float(np.log(CAPYBARA.tensor_scale)), CAPYBARA.tensor_power]
        return extra

    def features(self, theta: Floats) -> tuple[Floats, Floats]:
        """See `Family`."""
        settings, num_exponents = self.settings, len(theta)
        dense, dense_slopes = _dense_features(settings, theta)
        rows = self._penalty_rows(num_exponents)
        used = settings.is_quantized
        penalty = np.where(used, np.exp(theta @ rows) * self._known_log2_block(), 0.0)
        slopes = np.zeros((4, num_exponents, len(settings)))
        slopes[:3, :2] = dense_slopes
        slopes[3] = penalty * rows
        return np.concatenate([dense, penalty[None]]), slopes

    def _penalty_rows(self, num_exponents: int) -> Floats:
        """Derivatives of the penalty's logarithm by the exponents: constants, (K, R)."""
        settings = self.settings
        log_size, log_data = np.log(settings.num_params), np.log(settings.num_tokens)
        used = settings.is_quantized
        rows = np.zeros((num_exponents, len(settings)))
        rows[0], rows[1] = -log_size, log_data
        rows[2] = np.where(used, -np.log(settings.exponent_bits + 0.5), 0.0)
        rows[3] = np.where(used, -np.log(settings.mantissa_bits + 0.5), 0.0)
        if self._fits_channel:
            rows[4] = self._is_channel
        if self._fits_tensor:
            rows[-2] = self._is_tensor
            rows[-1] = np.where(self._is_tensor, log_size - log_data, 0.0)
        return rows

    def _known_log2_block(self) -> Floats:
        """log2 B where it is known, and 1 where an exponent stands for it."""
        settings = self.settings
        ratio = settings.num_params / settings.num_tokens
        tensor = np.full(len(settings), 1.0)
        if not self._fits_tensor:
            tensor = CAPYBARA.tensor_scale * ratio**CAPYBARA.tensor_power
        channel = 1.0 if self._fits_channel else CAPYBARA.log2_channel
        return settings.log2_block(channel, tensor)

    def law(self, theta: Floats, coefficients: Floats, hull: Hull | None) -> Capybara:
        """See `Family`."""
        n, d, epsilon, inverse_gamma = map(float, coefficients)
        alpha, beta, delta, nu = map(float, theta[:4])
        tensor = (float(np.exp(theta[-2])), float(theta[-1])) if self._fits_tensor else None
        scale, power = tensor or (CAPYBARA.tensor_scale, CAPYBARA.tensor_power)
        channel = float(np.exp(theta[4])) if self._fits_channel else CAPYBARA.log2_channel
        return Capybara(
            n=n, alpha=alpha, d=d, beta=beta, epsilon=epsilon, gamma=1 / inverse_gamma,
            delta=delta, nu=nu, log2_channel=channel, tensor_scale=scale, tensor_power=power,
            hull=hull,
        )  # fmt: skip


def _require_quantized(name: str, settings: Settings) -> None:
    if not settings.is_quantized.any():
        raise ValueError(f"{name}: expected runs with quantization, got none")


FAMILIES: dict[str, Callable[[Settings], Family]] = {
    "capybara": CapybaraFamily,
    "kumar": BitsOnlyFamily,
    "chinchilla": ChinchillaFamily,
    "openai": OpenAIFamily,
}
