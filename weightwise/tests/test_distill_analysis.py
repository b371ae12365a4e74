"""Correlations of classes, hardness, saturation, and their figures."""

from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch

from weightwise.distill.analysis import (
    Saturation,
    class_correlation,
    hardness,
    resemblance,
    saturation_curve,
)
from weightwise.report.vision_figures import (
    MOST_CELLS,
    correlation_figure,
    grouped,
    saturation_figure,
)


@pytest.fixture
def generator():
    """Random numbers."""
    return torch.Generator().manual_seed(0)


def test_correlations_are_those_of_numpy(generator):
    """Over batches of any size, of all classes or some."""
    logits = 3 * torch.randn(200, 12, generator=generator)
    wanted = np.corrcoef(logits.double().softmax(1).numpy(), rowvar=False)
    found = class_correlation(logits.split(37))
    assert np.abs(found.numpy() - wanted).max() < 1e-12
    some = class_correlation([logits], classes=[7, 2, 3])
    assert np.abs(some.numpy() - wanted[np.ix_([7, 2, 3], [7, 2, 3])]).max() < 1e-12


def test_two_classes_exclude_each_other():
    """What one gains the other loses: p and 1 - p correlate with -1."""
    found = class_correlation([torch.tensor([[0.0, 1.0], [0.5, 0.0], [2.0, 1.0]])])
    assert torch.allclose(found, torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64))


def test_a_class_that_never_changes_correlates_with_none():
    """Three classes, of which the last keeps a probability of 0."""
    never = -float("inf")
    found = class_correlation([torch.tensor([[0.0, 1.0, never], [0.5, 0.0, never]])])
    assert found[2].tolist() == [0.0, 0.0, 1.0]
    assert found[0, 1] == pytest.approx(-1)


def test_resemblance_looks_at_pairs_only(generator):
    """Alike up to scale and offset of the pairs is 1, turned around -1; the diagonal is no pair."""
    one = torch.rand(5, 5, generator=generator)
    one = one + one.T
    assert resemblance(one, (2 * one + 3).fill_diagonal_(99)) == pytest.approx(1)
    assert resemblance(one, -one) == pytest.approx(-1)
    rows, columns = np.triu_indices(5, 1)
    other = torch.rand(5, 5, generator=generator)
    wanted = np.corrcoef(one.numpy()[rows, columns], other.numpy()[rows, columns])[0, 1]
    assert resemblance(one, other) == pytest.approx(wanted, rel=1e-5)


def test_hardness_is_the_loss_of_a_strong_model():
    """Logits 0 and log 3: probabilities 1/4 and 3/4."""
    logits = torch.tensor([[0.0, 3.0]]).log().nan_to_num(neginf=0.0).repeat(2, 1)
    found = hardness(logits, torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([np.log(4), np.log(4 / 3)])


def test_saturation_of_a_small_example():
    """Of 4 samples the small model misses the two hardest, the large one the hardest only.

    Without none: 2/4 and 3/4. Without a quarter: 2/3 and 1. Without a half both have all.
    """
    label = torch.tensor([0, 0, 1, 1])
    hard = torch.tensor([0.1, 3.0, 2.0, 0.2])  # samples 1 and 2 are the hardest
    small = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    large = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    found = saturation_curve(
        {"small": small, "large": large}, label, hard, removed=(0.0, 0.25, 0.5, 0.99)
    )
    assert found.accuracy["small"] == pytest.approx((0.5, 2 / 3, 1.0, 1.0))
    assert found.accuracy["large"] == pytest.approx((0.75, 1.0, 1.0, 1.0))


def test_inputs_that_do_not_fit_are_refused(generator):
    """The message names what was wrong."""
    logits, label = torch.randn(4, 3, generator=generator), torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match="at least two samples, got 1"):
        class_correlation([logits[:1]])
    with pytest.raises(ValueError, match="at least two samples, got 0"):
        class_correlation([])
    with pytest.raises(ValueError, match="expected 3 classes in all batches, got 2"):
        class_correlation([logits, logits[:, :2]])
    with pytest.raises(ValueError, match="C >= 3"):
        resemblance(torch.eye(2), torch.eye(2))
    with pytest.raises(ValueError, match="one value throughout"):
        resemblance(torch.ones(3, 3), torch.eye(3))
    with pytest.raises(ValueError, match="removed"):
        saturation_curve({"a": logits}, label, torch.zeros(4), removed=(1.0,))
    with pytest.raises(ValueError, match="a: expected 4 samples, got 3"):
        saturation_curve({"a": logits[1:]}, label, torch.zeros(4))
    with pytest.raises(ValueError, match="expected 1 samples, got 0"):
        saturation_curve({}, label[:0], torch.zeros(0))
    with pytest.raises(ValueError, match="matrices"):
        correlation_figure({})


def test_squares_of_many_classes_are_means():
    """120 classes in 40 groups of 3: pairs within a group, without the diagonal, and across."""
    matrix = np.full((120, 120), 0.25)
    matrix[:3, :3] = 0.5
    np.fill_diagonal(matrix, 1.0)
    found = grouped(matrix)
    assert found.shape == (40, 40)
    assert len(found) <= MOST_CELLS
    assert found[0, 0] == pytest.approx(0.5)
    assert found[0, 1] == found[1, 1] == pytest.approx(0.25)
    assert grouped(np.eye(4)).tolist() == np.zeros((4, 4)).tolist()


def test_correlations_are_drawn():
    """Two matrices of 3 classes: squares in the colour of the sign, names above."""
    one = np.array([[1.0, 0.5, -0.5], [0.5, 1.0, 0.0], [-0.5, 0.0, 1.0]])
    root = ET.fromstring(  # noqa: S314, our own drawing
        correlation_figure({"teacher <large>": one, "student": one})
    )
    paths = [one for one in root.iter() if one.tag.endswith("path")]
    # Of both models the pair (0, 2) in the colour of less, (0, 1) in that of more.
    assert [(one.get("class"), one.get("d")) for one in paths] == [
        ("fill s1", "M2 0h1v1h-1zM0 2h1v1h-1z"), ("fill s0", "M1 0h1v1h-1zM0 1h1v1h-1z"),
    ] * 2  # fmt: skip
    assert {one.get("fill-opacity") for one in paths} == {"1"}
    words = {one.text for one in root.iter() if one.tag.endswith("text")}
    assert {"teacher <large>", "student"} <= words


def test_saturation_is_drawn():
    """A line and markers for each model, at its accuracies."""
    curve = Saturation(removed=(0.0, 0.1), accuracy={"5M": (0.5, 0.6), "21M": (0.7, 0.7)})
    drawing = saturation_figure(curve)
    ET.fromstring(drawing)  # noqa: S314, our own drawing
    assert "5M, 10: 60.00 %" in drawing
    assert "21M, 0: 70.00 %" in drawing
    assert drawing.count("<polyline") == 2
