"""Weight distillation in training: relations of a teacher's tokens beside what it predicts.

The teacher is a model in memory and sees the student's images (MiniViT, arXiv 2204.07154, weight
distillation; the losses are `weightwise.distill.relations`). What is predicted may come from a
store, or from the same pass of the same teacher.
"""

# Shapes: B images of a batch, C classes

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from weightwise.distill.matching import LayerMatch, even_match
from weightwise.distill.relations import RelationLoss
from weightwise.distill.taps import Taps
from weightwise.train.vision_config import LabelTargets
from weightwise.train.vision_targets import Taught
from weightwise.vision.deit import DeiT
from weightwise.vision.swin import Swin

if TYPE_CHECKING:
    from torch import Tensor

    from weightwise.distill.teachers import Teacher
    from weightwise.images import Batch, View
    from weightwise.train.vision_config import RelationTargets
    from weightwise.train.vision_recipe import VisionRecipe
    from weightwise.train.vision_targets import Target


class Relations:
    """What a student is asked for beside its predictions.

    Parameters
    ----------
    config
        Losses and layers.
    teacher
        Whose relations.
    student
        Model that is trained; it is called while `taps` are open.
    target
        What predictions are compared with, see `weightwise.train.vision_targets`.

    Attributes
    ----------
    taps
        Records of the student.
    views
        What images are shown as beside the student's and the target's views.

    Raises
    ------
    ValueError
        If the teacher is no module of torch, or layers have to be named.
    """

    def __init__(
        self, config: RelationTargets, teacher: Teacher, student: nn.Module, target: Target
    ) -> None:
        if not isinstance(teacher.model, nn.Module):
            raise ValueError(  # noqa: TRY004, what a user can cause is a ValueError
                "targets.relations.teacher: expected a model of torch, whose layers can be seen, "
                f"got {teacher.name}"
            )
        self._model, self._teacher, self._target = teacher.model, teacher, target
        match = _match(config, student, teacher.model)
        self._loss = RelationLoss(config.loss, match)
        self.taps = Taps(student, layers=match.student)
        self._theirs = Taps(teacher.model, layers=match.teacher)
        self._is_asked_once = isinstance(target, Taught) and target.teacher is teacher
        self.views: tuple[View, ...] = () if self._is_asked_once else (teacher.view,)

    def losses(self, logits_BC: Tensor, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Mean losses of a batch whose student has just been called, by name.

        Parameters
        ----------
        logits_BC
            Of the student.
        batch
            Images; the last view is the teacher's.
        epoch
            Number of the epoch, from 0.

        Returns
        -------
        dict
            ``loss``, which is trained on, and its parts: ``prediction`` and those of
            `weightwise.distill.relations.RelationLoss`.
        """
        with self._theirs:
            said_BC = self._ask(batch.views[-1])
        generator = torch.Generator().manual_seed(int(batch.seeds[0]))
        losses = self._loss(self.taps, self._theirs, generator)
        total = losses.pop("total").to(logits_BC.device)
        if self._is_asked_once and isinstance(self._target, Taught):
            prediction = self._target.compare(logits_BC, said_BC, batch)
        else:
            prediction = self._target.loss(logits_BC, batch, epoch)
        return {"loss": prediction + total, "prediction": prediction, **losses}

    def _ask(self, x_B3SS: Tensor) -> Tensor:
        """Call the teacher; what is recorded goes into a graph, as no tensor of inference may."""
        teacher = self._teacher
        is_narrow = teacher.dtype != torch.float32
        with torch.no_grad(), torch.autocast(teacher.device.type, teacher.dtype, enabled=is_narrow):
            said_BC: Tensor = self._model(x_B3SS.to(teacher.device))
        return said_BC


def open_relations(recipe: VisionRecipe, student: nn.Module, target: Target) -> Relations | None:
    """Relations that a recipe's student is asked for; ``None`` where it is not."""
    targets = recipe.targets
    config = None if isinstance(targets, LabelTargets) else targets.relations
    if config is None or target.relation_teacher is None:
        return None
    return Relations(config, target.relation_teacher, student, target)


def _match(config: RelationTargets, student: nn.Module, teacher: nn.Module) -> LayerMatch:
    if config.student_layers is not None and config.teacher_layers is not None:
        return LayerMatch(student=config.student_layers, teacher=config.teacher_layers)
    depths = [_depths(model) for model in (student, teacher)]
    if not all(depths) or len(depths[0]) != len(depths[1]):
        raise ValueError(
            "targets.relations.student_layers: expected numbers of layers, which are found only "
            f"where both models are a DeiT or both a Swin of this library, got none for a "
            f"{type(student).__name__} and a {type(teacher).__name__}"
        )
    return even_match(*depths)


def _depths(model: nn.Module) -> tuple[int, ...]:
    """Executions of each stage; none where they are not known."""
    if isinstance(model, DeiT):
        return (model.config.depth,)
    return model.config.depths if isinstance(model, Swin) else ()
