"""Prediction losses beside a teacher: the published forms, written out."""

import pytest
import torch

from weightwise.distill.prediction import PredictionLoss


@pytest.fixture
def logits():
    """Student's and teacher's, 5 images of 7 classes."""
    generator = torch.Generator().manual_seed(0)
    return [3 * torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_forms_are_their_definitions(logits, temperature):
    """Class by class; only the divergence has the square of the temperature."""
    student, teacher = (x / temperature for x in logits)
    p, q = teacher.exp() / teacher.exp().sum(1, True), student.exp() / student.exp().sum(1, True)
    found = PredictionLoss(temperature=temperature)(*logits)
    torch.testing.assert_close(found, -(p * q.log()).sum(1).mean(), rtol=1e-12, atol=0)
    found = PredictionLoss(form="kl_per_class", temperature=temperature)(*logits)
    wanted = (p * (p / q).log()).sum() / (5 * 7) * temperature**2
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_labels_get_their_share(logits):
    """A quarter; labels at temperature 1."""
    label = torch.tensor([0, 3, 6, 2, 2])
    found = PredictionLoss(temperature=2.0, label_share=0.25)(*logits, label)
    hard = -logits[0].log_softmax(1)[torch.arange(5), label].mean()
    wanted = 0.75 * PredictionLoss(temperature=2.0)(*logits) + 0.25 * hard
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("form", ["cross_entropy", "kl_per_class"])
def test_gradient_is_zero_at_the_teacher_and_the_students_alone(logits, form):
    """At equality; teachers with gradients on, or in inference mode, do not matter."""
    student, teacher = logits[1].clone().requires_grad_(), logits[1].clone().requires_grad_()
    PredictionLoss(form=form)(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().max() < 1e-15
    with torch.inference_mode():
        frozen = logits[0].clone()
    PredictionLoss(form=form)(student, frozen).backward()
    assert student.grad.abs().max() > 1e-4


def test_half_precision_is_compared_in_float32(logits):
    """As of the widened logits."""
    half = [x.bfloat16() for x in logits]
    found = PredictionLoss()(*half)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(PredictionLoss()(*(x.float() for x in half)).item())


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"form": "mse"}, "form: expected"), ({"temperature": 0.0}, "temperature: expected"),
     ({"label_share": 1.5}, "label_share: expected 0 to 1")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings, message):
    """The message names the setting."""
    with pytest.raises(ValueError, match=message):
        PredictionLoss(**settings)


def test_shapes_that_differ_and_missing_labels_are_refused(logits):
    """The message has both shapes."""
    with pytest.raises(ValueError, match=r"teacher_BC.*\(5, 6\) for \(5, 7\)"):
        PredictionLoss()(logits[0], logits[1][:, :6])
    with pytest.raises(ValueError, match="label: expected labels"):
        PredictionLoss(label_share=0.1)(*logits)
