"""The command line: ``weightwise train``, ``generate``, ``law …``, ``distill …`` and ``demo``.

Results go to standard output, talk to standard error. Exit codes: 0 done; 1 the run stopped
before its end (it diverged, or a signal came); 2 wrong usage or bad input, told in one line.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

from weightwise import __version__
from weightwise.cli import (
    contract,
    convert,
    distill,
    distill_store,
    distill_train,
    formats,
    law,
    law_isoflop,
    law_next,
    law_noise,
    law_size,
    law_sweep,
    post,
    tokenizer,
)
from weightwise.cli.chat import chat_command
from weightwise.cli.generate import generate_command
from weightwise.cli.long_context import long_context_command
from weightwise.cli.serve import serve_command
from weightwise.cli.shrink import shrink_command
from weightwise.cli.synthesize import synthesize_command
from weightwise.cli.train import say, train_command
from weightwise.cli.uptrain import uptrain_command
from weightwise.demo import run_demo
from weightwise.recipes import load_recipe
from weightwise.train import DivergedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DONE, STOPPED, USAGE = 0, 1, 2


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
    "long-context": long_context_command,
    "synthesize": synthesize_command,
    "sft": post.sft_command,
    "dpo": post.dpo_command,
    "shrink": shrink_command,
    "uptrain": uptrain_command,
    "generate": generate_command,
    "chat": chat_command,
    "serve": serve_command,
    "tokenizer train": tokenizer.train_command,
    "tokenizer extend": tokenizer.extend_command,
    "tokenizer show": tokenizer.show_command,
    "convert": convert.convert_command,
    "formats": formats.formats_command,
    "law fit": law.fit_command,
    "law compare": law.compare_command,
    "law predict": law.predict_command,
    "law plan": law.plan_command,
    "law next": law_next.next_command,
    "law sweep": law_sweep.sweep_command,
    "law noise": law_noise.noise_command,
    "law isoflop": law_isoflop.isoflop_command,
    "law size": law_size.size_command,
    "distill train": distill_train.train_command,
    "distill contract": contract.contract_command,
    "distill save": distill.save_command,
    "distill check": distill.check_command,
    "distill info": distill_store.info_command,
    "distill verify": distill_store.verify_command,
    "distill merge": distill_store.merge_command,
    "distill subset": distill_store.subset_command,
    "distill pack": distill_store.pack_command,
    "distill salvage": distill_store.salvage_command,
    "distill convert": distill_store.convert_command,
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
        say(str(error))
        return USAGE
    except DivergedError as error:
        say(str(error))
        return STOPPED
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from the newest checkpoint, if there is one")
        return STOPPED


def _run(words: list[str]) -> int:
    """Parse the words and call the command; usage errors leave with exit code 2."""
    for name, group in GROUPS.items():
        if words[:1] == [name]:
            prefix = f"{name} "
            own = {
                command.removeprefix(prefix): call
                for command, call in COMMANDS.items()
                if command.startswith(prefix)
            }
            return _parse(own, f"weightwise {name}", group.__doc__ or "", words[1:])
    return _parse(
        COMMANDS | GROUPS,
        "weightwise",
        "Train language models in few bits and use them. --version prints the version.",
        words,
    )


def _law_group() -> int:
    """Laws of loss: fit, plan, next, noise, isoflop, size, …; see weightwise law --help."""
    raise AssertionError("the words after the group are parsed apart")


def _distill_group() -> int:
    """Vision models and soft labels: train, save, check, …; see weightwise distill --help."""
    raise AssertionError("the words after the group are parsed apart")


def _tokenizer_group() -> int:
    """Tokenizers: train, extend, show; see weightwise tokenizer --help."""
    raise AssertionError("the words after the group are parsed apart")


GROUPS: dict[str, Callable[..., int]] = {
    "distill": _distill_group,
    "law": _law_group,
    "tokenizer": _tokenizer_group,
}


def _parse(
    commands: dict[str, Callable[..., int]], prog: str, description: str, words: list[str]
) -> int:
    single = {name: call for name, call in commands.items() if " " not in name}
    code: int = tyro.extras.subcommand_cli_from_dict(
        single, prog=prog, description=description, args=words
    )
    return code
