"""A multiplexed model on disk: each weight once, and the plan to share it again.

A folder holds ``model.safetensors`` and ``plan.json``. It is written under another name and then
renamed, so it is whole or not there.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from weightwise.multiplex.files import load_unique, unique_state_dict
from weightwise.multiplex.plan import Plan
from weightwise.multiplex.share import PLAN, share

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

WEIGHTS = "model.safetensors"
PLAN_FILE = "plan.json"


def save_multiplexed(model: nn.Module, folder: Path) -> None:
    """Write a multiplexed model; an older one of that name is replaced as a whole.

    Parameters
    ----------
    model
        What `multiplex` made.
    folder
        Folder to make.

    Raises
    ------
    ValueError
        If the model is not multiplexed, or the folder holds something else.
    """
    plan = getattr(model, PLAN, None)
    if plan is None:
        raise ValueError("model: expected a multiplexed one, got one without a plan")
    if folder.exists() and not (folder / PLAN_FILE).is_file():
        raise ValueError(f"{folder}: expected a new folder or a multiplexed model, got another one")
    partial = folder.with_name(f".partial-{os.getpid()}-{folder.name}")
    doomed = folder.with_name(f".old-{os.getpid()}-{folder.name}")
    try:
        partial.mkdir(parents=True)
        save_file(unique_state_dict(model), partial / WEIGHTS)
        (partial / PLAN_FILE).write_text(plan.to_json(), encoding="utf-8")
        if folder.exists():
            folder.rename(doomed)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(doomed, ignore_errors=True)


def load_multiplexed(model: nn.Module, folder: Path) -> Plan:
    """Turn a newly made original model into the one in a folder, in place.

    Parameters
    ----------
    model
        Same architecture as the one that was multiplexed. After an error it is of no use.
    folder
        What `save_multiplexed` wrote.

    Returns
    -------
    The plan.

    Raises
    ------
    ValueError
        If the folder cannot be read or does not fit the model; the message names it.
    """
    try:
        plan = Plan.from_json((folder / PLAN_FILE).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
        share(model, plan)
        load_unique(model, tensors)
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"{folder}: {error}") from error
    return plan
