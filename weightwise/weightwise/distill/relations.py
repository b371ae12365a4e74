"""Weight distillation: a student is asked for the relations between its teacher's tokens.

Beside the prediction, MiniViT (Zhang et al., arXiv 2204.07154) has two losses over matched layers::

    L = L_prediction + beta L_attention + gamma L_hidden

L_attention
    With M_1, M_2, M_3 the queries, keys and values of all heads side by side, relation ij is
    softmax(M_i M_j^T / sqrt(width)); the loss is the cross-entropy of the student's with the
    teacher's, mean over rows, the nine relations and the layers. Widths and heads may differ.
L_hidden
    With tokens scaled to length 1, S = H H^T; the loss is tokens * mean (S_s - S_t)^2, mean over
    the layers. That is what the released code does. In the paper it is a cross-entropy of
    softmaxed relations; here that is one of S / temperature, which does not depend on the scale
    of hidden states either.

The factor of L_hidden is 49 in the released code: the tokens of a window. Here it is the number of
tokens that attention relates in the student's layer, which is the same for those models.
"""

# Shapes: B images, X windows or images, N tokens, C channels of a hidden state, W channels of all
# heads, A relation heads, R rows, H w sides of a map and of a window

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightwise.distill.relation_kernels import Relations, relation_distance, relation_entropy
from weightwise.distill.sparse_target import check_choice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from weightwise.distill.matching import LayerMatch
    from weightwise.distill.taps import Taps

AttentionForm: TypeAlias = Literal["cross_entropy", "kl"]
HiddenForm: TypeAlias = Literal["mse", "cross_entropy", "kl", "projected"]
T = TypeVar("T")
NAMES = "qkv"
ALL_PAIRS = tuple(a + b for a in NAMES for b in NAMES)


@dataclass(frozen=True, kw_only=True)
class RelationConfig:
    """Settings of the losses over layers; the defaults are the published ones.

    Parameters
    ----------
    beta, gamma
        Weights of L_attention and L_hidden, at least 0. With 0 a loss is not computed.
    attention
        ``cross_entropy``, or ``kl``, which has the same gradient and is 0 at equality.
    pairs
        Relations of L_attention: ``qk`` is softmax(Q K^T / sqrt(width)).
    relation_heads
        In how many parts all heads together are cut for L_attention; divides both widths.
    rows
        Rows of each relation of L_attention that are drawn, at least 1; all by default.
    hidden
        ``mse``, ``cross_entropy`` and ``kl`` of S, see above; ``projected`` compares hidden states
        themselves, by the mean squared error behind a learned linear layer for each stage.
    hidden_window
        Side of the windows within which S is taken; by default it is over the whole map.
    hidden_tokens
        Tokens of a map that are drawn for S, at least 2; all by default.
    hidden_factor
        In place of the number of tokens, see above; for ``mse``.
    hidden_temperature
        Divides S in ``cross_entropy`` and ``kl``. The default is ours: with 1, relations of
        hundreds of tokens are nearly even.
    prefix_tokens
        Of student and teacher: tokens in front, such as a class token, that are left out.

    Raises
    ------
    ValueError
        If a setting is out of its range.
    """

    beta: float = 1.0
    gamma: float = 0.1
    attention: AttentionForm = "cross_entropy"
    pairs: tuple[str, ...] = ALL_PAIRS
    relation_heads: int = 1
    rows: int | None = None
    hidden: HiddenForm = "mse"
    hidden_window: int | None = None
    hidden_tokens: int | None = None
    hidden_factor: float | None = None
    hidden_temperature: float = 0.1
    prefix_tokens: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        check_choice("attention", self.attention, get_args(AttentionForm))
        check_choice("hidden", self.hidden, get_args(HiddenForm))
        if not self.pairs or len({*self.pairs}) < len(self.pairs) or {*self.pairs} - {*ALL_PAIRS}:
            raise ValueError(f"pairs: expected some of {ALL_PAIRS}, each once, got {self.pairs}")
        least = {"relation_heads": 1, "rows": 1, "hidden_window": 2, "hidden_tokens": 2}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ValueError(f"{name}: expected at least {bound}, got {value}")
        for name in ("beta", "gamma", "hidden_factor"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")
        if not 0 < self.hidden_temperature < math.inf:
            raise ValueError(
                "hidden_temperature: expected a finite number above 0, got "
                f"{self.hidden_temperature}"
            )
        if len(self.prefix_tokens) != 2 or min(self.prefix_tokens) < 0:
            raise ValueError(
                f"prefix_tokens: expected two numbers of at least 0, got {self.prefix_tokens}"
            )
        chosen = (self.hidden == "projected", bool(self.hidden_window), bool(self.hidden_tokens))
        if sum(chosen) > 1:
            raise ValueError(
                "hidden, hidden_window, hidden_tokens: expected one of projected, windows and "
                f"drawn tokens, got {self.hidden!r}, {self.hidden_window} and {self.hidden_tokens}"
            )

    @property
    def is_drawn(self) -> bool:
        """Whether a loss is over rows or tokens that are drawn."""
        has_rows = self.beta > 0 and self.rows is not None
        return has_rows or (self.gamma > 0 and self.hidden_tokens is not None)


class RelationLoss(nn.Module):
    """L_attention and L_hidden of a student and its teacher; their records are `Taps`.

    Parameters
    ----------
    config
        Settings.
    match
        Which layers are compared.
    widths
        Channels of hidden states of student and teacher, for each stage of the match; needed for
        ``projected`` only, whose linear layers are the parameters of this module.
    generator
        Draws the linear layers; needed for ``projected`` only.

    Raises
    ------
    ValueError
        If there are not as many widths as stages, or no generator.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from weightwise.distill.matching import LayerMatch
    >>> from weightwise.distill.taps import Taps
    >>> blocks = [nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2)]
    >>> student, x = nn.Sequential(*blocks), torch.zeros(1, 3, 8)
    >>> loss = RelationLoss(RelationConfig(), LayerMatch(student=(0, 1), teacher=(0, 1)))
    >>> with Taps(student) as taps:
    ...     y = student(x)
    >>> sorted(loss(taps, taps))
    ['attention', 'hidden', 'total']
    """

    def __init__(
        self,
        config: RelationConfig,
        match: LayerMatch,
        *,
        widths: Sequence[tuple[int, int]] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.match = match
        self.projections = nn.ModuleList()
        if config.hidden != "projected" or config.gamma == 0:
            return
        if len(widths) <= match.stages[-1] or generator is None:
            raise ValueError(
                f"widths, generator: expected widths of {match.stages[-1] + 1} stages and a "
                f"generator for projected, got {len(widths)} and {generator}"
            )
        self.projections.extend(_projection(*pair, generator) for pair in widths)

    def forward(
        self, student: Taps, teacher: Taps, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Compare the latest calls of both.

        Parameters
        ----------
        student, teacher
            Records with the layers of the match. Only the student's get gradients.
        generator
            Draws rows and tokens, anew for each layer; needed where some are drawn.

        Returns
        -------
        dict
            ``attention`` and ``hidden``, where they have a weight, and ``total``, their weighted
            sum.

        Raises
        ------
        ValueError
            If a record is missing, or windows and tokens of a pair do not match.
        """
        config = self.config
        if config.is_drawn and generator is None:
            raise ValueError("generator: expected one to draw rows or tokens with, got None")
        pairs = [_Pair(student, teacher, *layers) for layers in self.match]
        losses: dict[str, Tensor] = {}
        total = torch.zeros(())
        for name, weight, loss_of in (
            ("attention", config.beta, self._attention), ("hidden", config.gamma, self._hidden),
        ):  # fmt: skip
            if weight > 0:
                losses[name] = torch.stack([loss_of(pair, generator) for pair in pairs]).mean()
                total = total + weight * losses[name]
        return losses | {"total": total}

    def _attention(self, pair: _Pair, generator: torch.Generator | None) -> Tensor:
        config = self.config
        student, teacher = pair.heads(config.prefix_tokens)
        widths = student[0].shape[2], teacher[0].shape[2]
        if any(width % config.relation_heads for width in widths):
            raise ValueError(
                f"relation_heads: expected a divisor of the widths {widths} of {pair}, got "
                f"{config.relation_heads}"
            )
        relations = Relations(
            pairs=tuple((NAMES.index(name[0]), NAMES.index(name[1])) for name in config.pairs),
            scale=(widths[0] / config.relation_heads) ** -0.5,
            teacher_scale=(widths[1] / config.relation_heads) ** -0.5,
            is_divergence=config.attention == "kl",
            rows=_draw(student[0].shape[1], config.rows, generator, student[0].device),
        )
        student, teacher = (
            [_split(x, config.relation_heads) for x in side] for side in (student, teacher)
        )
        return relation_entropy(student, teacher, relations) / len(config.pairs)

    def _hidden(self, pair: _Pair, generator: torch.Generator | None) -> Tensor:
        config = self.config
        s_BNC, t_BNC = pair.hidden(config.prefix_tokens, config.hidden_window)
        if config.hidden == "projected":
            # A difference, squared: the loss of torch would keep the teacher's tensor for later.
            projected_BNC: Tensor = self.projections[pair.stage](s_BNC)
            return (projected_BNC - t_BNC).square().mean()
        N = s_BNC.shape[1]
        token_R = _draw(N, config.hidden_tokens, generator, s_BNC.device)
        if token_R is not None:
            s_BNC, t_BNC = s_BNC[:, token_R], t_BNC[:, token_R]
        s_BNC, t_BNC = _unit(s_BNC), _unit(t_BNC)
        if config.hidden != "mse":
            sharpness = 1 / config.hidden_temperature
            relations = Relations(
                pairs=((0, 0),), scale=sharpness, teacher_scale=sharpness,
                is_divergence=config.hidden == "kl",
            )  # fmt: skip
            return relation_entropy([s_BNC], [t_BNC], relations)
        factor = config.hidden_factor
        if factor is None:
            factor = N if config.hidden_window else pair.num_related(N, config.prefix_tokens[0])
        if token_R is not None:
            # Tokens differ by 0 from themselves, which are more of few relations than of many.
            factor *= (1 - 1 / N) / (1 - 1 / len(token_R))
        return factor * relation_distance(s_BNC, t_BNC)


@dataclass(frozen=True)
class _Pair:
    """A layer of a student and one of its teacher, and what was recorded there."""

    student: Taps
    teacher: Taps
    student_layer: int
    teacher_layer: int
    stage: int

    def __str__(self) -> str:
        return f"layer {self.student_layer} of the student and {self.teacher_layer} of the teacher"

    def heads(self, prefix: tuple[int, int]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Queries, keys and values of both, each of shape (X, N, W)."""
        student, teacher = (
            [x[:, skipped:] for x in _recorded(taps.heads, layer, who).concatenated()]
            for taps, layer, skipped, who in self._sides(prefix)
        )
        for who, side in (("student", student), ("teacher", teacher)):
            if len({x.shape for x in side}) > 1:
                raise ValueError(
                    f"{who}: expected queries, keys and values of one shape in {self}, got "
                    f"{[tuple(x.shape) for x in side]}"
                )
        self._check(student[0], teacher[0], "windows and tokens")
        return student, [x.detach() for x in teacher]

    def hidden(self, prefix: tuple[int, int], window: int | None) -> tuple[Tensor, Tensor]:
        """Hidden states of both, shape (B, N, C), with a window in the place of an image."""
        states = []
        for taps, layer, skipped, who in self._sides(prefix):
            x = _recorded(taps.hidden, layer, who)
            x = x if x.dim() == 4 else x[:, skipped:]
            states.append(x.flatten(1, -2) if window is None else _windows(x, window, str(self)))
        self._check(states[0], states[1], "images and tokens")
        return states[0], states[1].detach()

    def num_related(self, num_tokens: int, skipped: int) -> int:
        """Tokens that attention relates in the student's layer; all if it was not seen."""
        heads = self.student.heads.get(self.student_layer)
        return num_tokens if heads is None else heads.q.shape[-2] - skipped

    def _sides(self, prefix: tuple[int, int]) -> list[tuple[Taps, int, int, str]]:
        return [
            (self.student, self.student_layer, prefix[0], "student"),
            (self.teacher, self.teacher_layer, prefix[1], "teacher"),
        ]

    def _check(self, student: Tensor, teacher: Tensor, what: str) -> None:
        shapes = tuple(student.shape[:2]), tuple(teacher.shape[:2])
        if shapes[0] != shapes[1] or 0 in shapes[0]:
            raise ValueError(
                f"expected as many {what}, at least one, in {self}, got {shapes[0]} and {shapes[1]}"
            )


def _recorded(records: Mapping[int, T], layer: int, who: str) -> T:
    if layer not in records:
        raise ValueError(
            f"{who}: expected a record of layer {layer}, got those of {sorted(records)}; the model "
            "must be called itself, and its attention be torch's: models of transformers are made "
            'with attn_implementation="sdpa", and modules of timm have fused_attn on'
        )
    return records[layer]


def _windows(x: Tensor, window: int, where: str) -> Tensor:
    """Tokens of each window of a map (B, H, W, C), or of a square one (B, H W, C)."""
    side = math.isqrt(x.shape[1])
    height, width = x.shape[1:3] if x.dim() == 4 else (side, side)
    if height % window or width % window or (x.dim() == 3 and side * side != x.shape[1]):
        raise ValueError(
            f"hidden_window: expected maps that windows of {window} x {window} fill in {where}, "
            f"got {tuple(x.shape[1:-1])}"
        )
    x_BHwWwC = x.reshape(len(x), height // window, window, width // window, window, -1)
    return x_BHwWwC.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def _split(x_XNW: Tensor, num_heads: int) -> Tensor:
    """Relation heads as windows of their own, shape (X A, N, W / A)."""
    if num_heads == 1:
        return x_XNW
    x_XNAw: Tensor = x_XNW.unflatten(2, (num_heads, -1))
    return x_XNAw.transpose(1, 2).flatten(0, 1)


def _draw(
    count: int, wanted: int | None, generator: torch.Generator | None, device: torch.device
) -> Tensor | None:
    """Numbers below a count, each once, ascending; None for all of them."""
    if wanted is None or wanted >= count or generator is None:
        return None
    order = torch.randperm(count, generator=generator, device=generator.device)
    return order[:wanted].sort().values.to(device)


def _unit(x_BNC: Tensor) -> Tensor:
    """Tokens of length 1; those of zeros stay."""
    wide = x_BNC if x_BNC.dtype == torch.float64 else x_BNC.float()
    return F.normalize(wide, dim=-1)


def _projection(width: int, wanted: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer that keeps the size of what it maps, without bias at the start."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, width, wanted)
    nn.init.normal_(layer.weight, std=width**-0.5, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
