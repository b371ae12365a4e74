"""Teachers by name: models of other libraries, functions of yours, and what the caller can load.

==========================  ====================================================================
`timm:NAME`                 pretrained classifier
`transformers:NAME`         classifier, or a model of images and texts where class names are given
`open_clip:NAME[/TAG]`      model of images and texts; needs class names
`MODULE:FUNCTION`           function from normalized images (B, 3, S, S) to logits (B, C)
a path                      whatever the given loader makes of it
==========================  ====================================================================

A model of images and texts classifies without training: the logit of a class is the similarity of
image and text, times the model's scale, for a text that names the class (Radford et al., "Learning
transferable visual models from natural language supervision", 2021, section 3.1.2).
"""

# Shapes: B images, C classes, S side of an image, D width of a joint embedding

from __future__ import annotations

import hashlib
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import nn

from weightwise.images import CLIP_MEAN, CLIP_STD, View

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Statistics: TypeAlias = tuple[float, float, float]
    Model: TypeAlias = Callable[[Tensor], Tensor]

Dtype: TypeAlias = Literal["float32", "bfloat16", "float16"]
DIGEST = 12  # hexadecimal digits of a teacher's name: two teachers share them once in 2^48 pairs


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """How a teacher is run.

    Parameters
    ----------
    name
        See the table above.
    size, mean, std
        What it sees; where not given, what the model was trained with.
    class_names
        Names of the classes, for models of images and texts.
    prompt
        Text of a class, with ``{}`` where its name goes.
    device
        ``auto`` takes a GPU if there is one.
    dtype
        Type of its arithmetic; weights stay float32.
    """

    name: str
    size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    class_names: tuple[str, ...] = ()
    prompt: str = "a photo of a {}."
    device: str = "auto"
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        if "{}" not in self.prompt:
            raise ValueError(f"prompt: expected a text with {{}}, got {self.prompt!r}")
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"dtype: expected float32, bfloat16 or float16, got {self.dtype!r}")


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A model that is ready to be asked.

    Parameters
    ----------
    name
        What stores say of it: the name it was asked for by, its size, and a digest of its weights
        and of what it sees.
    view
        Size and statistics of its images.
    num_classes
        Classes C.
    model
        From images to logits.
    device, dtype
        Where and in which type it computes.
    """

    name: str
    view: View
    num_classes: int
    model: Model
    device: torch.device
    dtype: torch.dtype

    @torch.inference_mode()
    def __call__(self, x_B3SS: Tensor) -> Tensor:
        """Ask for logits.

        Parameters
        ----------
        x_B3SS
            Normalized images, on any device.

        Returns
        -------
        Tensor
            Logits of shape (B, C), on the teacher's device.
        """
        x_B3SS = x_B3SS.to(self.device)
        if self.dtype == torch.float32:
            return self.model(x_B3SS)
        with torch.autocast(self.device.type, self.dtype):
            return self.model(x_B3SS)


def load_teacher(
    config: TeacherConfig, load_path: Callable[[Path], tuple[nn.Module, View]]
) -> Teacher:
    """Find a teacher by its name, and ask it once.

    Parameters
    ----------
    config
        Name and settings.
    load_path
        From a path to a classifier and what it sees.

    Returns
    -------
    Teacher
        In evaluation mode.

    Raises
    ------
    ValueError
        If there is no such teacher, a package is missing, or it gives no logits.
    """
    device = _device(config.device)
    kind, colon, rest = config.name.partition(":")
    if colon and kind in LIBRARIES:
        model, view = LIBRARIES[kind](rest, config)
    elif Path(config.name).exists():
        model, view = load_path(Path(config.name))
    elif colon:
        model, view = _function(kind, rest), View()
    else:
        raise ValueError(
            f"teacher: expected {', '.join(f'{one}:NAME' for one in LIBRARIES)}, MODULE:FUNCTION "
            f"or a path that exists, got {config.name!r}"
        )
    view = View(
        size=config.size or view.size, mean=config.mean or view.mean, std=config.std or view.std
    )
    if isinstance(model, nn.Module):
        model = model.eval().requires_grad_(requires_grad=False).to(device)
    name = f"{_short(config.name)} {view.size}px {_digest(model, view, config)}"
    teacher = Teacher(
        name=name, view=view, num_classes=0, model=model, device=device,
        dtype=getattr(torch, config.dtype),
    )  # fmt: skip
    return _asked(teacher)


def _asked(teacher: Teacher) -> Teacher:
    """Ask about two grey images, so that what is no classifier fails before the work starts."""
    size = teacher.view.size
    try:
        logits_BC = teacher(torch.zeros(2, 3, size, size))
    except Exception as error:  # whatever foreign code raises
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"teacher: expected a model of images of {size} x {size}, {teacher.name} failed: "
            f"{type(error).__name__}: {reason}"
        ) from error
    if not isinstance(logits_BC, torch.Tensor) or logits_BC.dim() != 2 or len(logits_BC) != 2:
        found = getattr(logits_BC, "shape", type(logits_BC).__name__)
        raise ValueError(
            f"teacher: expected logits of shape (2, classes) for two images, got {found}"
        )
    return Teacher(**(vars(teacher) | {"num_classes": logits_BC.shape[1]}))


def _timm(name: str, config: TeacherConfig) -> tuple[nn.Module, View]:  # noqa: ARG001
    timm = _package("timm", "timm")
    try:
        model = timm.create_model(name, pretrained=True)
    except (RuntimeError, OSError) as error:
        raise ValueError(f"teacher: expected a pretrained model of timm: {error}") from error
    data = timm.data.resolve_model_data_config(model)
    return model, View(
        size=data["input_size"][-1], mean=_three(data["mean"]), std=_three(data["std"])
    )


def _transformers(name: str, config: TeacherConfig) -> tuple[Any, View]:
    library = _package("transformers", "transformers")
    try:
        # The settings alone: some processors themselves need torchvision.
        base = importlib.import_module("transformers.image_processing_base")
        settings, _ = base.ImageProcessingMixin.get_image_processor_dict(name)
        if not config.class_names:
            classifier = library.AutoModelForImageClassification.from_pretrained(name)
            return _Logits(classifier), _processed(settings)
        model = library.AutoModelForZeroShotImageClassification.from_pretrained(name)
        tokenizer = library.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"teacher: expected a model of transformers: {reason}") from error
    words = tokenizer(_prompts(config), padding=True, return_tensors="pt")
    with torch.inference_mode():
        texts = model.get_text_features(**words)
    return _ZeroShot(model.get_image_features, model, _embedding(texts)), _processed(settings)


def _open_clip(name: str, config: TeacherConfig) -> tuple[nn.Module, View]:
    library = _package("open_clip", "open_clip_torch")
    if not config.class_names:
        raise ValueError("class_names: expected names of classes for a teacher of open_clip")
    architecture, _, tag = name.partition("/")
    try:
        model = library.create_model(architecture, pretrained=tag or None)
    except (RuntimeError, OSError, ValueError) as error:
        raise ValueError(f"teacher: expected a model of open_clip: {error}") from error
    size = model.visual.image_size
    view = View(
        size=size if isinstance(size, int) else size[0],
        mean=_three(getattr(model.visual, "image_mean", None) or CLIP_MEAN),
        std=_three(getattr(model.visual, "image_std", None) or CLIP_STD),
    )
    model.eval()
    with torch.inference_mode():
        texts = model.encode_text(library.get_tokenizer(architecture)(_prompts(config)))
    return _ZeroShot(model.encode_image, model, texts), view


LIBRARIES: dict[str, Callable[[str, TeacherConfig], tuple[Any, View]]] = {
    "timm": _timm,
    "transformers": _transformers,
    "open_clip": _open_clip,
}


class _Logits(nn.Module):
    """A classifier of transformers, without the object around its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_B3SS: Tensor) -> Tensor:
        """Logits of shape (B, C)."""
        logits_BC: Tensor = self.model(pixel_values=x_B3SS).logits
        return logits_BC


class _ZeroShot(nn.Module):
    """Similarities of images and the texts of classes, times the model's scale."""

    def __init__(self, encode: Callable[[Tensor], Any], model: nn.Module, text_CD: Tensor) -> None:
        super().__init__()
        self.model, self._encode = model, encode
        self.register_buffer("text_CD", nn.functional.normalize(text_CD.clone(), dim=-1))

    def forward(self, x_B3SS: Tensor) -> Tensor:
        """Logits of shape (B, C)."""
        image_BD = nn.functional.normalize(_embedding(self._encode(x_B3SS)), dim=-1)
        scale: Any = self.model.logit_scale
        text_CD = self.get_buffer("text_CD")
        logits_BC: Tensor = scale.exp() * image_BD.float() @ text_CD.float().T
        bias: Any = getattr(self.model, "logit_bias", None)
        return logits_BC if bias is None else logits_BC + bias


def _embedding(found: Any) -> Tensor:
    """Embeddings, which some versions of transformers wrap in an object."""
    embedding: Tensor = found if isinstance(found, torch.Tensor) else found.pooler_output
    return embedding


def _processed(settings: dict[str, Any]) -> View:
    """What an image processor of transformers is set to."""
    size = settings.get("crop_size") or settings.get("size") or View().size
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge") or View().size
    mean, std = settings.get("image_mean"), settings.get("image_std")
    return View(size=size, mean=_three(mean or View().mean), std=_three(std or View().std))


def _prompts(config: TeacherConfig) -> list[str]:
    return [config.prompt.format(name) for name in config.class_names]


def _function(module: str, name: str) -> Any:
    """An object of a module that Python finds, also in the working directory."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"teacher: expected MODULE:FUNCTION, got {module}:{name}: {error}"
        ) from error
    if not callable(found):
        raise ValueError(f"teacher: expected a function, {module}:{name} is {found!r}")  # noqa: TRY004
    return found


def _package(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"teacher: expected the package {package}: pip install {package} ({error})"
        ) from error


def _three(values: Any) -> Statistics:
    first, second, third = map(float, values)
    return first, second, third


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device: expected one that is there, got {name!r}: {reason}") from error
    return device


def _short(name: str) -> str:
    """A path's last part, so that a store can be written from anywhere."""
    return Path(name).name if Path(name).exists() else name


def _digest(model: Any, view: View, config: TeacherConfig) -> str:
    """Hash of weights, view and texts: another teacher of the same name has another one."""
    found = hashlib.sha256(repr((view, config.class_names, config.prompt)).encode())
    for name, weight in model.state_dict().items() if isinstance(model, nn.Module) else ():
        found.update(name.encode())
        found.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:DIGEST]
