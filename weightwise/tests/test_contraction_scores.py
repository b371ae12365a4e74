"""What a contraction search asks: expressivity, several scores, other processes, latency."""

import importlib
import multiprocessing
import os
import sys
import threading
from dataclasses import replace
from math import log, sqrt
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from weightwise.vision import TinyViTConfig, contract_pool, num_parameters
from weightwise.vision.contract import contract, ray_map
from weightwise.vision.contract_latency import Latency, guessed_seconds, macs_of
from weightwise.vision.contract_plan import Bounds, Plan
from weightwise.vision.contract_pool import Processes
from weightwise.vision.contract_score import expressivity
from weightwise.vision.contract_space import Space

SMALL = TinyViTConfig(
    widths=(32, 64, 96, 128), depths=(1, 1, 2, 1), image_size=64, num_classes=10
)  # fmt: skip
FEW = Space(width_reach=1, depth_reach=1, expansions=(2.0, 4.0))
HALF = Bounds(num_params=num_parameters(SMALL) / 2)


def test_expressivity_of_a_small_model():
    """Deeper, wider, and with larger windows is more; the number is worked out below."""
    assert expressivity(replace(SMALL, depths=(1, 1, 3, 1))) > expressivity(SMALL)
    assert expressivity(replace(SMALL, widths=(32, 64, 96, 160))) > expressivity(SMALL)
    assert expressivity(replace(SMALL, windows=(14, 14, 14))) > expressivity(SMALL)
    # Maps of 32, 16, 8, 4, 2 positions a side. Stem: 3 x 9, then 16 x 9. MBConv: 32, 9, 128. Merge:
    # inputs, 9, outputs. Block: qkv C, attention 7 x 7 or 14 x 14 tokens, projection C, 9, MLP C
    # and 4 C.
    scales = [
        [27],
        [144, 32, 9, 128],
        [32, 9, 64, *(64, 49, 64, 9, 64, 256)],
        [64, 9, 96, *(96, 196, 96, 9, 96, 384) * 2],
        [96, 9, 128, *(128, 49, 128, 9, 128, 512)],
    ]
    wanted = deviations = 0.0
    for weight, side, width, layers in zip(
        (1, 1, 1, 1, 8), (32, 16, 8, 4, 2), (16, *SMALL.widths), scales, strict=True
    ):
        deviations += sum(log(sqrt(one)) for one in layers)
        wanted += weight * log(side * side * width) * deviations
    assert expressivity(SMALL) == pytest.approx(wanted)


class Noted:
    """Scores by one number and writes down who was asked about."""

    def __init__(self, identity, number):
        self.identity, self.number, self.asked = identity, number, []

    def __call__(self, config):
        """The number that was chosen."""
        self.asked.append(config)
        return self.number(config)


def test_each_score_is_asked_about_the_best_by_the_one_before():
    """Of 7 candidates 3 survive a share of 0.4, and of these 2; ceil(2.8) and ceil(1.2)."""
    small, thin, shallow = (
        Noted("small", lambda one: -num_parameters(one)),
        Noted("thin", lambda one: -sum(one.widths)),
        Noted("few MACs", lambda one: -macs_of(one)),
    )
    plan = Plan(space=FEW, steps=1, limit=7, survivors=0.4)
    seen = []
    scores = (small, thin, shallow)
    found = contract(SMALL, HALF, score=scores, plan=plan, on_progress=seen.append)[0]
    assert [len(one.asked) for one in scores] == [7, 3, 2]
    assert thin.asked == sorted(small.asked, key=num_parameters)[:3]
    assert {one.config for one in found[:2]} == set(shallow.asked)
    assert [one.rung for one in found] == [2, 2, 1, 0, 0, 0, 0]
    assert found[0].score == max(-macs_of(one) for one in shallow.asked)
    assert [one.score for one in found[3:]] == sorted(
        (one.score for one in found[3:]), reverse=True
    )
    assert (seen[-1].done, seen[-1].total) == (12, 12)
    with pytest.raises(ValueError, match="score: expected at least one"):
        contract(SMALL, HALF, score=(), plan=plan)


def test_several_scores_are_resumed(tmp_path):
    """Each score has numbers of its own in the journal, and settings of a score count."""
    path, plan = tmp_path / "journal.jsonl", Plan(space=FEW, steps=2, limit=6)

    def searched(*names):
        scores = [Noted(name, lambda one, sign=sign: sign * macs_of(one))
                  for name, sign in zip(names, (1, -1), strict=True)]  # fmt: skip
        return contract(SMALL, HALF, score=scores, plan=plan, journal=path), scores

    first, asked = searched("one", "two")
    assert len(asked[0].asked) > len(asked[1].asked) > 0
    second, asked = searched("one", "two")
    assert second == first
    assert [one.asked for one in asked] == [[], []]
    with pytest.raises(ValueError, match="another score"):
        searched("one", "three")


DYING = """
import os

def score(config):
    if config.depths[0] == 1:
        os._exit(3)
    return 1.0
"""


@pytest.mark.slow
def test_scores_may_come_from_processes(tmp_path, monkeypatch):
    """The result is that of one process; a process that dies is told in words."""
    plan = Plan(space=FEW, steps=1, limit=3)
    both = Processes(jobs=2)
    assert contract(SMALL, HALF, plan=plan, map=both) == contract(SMALL, HALF, plan=plan)
    assert list(both(expressivity, [])) == []
    (tmp_path / "dying.py").write_text(DYING)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ChildProcessError, match=r"map: .* has died; fewer jobs"):
        list(Processes(jobs=1)(importlib.import_module("dying").score, [SMALL]))
    assert multiprocessing.active_children() == []


def test_processes_take_turns_on_devices(monkeypatch):
    """With two devices the third process gets the first one; each has the threads it should."""
    number, seen, threads = multiprocessing.Value("i", 0), [], []
    monkeypatch.setenv("LOCAL_RANK", "")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    monkeypatch.setattr(threading, "Thread", lambda **_: SimpleNamespace(start=lambda: None))
    for _ in range(3):
        contract_pool._begin(number, 4)
        seen.append(os.environ["LOCAL_RANK"])
    assert seen == ["0", "1", "0"]
    assert threads == [4, 4, 4]


class Noting(nn.Module):
    """Writes down who runs on what."""

    def __init__(self, log, name):
        super().__init__()
        self.log, self.name = log, name

    def forward(self, x):
        """Note that it ran."""
        self.log.append((self.name, tuple(x.shape)))
        return x


def test_latency_runs_models_in_turn():
    """Two warm-up rounds and three that count: a, b, a, b, ... on batches of the images' size."""
    log = []
    other = replace(SMALL, image_size=32)
    latency = Latency(batch_size=2, rounds=3, build=lambda config: Noting(log, config.image_size))
    seconds = latency([SMALL, other])
    assert log == [(64, (2, 3, 64, 64)), (32, (2, 3, 32, 32))] * 5
    assert len(seconds) == 2
    assert min(seconds) > 0


@pytest.mark.slow
def test_latency_of_real_models():
    """Four times the depth takes longer than once."""
    deep = replace(SMALL, depths=(4, 4, 8, 4))
    one, four = Latency(rounds=7)([SMALL, deep])
    assert 0 < one < four


def test_seconds_are_guessed_from_few_measurements():
    """With MACs alone at first; then 3 ns a MAC, 1 ms and 2 ms a block, and 5 ms come out."""
    many = [replace(SMALL, depths=(a, 1, b, 1)) for a in (1, 2, 3) for b in (1, 2, 3)]

    def seconds(config):
        blocks = config.depths[0] + 2 * sum(config.depths[1:])
        return 3e-9 * macs_of(config) + 1e-3 * blocks + 5e-3

    one = guessed_seconds(many, {SMALL: 1e-9 * macs_of(SMALL)})
    assert one == pytest.approx([1e-9 * macs_of(config) for config in many])
    # depths alone say how many MACs there are; widths tell them apart
    wide = [replace(SMALL, widths=(32, 64, 96, width)) for width in (160, 192)]
    known = {config: seconds(config) for config in [*many[:5], *wide]}
    unseen = [*many[5:], replace(SMALL, mlp_expansion=2.0)]
    got = guessed_seconds(unseen, known)
    assert np.abs(got / [seconds(config) for config in unseen] - 1).max() < 1e-6


class Starting(Noted):
    """Seconds that blocks decide, not MACs."""

    def __call__(self, configs):
        """A millisecond for each block."""
        self.asked += configs
        return [1e-3 * sum(one.depths) for one in configs]


def test_few_models_are_measured_in_vain():
    """Of ten blocks two go: six pairs of stages, all found among hundreds of neighbours."""
    start = replace(SMALL, depths=(2, 2, 4, 2))
    measure = Starting("blocks", None)
    plan = Plan(space=FEW, steps=1, limit=6)
    found = contract(start, Bounds(latency_s=8.5e-3), measure=measure, plan=plan)[0]
    assert [sum(one.config.depths) for one in found] == [8] * 6
    # groups of four may be too slow until there are more measurements than numbers to fit
    assert len(set(measure.asked)) <= 1 + 6 + 3 * 4


def test_far_bounds_are_walked_to():
    """One block less at a time, the search moves its base from ten blocks down to seven."""
    start = replace(SMALL, depths=(2, 2, 4, 2))
    measure = Starting("blocks", None)
    plan = Plan(space=replace(FEW, max_changed=1), steps=1, limit=8)
    found = contract(start, Bounds(latency_s=7.5e-3), measure=measure, plan=plan)[0]
    assert 0 < len(found) <= 4  # only the depths of four stages make models faster
    assert {sum(one.config.depths) for one in found} == {7}
    with pytest.raises(ValueError, match="bounds: expected a model within"):
        contract(start, Bounds(latency_s=3e-3), measure=measure, plan=plan)


def test_scores_may_come_from_ray(monkeypatch):
    """All are asked for before the first is waited for; results come in the order of candidates."""
    log = []

    class Task:
        def __init__(self, score):
            self.score = score

        def remote(self, config):
            log.append("asked")
            return lambda: self.score(config)

    def get(future):
        log.append("got")
        return future()

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(remote=Task, get=get))
    plan = Plan(space=FEW, steps=1, limit=3)
    found = contract(SMALL, HALF, plan=plan, map=ray_map)
    assert found == contract(SMALL, HALF, plan=plan)
    assert log == ["asked"] * 3 + ["got"] * 3
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"weightwise\[ray\]"):
        contract(SMALL, HALF, plan=plan, map=ray_map)
