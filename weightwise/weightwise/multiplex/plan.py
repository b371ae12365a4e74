"""Which blocks share weights, and what tells their executions apart, as data.

A plan has all that is needed to turn a newly made original model into the multiplexed one, so it
stands beside the weights on disk (`weightwise.multiplex.storage`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Delta = Literal["fit", "zero"]


@dataclass(frozen=True, kw_only=True)
class Transforms:
    """What each execution of shared weights gets of its own, beside its normalizations.

    Parameters
    ----------
    mixes
        Linear maps over heads before and after the softmax, see `HeadMix`.
    mix_bias
        Whether they have biases.
    kernel
        Side of the depthwise convolution before the MLP, odd, see `LocalMix`; 0 for none.
    rank
        Rank of what is added to each shared linear layer; 0 for nothing.
    delta
        Where that starts: at nothing (``zero``), or at the best approximation of what the layer
        loses by sharing (``fit``), which is the truncated singular value decomposition of the
        difference (Eckart and Young 1936).

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    mixes: bool = False
    mix_bias: bool = False
    kernel: int = 0
    rank: int = 0
    delta: Delta = "fit"

    def __post_init__(self) -> None:
        if self.kernel < 0 or (self.kernel > 0 and self.kernel % 2 == 0):
            raise ValueError(f"kernel: expected 0 or an odd number above it, got {self.kernel}")
        if self.rank < 0:
            raise ValueError(f"rank: expected at least 0, got {self.rank}")
        if self.delta not in get_args(Delta):
            raise ValueError(f"delta: expected fit or zero, got {self.delta!r}")


@dataclass(frozen=True, kw_only=True)
class Attention:
    """A module of a block that attends.

    Parameters
    ----------
    name
        Its name within the block.
    num_heads
        Heads of its queries.
    """

    name: str
    num_heads: int


@dataclass(frozen=True, kw_only=True)
class Branch:
    """The residual branch of a block after which the map of tokens is mixed.

    Parameters
    ----------
    name
        Module within the block whose output is added to the block's input.
    width
        Channels.
    num_prefix
        Tokens before those of the map, such as a class token.
    """

    name: str
    width: int
    num_prefix: int


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """How the blocks of one stage share.

    Parameters
    ----------
    name, first
        List that holds the blocks, and index of the first one, see `Stage`.
    groups
        Lengths of the runs that share one set of weights, in order; a block alone stays as it is.
    attentions
        Modules that get mixes over heads.
    branch
        Where the convolution over the map goes; ``None`` for none.
    deltas
        Linear layers with a part of low rank, by their names within a block.

    Raises
    ------
    ValueError
        If there is no group, or one is empty.
    """

    name: str
    first: int
    groups: tuple[int, ...]
    attentions: tuple[Attention, ...] = ()
    branch: Branch | None = None
    deltas: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError(f"first: expected at least 0, got {self.first}")
        if not self.groups or min(self.groups) < 1:
            raise ValueError(f"groups: expected lengths of at least 1, got {self.groups}")

    def runs(self) -> list[range]:
        """Indices of each group's blocks within the stage."""
        ends = [sum(self.groups[: index + 1]) for index in range(len(self.groups))]
        return [range(end - length, end) for end, length in zip(ends, self.groups, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a model is multiplexed.

    Parameters
    ----------
    stages
        One entry for each run of blocks that takes part.
    transforms
        What executions get of their own.
    keep
        Parameters that stay each block's own, see `find_stages`.

    Raises
    ------
    ValueError
        If there is no stage.
    """

    stages: tuple[StagePlan, ...]
    transforms: Transforms
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("stages: expected at least 1, got none")

    def to_json(self) -> str:
        """Write the plan down."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            If it is no plan; the message names what is missing, unknown or out of range.
        """
        try:
            fields = json.loads(text)
            stages = tuple(_stage(one) for one in fields.pop("stages"))
            transforms = Transforms(**fields.pop("transforms"))
            keep = tuple(fields.pop("keep"))
            return cls(stages=stages, transforms=transforms, keep=keep, **fields)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"plan: expected one that to_json wrote ({error})") from error


def _stage(fields: dict[str, Any]) -> StagePlan:
    branch = fields.pop("branch")
    return StagePlan(
        groups=tuple(fields.pop("groups")),
        attentions=tuple(Attention(**one) for one in fields.pop("attentions")),
        branch=None if branch is None else Branch(**branch),
        deltas=tuple(fields.pop("deltas")),
        **fields,
    )
