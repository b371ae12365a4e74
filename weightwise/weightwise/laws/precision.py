"""Laws of training with few bits: Capybara (with E, M and B) and Kumar's (with P alone).

Capybara is the unified law of "Scaling Laws for Floating-Point Quantization Training", arXiv
2501.02423, equation 1. With ``G = (E + 0.5)^delta (M + 0.5)^nu``::

    L(N, D, E, M, B) = n / N^alpha + d / D^beta + epsilon + (D^beta / N^alpha) log2(B) / (gamma G)

Its runs quantized the weights of all products and the input of the weight's gradient (P2, P4, P6):
one operand of every product stays in 16 bits. Who quantizes others must fit again.

Kumar et al., arXiv 2411.04330, equations 4 and 5, let bits shrink the parameters that count::

    L = A / N_eff^alpha + B / D^beta + E,  N_eff = N prod_x (1 - exp(n_x - P_x / gamma_x))

for weights, activations and the KV cache. The source calls n_x a shift and prints no sign; plus is
ours, and gives its compute-optimal 7 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from weightwise.laws.law import Hull

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from weightwise.laws.law import Floats, Settings


@dataclass(frozen=True, kw_only=True)
class Capybara:
    """The unified law of floating-point quantization training.

    Parameters
    ----------
    n, alpha, d, beta, epsilon
        The part without quantization, as in `Chinchilla`; all above 0.
    gamma, delta, nu
        The penalty: its scale, and the powers of ``E + 0.5`` and ``M + 0.5``.
    log2_channel
        log2 B that stands for one scale a channel.
    tensor_scale, tensor_power
        One scale a tensor stands for ``log2 B = tensor_scale (N / D)^tensor_power``. The paper
        shows this form but prints no constants: the defaults are read off its figure 12, to
        some 20 %.
    hull
        Where it was fitted.
    """

    title: ClassVar[str] = "Capybara"

    n: float
    alpha: float
    d: float
    beta: float
    epsilon: float
    gamma: float
    delta: float
    nu: float
    log2_channel: float = 13.1567
    tensor_scale: float = 107.0
    tensor_power: float = 0.245
    hull: Hull | None = None

    def loss(self, settings: Settings) -> Floats:
        """Losses in nats a token, shape (R,)."""
        return self.baseline(settings) + self.penalty(settings)

    def baseline(self, settings: Settings) -> Floats:
        """Losses of the same runs without quantization."""
        size, data = settings.num_params, settings.num_tokens
        return self.n / size**self.alpha + self.d / data**self.beta + self.epsilon

    def penalty(self, settings: Settings) -> Floats:
        """What quantization adds; 0 without it and for blocks of one element."""
        intensity = settings.num_tokens**self.beta / settings.num_params**self.alpha
        return np.where(settings.is_quantized, intensity * self._coarseness(settings), 0.0)

    def effective_params(self, settings: Settings) -> Floats:
        """N that reaches the same loss without quantization (equations 36 to 39)."""
        drag = settings.num_tokens**self.beta * self._coarseness(settings) / self.n
        return np.asarray(settings.num_params * (1 + drag) ** (-1 / self.alpha))

    def critical_tokens(self, settings: Settings) -> Floats:
        """D beyond which more tokens raise the loss (equation 21), for the N of each row.

        Infinite without quantization and for blocks of one element. D itself plays no part,
        except that it sets the equivalent block of one scale a tensor.
        """
        with np.errstate(divide="ignore"):
            inverse = self.d * settings.num_params**self.alpha / self._coarseness(settings)
        return np.asarray(inverse ** (1 / (2 * self.beta)))

    def resolution(self, exponent_bits: ArrayLike, mantissa_bits: ArrayLike) -> Floats:
        """G of formats, larger for finer ones."""
        e, m = np.asarray(exponent_bits, float), np.asarray(mantissa_bits, float)
        return np.asarray((e + 0.5) ** self.delta * (m + 0.5) ** self.nu)

    @property
    def gamma_rho(self) -> float:
        """Gamma where P bits are split best: the penalty is over ``gamma_rho P^(delta + nu)``."""
        total = self.delta + self.nu
        split: float = (self.delta / total) ** self.delta * (self.nu / total) ** self.nu
        return self.gamma * split

    @property
    def gamma_n(self) -> float:
        """``gamma_rho n``, the constant of the effective parameters (equation 39)."""
        return self.gamma_rho * self.n

    @property
    def gamma_tokens(self) -> float:
        """Constant of the best P for given tokens (appendix E; the paper's gamma_D)."""
        total = self.delta + self.nu
        return (total - self.alpha) / (self.n * self.alpha * self.gamma_rho)

    @property
    def gamma_params(self) -> float:
        """Constant of the best P for given parameters (appendix E; the paper's gamma_N)."""
        return (self.beta + self.delta + self.nu) / (self.d * self.beta * self.gamma_rho)

    @property
    def lam(self) -> float:
        """Constant of the joint optimum over N, D and P (appendix E)."""
        total = self.delta + self.nu
        ratio = self.d * self.beta / (self.n * self.alpha)
        return ratio * (total - self.alpha) / (total + self.beta)

    def _coarseness(self, settings: Settings) -> Floats:
        """``log2 B / (gamma G)``; 0 without quantization."""
        ratio = settings.num_params / settings.num_tokens
        log2_block = settings.log2_block(
            self.log2_channel, self.tensor_scale * ratio**self.tensor_power
        )
        resolution = self.resolution(settings.exponent_bits, settings.mantissa_bits)
        return np.where(settings.is_quantized, log2_block / (self.gamma * resolution), 0.0)


_FORMATS = (
    (0, 7), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6), (2, 1), (2, 3), (3, 1), (3, 2),
    (4, 1), (4, 3), (4, 5), (5, 1), (5, 2), (6, 1),
)  # fmt: skip

CAPYBARA = Capybara(
    n=69.2343, alpha=0.2368, d=68973.0621, beta=0.5162, epsilon=1.9061,
    gamma=11334.5197, delta=3.1926, nu=2.9543,
    hull=Hull(
        num_params=(40_894_464, 679_477_248), num_tokens=(10_485_760_000, 104_857_600_000),
        formats=frozenset(_FORMATS), setup="P2, P4 and P6 quantized, one recipe",
    ),
)  # fmt: skip
"""arXiv 2501.02423, table 2; 358 runs."""


@dataclass(frozen=True, kw_only=True)
class Kumar:
    """The precision law of Kumar et al. with its terms for weights, activations and KV cache.

    Parameters
    ----------
    n, alpha, d, beta, epsilon
        As in `Chinchilla`; the source calls them A, alpha, B, beta, E.
    gammas, offsets
        gamma_x and n_x for weights, activations and KV cache.
    """

    n: float
    alpha: float
    d: float
    beta: float
    epsilon: float
    gammas: tuple[float, float, float]
    offsets: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def loss(
        self,
        num_params: ArrayLike,
        num_tokens: ArrayLike,
        *,
        weight_bits: ArrayLike = np.inf,
        activation_bits: ArrayLike = np.inf,
        cache_bits: ArrayLike = np.inf,
    ) -> Floats:
        """Losses in nats a token; the arguments broadcast, infinitely many bits cost nothing."""
        size = np.asarray(num_params, float)
        size = size * self.kept(weight_bits, activation_bits, cache_bits)
        data = np.asarray(num_tokens, float)
        return np.asarray(self.n / size**self.alpha + self.d / data**self.beta + self.epsilon)

    def kept(self, *bits: ArrayLike) -> Floats:
        """``N_eff / N``; bits of weights, activations, KV cache, or one number for all."""
        widths = bits if len(bits) > 1 else bits * 3
        rates = [
            1 - np.exp(offset - np.asarray(width, float) / gamma)
            for width, gamma, offset in zip(widths, self.gammas, self.offsets, strict=True)
        ]
        return np.asarray(np.maximum(np.prod(np.broadcast_arrays(*rates), axis=0), 0.0))

    def optimal_bits(self) -> float:
        """P of least loss at any compute ``C`` proportional to ``P N D``, all three alike.

        At fixed C the loss falls with ``kept(P) / P`` alone (for any N and D that are best).
        """
        from scipy.optimize import minimize_scalar  # slow to import

        found = minimize_scalar(
            lambda bits: -self.kept(bits) / bits, bounds=(0.1, 64), method="bounded",
            options={"xatol": 1e-9},
        )  # fmt: skip
        return float(found.x)


KUMAR = Kumar(
    n=4.299e3, alpha=0.4965, d=1.806e4, beta=0.4965, epsilon=2.7648,
    gammas=(2.6745, 2.2102, 0.9578), offsets=(0.3037, 1.4072, 2.4185),
)  # fmt: skip
"""arXiv 2411.04330, appendix K; 465 runs with integers, forward pass only."""


@dataclass(frozen=True, kw_only=True)
class PostTraining:
    """Loss that quantizing the weights after training adds (Kumar et al., finding 2).

    ``C (D^data_power / N^size_power) exp(offset - P / gamma)``: the longer a model was trained,
    the more it loses.
    """

    scale: float
    data_power: float
    size_power: float
    gamma: float
    offset: float = 0.0

    def loss(self, num_params: ArrayLike, num_tokens: ArrayLike, bits: ArrayLike) -> Floats:
        """Nats a token that `bits` add; the arguments broadcast."""
        size, data = np.asarray(num_params, float), np.asarray(num_tokens, float)
        rate = np.exp(self.offset - np.asarray(bits, float) / self.gamma)
        return np.asarray(self.scale * data**self.data_power / size**self.size_power * rate)

    def critical_tokens(self, law: Kumar, num_params: ArrayLike, bits: ArrayLike) -> Floats:
        """D beyond which more training makes the quantized model worse."""
        size = np.asarray(num_params, float)
        rate = np.exp(self.offset - np.asarray(bits, float) / self.gamma)
        slope = self.data_power * self.scale * rate / size**self.size_power
        return np.asarray((law.beta * law.d / slope) ** (1 / (self.data_power + law.beta)))


KUMAR_POST_TRAINING = PostTraining(
    scale=0.0598, data_power=0.5068, size_power=0.3439, gamma=0.5907, offset=1.1277
)
"""arXiv 2411.04330, appendix K; the sign of the offset by analogy with `KUMAR`."""


@dataclass(frozen=True, kw_only=True)
class BitsOnly:
    """Kumar's form with ``P = 1 + E + M`` as its only word on precision.

    arXiv 2501.02423, equation 6, which fits it to the runs of Capybara as a baseline. It can
    tell neither E from M nor one block from another, and never turns up with D.

    Parameters
    ----------
    n, alpha, d, beta, epsilon
        As in `Chinchilla`.
    gamma
        Bits by which the loss of parameters falls to ``1 / e``; above 0.
    hull
        Where it was fitted.
    """

    title: ClassVar[str] = "Kumar, bits only"

    n: float
    alpha: float
    d: float
    beta: float
    epsilon: float
    gamma: float
    hull: Hull | None = None

    def loss(self, settings: Settings) -> Floats:
        """Losses in nats a token, shape (R,)."""
        bits = np.where(settings.is_quantized, settings.bits, np.inf)
        size = settings.num_params * -np.expm1(-bits / self.gamma)
        data = settings.num_tokens
        return np.asarray(self.n / size**self.alpha + self.d / data**self.beta + self.epsilon)
