"""Shapes of laws for fitting: linear in some constants once the others are known.

With the exponents theta given, every law here is ``L = sum_j c_j F_j(theta)`` with coefficients
``c_j >= 0``. So good starting points come from non-negative least squares over a coarse grid of
exponents, and no coefficient needs a guess.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

import numpy as np

from weightwise.laws.dense import Chinchilla, OpenAI
from weightwise.laws.precision import CAPYBARA, BitsOnly, Capybara
from weightwise.laws.qat import QAT, QAT_W4A4, log2_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from weightwise.laws.law import Floats, Hull, Law, Settings

SIZE_POWERS = DATA_POWERS = (0.2, 0.35, 0.5)


class Family(Protocol):
    """A law whose constants are open, on the settings of some runs.

    J coefficients, K exponents, R runs.
    """

    num_coefficients: ClassVar[int]

    @property
    def names(self) -> tuple[str, ...]:
        """The constants that exponents and coefficients stand for, (K + J) of them."""
        ...

    def at(self, settings: Settings) -> Family:
        """The same open constants on other settings."""
        ...

    def starts(self) -> Iterator[Floats]:
        """Coarse grid of exponents, each of shape (K,)."""
        ...

    def features(self, theta: Floats) -> tuple[Floats, Floats]:
        """Features of shape (J, R) and their derivatives by the exponents, (J, K, R)."""
        ...

    def law(self, theta: Floats, coefficients: Floats, hull: Hull | None) -> Law:
        """The law of given exponents and coefficients."""
        ...


@dataclass(frozen=True)
class _OnSettings:
    """What all families share: settings that can be exchanged."""

    settings: Settings

    def at(self, settings: Settings) -> Self:
        """See `Family`."""
        return replace(self, settings=settings)


def _dense_features(settings: Settings, theta: Floats) -> tuple[Floats, Floats]:
    """``N^-alpha``, ``D^-beta`` and 1 with their derivatives by alpha and beta."""
    log_size, log_data = np.log(settings.num_params), np.log(settings.num_tokens)
    size, data = np.exp(-theta[0] * log_size), np.exp(-theta[1] * log_data)
    slopes = np.zeros((3, 2, len(settings)))
    slopes[0, 0], slopes[1, 1] = -log_size * size, -log_data * data
    return np.stack([size, data, np.ones_like(size)]), slopes


@dataclass(frozen=True)
class ChinchillaFamily(_OnSettings):
    """Exponents alpha, beta; coefficients n, d, epsilon."""

    num_coefficients: ClassVar[int] = 3
    names: ClassVar[tuple[str, ...]] = ("alpha", "beta", "n", "d", "epsilon")

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
class OpenAIFamily(_OnSettings):
    """``d^beta (r N^(-alpha / beta) + 1 / D)^beta + epsilon``, where ``r = n^(alpha / beta) / d``.

    Exponents alpha, beta, log r; coefficients ``d^beta`` and epsilon.
    """

    num_coefficients: ClassVar[int] = 2
    names: ClassVar[tuple[str, ...]] = ("alpha", "beta", "n", "d", "epsilon")

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
class BitsOnlyFamily(_OnSettings):
    """Exponents alpha, beta, log gamma; coefficients n, d, epsilon."""

    num_coefficients: ClassVar[int] = 3
    names: ClassVar[tuple[str, ...]] = ("alpha", "beta", "gamma", "n", "d", "epsilon")

    @classmethod
    def of(cls, settings: Settings) -> BitsOnlyFamily:
        """For runs of which some are quantized; else a ValueError."""
        _require_quantized("kumar", settings)
        return cls(settings)

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


@dataclass(frozen=True)
class CapybaraFamily(_OnSettings):
    """Exponents alpha, beta, delta, nu; coefficients n, d, epsilon, ``1 / gamma``.

    Beside runs with blocks, runs of one scale a channel add log2 B of a channel to the exponents,
    and runs of one scale a tensor the two constants of its mapping. Without blocks only their
    product with ``1 / gamma`` is known, so they keep their published values.
    """

    fits_channel: bool
    fits_tensor: bool
    num_coefficients: ClassVar[int] = 4

    @classmethod
    def of(cls, settings: Settings) -> CapybaraFamily:
        """With the constants that the runs can tell; a ValueError if no run is quantized."""
        _require_quantized("capybara", settings)
        shared = [name in settings.granularity for name in ("block", "channel", "tensor")]
        has_blocks, has_channels, has_tensors = shared
        return cls(settings, has_blocks and has_channels, has_blocks and has_tensors)

    @property
    def names(self) -> tuple[str, ...]:
        """See `Family`."""
        channel = ("log2_channel",) if self.fits_channel else ()
        tensor = ("tensor_scale", "tensor_power") if self.fits_tensor else ()
        shape = ("alpha", "beta", "delta", "nu")
        return (*shape, *channel, *tensor, "n", "d", "epsilon", "gamma")

    def starts(self) -> Iterator[Floats]:
        """Pairs of powers with one shape of the penalty; the rest as published."""
        for alpha, beta in product(SIZE_POWERS, DATA_POWERS):
            yield np.array([alpha, beta, 2.5, 2.5, *self._extra_start()])

    def _extra_start(self) -> list[float]:
        """Logarithm of log2 B of channels; of the tensor's scale, and its power."""
        extra = [float(np.log(CAPYBARA.log2_channel))] if self.fits_channel else []
        if self.fits_tensor:
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
        if self.fits_channel:
            rows[4] = settings.granularity == "channel"
        if self.fits_tensor:
            is_tensor = settings.granularity == "tensor"
            rows[-2] = is_tensor
            rows[-1] = np.where(is_tensor, log_size - log_data, 0.0)
        return rows

    def _known_log2_block(self) -> Floats:
        """log2 B where it is known, and 1 where an exponent stands for it."""
        settings = self.settings
        ratio = settings.num_params / settings.num_tokens
        tensor = np.full(len(settings), 1.0)
        if not self.fits_tensor:
            tensor = CAPYBARA.tensor_scale * ratio**CAPYBARA.tensor_power
        channel = 1.0 if self.fits_channel else CAPYBARA.log2_channel
        return settings.log2_block(channel, tensor)

    def law(self, theta: Floats, coefficients: Floats, hull: Hull | None) -> Capybara:
        """See `Family`."""
        n, d, epsilon, inverse_gamma = map(float, coefficients)
        alpha, beta, delta, nu = map(float, theta[:4])
        tensor = (float(np.exp(theta[-2])), float(theta[-1])) if self.fits_tensor else None
        scale, power = tensor or (CAPYBARA.tensor_scale, CAPYBARA.tensor_power)
        channel = float(np.exp(theta[4])) if self.fits_channel else CAPYBARA.log2_channel
        return Capybara(
            n=n, alpha=alpha, d=d, beta=beta, epsilon=epsilon, gamma=1 / inverse_gamma,
            delta=delta, nu=nu, log2_channel=channel, tensor_scale=scale, tensor_power=power,
            hull=hull,
        )  # fmt: skip


@dataclass(frozen=True)
class QATFamily(_OnSettings):
    """Exponents alpha, beta, gamma_n, gamma_d, gamma_g; coefficients n, d, epsilon, k.

    With groups of one size only the product of k and the groups' term is known, so gamma_g keeps
    its published value.
    """

    fits_groups: bool
    num_coefficients: ClassVar[int] = 4

    @classmethod
    def of(cls, settings: Settings) -> QATFamily:
        """For runs with quantization in blocks, all in one number format; else a ValueError."""
        _require_quantized("qat", settings)
        used = settings[settings.is_quantized]
        formats = sorted(set(used.format_names))
        if len(formats) > 1:
            raise ValueError(f"qat: expected runs of one number format, got {', '.join(formats)}")
        sizes = np.unique(used.block_size[log2_groups(used) > 0])
        if not len(sizes):
            raise ValueError("qat: block_size: expected groups of more than one element, got none")
        return cls(settings, len(sizes) > 1)

    def at(self, settings: Settings) -> Self:
        """See `Family`; other number formats have other constants, a ValueError."""
        own, other = (set(one[one.is_quantized].format_names) for one in (self.settings, settings))
        if other - own:
            raise ValueError(f"qat: the runs are in {own.pop()}, expected no {other.pop()}")
        return super().at(settings)

    @property
    def names(self) -> tuple[str, ...]:
        """See `Family`."""
        groups = ("gamma_g",) if self.fits_groups else ()
        return ("alpha", "beta", "gamma_n", "gamma_d", *groups, "n", "d", "epsilon", "k")

    def starts(self) -> Iterator[Floats]:
        """Pairs of powers with the published shape of the penalty."""
        law = QAT_W4A4
        shape = [law.gamma_n, law.gamma_d, *([law.gamma_g] if self.fits_groups else [])]
        for alpha, beta in product(SIZE_POWERS, DATA_POWERS):
            yield np.array([alpha, beta, *shape])

    def features(self, theta: Floats) -> tuple[Floats, Floats]:
        """See `Family`."""
        settings, groups = self.settings, log2_groups(self.settings)
        dense, dense_slopes = _dense_features(settings, theta)
        has_penalty = groups > 0
        log_groups = np.log(np.where(has_penalty, groups, 1.0))
        rows = [-np.log(settings.num_params), np.log(settings.num_tokens), log_groups]
        powers = [*theta[2:4], theta[4] if self.fits_groups else QAT_W4A4.gamma_g]
        penalty = np.where(has_penalty, np.exp(np.array(powers) @ np.stack(rows)), 0.0)
        slopes = np.zeros((4, len(theta), len(settings)))
        slopes[:3, :2] = dense_slopes
        slopes[3, 2:] = penalty * np.stack(rows)[: len(theta) - 2]
        return np.concatenate([dense, penalty[None]]), slopes

    def law(self, theta: Floats, coefficients: Floats, hull: Hull | None) -> QAT:
        """See `Family`."""
        n, d, epsilon, k = map(float, coefficients)
        alpha, beta, gamma_n, gamma_d = map(float, theta[:4])
        gamma_g = float(theta[4]) if self.fits_groups else QAT_W4A4.gamma_g
        return QAT(
            n=n, alpha=alpha, d=d, beta=beta, epsilon=epsilon,
            k=k, gamma_n=gamma_n, gamma_d=gamma_d, gamma_g=gamma_g, hull=hull,
        )  # fmt: skip


def _require_quantized(name: str, settings: Settings) -> None:
    if not settings.is_quantized.any():
        raise ValueError(f"{name}: expected runs with quantization, got none")


FAMILIES: dict[str, Callable[[Settings], Family]] = {
    "capybara": CapybaraFamily.of,
    "qat": QATFamily.of,
    "kumar": BitsOnlyFamily.of,
    "chinchilla": ChinchillaFamily,
    "openai": OpenAIFamily,
}
