"""The demo: one small language model trained in three precisions, and a page about it.

The runs differ in the number format alone: same first weights, same batches in the same order,
same schedule. Everything is kept below the output folder, one run folder per format and
settings, so that a second call with the same settings only writes the page again and a stopped
one goes on where it was.
"""

from __future__ import annotations

import hashlib
import platform
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from weightwise.lm import generate, num_parameters, num_stored_parameters
from weightwise.numerics import PrecisionConfig, parse
from weightwise.recipes import demo
from weightwise.report import Arm, Story, read_curves, weight_bytes, write_page
from weightwise.train import DataConfig, load_model, to_toml, train

if TYPE_CHECKING:
    from pathlib import Path

    from weightwise.lm import LanguageModel, Tokenizer
    from weightwise.train import Recipe

FORMATS = ("e4m3", "e2m1")
PROMPT = 'def read_lines(path):\n    """Return'
SAMPLE_TOKENS = 120
TEMPERATURE, TOP_P = 0.7, 0.9
NUM_BINS = 80
# What the page calls each kind of source.
SOURCES = {
    "builtin": "sources of Python's standard library and its language reference",
    "files": "text files",
    "hf": "a Hugging Face dataset",
}


def run_demo(
    out_dir: Path,
    *,
    seed: int = 1,
    recipe: Recipe | None = None,
    console: Console | None = None,
) -> Path | None:
    """Train in every precision and write the page.

    Parameters
    ----------
    out_dir
        Folder for ``weightwise.html`` and, in ``weightwise/``, the runs; made if missing.
    seed
        Seed of weights, data order and samples.
    recipe
        What to train; the recipe ``demo`` by default. Its seed and precision are replaced.
    console
        Where to show progress; standard error by default.

    Returns
    -------
    Path or None
        The page; ``None`` if a signal stopped the training, which the next call goes on with.

    Raises
    ------
    ValueError
        If the recipe or what is in ``out_dir`` does not allow the runs.
    """
    console = console or Console(stderr=True)
    base = replace(recipe or demo(), seed=seed)
    recipes = [replace(base, precision=PrecisionConfig(format=name)) for name in (None, *FORMATS)]
    work_dir = out_dir / "weightwise"
    runs = []
    for number, arm_recipe in enumerate(recipes, start=1):
        name = arm_name(arm_recipe)
        console.print(f"weightwise {number}/{len(recipes)}: training in {name}", highlight=False)
        run_dir = work_dir / f"{name.lower()}-{settings_key(arm_recipe)}"
        result = train(arm_recipe, run_dir, cache_dir=work_dir / "data", console=console)
        if not result.is_complete:
            console.print("Stopped. The same command goes on from here.", highlight=False)
            return None
        runs.append((arm_recipe, result.run_dir, result.checkpoint))
    console.print("weightwise: writing samples and the page", highlight=False)
    arms = [build_arm(*run, seed=seed) for run in runs]
    model, _, _ = load_model(runs[0][2])
    story = Story(
        arms=tuple(arms),
        density=tuple(weight_density(model, NUM_BINS)),
        prompt=PROMPT,
        settings=settings_table(base),
        command=f"weightwise demo --out {out_dir} --seed {seed} --steps {base.train.steps}",
    )
    page = out_dir / "weightwise.html"
    write_page(story, page)
    return page


def arm_name(recipe: Recipe) -> str:
    """Short name of what a run multiplies in: its format, or FP32 or BF16 without one."""
    if recipe.precision.format is not None:
        return parse(recipe.precision.format).name
    return {"float32": "FP32", "bfloat16": "BF16"}[recipe.train.dtype]


def settings_key(recipe: Recipe) -> str:
    """Eight digits that differ when any setting does."""
    return hashlib.sha256(to_toml(recipe).encode()).hexdigest()[:8]


def build_arm(recipe: Recipe, run_dir: Path, checkpoint: Path, *, seed: int) -> Arm:
    """Collect what the page says about one finished run.

    Parameters
    ----------
    recipe, run_dir, checkpoint
        The run and its last checkpoint.
    seed
        Seed of the sample.
    """
    model, tokenizer, _ = load_model(checkpoint)
    name = recipe.precision.format
    return Arm(
        name=arm_name(recipe),
        curves=read_curves(run_dir / "metrics.jsonl"),
        size=weight_bytes(recipe.model, recipe.precision),
        levels=() if name is None else tuple(parse(name).levels().tolist()),
        sample=write_sample(model, tokenizer, seed),
    )


def write_sample(model: LanguageModel, tokenizer: Tokenizer, seed: int) -> str:
    """Continue the prompt."""
    prompt_BT = torch.tensor([tokenizer.encode(PROMPT)])
    room = model.config.max_length - prompt_BT.shape[1]
    token_BT = generate(
        model,
        prompt_BT,
        max_new_tokens=min(SAMPLE_TOKENS, room),
        temperature=TEMPERATURE,
        top_p=TOP_P,
        generator=torch.Generator().manual_seed(seed),
        stop_token=tokenizer.eos_id,
    )
    return tokenizer.decode(token_BT[0, prompt_BT.shape[1] :].tolist())


def weight_density(model: LanguageModel, num_bins: int) -> list[float]:
    """Share of block weights per bin from -1 to 1, each weight divided by its row's largest."""
    rows = [p.detach() for p in model.blocks.parameters() if p.ndim == 2]
    scaled = torch.cat([(w / w.abs().amax(dim=1, keepdim=True)).flatten() for w in rows])
    counts = scaled.histc(num_bins, -1, 1)
    shares: list[float] = (counts / counts.sum()).tolist()
    return shares


def settings_table(recipe: Recipe) -> tuple[tuple[str, str], ...]:
    """Names and values of what all runs have in common."""
    model, run = recipe.model, recipe.train
    attention, optimizer, schedule = model.attention, recipe.optimizer, recipe.schedule
    data = recipe.data
    assert isinstance(data, DataConfig), "the demo trains on text"
    table = {
        "model": f"{model.num_layers} blocks of width {model.width}, "
        f"{attention.summary}, "
        f"inner width {model.ffn.hidden}; {num_parameters(model):,} weights in the blocks, "
        f"{num_stored_parameters(model):,} in all",
        "data": f"{SOURCES[data.source.kind]}; vocabulary of {model.vocab_size:,}, "
        f"{data.valid_fraction:.0%} of the documents held out",
        "training": f"{run.steps:,} steps of {run.batch_size} sequences of {run.seq_length} "
        f"tokens: {run.steps * run.batch_size * run.seq_length:,} tokens",
        "optimizer": f"AdamW, betas {optimizer.beta1} and {optimizer.beta2}, "
        f"weight decay {optimizer.weight_decay}, gradient norm at most {run.grad_clip}",
        "schedule": f"{schedule.kind}, {schedule.warmup_steps} warm-up steps, "
        f"peak rate {schedule.peak_lr}",
        "formats": "one scale per channel along the axis that a product sums over, "
        "targets P2, P4, P6, ties to even, no codes kept for infinity or NaN",
        "samples": f"temperature {TEMPERATURE}, nucleus {TOP_P}, {SAMPLE_TOKENS} tokens",
        "seed": str(recipe.seed),
        "machine": f"{platform.machine()}, threads: {torch.get_num_threads()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}",
    }
    return tuple(table.items())
