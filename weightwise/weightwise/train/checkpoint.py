"""Checkpoints: one folder per saved step, complete or not there.

::

    RUN/checkpoints/step-000100/
        model.safetensors   all weights, whatever the number of processes: for use and exchange
        optimizer/          optimizer state in the format of torch.distributed.checkpoint, which
                            any number of processes can read, sharded or not
        tokenizer.json      of language models
        recipe.toml
        state.json          step, tokens, losses, and size and checksum of every other file

A checkpoint is written under a temporary name, forced to disk and then renamed. What a crash
leaves behind has the temporary name and is removed by the next run. All processes must see the
same folder.

`load_model` reads only JSON, TOML and safetensors, which cannot run code. The optimizer state is
read through pickle: continue only runs that you trust.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from weightwise.lm import Tokenizer
from weightwise.numerics import quantize_model
from weightwise.train.files import PARTIAL, checksum, publish
from weightwise.train.model import language_model
from weightwise.train.optimizer_state import save_optimizer
from weightwise.train.parallel import World, whole_on_main
from weightwise.train.recipe import Recipe, read_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from weightwise.lm import LanguageModel

NAME = re.compile(r"step-\d{6,}")
MODEL_FILES = ("model.safetensors", "recipe.toml", "tokenizer.json")
DAMAGED = "damaged-"


class CheckpointError(ValueError):
    """A checkpoint is missing or damaged; the message names the file."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """How far a run has come.

    Parameters
    ----------
    step
        Optimizer steps made.
    tokens
        Tokens seen, or images.
    train_loss
        Loss of the last step's batch, nats per token or image.
    valid_loss
        Newest validation loss; ``None`` before the first evaluation.
    best_valid_loss, best_step
        Lowest validation loss and its step.
    data
        Fingerprint of the prepared data.
    files
        Size and checksum of every other file of the checkpoint, filled in on saving.
    """

    step: int
    tokens: int
    train_loss: float
    valid_loss: float | None
    best_valid_loss: float | None
    best_step: int | None
    data: str
    files: dict[str, tuple[int, str]] = field(default_factory=dict)


class CheckpointFolder:
    """The checkpoints of a run.

    Parameters
    ----------
    run_dir
        Folder of the run.
    keep
        Newest checkpoints that stay.
    world
        Processes that write together.
    """

    def __init__(self, run_dir: Path, keep: int, world: World) -> None:
        self._folder = run_dir / "checkpoints"
        self._keep = keep
        self._world = world

    def clean(self) -> None:
        """Remove what a crash left half-written; only while no other process writes."""
        for partial in self._folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(partial)

    def newest(self, say: Callable[[str], None]) -> Path | None:
        """Find the newest complete checkpoint, setting damaged ones aside.

        Parameters
        ----------
        say
            Told about every checkpoint that was passed over.

        Returns
        -------
        Path or None
            The checkpoint; ``None`` if there is none at all.

        Raises
        ------
        CheckpointError
            If there are checkpoints and all are damaged.
        """
        paths = list_checkpoints(self._folder)
        for path in reversed(paths):
            try:
                verify(path)
            except CheckpointError as error:
                aside = path.with_name(DAMAGED + path.name)
                say(f"{error}; set aside as {aside.name}, going back to the one before")
                if aside.exists():
                    shutil.rmtree(aside)
                path.rename(aside)
            else:
                return path
        if paths:
            raise CheckpointError(
                f"{self._folder}: expected a whole checkpoint, all {len(paths)} are damaged; "
                "start again with another --out"
            )
        return None

    def save(
        self,
        state: RunState,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        recipe: str,
        tokenizer: Tokenizer | None = None,
    ) -> Path:
        """Write a checkpoint; every process must call this.

        Parameters
        ----------
        state
            Progress to save.
        model
            The model itself, not what data parallelism wraps around it.
        optimizer, recipe, tokenizer
            What belongs to it; the recipe as TOML.

        Returns
        -------
        Path
            Folder of the checkpoint.
        """
        final = self._folder / f"step-{state.step:06d}"
        partial = self._folder / (PARTIAL + final.name)
        weights = whole_weights(model)
        if self._world.is_main:
            partial.mkdir(parents=True, exist_ok=True)
        self._world.barrier()
        save_optimizer(partial / "optimizer", model, optimizer, self._world.size)
        if self._world.is_main:
            save_file(weights, partial / "model.safetensors")
            if tokenizer is not None:
                tokenizer.save(partial / "tokenizer.json")
            (partial / "recipe.toml").write_text(recipe, encoding="utf-8")
            table = {**asdict(state), "files": describe_files(partial)}
            (partial / "state.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
            publish(partial, final)
            self._remove_old()
        self._world.barrier()
        return final

    def _remove_old(self) -> None:
        for path in list_checkpoints(self._folder)[: -self._keep]:
            # Renamed first: a removal cut short must not look like a damaged checkpoint.
            doomed = path.with_name(PARTIAL + path.name)
            path.rename(doomed)
            shutil.rmtree(doomed)


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in a folder, oldest first."""
    found = [path for path in folder.glob("step-*") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def find_checkpoint(path: Path) -> Path:
    """Resolve a checkpoint: the folder itself, or the newest one of a run.

    Parameters
    ----------
    path
        Folder of a checkpoint or of a run.

    Raises
    ------
    CheckpointError
        If it is neither.
    """
    if (path / "state.json").is_file():
        return path
    found = list_checkpoints(path / "checkpoints")
    if not found:
        raise CheckpointError(
            f"{path}: expected a checkpoint or the folder of a run that has one, found none"
        )
    return found[-1]


def read_state(checkpoint: Path) -> RunState:
    """Read ``state.json``.

    Raises
    ------
    CheckpointError
        If it is missing or damaged.
    """
    path = checkpoint / "state.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        files = {name: (int(size), str(crc)) for name, (size, crc) in table.pop("files").items()}
        return RunState(**table, files=files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: expected the state of a run, got {error!r}") from error


def verify(checkpoint: Path, only: Collection[str] | None = None) -> RunState:
    """Compare files with what ``state.json`` says of them.

    Parameters
    ----------
    checkpoint
        Folder of the checkpoint.
    only
        Names of the files to look at; all by default.

    Returns
    -------
    RunState
        Progress of the run.

    Raises
    ------
    CheckpointError
        If a file is missing, cut short or changed; the message names it.
    """
    state = read_state(checkpoint)
    for name, (size, crc) in state.files.items():
        if only is not None and name not in only:
            continue
        path = checkpoint / name
        if not path.is_file():
            raise CheckpointError(f"{path}: expected a file of {size} bytes, found none")
        if path.stat().st_size != size:
            raise CheckpointError(f"{path}: expected {size} bytes, got {path.stat().st_size}")
        if checksum(path) != crc:
            raise CheckpointError(f"{path}: expected checksum {crc}, got {checksum(path)}")
    return state


def load_model(checkpoint_dir: Path | str) -> tuple[LanguageModel, Tokenizer, Recipe]:
    """Load a trained model for use.

    Its linear layers are quantized as they were in training, so that it scores text as it did
    at its evaluations; `weightwise.numerics.unquantize_model` undoes that.

    Parameters
    ----------
    checkpoint_dir
        Folder of a checkpoint, or of a run, whose newest checkpoint is taken.

    Returns
    -------
    tuple
        Model in evaluation mode on the CPU, tokenizer and recipe.

    Raises
    ------
    CheckpointError
        If there is no checkpoint or a file of it is damaged.
    """
    folder = find_checkpoint(Path(checkpoint_dir))
    verify(folder, MODEL_FILES)  # the rest may be left out of a copy
    recipe = read_recipe(folder / "recipe.toml")
    model = language_model(recipe)
    load_weights(model, folder)
    quantize_model(model, recipe.precision)
    return model.eval(), Tokenizer.load(folder / "tokenizer.json"), recipe


def load_weights(model: nn.Module, checkpoint: Path) -> None:
    """Copy the weights of a checkpoint into a model that is not sharded yet.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or its names or shapes are not those of the model.
    """
    path = checkpoint / "model.safetensors"
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: expected safetensors, got {error}") from error
    own = _kept(model)
    wrong = sorted(
        name
        for name in own.keys() | weights.keys()
        if name not in own or name not in weights or own[name].shape != weights[name].shape
    )
    if wrong:
        raise CheckpointError(
            f"{path}: expected the weights of the recipe's model, {wrong[0]} differs"
        )
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(weights[name])


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """Gather all weights and buffers, tied ones once, on the CPU; every process must call this.

    Parameters
    ----------
    model
        Sharded or not.

    Returns
    -------
    dict
        Weights by name; nothing in all processes but the main one.
    """
    gathered = {name: whole_on_main(weight.detach()) for name, weight in _kept(model).items()}
    return {name: weight for name, weight in gathered.items() if weight is not None}


def _kept(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, and the buffers that belong to a model's state."""
    kept = model.state_dict(keep_vars=True)
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in kept}
    return {**dict(model.named_parameters()), **buffers}


def describe_files(folder: Path) -> dict[str, tuple[int, str]]:
    """Size and checksum of every file in a folder, by its path there."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, checksum(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
