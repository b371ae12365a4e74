"""Experts spread over processes: real ones make the steps of a single one."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from weightwise.lm import LanguageModel, MoEConfig
from weightwise.recipes import tiny
from weightwise.train import read_metrics, to_toml, train
from weightwise.train.parallel import World, spread

WORKER = Path(__file__).with_name("expert_parallel_worker.py")
LAUNCH = str(Path(__file__).with_name("launch.py"))
CASES = {
    # Overflow at every layer, and draws that must not depend on the number of processes.
    "top1": {"keep_rule": "random"},
    "top2": {"top_k": 2, "weight_rule": "original"},
    "lopsided": {"overflow": "keep"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Prepared data, in a folder of its own, and what the processes write."""
    return tmp_path_factory.mktemp("experts")


def recipe_of(name, expert_parallel=1, ffn=None, **settings):
    """A tiny model with eight experts and keys shared by both layers."""
    base = tiny()
    experts = MoEConfig(hidden=32, num_experts=8, overflow="recycle", min_capacity=1)
    attention = replace(base.model.attention, qk_norm=True, share_factor=2)
    changes = {"steps": 3, "micro_batch_size": 2, "expert_parallel": expert_parallel, **settings}
    return replace(
        base,
        name=name,
        model=replace(base.model, attention=attention, ffn=replace(experts, **(ffn or {}))),
        train=replace(base.train, **changes),
        schedule=replace(base.schedule, decay_steps=60),
    )


@pytest.fixture(scope="module")
def launch(start, folder):
    """Start a script or module in so many processes, with one place for prepared data."""

    def begin(num_processes, words):
        launcher = (LAUNCH, num_processes) if num_processes > 1 else ()
        return start(*launcher, *words, WEIGHTWISE_CACHE=folder / "cache")

    return begin


def observed(launch, num_processes, folder, layouts):
    """What the worker finds in each case and layout (expert_parallel, strategy)."""
    out = folder / f"{num_processes}.pt"
    paths = []
    for expert_parallel, strategy in layouts:
        for case, ffn in CASES.items():
            name = f"{case}-{expert_parallel}-{strategy}"
            paths.append(folder / f"{num_processes}-{name}.toml")
            recipe = recipe_of(name, expert_parallel, ffn, strategy=strategy)
            paths[-1].write_text(to_toml(recipe), encoding="utf-8")
    launch(num_processes, [WORKER, out, folder / "cache", *paths]).finish()
    return torch.load(out)


@pytest.fixture(scope="module")
def alone(launch, folder):
    """The cases in one process."""
    return observed(launch, 1, folder, [(1, "ddp")])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_processes", "layouts"),
    [(2, [(2, "ddp"), (2, "fsdp")]), (4, [(4, "ddp"), (2, "ddp")])],
)
def test_processes_route_and_learn_as_a_single_one(launch, alone, folder, num_processes, layouts):
    """Losses, norms and gradients to 1e-5; the same experts for every token, recycled ones too."""
    found = observed(launch, num_processes, folder, layouts)
    assert found.pop("travel") <= 1e-6
    assert len(found) == len(CASES) * len(layouts)
    for name, ours in found.items():
        case = name.partition("-")[0]
        single = alone[f"{case}-1-ddp"]
        assert ours["routing"].keys() == single["routing"].keys()
        assert all(torch.equal(ours["routing"][k], single["routing"][k]) for k in ours["routing"])
        torch.testing.assert_close(ours["steps"], single["steps"], atol=1e-5, rtol=0)
        assert ours["valid_loss"] == pytest.approx(single["valid_loss"], abs=1e-5)
        for weight, gradient in ours["gradient"].items():
            difference = (gradient - single["gradient"][weight]).abs().max()
            assert difference <= 1e-5, f"{name}: {weight} differs by {difference}"
        assert ours["recomputed"] == 0


@pytest.mark.slow
def test_the_cases_are_what_they_are_meant_to_be(alone):
    """Tokens are recycled, and in the lopsided case all go to one process's expert."""
    routing = alone["lopsided-1-ddp"]["routing"]
    assert len(routing[0, 0].unique()) == 1
    # Eight experts take an eighth of 64 tokens each: nothing is dropped, all are full.
    for case, load in (("top1-1-ddp", 8), ("top2-1-ddp", 16)):
        loads = torch.bincount(alone[case]["routing"][0, 0].flatten(), minlength=9)
        assert loads[:8].max() == load
        assert loads[8] <= 4
    assert alone["top1-1-ddp"]["recomputed"] == 0


def untimed(run_dir):
    """All rows of a run without the speed, which no two runs share."""
    rows = read_metrics(run_dir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k != "tokens_per_s"} for row in rows]


def command(recipe, folder, run_dir):
    """Words that train a recipe."""
    path = folder / f"{run_dir.name}.toml"
    path.write_text(to_toml(recipe), encoding="utf-8")
    return ["-m", "weightwise", "train", path, "--out", run_dir]


def kill_after(step, launcher, run_dir):
    """Kill launcher and one of four workers once a step is logged; the others must end."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    while not (rows := read_metrics(run_dir / "metrics.jsonl")) or rows[-1]["step"] < step:
        assert launcher.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    *others, last = map(int, children.read_text().split())
    assert len(others) == 3
    launcher.send_signal(signal.SIGKILL)
    os.kill(last, signal.SIGKILL)
    launcher.wait()
    deadline = time.monotonic() + 60
    while left := [worker for worker in others if is_running(worker)]:
        if time.monotonic() > deadline:
            for worker in left:
                os.kill(worker, signal.SIGKILL)
            pytest.fail("workers wait for one that was killed")
        time.sleep(0.05)


def is_running(process):
    """Whether a process, which need not be a child, has not ended."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers in /proc")
def test_killed_run_goes_on_bit_for_bit(launch, tmp_path):
    """SIGKILL between two checkpoints, then the same command: rows and weights of a whole run."""
    recipe = recipe_of("kills", 2, steps=12, save_every=4, eval_every=6, eval_batches=2)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    launch(4, command(recipe, tmp_path, whole)).finish()
    words = command(recipe, tmp_path, killed)
    kill_after(6, launch(4, words), killed)
    assert read_metrics(killed / "metrics.jsonl")[-1]["step"] < 12
    launch(4, words).finish()
    assert untimed(killed) == untimed(whole)
    last = "checkpoints/step-000012/model.safetensors"
    assert (killed / last).read_bytes() == (whole / last).read_bytes()


@pytest.mark.slow
def test_run_goes_on_with_another_number_of_processes(launch, folder, tmp_path, monkeypatch):
    """Four steps on a mesh of 2 x 2, four alone, four in two processes: the losses of twelve."""
    monkeypatch.setenv("WEIGHTWISE_CACHE", str(folder / "cache"))
    settings = {"save_every": 4, "eval_every": 4, "eval_batches": 2}
    train(recipe_of("alone", steps=12, **settings), tmp_path / "alone")
    moved = tmp_path / "moved"
    launch(4, command(recipe_of("moved", 2, steps=4, **settings), tmp_path, moved)).finish()
    train(recipe_of("moved", steps=8, **settings), moved)
    launch(2, command(recipe_of("moved", 2, steps=12, **settings), tmp_path, moved)).finish()
    ours, theirs = untimed(moved), untimed(tmp_path / "alone")
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        for name in mine.keys() & {"train_loss", "valid_loss", "grad_norm"}:
            assert mine[name] == pytest.approx(other[name], rel=2e-5), mine["step"]


def test_settings_that_do_not_split_are_refused(tmp_path):
    """One line names the field and what it accepts."""
    with pytest.raises(ValueError, match=r"train\.expert_parallel: expected a divisor of .* 8"):
        recipe_of("odd", 3)
    with pytest.raises(ValueError, match=r"train\.expert_parallel: expected 1 .* without experts"):
        base = tiny()
        replace(base, train=replace(base.train, expert_parallel=2))
    with pytest.raises(ValueError, match=r"expert_parallel: .* number of processes 1, got 2"):
        train(recipe_of("lonely", 2), tmp_path)
    world = World(rank=0, size=3, local_rank=0, device=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"expert_parallel: .* number of processes 3, got 2"):
        spread(LanguageModel(recipe_of("three").model), "ddp", 2, world)
