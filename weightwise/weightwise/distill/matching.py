"""Which layer of a student is asked for the relations of which layer of its teacher.

Layers are numbered from 0 in the order in which they are executed, through all stages; a layer that
is executed several times with the same weights counts each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, kw_only=True)
class LayerMatch:
    """Layers of a student and of its teacher, pair by pair.

    Parameters
    ----------
    student, teacher
        Numbers of layers, ascending; as many in both, at least one.
    stages
        Stage of each pair, not descending from 0; by default all lie in one.

    Raises
    ------
    ValueError
        If the numbers are not like that.
    """

    student: tuple[int, ...]
    teacher: tuple[int, ...]
    stages: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.stages:
            object.__setattr__(self, "stages", (0,) * len(self.student))
        for name in ("student", "teacher"):
            layers = getattr(self, name)
            if not layers or layers[0] < 0 or any(a >= b for a, b in pairwise(layers)):
                raise ValueError(f"{name}: expected ascending numbers from 0, got {layers}")
        for name in ("teacher", "stages"):
            if len(getattr(self, name)) != len(self.student):
                raise ValueError(
                    f"{name}: expected {len(self.student)} numbers, as many as in student, got "
                    f"{len(getattr(self, name))}"
                )
        if self.stages[0] < 0 or any(a > b for a, b in pairwise(self.stages)):
            raise ValueError(f"stages: expected numbers from 0, none descending, got {self.stages}")

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Student's layer, teacher's layer and stage of each pair."""
        return iter(zip(self.student, self.teacher, self.stages, strict=True))


def even_match(
    student_depths: Sequence[int],
    teacher_depths: Sequence[int],
    counts: Sequence[int] | None = None,
) -> LayerMatch:
    """Match layers evenly, stage by stage; the last layers of a stage always meet.

    Of k pairs in a stage with S and T layers, the m-th one has the layers ceil(m S / k) and
    ceil(m T / k) of the stage, counted from 1. That gives the published pairs of Mini-Swin-T.

    Parameters
    ----------
    student_depths, teacher_depths
        Layers of each stage, at least 1; as many stages in both.
    counts
        Pairs of each stage, from 0 to the smaller depth, which is the default.

    Raises
    ------
    ValueError
        If stages do not fit, or there is no pair at all.
    """
    if len(student_depths) != len(teacher_depths) or min(*student_depths, *teacher_depths) < 1:
        raise ValueError(
            "student_depths, teacher_depths: expected numbers from 1, as many in both, got "
            f"{list(student_depths)} and {list(teacher_depths)}"
        )
    most = [min(depths) for depths in zip(student_depths, teacher_depths, strict=True)]
    counts = most if counts is None else counts
    fits = len(counts) == len(most) and all(
        0 <= k <= top for k, top in zip(counts, most, strict=True)
    )
    if not fits or sum(counts) == 0:
        raise ValueError(f"counts: expected 0 to {most} pairs, at least one, got {list(counts)}")
    student, teacher = (_spread(depths, counts) for depths in (student_depths, teacher_depths))
    stages = [stage for stage, k in enumerate(counts) for _ in range(k)]
    return LayerMatch(student=student, teacher=teacher, stages=tuple(stages))


def _spread(depths: Sequence[int], counts: Sequence[int]) -> tuple[int, ...]:
    """Layers at even distances in each stage, the last one among them."""
    layers, first = [], 0
    for depth, k in zip(depths, counts, strict=True):
        layers += [first - (-m * depth // k) - 1 for m in range(1, k + 1)]
        first += depth
    return tuple(layers)


# Released configurations of Mini-Swin; the teacher is a Swin of 2, 2, 18 and 2 layers.
_SWIN_TEACHER, _SWIN_STAGES = (1, 3, 9, 15, 21, 23), (0, 1, 2, 2, 2, 3)
MATCHES = {
    "mini-swin-t": LayerMatch(
        student=(1, 3, 5, 7, 9, 11), teacher=_SWIN_TEACHER, stages=_SWIN_STAGES
    ),
    "mini-swin-s": LayerMatch(student=_SWIN_TEACHER, teacher=_SWIN_TEACHER, stages=_SWIN_STAGES),
    "mini-swin-b": LayerMatch(student=_SWIN_TEACHER, teacher=_SWIN_TEACHER, stages=_SWIN_STAGES),
}
