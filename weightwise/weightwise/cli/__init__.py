"""The command line: ``weightwise train``, ``generate``, ``law …`` and ``demo``.

Results go to standard output, talk to standard error. Exit codes: 0 done; 1 the run stopped
before its end (it diverged, or a signal came); 2 wrong usage or bad input, told in one line.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import torch
import tyro
from rich.console import Console

from weightwise import __version__
from weightwise.cli import formats, law, law_next, law_sweep
from weightwise.demo import run_demo
from weightwise.lm import Tokenizer, generate
from weightwise.recipes import load_recipe
from weightwise.train import DivergedError, load_model, train

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DONE, STOPPED, USAGE = 0, 1, 2
DEFAULT_NEW_TOKENS = 100

Overrides = Annotated[
    tuple[tuple[str, ...], ...],
    tyro.conf.arg(name="set", metavar="KEY=VALUE [KEY=VALUE ...]"),
    tyro.conf.UseAppendAction,
]
Json = Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff]


def train_command(
    recipe: tyro.conf.Positional[str],
    /,
    out: Path | None = None,
    overrides: Overrides = (),
    resume: bool = True,
    as_json: Json = False,
) -> int:
    """Train a language model from a recipe, or go on with a stopped run.

    The same command again goes on from the newest checkpoint. Under torchrun the work is shared
    over its processes.

    Args:
        recipe: Built-in recipe (demo, tiny, fp-41m, ...) or path of a TOML file.
        out: Folder of the run. Default: out/NAME, after the recipe's name.
        overrides: Change settings of the recipe, such as train.steps=100.
        resume: Go on with the run in that folder; --no-resume refuses a folder that has one.
        as_json: Print the result as one JSON object.
    """
    wanted = load_recipe(recipe, [change for group in overrides for change in group])
    run_dir = Path("out") / wanted.name if out is None else out
    result = train(wanted, run_dir, resume=resume)
    if not _is_main_process():
        return DONE if result.is_complete else STOPPED
    if as_json:
        row: dict[str, Any] = {
            "run_dir": str(result.run_dir),
            "checkpoint": str(result.checkpoint),
            "step": result.step,
            "train_loss": result.train_loss,
            "valid_loss": result.valid_loss,
            "is_complete": result.is_complete,
        }
        print(json.dumps(row))
    elif result.is_complete:
        print(
            f"{wanted.name}: {result.step} steps, training loss {result.train_loss:.4f}, "
            f"validation loss {result.valid_loss:.4f}, saved in {result.checkpoint}"
        )
    if not result.is_complete:
        _say(
            f"stopped after step {result.step} of {wanted.train.steps}, saved in "
            f"{result.checkpoint}; the same command goes on from there"
        )
        return STOPPED
    return DONE


def generate_command(
    checkpoint: tyro.conf.Positional[Path],
    /,
    prompt: str = "def ",
    max_new_tokens: int | None = None,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 1,
    as_json: Json = False,
) -> int:
    """Continue a text with a trained model, printing it as it comes.

    Args:
        checkpoint: Folder of a checkpoint, or of a run, whose newest checkpoint is taken.
        prompt: Text to continue.
        max_new_tokens: Most tokens to add, at least 1. Default: 100, or what there is room for.
        temperature: 0 takes the likeliest token; higher values vary more.
        top_k: Choose among this many likeliest tokens.
        top_p: Choose among the likeliest tokens that together have this probability.
        seed: Seed of the choice; the same seed gives the same text.
        as_json: Print prompt and text as one JSON object instead.
    """
    model, tokenizer, _ = load_model(checkpoint)
    ids = tokenizer.encode(prompt) or [tokenizer.eos_id]
    if max_new_tokens is None:
        max_new_tokens = max(1, min(DEFAULT_NEW_TOKENS, model.config.max_length - len(ids)))
    stream = _Stream(tokenizer, sys.stderr if as_json else sys.stdout)
    stream.write(prompt)
    generate(
        model,
        torch.tensor([ids]),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        generator=torch.Generator().manual_seed(seed),
        stop_token=tokenizer.eos_id,
        on_token=lambda token_B: stream.add(int(token_B)),
    )
    stream.write("\n")
    if as_json:
        text = tokenizer.decode(stream.ids)
        print(json.dumps({"prompt": prompt, "text": text, "num_tokens": len(stream.ids)}))
    return DONE


def demo_command(out: Path = Path("out"), seed: int = 1, steps: int | None = None) -> int:
    """Train one small model in three number formats and write a page that compares them.

    Args:
        out: Folder for weightwise.html and the runs.
        seed: Seed of weights, data order and samples.
        steps: Steps of each run; by default those of the recipe demo.
    """
    recipe = load_recipe("demo", [] if steps is None else [f"train.steps={steps}"])
    page = run_demo(out, seed=seed, recipe=recipe, console=Console(stderr=True))
    if page is None:
        return STOPPED
    print(page)
    return DONE


COMMANDS: dict[str, Callable[..., int]] = {
    "train": train_command,
    "generate": generate_command,
    "formats": formats.formats_command,
    "law fit": law.fit_command,
    "law compare": law.compare_command,
    "law predict": law.predict_command,
    "law plan": law.plan_command,
    "law next": law_next.next_command,
    "law sweep": law_sweep.sweep_command,
    "demo": demo_command,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    arguments
        Words after the program's name; those of the process by default.

    Returns
    -------
    int
        Exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        print(f"weightwise {__version__}")
        return DONE
    try:
        return _run(words)
    except (ValueError, OSError) as error:
        _say(str(error))
        return USAGE
    except DivergedError as error:
        _say(str(error))
        return STOPPED
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on from the newest checkpoint, if there is one")
        return STOPPED


def _run(words: list[str]) -> int:
    """Parse the words and call the command; usage errors leave with exit code 2."""
    if words[:1] == ["law"]:
        group = {name.split()[1]: call for name, call in COMMANDS.items() if "law " in name}
        return _parse(group, "weightwise law", law.__doc__ or "", words[1:])
    return _parse(
        COMMANDS | {"law": _law_group},
        "weightwise",
        "Train language models in few bits and use them. --version prints the version.",
        words,
    )


def _law_group() -> int:
    """Laws of loss: fit, compare, predict, plan, next; see weightwise law --help."""
    raise AssertionError("the words after law are parsed apart")


def _parse(
    commands: dict[str, Callable[..., int]], prog: str, description: str, words: list[str]
) -> int:
    single = {name: call for name, call in commands.items() if " " not in name}
    code: int = tyro.extras.subcommand_cli_from_dict(
        single, prog=prog, description=description, args=words
    )
    return code


class _Stream:
    """Prints text as its tokens come."""

    def __init__(self, tokenizer: Tokenizer, file: TextIO) -> None:
        self._tokenizer = tokenizer
        self._file = file
        self._num_shown = 0
        self.ids: list[int] = []

    def add(self, token: int) -> None:
        """Print what a new token completes."""
        self.ids.append(token)
        # A character may be spread over tokens: its first part decodes to a replacement mark.
        text = self._tokenizer.decode(self.ids)
        whole = text.rstrip("\N{REPLACEMENT CHARACTER}")
        self.write(whole[self._num_shown :])
        self._num_shown = max(self._num_shown, len(whole))

    def write(self, text: str) -> None:
        """Print text at once."""
        self._file.write(text)
        self._file.flush()


def _is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _say(text: str) -> None:
    """Tell one line on standard error, from one process only."""
    if _is_main_process():
        print("weightwise: " + " ".join(text.split()), file=sys.stderr)
