"""The command ``weightwise synthesize``: instruction data from seeds."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from weightwise.cli.bars import Bars
from weightwise.lm.post.calls import GeneratorError, Router
from weightwise.lm.post.contamination import EvaluationSets
from weightwise.lm.post.endpoint import EndpointConfig, EndpointGenerator
from weightwise.lm.post.instructions import read_seeds
from weightwise.lm.post.model_generator import ModelGenerator
from weightwise.lm.post.pipeline import SynthesisConfig
from weightwise.lm.post.prompts import read_bank
from weightwise.lm.post.synthesize import synthesize
from weightwise.lm.post.tasks import TaskGenerator, task_seeds
from weightwise.sweep.journal import locked
from weightwise.train import load_model
from weightwise.train.checkpoint import find_checkpoint

if TYPE_CHECKING:
    from weightwise.lm.post.calls import Generator
    from weightwise.lm.post.synthesize import SynthesisResult

DONE, STOPPED = 0, 1
TASKS = "tasks"

Json = Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff]
Seeds = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SEEDS")]
Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="GENERATOR [GENERATOR ...]")]
Routes = Annotated[
    tuple[tuple[str, ...], ...],
    tyro.conf.arg(metavar="DOMAIN=GENERATOR [DOMAIN=GENERATOR ...]"),
    tyro.conf.UseAppendAction,
]


@dataclass(frozen=True, kw_only=True)
class _Numbers(SynthesisConfig):
    """Numbers of the pipeline, checked by the command: the parser would frame what is wrong."""

    def __post_init__(self) -> None:
        """Check nothing."""


@dataclass(frozen=True, kw_only=True)
class _Servers(EndpointConfig):
    """How to speak to servers, checked by the command as well."""

    def __post_init__(self) -> None:
        """Check nothing."""


def synthesize_command(
    seeds: Seeds,
    /,
    out: Path | None = None,
    generator: Names = (),
    route: Routes = (),
    critic: str | None = None,
    evaluation: tuple[Path, ...] = (),
    prompts: Path | None = None,
    num_tasks: int = 1000,
    max_batch: int = 32,
    numbers: tyro.conf.OmitArgPrefixes[_Numbers] = _Numbers(),
    servers: tyro.conf.OmitArgPrefixes[_Servers] = _Servers(),
    as_json: Json = False,
) -> int:
    """Make chats and preferences from seeds, or go on with what was stopped.

    The same command again repeats no call to a generator. A generator is tasks or tasks:0.3
    (small tasks with known answers, and the share of wrong ones), the folder of a checkpoint or
    run, or the address of a server that speaks OpenAI's chat completions, http://HOST/v1#MODEL.

    Args:
        seeds: JSON lines with domain and text or instruction; or tasks, for small built-in ones.
        out: Folder of the results. Default: out/NAME, after the seeds.
        generator: Who writes instructions and responses; several take turns.
        route: Generators of a domain, in place of those.
        critic: Generator that judges responses. Default: the first of --generator.
        evaluation: Files with evaluation sets that must not be trained on.
        prompts: Prompt bank, a TOML file. Default: the one that comes with the library.
        num_tasks: With the seeds tasks: how many.
        max_batch: Requests at a time in a model of this process.
        numbers: Numbers of the pipeline.
        servers: How to speak to servers.
        as_json: Print one JSON object.
    """
    config = SynthesisConfig(**vars(numbers))
    endpoint = EndpointConfig(**vars(servers))
    is_builtin = seeds == TASKS
    bank = read_bank() if prompts is None else read_bank(prompts)
    material = (
        task_seeds(num_tasks, config.seed) if is_builtin else read_seeds(Path(seeds), bank.domains)
    )
    names = generator or ((TASKS,) if is_builtin else ())
    if not names:
        raise ValueError("generator: expected tasks, a checkpoint or http://HOST/v1, got none")
    folder = Path("out") / Path(seeds).stem if out is None else out
    sets = EvaluationSets(evaluation)
    try:
        known = _Generators(endpoint, max_batch)
        router = Router(
            default=tuple(known.get(name) for name in names),
            routes=known.routes([word for group in route for word in group], bank.domains),
        )
        judge = known.get(critic or names[0])
        with locked(folder), Bars("answers") as bars:
            result = synthesize(
                material, folder, router=router, critic=judge, config=config, bank=bank,
                evaluation=sets, on_answer=partial(_show, bars),
            )  # fmt: skip
    except GeneratorError as error:
        return _stopped(str(error))
    except KeyboardInterrupt:
        return _stopped("interrupted")
    _tell(result, as_json=as_json)
    if not sum(result.num_chats.values()):
        return _stopped("no record is left; rejected.jsonl has the reasons", goes_on=False)
    return DONE


class _Generators:
    """Generators by the words of the command line, each made once."""

    def __init__(self, endpoint: EndpointConfig, max_batch: int) -> None:
        self._endpoint = endpoint
        self._max_batch = max_batch
        self._made: dict[str, Generator] = {}

    def get(self, name: str) -> Generator:
        """The generator of that name."""
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def routes(self, words: list[str], domains: Any) -> dict[str, tuple[Generator, ...]]:
        """Generators by domain."""
        found: dict[str, tuple[Generator, ...]] = {}
        for word in words:
            domain, _, name = word.partition("=")
            if domain not in domains or not name:
                raise ValueError(
                    f"route: expected DOMAIN=GENERATOR with a domain of {', '.join(domains)}, "
                    f"got {word!r}"
                )
            found[domain] = (*found.get(domain, ()), self.get(name))
        return found

    def _make(self, name: str) -> Generator:
        kind, _, rate = name.partition(":")
        if kind == TASKS:
            try:
                return TaskGenerator(float(rate)) if rate else TaskGenerator()
            except ValueError as error:
                raise ValueError(f"generator: expected tasks:RATE, got {name!r}: {error}") from None
        if "://" in name:
            return EndpointGenerator(name, self._endpoint)
        if not Path(name).is_dir():
            raise ValueError(
                "generator: expected tasks, the folder of a checkpoint or http://HOST/v1, "
                f"got {name!r}"
            )
        checkpoint = find_checkpoint(Path(name))
        model, tokenizer, _ = load_model(checkpoint)
        return ModelGenerator(model, tokenizer, name=str(checkpoint), max_batch=self._max_batch)


def _show(bars: Bars, stage: str, done: int, count: int) -> None:
    """Take note of answers."""
    bars.update(stage, done, count)
    if done == count:
        bars.close(stage, count)


def _tell(result: SynthesisResult, *, as_json: bool) -> None:
    if as_json:
        stages = [
            {"stage": one.stage, "in": one.num_in, "made": one.num_made, "out": one.num_out,
             "dropped": one.dropped}
            for one in result.stages
        ]  # fmt: skip
        print(json.dumps({
            "folder": str(result.folder), "stages": stages, "chats": result.num_chats,
            "preferences": result.num_preferences,
        }))  # fmt: skip
        return
    table = Table("stage", "in", "made", "out", "dropped")
    for one in result.stages:
        reasons = ", ".join(f"{count} {reason}" for reason, count in one.dropped.items())
        table.add_row(
            one.stage, str(one.num_in), str(one.num_made or ""), str(one.num_out), reasons
        )
    Console().print(table)
    chats, preferences = result.num_chats, result.num_preferences
    print(
        f"{chats['train']} chats and {preferences['train']} preferences, {chats['held-out']} and "
        f"{preferences['held-out']} held out, in {result.folder}"
    )


def _stopped(reason: str, *, goes_on: bool = True) -> int:
    hint = "; the same command goes on from there" if goes_on else ""
    print("weightwise: " + " ".join(f"{reason}{hint}".split()), file=sys.stderr)
    return STOPPED
