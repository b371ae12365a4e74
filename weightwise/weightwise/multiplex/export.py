"""A model with shared weights as ONNX, each weight once.

The exporter writes a shared weight once. Its optimizer then turns weights around for the products
that want them so, once per execution; equal copies are made one again here. `torch.export` alone
needs nothing of this: its programs hold parameters by storage.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from pathlib import Path

    from torch.export import ExportedProgram

    from weightwise.multiplex.observe import Batch

ANY_SIZE = 2**62  # of what is compared


def save_onnx(model: nn.Module, batch: Batch, path: Path) -> None:
    """Write a model as ONNX; the file is either whole or as it was before.

    Parameters
    ----------
    model
        Model in evaluation mode, with or without shared weights.
    batch
        Input whose shapes the file takes: a tensor, a sequence of arguments, or a mapping of named
        ones.
    path
        File to make; it holds the weights too.

    Raises
    ------
    ValueError
        If onnxscript is not installed.
    """
    named: dict[str, Any] = dict(batch) if isinstance(batch, Mapping) else {}
    args: tuple[Any, ...] = ()
    if not named:
        args = (batch,) if isinstance(batch, Tensor) else tuple(batch)
    write_onnx(model, path, args=args, kwargs=named)


def write_onnx(model: nn.Module | ExportedProgram, path: Path, **options: Any) -> None:
    """Write a model or a program as ONNX, each weight once, with options of `torch.onnx.export`.

    Raises
    ------
    ValueError
        If onnxscript is not installed.
    """
    try:
        from onnx_ir.passes.common import DeduplicateInitializersPass
    except ImportError as error:
        raise ValueError("ONNX export needs onnxscript: pip install 'weightwise[onnx]'") from error
    program = torch.onnx.export(model, dynamo=True, verbose=False, **options)
    assert program is not None
    DeduplicateInitializersPass(size_limit=ANY_SIZE)(program.model)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        program.save(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
