"""The demo: three runs that differ in the format alone, a page, and no work done twice."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from rich.console import Console

from weightwise.demo import run_demo, settings_key, weight_density
from weightwise.lm import LanguageModel
from weightwise.recipes import tiny
from weightwise.train import DataConfig, FileSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weightwise.train import Recipe

TINY = replace(tiny(), train=replace(tiny().train, steps=6, eval_every=3, save_every=2))


@pytest.fixture
def small(tmp_path) -> Recipe:
    """Six steps on forty short programs."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(40):
        text = f"def add_{number}(value):\n    return value + {number}\n" * 10
        (folder / f"{number}.py").write_text(text, encoding="utf-8")
    data = DataConfig(source=FileSource(paths=(str(folder),)), valid_fraction=0.3)
    return replace(TINY, data=data)


@pytest.fixture(autouse=True, scope="module")
def _single_thread() -> Iterator[None]:
    """Matrices this small take longer when two threads share and wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def quiet(tmp_path) -> Iterator[Console]:
    with (tmp_path / "talk.txt").open("w", encoding="utf-8") as file:
        yield Console(file=file)


def first_train_loss(run_dir) -> float:
    with (run_dir / "metrics.jsonl").open(encoding="utf-8") as rows:
        return next(row["train_loss"] for row in map(json.loads, rows) if "train_loss" in row)


@pytest.mark.slow
def test_demo_writes_the_page_and_does_not_train_twice(tmp_path, small, quiet):
    """A second call leaves all metrics as they are; another seed makes runs of its own."""
    page = run_demo(tmp_path, recipe=small, console=quiet)
    assert page == tmp_path / "weightwise.html"
    text = page.read_text(encoding="utf-8")
    for name in ("FP32", "E4M3", "E2M1"):
        assert f"</svg>{name}</h2>" in text
    runs = sorted(path for path in (tmp_path / "weightwise").iterdir() if path.name != "data")
    assert [path.name.split("-")[0] for path in runs] == ["e2m1", "e4m3", "fp32"]
    before = [(path / "metrics.jsonl").read_bytes() for path in runs]
    page.unlink()
    assert run_demo(tmp_path, recipe=small, console=quiet) == page
    assert [(path / "metrics.jsonl").read_bytes() for path in runs] == before
    # The first step sees the same weights and the same batch; only rounding differs.
    losses = [first_train_loss(path) for path in runs]
    assert max(losses) - min(losses) < 0.01
    assert len(set(losses)) == 3


@pytest.mark.slow
def test_interrupted_demo_says_so_and_goes_on(tmp_path, small, quiet):
    """A signal ends the first run early; the next call finishes the page."""
    raised = []

    class Impatient(Console):
        """Sends the signal of Ctrl-C when the first row of metrics is shown."""

        def print(self, *objects, **options):
            """Print, and interrupt once."""
            super().print(*objects, **options)
            if "step 2/" in str(objects[0]) and not raised:
                raised.append(True)
                signal.raise_signal(signal.SIGINT)

    impatient = Impatient(file=quiet.file)
    assert run_demo(tmp_path, recipe=small, console=impatient) is None
    assert not (tmp_path / "weightwise.html").exists()
    quiet.file.flush()
    talk = (tmp_path / "talk.txt").read_text(encoding="utf-8")
    assert "The same command goes on from here." in talk
    assert run_demo(tmp_path, recipe=small, console=quiet) is not None


def test_any_change_of_settings_changes_the_run_folder():
    """Seed, format and steps each lead to another folder."""
    keys = {
        settings_key(TINY),
        settings_key(replace(TINY, seed=2)),
        settings_key(replace(TINY, precision=replace(TINY.precision, format="e4m3"))),
        settings_key(replace(TINY, train=replace(TINY.train, steps=7))),
    }
    assert len(keys) == 4
    assert settings_key(TINY) == settings_key(replace(TINY))


def test_density_counts_each_weight_relative_to_its_row():
    """Rows that are all 3 or all -0.5 lie at the two ends, whatever their size."""
    model = LanguageModel(TINY.model)
    with torch.no_grad():
        for weight in model.blocks.parameters():
            if weight.ndim == 2:
                weight.fill_(3.0)
                weight[::2] = -0.5
    # All matrices have an even number of rows, so half of the weights lie in the last bin.
    assert weight_density(model, 4) == [0.5, 0.0, 0.0, 0.5]
