"""Progressive contraction: costs by formula, neighbours, bounds of steps, ties, resuming."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.vision import TinyViTConfig, num_parameters
from weightwise.vision.contract import contract
from weightwise.vision.contract_latency import Latency, macs_of
from weightwise.vision.contract_plan import Bounds, Plan
from weightwise.vision.contract_pool import Processes
from weightwise.vision.contract_score import expressivity
from weightwise.vision.contract_space import Space, neighbours

SMALL = TinyViTConfig(
    widths=(32, 64, 96, 128), depths=(1, 1, 2, 1), image_size=64, num_classes=10
)  # fmt: skip
FEW = Space(width_reach=1, depth_reach=1, expansions=(2.0, 4.0))
FEWER = replace(FEW, depth_reach=0)
LESS = Bounds(num_params=num_parameters(SMALL) * 0.8)
HALF = Bounds(num_params=num_parameters(SMALL) / 2)


def changed_factors(one, other):
    """How many of all factors differ."""
    pairs = zip((*one.widths, *one.depths, *one.windows), (*other.widths, *other.depths,
                *other.windows), strict=True)  # fmt: skip
    singles = ("conv_expansion", "mlp_expansion", "head_width")
    return sum(a != b for a, b in pairs) + sum(
        getattr(one, name) != getattr(other, name) for name in singles
    )


def test_neighbours_of_two_factors_are_all_there():
    """Counted by hand: no factor is changed twice, and none to what it has.

    Widths 64, 96, 128, 160 of step 32 and reach 1 have 2 options each, 3 windows have one:
    8 + 3 = 11 singles; pairs: 6 of widths with 4 each, 12 of width and window with 2 each, 3 of
    windows: 24 + 24 + 3 = 51. With the model itself 63.
    """
    config = replace(SMALL, widths=(64, 96, 128, 160), windows=(7, 7, 7))
    space = Space(width_reach=1, depth_reach=0, expansions=(4.0,), keep_widening=False)
    found = neighbours(config, space)
    assert len(found) == len(set(found)) == 63
    assert found[0] == config
    assert all(changed_factors(config, one) <= 2 for one in found)


def test_neighbours_are_models():
    """Widths that heads do not divide and empty stages are left out, narrowing ones on demand."""
    found = neighbours(SMALL, Space(width_step=16, width_reach=2))
    assert all(width % 32 == 0 for one in found for width in one.widths[1:])
    assert min(depth for one in found for depth in one.depths) == 1
    assert all(a <= b for one in found for a, b in zip(one.widths, one.widths[1:], strict=False))
    free = neighbours(SMALL, Space(width_reach=4, keep_widening=False))
    assert any(one.widths[2] < one.widths[1] for one in free)


@settings(max_examples=5)
@given(share=st.floats(0.25, 0.9), keep=st.integers(1, 3))
def test_every_step_keeps_its_bounds(share, keep):
    """Bounds go down in equal parts, and each step is sorted by its rank."""
    num_params = num_parameters(SMALL)
    bounds = Bounds(num_params=share * num_params, macs=macs_of(SMALL))
    found = contract(SMALL, bounds, plan=Plan(space=FEWER, keep=keep))
    for step, models in enumerate(found, start=1):
        most = num_params * (1 - (1 - share) * step / 3)
        assert max(one.num_params for one in models) <= most * (1 + 1e-12)
        assert max(one.macs for one in models) <= macs_of(SMALL)
        assert [one.score for one in models] == sorted((one.score for one in models), reverse=True)


def test_best_of_a_step_is_the_base_of_the_next():
    """All of a step lie around the best ones of the step before."""
    plan = Plan(space=FEWER, keep=2)
    found = contract(SMALL, LESS, plan=plan)
    bases = [SMALL]
    for models in found:
        around = {near for base in bases for near in neighbours(base, FEWER)}
        assert {one.config for one in models} <= around
        bases = [one.config for one in models[:2]]


def test_a_wall_is_passed_by_the_nearest_neighbour():
    """One step to a third of the parameters is more than two factors give."""
    bounds = Bounds(num_params=num_parameters(SMALL) / 3)
    plan = Plan(space=Space(width_reach=1, depth_reach=0, expansions=(4.0,)), steps=1)
    best = contract(SMALL, bounds, plan=plan)[-1][0]
    assert best.num_params <= num_parameters(SMALL) / 3
    assert changed_factors(best.config, SMALL) > 2


def test_bounds_out_of_reach_are_refused():
    """No model of ten thousand parameters is near."""
    with pytest.raises(ValueError, match=r"bounds: expected a model within .* found none"):
        contract(SMALL, Bounds(num_params=1e4), plan=Plan(space=FEW))


def test_equal_scores_are_decided_by_macs():
    """With one score for all, the fewest MACs win, whatever the order of candidates."""
    found = contract(SMALL, HALF, score=lambda _: 1.0, plan=Plan(space=FEW))
    for models in found:
        assert [one.macs for one in models] == sorted(one.macs for one in models)


def test_a_diverged_training_is_the_worst():
    """Its score of NaN counts as minus infinity."""

    def score(config):
        return float("nan") if config.depths[0] > 1 else expressivity(config)

    found = contract(SMALL, HALF, score=score, plan=Plan(space=FEW, steps=1))[0]
    assert found[0].config.depths[0] == 1
    assert found[-1].score == float("-inf")


def test_limit_scores_the_most_promising():
    """Of all that fit, the given number of most expressivity."""
    everything = contract(SMALL, HALF, plan=Plan(space=FEW, steps=1))[0]
    asked = []

    def score(config):
        asked.append(config)
        return -num_parameters(config)

    contract(SMALL, HALF, score=score, plan=Plan(space=FEW, steps=1, limit=5))
    assert asked == [one.config for one in everything[:5]]


class SlowOnDrifting:
    """Pretends that a model takes its MACs in nanoseconds, on a device that gets slower."""

    def __init__(self):
        self.slowness, self.measured = 1.0, []

    def __call__(self, configs):
        """Slower by a tenth each time."""
        self.slowness *= 1.1
        self.measured += configs
        return [1e-9 * macs_of(one) * self.slowness for one in configs]


def test_latency_is_bounded_and_freed_from_drift():
    """The start runs beside each group: the drift of 10 % a group leaves no trace."""
    measure = SlowOnDrifting()
    bounds = Bounds(latency_s=0.6e-9 * macs_of(SMALL))
    found = contract(SMALL, bounds, measure=measure, plan=Plan(space=FEW, steps=2, limit=10))
    first = 1.1e-9  # of a MAC, when the start was measured
    for one in found[-1]:
        assert one.latency_s == pytest.approx(first * one.macs)
        assert one.latency_s <= bounds.latency_s
    # what MACs say is fast is measured first: few are measured in vain
    assert len(set(measure.measured)) <= 2 * (10 + 4) + 1
    with pytest.raises(ValueError, match="measure"):
        contract(SMALL, bounds)


def test_progress_is_told():
    """Counts from 0 to all in each step, with the best so far."""
    seen = []
    plan = Plan(space=FEW, limit=4, steps=2)
    found = contract(SMALL, LESS, plan=plan, on_progress=seen.append)
    assert [(one.step, one.done) for one in seen] == [(s, d) for s in (1, 2) for d in range(5)]
    assert seen[-1].best == found[-1][0]
    assert seen[0].best is None


def test_scores_may_come_from_other_workers():
    """Whatever maps the score, the result is the same."""
    from concurrent.futures import ThreadPoolExecutor

    plain = contract(SMALL, HALF, plan=Plan(space=FEW))
    with ThreadPoolExecutor(2) as pool:
        assert contract(SMALL, HALF, plan=Plan(space=FEW), map=pool.map) == plain


KILLED = """
import os, pathlib, signal, sys
from weightwise.vision import Bounds, Plan, Space, TinyViTConfig, contract, expressivity
count = 0
def score(config):
    global count
    count += 1
    if count == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return expressivity(config)
score.__qualname__ = "expressivity"
start, bounds, plan = eval(sys.argv[2])
contract(start, bounds, score=score, plan=plan, journal=pathlib.Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_killed_search_goes_on_to_the_same_result(tmp_path):
    """Six scores survive a kill at the seventh, and are not computed again."""
    path = tmp_path / "journal.jsonl"
    plan = Plan(space=FEW)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, path, repr((SMALL, HALF, plan))],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(path.read_text().splitlines()) == 1 + 6
    with path.open("a") as file:
        file.write('{"config": {"wid')  # a line that was torn
    asked = []

    def score(config):
        asked.append(config)
        return expressivity(config)

    score.__qualname__ = "expressivity"
    found = contract(SMALL, HALF, score=score, plan=plan, journal=path)
    assert found == contract(SMALL, HALF, plan=plan)
    scored = {one.config for models in found for one in models}
    assert len(asked) == len(scored) - 6
    again = contract(SMALL, HALF, score=score, plan=plan, journal=path)
    assert again == found
    assert len(asked) == len(scored) - 6


def test_measured_latencies_are_resumed(tmp_path):
    """What has been measured is not measured again, though the device has changed."""
    measure, path = SlowOnDrifting(), tmp_path / "journal.jsonl"
    bounds = Bounds(latency_s=0.7e-9 * macs_of(SMALL))
    plan = Plan(space=FEW, steps=1, limit=6)
    found = contract(SMALL, bounds, measure=measure, plan=plan, journal=path)
    num_measured = len(measure.measured)
    assert contract(SMALL, bounds, measure=measure, plan=plan, journal=path) == found
    assert len(measure.measured) == num_measured


def test_journals_of_others_are_refused(tmp_path):
    """Another search, another file; the message names file and line."""
    path = tmp_path / "journal.jsonl"
    contract(SMALL, HALF, plan=Plan(space=FEW, limit=2), journal=path)
    with pytest.raises(ValueError, match=r"journal.jsonl, line 1: .*another bounds"):
        contract(SMALL, Bounds(macs=1e7), plan=Plan(space=FEW, limit=2), journal=path)
    with pytest.raises(ValueError, match=r"line 1: .*another measure"):
        contract(SMALL, HALF, measure=Latency(), plan=Plan(space=FEW, limit=2), journal=path)
    with pytest.raises(ValueError, match=r"line 1: .*another score"):
        contract(SMALL, HALF, score=macs_of, plan=Plan(space=FEW, limit=2), journal=path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{}", *lines[1:], ""]))
    with pytest.raises(ValueError, match=r"journal.jsonl, line 2: expected config"):
        contract(SMALL, HALF, plan=Plan(space=FEW, limit=2), journal=path)
    path.write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match="line 1: expected the journal of a contraction"):
        contract(SMALL, HALF, plan=Plan(space=FEW, limit=2), journal=path)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(Bounds, "macs", 0.0), (Bounds, "latency_s", float("inf")), (Space, "width_step", 0),
     (Space, "windows", (0,)), (Space, "max_changed", 0), (Plan, "steps", 0), (Plan, "keep", 0),
     (Plan, "limit", 0), (Plan, "survivors", 0.0), (Plan, "survivors", 1.1),
     (Latency, "rounds", 0)],
)  # fmt: skip
def test_settings_out_of_range_are_refused(kind, name, value):
    """The message names the field."""
    with pytest.raises(ValueError, match=name):
        kind(**{name: value})
    with pytest.raises(ValueError, match="jobs"):
        Processes(jobs=0)


def test_bounds_bound_something():
    """A search without an end is none."""
    with pytest.raises(ValueError, match="at least one of"):
        Bounds()
