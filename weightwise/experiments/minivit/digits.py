"""Five hundred digits, and small models that share their weights in several ways.

Images are the 8 x 8 pixels of scikit-learn's digits in patches of 2 x 2. Training sees 500 of them
without augmentation, 297 others choose the learning rate, and 1000 judge.
"""

# Shapes: B images of a batch, N images, H W pixels, C classes

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch.nn import functional as F

from weightwise.distill.matching import even_match
from weightwise.distill.relations import RelationConfig, RelationLoss
from weightwise.distill.taps import Taps
from weightwise.images import digits
from weightwise.multiplex import gradient_norms
from weightwise.optim import ScheduleConfig, learning_rate
from weightwise.train.vision_models import DeiTStudent, draw_weights
from weightwise.vision.deit import DeiT

if TYPE_CHECKING:
    from torch import Tensor

Taught: TypeAlias = Literal["labels", "prediction", "relations"]
DEPTH, NUM_TRAIN, NUM_TUNING = 6, 500, 297
NUM_LOOKED_AT = 128  # images whose gradients are recorded
# Position embeddings of the published scale, 0.02, do not learn at this size.
POSITION_STD = 0.5


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A model, and what it learns from.

    Parameters
    ----------
    groups
        Executions of each set of weights, see `weightwise.vision.deit_config.DeiTConfig`.
    own_norms
        Whether executions of a set have layer normalizations of their own.
    mixes, local
        Whether executions have maps over heads, and 3 x 3 convolutions before the MLP.
    width
        Channels.
    taught
        By labels; by the teacher's prediction; or by that, the relations of its queries, keys and
        values, and those of its hidden states.
    """

    groups: tuple[int, ...] = (DEPTH,)
    own_norms: bool = True
    mixes: bool = False
    local: bool = False
    width: int = 32
    taught: Taught = "labels"


ARMS = {
    "teacher": Arm(groups=(1,) * DEPTH, width=64),
    "unshared": Arm(groups=(1,) * DEPTH),
    "plain": Arm(own_norms=False),
    "norms": Arm(),
    "mixes": Arm(mixes=True),
    "multiplexed": Arm(mixes=True, local=True),
    "distilled": Arm(mixes=True, local=True, taught="prediction"),
    "relations": Arm(mixes=True, local=True, taught="relations"),
    "plain-distilled": Arm(own_norms=False, taught="prediction"),
    "twelve-unshared": Arm(groups=(1,) * 2 * DEPTH),
    "twelve-one": Arm(groups=(2 * DEPTH,), mixes=True, local=True, taught="prediction"),
}


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images between -1 and 1, and their labels.

    Parameters
    ----------
    x, label
        Images of shape (N, 3, H, W), and classes of shape (N).
    """

    x: Tensor
    label: Tensor


def load_parts() -> tuple[Images, Images, Images]:
    """Images to train on, the first of their split; others to choose with, and to judge on."""
    parts = [digits(part, 8) for part in ("train", "test")]
    pixels_NHW = torch.cat([torch.from_numpy(part.pixels) for part in parts])
    label_N = torch.cat([torch.from_numpy(part.labels) for part in parts])
    x_N3HW = (pixels_NHW / 127.5 - 1)[:, None].repeat(1, 3, 1, 1)
    sizes = [NUM_TRAIN, NUM_TUNING, len(label_N) - NUM_TRAIN - NUM_TUNING]
    train, tuning, test = (
        Images(x=x, label=label)
        for x, label in zip(x_N3HW.split(sizes), label_N.split(sizes), strict=True)
    )
    return train, tuning, test


def make(arm: Arm, seed: int) -> DeiT:
    """Build the model of an arm, with new weights."""
    student = DeiTStudent(
        width=arm.width, num_heads=4, groups=arm.groups, patch=2, image_size=8, num_classes=10,
        class_token=False, mixes=arm.mixes, local="kept" if arm.local else "none", local_kernel=3,
        position_std=POSITION_STD,
    )  # fmt: skip
    model = DeiT(student.build())
    draw_weights(model, student, torch.Generator().manual_seed(seed))
    if not arm.own_norms:
        for block in model.blocks[1:]:
            block.norm1, block.norm2 = model.blocks[0].norm1, model.blocks[0].norm2
    return model


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long, and how fast.

    Parameters
    ----------
    lr
        Highest rate, after a tenth of the steps; a cosine leads to a twentieth.
    steps, batch_size
        Steps of so many images, which are drawn anew when too few are left.
    norms_every
        Steps between looks at gradients.
    """

    lr: float = 2e-3
    steps: int = 400
    batch_size: int = 64
    norms_every: int = 20


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a training went.

    Parameters
    ----------
    losses
        Training loss of each step, nats.
    norms
        By step, norms of the gradient that each execution gives to the weights of its block.
    """

    losses: list[float]
    norms: dict[int, list[float]]


def train(model: DeiT, lesson: Lesson, images: Images, seed: int, config: Training) -> Course:
    """Train a model, which is in evaluation mode then.

    Parameters
    ----------
    model
        With new weights.
    lesson
        What it is asked for.
    images
        To train on.
    seed
        Of their order.
    config
        Settings.
    """
    optimizer = _optimizer(model.train())
    schedule = ScheduleConfig(peak_lr=config.lr, warmup_steps=config.steps // 10, min_lr_ratio=0.05)
    order = torch.Generator().manual_seed(seed)
    course = Course(losses=[], norms={})
    waiting = torch.empty(0, dtype=torch.long)
    for step in range(1, config.steps + 1):
        if len(waiting) < config.batch_size:
            waiting = torch.randperm(len(images.label), generator=order)
        chosen, waiting = waiting[: config.batch_size], waiting[config.batch_size :]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(schedule, step, config.steps)
        loss = lesson.loss(images.x[chosen], images.label[chosen])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        course.losses.append(loss.item())
        if step % config.norms_every == 0:
            course.norms[step] = label_norms(model, images)
    model.eval()
    return course


def _optimizer(model: DeiT) -> torch.optim.AdamW:
    """AdamW with MiniViT's decay, of matrices and tables only."""
    parts = {0.05: [], 0.0: []}
    for one in model.parameters():
        parts[0.05 if one.dim() > 1 else 0.0].append(one)
    return torch.optim.AdamW(
        [{"params": group, "weight_decay": decay} for decay, group in parts.items()]
    )


class Lesson:
    """What a model is asked for.

    Parameters
    ----------
    taught
        See `Arm`.
    model
        That is trained.
    teacher
        In evaluation mode; of no use where labels teach.
    """

    def __init__(self, taught: Taught, model: DeiT, teacher: DeiT) -> None:
        self._taught, self._model, self._teacher = taught, model, teacher
        match = even_match((model.config.depth,), (teacher.config.depth,))
        self._relations = RelationLoss(RelationConfig(), match)
        self._ours = Taps(model, layers=match.student)
        self._theirs = Taps(teacher, layers=match.teacher)

    def loss(self, x_B3HW: Tensor, label_B: Tensor) -> Tensor:
        """Loss of a batch, a mean over images in nats."""
        if self._taught == "labels":
            return F.cross_entropy(self._model(x_B3HW), label_B)
        if self._taught == "prediction":
            with torch.no_grad():
                said_BC = self._teacher(x_B3HW)
            return F.cross_entropy(self._model(x_B3HW), said_BC.softmax(1))
        with self._theirs, torch.no_grad():
            said_BC = self._teacher(x_B3HW)
        with self._ours:
            logits_BC = self._model(x_B3HW)
        relations = self._relations(self._ours, self._theirs)["total"]
        return F.cross_entropy(logits_BC, said_BC.softmax(1)) + relations


def label_norms(model: DeiT, images: Images) -> list[float]:
    """Norms of the gradient of each execution, for the first images and their labels."""
    x_B3HW, label_B = images.x[:NUM_LOOKED_AT], images.label[:NUM_LOOKED_AT]
    return list(gradient_norms(model, lambda one: F.cross_entropy(one(x_B3HW), label_B)).values())


@torch.inference_mode()
def accuracy(model: DeiT, images: Images) -> float:
    """Share of images whose class comes first, percent."""
    chosen_N = model(images.x).argmax(1)
    return 100 * (chosen_N == images.label).double().mean().item()
