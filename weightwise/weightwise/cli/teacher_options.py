"""What the commands that ask a teacher share: their options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 (the parser reads annotations)

from weightwise.distill.teachers import Dtype, Teacher, TeacherConfig, load_teacher
from weightwise.images import LoaderConfig
from weightwise.train.vision_start import load_classifier

Three = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """Who is asked, and how.

    Parameters
    ----------
    teacher
        timm:NAME, transformers:NAME, open_clip:NAME/TAG, MODULE:FUNCTION, the folder of a run
        of distill train, or a file with weights of a TinyViT.
    size
        Side of its images. Default, as for mean and deviation: what it was trained with.
    mean
        Mean of the three channels of its images, of values in [0, 1].
    std
        Deviation of the three channels.
    class_names
        File with the name of a class on each line, for models of images and texts.
    prompt
        Text of a class, with {} for its name.
    device
        Where it runs: auto takes a GPU if there is one.
    dtype
        Type of its arithmetic.
    batch_size
        Images at a time.
    workers
        Processes that decode and augment; 0 does it in this one.
    """

    teacher: str
    size: int | None = None
    mean: Three | None = None
    std: Three | None = None
    class_names: Path | None = None
    prompt: str = "a photo of a {}."
    device: str = "auto"
    dtype: Dtype = "float32"
    batch_size: int = 64
    workers: int = 0


def loader_of(options: TeacherOptions, base_seed: int) -> LoaderConfig:
    """How images become batches: in the order that is asked for, each once."""
    return LoaderConfig(
        batch_size=options.batch_size, base_seed=base_seed, is_shuffled=False,
        num_workers=options.workers,
    )  # fmt: skip


def teacher_of(options: TeacherOptions) -> Teacher:
    """The teacher that options ask for."""
    names: tuple[str, ...] = ()
    if options.class_names is not None:
        names = tuple(options.class_names.read_text(encoding="utf-8").split("\n"))
        names = names[:-1] if names[-1] == "" else names
        if not all(names):
            raise ValueError(f"{options.class_names}: expected a name on each line")
    config = TeacherConfig(
        name=options.teacher, size=options.size, mean=options.mean, std=options.std,
        class_names=names, prompt=options.prompt, device=options.device, dtype=options.dtype,
    )  # fmt: skip
    return load_teacher(config, load_classifier)
