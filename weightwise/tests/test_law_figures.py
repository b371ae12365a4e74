"""Figures of laws: well formed, inside their frame, and true to the numbers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightwise.laws import (
    CAPYBARA,
    HOFFMANN,
    Settings,
    biases,
    optimal_training,
    training_by_bits,
)
from weightwise.report.law_figures import (
    compare_figure,
    fit_figure,
    plan_figure,
    predict_figure,
    write_figure,
)
from weightwise.report.svg import Frame, log_ticks, power

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = (None, "e1m1", "e2m1", "e4m3")
RUNS = Settings.join([Settings.of([4e7, 1e8, 6e8], 5e10, fmt, 32) for fmt in FORMATS])
LOSSES = CAPYBARA.loss(RUNS) + 0.01 * np.random.default_rng(0).standard_normal(len(RUNS))
ASKED = Settings.join([Settings.of(1e9, 1e12, fmt, 128) for fmt in FORMATS])
ERRORS = {
    "capybara": {"rmse": 0.002, "rmse_cross_validated": 0.003, "rmse_largest_size": 0.004},
    "kumar": {"rmse": 0.07, "rmse_cross_validated": 0.08, "rmse_largest_size": None},
}
COSTS = {4: 0.25, 6: 0.5, 8: 0.5, 16: 1.0}


def plan(compute: float = 1e23, **options) -> str:
    """The figure of a plan."""
    return plan_figure(
        training_by_bits(compute=compute, **options),
        optimal_training(compute=compute, **options),
        compute,
    )


FIGURES = {
    "fit": fit_figure(CAPYBARA, RUNS, LOSSES),
    "compare": compare_figure(ERRORS),
    "predict": predict_figure(CAPYBARA, ASKED),
    "predict without turns": predict_figure(HOFFMANN, Settings.of([1e8, 1e9], 1e11)),
    "predict sizes": predict_figure(CAPYBARA, RUNS),
    "plan": plan(),
    "plan of given tokens": plan(num_tokens=1e15),
    "plan of given parameters": plan(num_params=1e9),
    "plan with costs": plan(costs=COSTS),
}


def nodes(drawing: str, css: str = "") -> list[ET.Element]:
    """All elements of a class."""
    found = ET.fromstring(drawing).iter()  # noqa: S314 - our own drawing
    return [node for node in found if css in node.attrib.get("class", "").split() or not css]


def texts(drawing: str) -> list[str]:
    """What a reader reads."""
    return [node.text or "" for node in nodes(drawing) if node.tag.endswith("text")]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_well_formed_and_inside_their_frame(name: str) -> None:
    """A label for screen readers, nothing from elsewhere, and no mark or word outside."""
    drawing = FIGURES[name]
    root, *_ = nodes(drawing)
    width, height = (float(root.attrib[key]) for key in ("width", "height"))
    assert root.attrib["aria-label"]
    assert root.attrib["viewBox"] == f"0 0 {width:g} {height:g}"
    assert drawing.count("http") == 1  # the name of the XML language
    for node in nodes(drawing):
        places = [(node.attrib[x], node.attrib[y]) for x, y in
                  (("x", "y"), ("cx", "cy"), ("x1", "y1"), ("x2", "y2"))
                  if x in node.attrib and y in node.attrib]  # fmt: skip
        places += [tuple(pair.split(",")) for pair in node.attrib.get("points", "").split()]
        for x, y in places:
            assert 0 <= float(x) <= width - 28
            assert 0 <= float(y) <= height - 28


@pytest.mark.parametrize("name", FIGURES)
def test_words_do_not_lie_on_each_other(name: str) -> None:
    """Boxes of 7.5 by 12 pixels a letter, which is about what fonts need, stay apart."""
    boxes = []
    for node in nodes(FIGURES[name]):
        if node.tag.endswith("text") and node.text:
            length = 6.5 * len(re.sub("[·.,⁻⁰¹²³⁴⁵⁶⁷⁸⁹]", "", node.text))
            x, y = float(node.attrib["x"]), float(node.attrib["y"])
            left = x - length * {"start": 0, "middle": 0.5, "end": 1}[node.attrib["text-anchor"]]
            boxes.append((left, left + length, y, node.text))
    for i, (left, right, y, one) in enumerate(boxes):
        for other_left, other_right, other_y, other in boxes[:i]:
            is_apart = right <= other_left or other_right <= left or abs(y - other_y) >= 11
            assert is_apart, (one, other)


def test_light_and_dark_have_their_own_colours() -> None:
    """The style is in the file and follows the reader."""
    style = next(node.text for node in nodes(FIGURES["fit"]) if node.tag.endswith("style"))
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    for name in ("--card", "--ink", "--s0", "--s6"):
        found = [re.search(f"{name}: (#[0-9a-f]+)", text)[1] for text in (light, dark)]
        assert found[0] != found[1]


def test_fit_shows_every_run_and_every_bias() -> None:
    """One mark a run and one for each format's name; the numbers are those of the law."""
    drawing = FIGURES["fit"]
    assert len(nodes(drawing, "mark")) == len(RUNS) + len(FORMATS)
    shown = texts(drawing)
    for name, value in biases(CAPYBARA, RUNS, LOSSES).items():
        assert name in shown
        assert f"{value:+.4f}" in shown
    # A run on the diagonal is as far from the left as from the bottom.
    exact = nodes(fit_figure(CAPYBARA, RUNS, CAPYBARA.loss(RUNS)), "s0")
    guide = nodes(drawing, "guide")[0].attrib
    x, y = (float(exact[0].attrib[key]) for key in ("cx", "cy"))
    slope = (float(guide["y2"]) - float(guide["y1"])) / (float(guide["x2"]) - float(guide["x1"]))
    assert y - float(guide["y1"]) == pytest.approx(slope * (x - float(guide["x1"])), abs=0.2)


def test_compare_puts_the_best_law_on_top() -> None:
    """An error that is not known has no mark; one tenth and more apart, the axis is in powers."""
    drawing = compare_figure(dict(reversed(ERRORS.items())))
    assert [one for one in texts(drawing) if one in ERRORS] == ["capybara", "kumar"]
    assert len(nodes(drawing, "mark")) == 3 + 5
    hints = [node[0].text for node in nodes(drawing, "mark")]
    assert "kumar, unseen runs: 0.0800" in hints
    assert "0.01" in texts(drawing)


def test_predict_marks_what_was_asked_and_where_curves_turn() -> None:
    """Four questions; three curves turn, one of them at 27 trillion tokens."""
    drawing = FIGURES["predict"]
    hints = [node[0].text for node in nodes(drawing, "mark") if len(node)]
    losses = CAPYBARA.loss(ASKED)
    assert f"16 bits: {losses[0]:.4f} at 10¹² tokens" in hints
    assert f"E4M3/128: {losses[3]:.4f} at 10¹² tokens" in hints
    assert "E4M3/128, turns at 2.7·10¹³" in texts(drawing)
    assert len(nodes(drawing, "guide")) == 3
    assert len(nodes(drawing, "thick")) == 4


def test_predict_refuses_more_curves_than_eyes_can_follow() -> None:
    """Seventeen sizes."""
    with pytest.raises(ValueError, match="figure: expected at most 16 different sizes, formats"):
        predict_figure(CAPYBARA, Settings.of(np.geomspace(1e7, 1e9, 17), 1e10))


def test_plan_marks_the_optimum_and_names_formats() -> None:
    """The lowest place of the curve, and the best format of whole bits below."""
    drawing = plan()
    assert "4.72 bits: loss 2.1417" in texts(drawing)
    assert {"E2M1", "E4M3", "E8M7"} <= set(texts(drawing))
    (curve,) = nodes(drawing, "thick")
    lowest = max(float(pair.split(",")[1]) for pair in curve.attrib["points"].split())
    (guide,) = nodes(drawing, "guide")
    mark = next(node for node in nodes(drawing, "mark") if "4.717 bits" in node[0].text)
    x, y = map(float, re.match(r"M([\d.]+) ([\d.]+)", mark.attrib["d"]).groups())
    assert x == float(guide.attrib["x1"])
    assert y + 4.8 == pytest.approx(lowest, abs=0.3)
    with_costs = [node[0].text for node in nodes(plan(costs=COSTS), "mark")]
    assert len(with_costs) == len(COSTS) + 1


def test_curve_of_the_plan_meets_the_optimum() -> None:
    """At given bits the same training, whatever is fixed; wrong bits are refused."""
    for options in ({}, {"num_params": 1e10}, {"num_tokens": 1e12}, {"overhead_bits": 1.0}):
        best = optimal_training(compute=1e23, **options)
        at_best, finer = training_by_bits(compute=1e23, bits=(best.bits, 9.0), **options)
        assert at_best == best
        assert finer.loss > best.loss
    assert training_by_bits(compute=1e23, bits=(5.0,))[0] == optimal_training(compute=1e23, bits=5)
    with_costs = training_by_bits(compute=1e24, costs=COSTS)
    assert [one.bits for one in with_costs] == [4, 6, 8, 16]
    assert min(one.loss for one in with_costs) == optimal_training(compute=1e24, costs=COSTS).loss
    with pytest.raises(ValueError, match="bits: expected a finite number above 0, got 0"):
        training_by_bits(compute=1e23, bits=(0,))


def test_figures_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """Into folders that are made for them; only SVG."""
    write_figure(tmp_path / "a" / "b.svg", FIGURES["plan"])
    assert (tmp_path / "a" / "b.svg").read_text(encoding="utf-8") == FIGURES["plan"]
    with pytest.raises(ValueError, match=r"ends in \.svg, got 'b.pdf'"):
        write_figure(tmp_path / "b.pdf", "")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.02, "0.02"), (500, "500"), (2000, "2000"), (1e12, "10¹²"), (5e9, "5·10⁹"),
     (2.73e13, "2.7·10¹³"), (1e-5, "10⁻⁵"), (9.99e9, "10¹⁰")],
)  # fmt: skip
def test_numbers_on_axes_are_written_as_people_do(value: float, expected: str) -> None:
    """Powers of ten where digits would be many."""
    assert power(value) == expected


@given(low=st.floats(1e-6, 1e15), decades=st.floats(0.1, 30))
def test_axes_in_powers_have_two_to_ten_numbers(low: float, decades: float) -> None:
    """Inside the edges, rising."""
    high = low * 10**decades
    found = log_ticks(low, high)
    assert 2 <= len(found) <= 10
    assert found == sorted(found)
    assert low * (1 - 1e-6) <= found[0] <= found[-1] <= high * (1 + 1e-6)


def test_equal_factors_take_equal_room() -> None:
    """From 1 to 100 in 100 pixels, 10 stands in the middle."""
    frame = Frame(
        width=100, height=100, x_range=(1, 100), y_range=(1, 100), x_log=True, y_log=True, left=0,
        right=0, top=0, bottom=0,
    )  # fmt: skip
    assert [frame.x(1), frame.x(10), frame.x(100)] == pytest.approx([0, 50, 100])
    assert [frame.y(1), frame.y(10), frame.y(100)] == pytest.approx([100, 50, 0])
