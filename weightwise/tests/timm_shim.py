"""timm beside a torch without CUDA.

timm imports torchvision, whose published wheels are built for CUDA. With a CPU build of torch its
compiled library is not loaded, and its import stops where it describes operators that this library
would have declared. Declaring them first is enough; they cannot be called. transformers would stop
too wherever it finds torchvision, so that both lie in a folder of their own, see the Makefile.
"""

import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(sys.prefix) / "peers"
# Torch forgets operators along with the library object that declared them.
_DECLARED: list[torch.library.Library] = []


def declare_operators() -> None:
    """Make timm importable; declare what torchvision describes, once, where torch is for CPUs."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    is_there = hasattr(torch.ops.torchvision, "nms")
    if is_there or util.find_spec("torchvision") is None or torch.version.cuda:
        return
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARED.append(library)


def import_timm() -> ModuleType:
    """timm, or skip the test."""
    declare_operators()
    return pytest.importorskip("timm")
