"""Losses over layers of a pair as large as Swin-S: their share of a training step.

The student and the teacher are timm's ``swin_small_patch4_window7_224``, 8 images of 224 pixels, in
float32; layers 1, 3, 9, 15, 21 and 23 are matched, as published. A step is the student's forward
and backward pass and the teacher's forward pass, without an optimizer. The losses' time is that of
L_attention and L_hidden, from what was recorded to gradients of the same tensors.

``plain``  the losses as they are written, through autograd, the released code's way: nine relations
           of queries, keys and values, and matrices of N x N tokens for hidden states.

CPU time on one thread. Contenders run in turn, round by round; medians count.

    python weightwise/benchmarks/minivit_relations.py [rounds]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from weightwise.distill.matching import MATCHES
from weightwise.distill.relations import RelationConfig, RelationLoss
from weightwise.distill.taps import Taps

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

SYSTEM = "minivit"
NAME, BATCH, SIZE, ROUNDS, WARM = "swin_small_patch4_window7_224", 8, 224, 3, 1
GOAL = 0.2
MATCH = MATCHES["mini-swin-s"]
WINDOW_TOKENS = 49
PEER = "the losses through autograd, torch 2.13.0"


def main() -> None:
    """Measure, and print rows."""
    rounds = int(sys.argv[1]) if sys.argv[1:] else ROUNDS
    torch.set_num_threads(1)
    torch.manual_seed(0)
    student, teacher = swin(), swin().eval()
    x = torch.randn(BATCH, 3, SIZE, SIZE)
    ours, theirs = Taps(student, layers=MATCH.student), Taps(teacher, layers=MATCH.teacher)
    with ours, theirs:
        student(x)
        with torch.no_grad():
            teacher(x)
    losses = RelationLoss(RelationConfig(), MATCH)
    detached(ours)
    values = {"ours": losses(ours, theirs)["total"].item(), "plain": plain(ours, theirs).item()}
    seconds = interleaved(
        {
            "step": lambda: step(student, teacher, x),
            "ours": lambda: torch.autograd.grad(losses(ours, theirs)["total"], leaves(ours)),
            "plain": lambda: torch.autograd.grad(plain(ours, theirs), leaves(ours)),
        },
        rounds,
    )
    detail = {
        "seconds": {kind: round(value, 3) for kind, value in seconds.items()}, "losses": values,
        "batch": BATCH, "pixels": SIZE, "layers": MATCH.student, "threads": 1, "rounds": rounds,
    }  # fmt: skip
    emit("relation_loss_share", seconds["ours"] / seconds["step"], "x", goal=["<=", GOAL],
         detail=detail)  # fmt: skip
    emit("relation_loss_speedup", seconds["plain"] / seconds["ours"], "x", peer=PEER,
         goal=[">=", 1.0], detail=detail)  # fmt: skip


def emit(name: str, value: float, unit: str, **rest: Any) -> None:
    """Print a measurement."""
    row = {"system": SYSTEM, "name": name, "value": value, "unit": unit, "seed": 0}
    print(json.dumps(row | rest), flush=True)


def swin() -> nn.Module:
    """The model, with attention as a function of torch, which taps see."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from timm_shim import declare_operators

    declare_operators()
    import timm

    model: nn.Module = timm.create_model(NAME)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = True
    return model


def step(student: nn.Module, teacher: nn.Module, x: Tensor) -> None:
    """Forward and backward of the student with the prediction loss, forward of the teacher."""
    with torch.no_grad():
        target = teacher(x).softmax(1)
    student.zero_grad()
    F.cross_entropy(student(x), target).backward()


def detached(taps: Taps) -> None:
    """Make what was recorded an end of the graph, so that losses are timed without the model."""
    for number, heads in taps.heads.items():
        parts = {name: getattr(heads, name).detach().requires_grad_() for name in "qkv"}
        taps.heads[number] = type(heads)(**parts)
    for number, state in taps.hidden.items():
        taps.hidden[number] = state.detach().requires_grad_()


def leaves(taps: Taps) -> list[Tensor]:
    """What gets gradients."""
    heads = [getattr(one, name) for one in taps.heads.values() for name in "qkv"]
    return heads + list(taps.hidden.values())


def plain(student: Taps, teacher: Taps) -> Tensor:
    """Both losses as they are written, with weights 1 and 0.1."""
    total = torch.zeros(())
    for s, t, _ in MATCH:
        sides = student.heads[s].concatenated(), teacher.heads[t].concatenated()
        for i in range(3):
            for j in range(3):
                of_s, of_t = (side[i] @ side[j].mT * side[i].shape[2] ** -0.5 for side in sides)
                entropy = -(of_t.softmax(2) * of_s.log_softmax(2)).sum(2).mean()
                total = total + entropy / (9 * len(MATCH.student))
        units = [
            F.normalize(x.flatten(1, -2), dim=2) for x in (student.hidden[s], teacher.hidden[t])
        ]
        apart = units[0] @ units[0].mT - units[1] @ units[1].mT
        total = total + 0.1 * WINDOW_TOKENS * apart.square().mean() / len(MATCH.student)
    return total


def interleaved(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each, in turn."""
    seconds: dict[str, list[float]] = {kind: [] for kind in work}
    for number in range(rounds + WARM):
        for kind, run in work.items():
            start = time.process_time()
            run()
            if number >= WARM:
                seconds[kind].append(time.process_time() - start)
    return {kind: statistics.median(values) for kind, values in seconds.items()}


if __name__ == "__main__":
    main()
