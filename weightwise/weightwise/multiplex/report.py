"""How much smaller a model with shared weights is, and what does not shrink.

Weights, gradients and the optimizer's state are held once per set of weights. What a forward pass
keeps for the backward one is held once per execution, so activations take as much memory as in the
model without sharing, and time grows by the transforms.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from weightwise.multiplex.files import multiplicities
from weightwise.multiplex.local import LocalMix
from weightwise.multiplex.mixing import HeadMix
from weightwise.multiplex.transforms import LowRank

if TYPE_CHECKING:
    from torch import nn

PartName = Literal["shared weights", "head mixes", "local mixes", "low-rank deltas", "own weights"]
KINDS: dict[type[nn.Module], PartName]
KINDS = {HeadMix: "head mixes", LocalMix: "local mixes", LowRank: "low-rank deltas"}
ADAM_STATES = 2
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Part:
    """Parameters of one kind.

    Parameters
    ----------
    name
        Kind.
    unique
        Each counted once.
    unrolled
        Each counted as often as blocks use it.
    """

    name: PartName
    unique: int
    unrolled: int


@dataclass(frozen=True, kw_only=True)
class SizeReport:
    """Sizes of a model with shared weights.

    Parameters
    ----------
    parts
        Kinds of parameters; those that are not there have no part.
    file_bytes
        Of parameters and saved buffers, each once, as in a file.
    weight_bytes, gradient_bytes, optimizer_bytes
        Memory of training; the optimizer keeps two float32 numbers for each trained parameter, as
        Adam does. Activations are not in it: sharing does not shrink them.
    """

    parts: tuple[Part, ...]
    file_bytes: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int

    @classmethod
    def of(cls, model: nn.Module) -> SizeReport:
        """Measure a model.

        Parameters
        ----------
        model
            Any, multiplexed by `multiplex` or built with sharing.
        """
        counts: dict[PartName, list[int]] = {}
        names = _transforms(model)
        for one, times in multiplicities(model).items():
            own: PartName = "shared weights" if times > 1 else "own weights"
            count = counts.setdefault(names.get(id(one), own), [0, 0])
            count[0] += one.numel()
            count[1] += one.numel() * times
        weights = list(model.parameters())
        trained = [one for one in weights if one.requires_grad]
        weight_bytes = sum(one.nbytes for one in weights)
        return cls(
            parts=tuple(Part(name=n, unique=a, unrolled=b) for n, (a, b) in counts.items()),
            file_bytes=weight_bytes + _buffer_bytes(model),
            weight_bytes=weight_bytes,
            gradient_bytes=sum(one.nbytes for one in trained),
            optimizer_bytes=sum(ADAM_STATES * 4 * one.numel() for one in trained),
        )

    @property
    def num_unique(self) -> int:
        """Parameters, each once."""
        return sum(part.unique for part in self.parts)

    @property
    def num_unrolled(self) -> int:
        """Parameters, each as often as blocks use it."""
        return sum(part.unrolled for part in self.parts)

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        totals = {"num_unique": self.num_unique, "num_unrolled": self.num_unrolled}
        return {**asdict(self), **totals}

    def text(self) -> str:
        """All numbers, for people."""
        lines = [f"{'':16}{'unique':>14}{'unrolled':>14}"]
        lines += [f"{one.name:16}{one.unique:14,}{one.unrolled:14,}" for one in self.parts]
        ratio = self.num_unrolled / max(self.num_unique, 1)
        lines.append(
            f"{'parameters':16}{self.num_unique:14,}{self.num_unrolled:14,}  {ratio:.2f} x"
        )
        lines.append(f"file {self.file_bytes / MIB:.2f} MiB")
        sizes = {
            "weights": self.weight_bytes,
            "gradients": self.gradient_bytes,
            "optimizer": self.optimizer_bytes,
        }
        kinds = ", ".join(f"{name} {size / MIB:.2f} MiB" for name, size in sizes.items())
        lines.append(f"training: {kinds}; activations as without sharing")
        return "\n".join(lines)


def _transforms(model: nn.Module) -> dict[int, PartName]:
    """Kind of each parameter of a transform."""
    return {
        id(one): name
        for module in model.modules()
        for kind, name in KINDS.items()
        if isinstance(module, kind)
        for one in module.parameters()
    }


def _buffer_bytes(model: nn.Module) -> int:
    saved = model.state_dict(keep_vars=True)
    buffers = {id(one): one for name, one in model.named_buffers() if name in saved}
    return sum(one.nbytes for one in buffers.values())


def transform_macs(model: nn.Module, num_tokens: int, num_keys: int) -> int:
    """Multiply-adds that transforms add to the forward pass of one image or text.

    Parameters
    ----------
    model
        All executions count.
    num_tokens
        Tokens N of each block.
    num_keys
        Keys that each token sees: N, or the tokens of a window.

    Returns
    -------
    ``N T M^2`` for each map over M heads, ``K^2 N C`` for convolutions, ``N`` times the parameters
    of parts of low rank.

    Raises
    ------
    ValueError
        If a number is below 1.
    """
    for name, value in (("num_tokens", num_tokens), ("num_keys", num_keys)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    total = 0
    for module in model.modules():
        if isinstance(module, HeadMix):
            total += num_tokens * num_keys * module.weight.numel()
        elif isinstance(module, LocalMix):
            total += num_tokens * module.conv.weight.numel()
        elif isinstance(module, LowRank):
            total += num_tokens * (module.down.numel() + module.up.numel())
    return total
