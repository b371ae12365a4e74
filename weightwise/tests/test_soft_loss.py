"""Sparse soft targets: the loss and its gradient are those of dense targets."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.distill.loss_rows import reference_gradient, reference_loss
from weightwise.distill.losses import SoftLoss, soft_cross_entropy
from weightwise.distill.sparse_target import SparseTarget

B, C, K = 6, 50, 7


def store_of(generator, num_rows=B, num_classes=C, k=K):
    """Indices and float16 probabilities of a random teacher, as a store has them."""
    logits = 3 * torch.randn(num_rows, num_classes, generator=generator)
    value, index = logits.softmax(1).topk(k)
    return index.to(torch.int16), value.half()


def rebuilt(index, value, num_classes=C):
    """Equation 2, class by class, in float64."""
    target = torch.empty(len(index), num_classes, dtype=torch.float64)
    for row in range(len(index)):
        left = max(0.0, 1 - value[row].double().sum().item())
        target[row] = left / max(1, num_classes - index.shape[1])
        for c, p in zip(index[row].tolist(), value[row].tolist(), strict=True):
            target[row, c] = p
    return target / target.sum(1, keepdim=True)


def dense_loss(logits, target):
    """Equation 1 of each row in float64."""
    return -(target.double() * logits.double().log_softmax(1)).sum(1)


@pytest.fixture
def generator():
    """Random numbers."""
    return torch.Generator().manual_seed(0)


def test_residual_of_a_small_example():
    """0.5 and 0.3 of 4 classes are stored; the other two have (1 - 0.8) / (4 - 2) = 0.1 each."""
    target = SparseTarget.recover(torch.tensor([[2, 0]]), torch.tensor([[0.5, 0.3]]), 4)
    assert torch.allclose(target.dense(), torch.tensor([[0.3, 0.1, 0.5, 0.1]]))
    zeros = SparseTarget.recover(
        torch.tensor([[2, 0]]), torch.tensor([[0.5, 0.3]]), 4, residual="zeros"
    )
    assert torch.allclose(zeros.dense(), torch.tensor([[0.375, 0.0, 0.625, 0.0]]))


@pytest.mark.parametrize("k", [1, 7, C - 1, C])
def test_recovered_targets_follow_equation_2(generator, k):
    """Also where all classes are stored and no class is left for the residual."""
    index, value = store_of(generator, k=k)
    found = SparseTarget.recover(index, value, C).dense()
    assert torch.allclose(found.double(), rebuilt(index, value), atol=1e-7)
    assert torch.allclose(found.sum(1), torch.ones(B), atol=1e-6)


@pytest.mark.parametrize("residual", ["uniform", "zeros"])
@pytest.mark.parametrize("k", [1, 7, C])
def test_compiled_targets_equal_the_reference(generator, residual, k):
    """In float64 it takes torch's operations; here are rows of too much, too little and nothing."""
    index, value = store_of(generator, k=k)
    value = value.float() * torch.tensor([1.0, 1.5, 0.5, 1.0, 2.0, 0.9])[:, None]
    if k < C:
        value[3] = 0
    found = SparseTarget.recover(index, value, C, residual=residual)
    wanted = SparseTarget.recover(index, value.double(), C, residual=residual)
    assert torch.allclose(found.excess.double(), wanted.excess, atol=1e-7)
    assert torch.allclose(found.floor.double(), wanted.floor, atol=1e-8)


def test_rounding_up_leaves_no_negative_residual():
    """0.7 + 0.4 is 1.1: the rest gets nothing, and the two get 7/11 and 4/11."""
    target = SparseTarget.recover(torch.tensor([[0, 1]]), torch.tensor([[0.7, 0.4]]), 3)
    assert torch.allclose(target.dense(), torch.tensor([[7 / 11, 4 / 11, 0.0]]))


def test_rows_may_have_different_k(generator):
    """A masked entry counts as not stored, whatever stands there; none at all is even."""
    index, value = store_of(generator)
    count = torch.tensor([K, 3, 1, 0, 5, 2])
    stored = torch.arange(K) < count[:, None]
    index[~stored] = -5
    found = SparseTarget.recover(index, value, C, stored_BK=stored).dense()
    for row, k in enumerate(count.tolist()):
        alone = rebuilt(index[row : row + 1, :k], value[row : row + 1, :k])
        assert torch.allclose(found[row].double(), alone[0], atol=1e-7), row
    zeros = SparseTarget.recover(index, value, C, stored_BK=stored, residual="zeros").dense()
    assert torch.allclose(zeros[3], torch.full((C,), 1 / C))


def test_all_classes_stored_in_some_rows_only():
    """0.6 and 0.3 of two classes: 2/3 and 1/3. 0.6 alone leaves 0.4 to the other one."""
    target = SparseTarget.recover(
        torch.tensor([[0, 1], [1, 0]]), torch.tensor([[0.6, 0.3], [0.6, 0.3]]), 2,
        stored_BK=torch.tensor([[True, True], [True, False]]),
    )  # fmt: skip
    assert torch.allclose(target.dense(), torch.tensor([[2 / 3, 1 / 3], [0.4, 0.6]]))


@pytest.mark.parametrize("residual", ["uniform", "zeros"])
def test_temperature_softens_the_recovered_target(generator, residual):
    """The power 1/T of each class, over their sum."""
    index, value = store_of(generator)
    plain = SparseTarget.recover(index, value, C, residual=residual).dense().double()
    wanted = plain ** (1 / 2.5)
    found = SparseTarget.recover(index, value, C, residual=residual, temperature=2.5).dense()
    assert torch.allclose(found.double(), wanted / wanted.sum(1, keepdim=True), atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3), (torch.float16, 5e-4)]
)
@pytest.mark.parametrize("num_classes", [50, 3000])
def test_loss_and_gradient_are_those_of_dense_targets(generator, dtype, atol, num_classes):
    """Losses to 1e-6 of their size; gradients to the rounding of the logits' type."""
    logits = (4 * torch.randn(B, num_classes, generator=generator) + 30).to(dtype)
    logits.requires_grad_()
    index, value = store_of(generator, num_classes=num_classes)
    target = SparseTarget.recover(index, value, num_classes)
    loss = soft_cross_entropy(logits, target, reduction="none")
    (grad,) = torch.autograd.grad(loss.sum(), logits)

    exact = logits.detach().double().requires_grad_()
    wanted = dense_loss(exact, rebuilt(index, value, num_classes))
    (wanted_grad,) = torch.autograd.grad(wanted.sum(), exact)
    assert loss.dtype == torch.float32
    assert grad.dtype == dtype
    assert torch.allclose(loss.double(), wanted, rtol=1e-6, atol=0)
    assert (grad.double() - wanted_grad).abs().max() < atol


@pytest.mark.slow
def test_gradient_is_correct_by_finite_differences(generator):
    """Also with entries that name a class twice, as mixtures have them."""
    index, value = store_of(generator, num_rows=3, num_classes=9, k=4)
    target = SparseTarget.recover(index, value.double(), 9)
    target = target.mix(target.rows(torch.tensor([1, 0, 2])), 0.7).smooth(0.1)
    logits = torch.randn(3, 9, dtype=torch.float64, generator=generator, requires_grad=True)
    for temperature, reduction in ((1.0, "none"), (3.0, "mean")):
        assert torch.autograd.gradcheck(
            lambda z, t=temperature, r=reduction: soft_cross_entropy(
                z, target, temperature=t, reduction=r
            ),
            (logits,),
        )


def test_compiled_rows_equal_the_reference(generator):
    """At lengths around the lanes of vectors and the blocks of sums; loss and gradient."""
    for num_classes in (1, 2, 15, 16, 17, 33, 1023, 1024, 1025, 2100):
        k = min(5, num_classes)
        index, value = store_of(generator, num_classes=num_classes, k=k)
        target = SparseTarget.recover(index, value, num_classes)
        parts = target.classes, target.excess, target.floor
        logits = (20 * torch.randn(B, num_classes, generator=generator)).requires_grad_()
        loss = soft_cross_entropy(logits, target, temperature=2.0, reduction="none")
        weight = torch.rand(B, generator=generator)
        (grad,) = torch.autograd.grad((loss * weight).sum(), logits)
        wanted, known = reference_loss(logits.detach(), *parts, 0.5)
        assert torch.allclose(loss, 4 * wanted, rtol=1e-5, atol=1e-5), num_classes
        scale = 4 * weight
        wanted = reference_gradient(logits.detach(), *parts, known, scale, 0.5)
        assert torch.allclose(grad, wanted, atol=1e-6), num_classes


def test_threads_do_not_change_a_bit(generator):
    """Rows are computed one by one, whoever does it."""
    index, value = store_of(generator, num_rows=64, num_classes=5000)
    target = SparseTarget.recover(index, value, 5000)
    logits = torch.randn(64, 5000, generator=generator).requires_grad_()
    before, found = torch.get_num_threads(), []
    try:
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            loss = soft_cross_entropy(logits, target, reduction="none")
            found.append((loss, torch.autograd.grad(loss.sum(), logits)[0]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_extreme_logits(generator):
    """Far apart ones neither overflow nor vanish; NaN stays in its row."""
    index, value = torch.tensor([[0, 1]] * 4), torch.tensor([[0.5, 0.5]] * 4)
    logits = torch.randn(4, C, generator=generator)
    logits[0] *= 1e4
    logits[1] -= 1e6
    logits[2, 9] = float("nan")
    logits[3, 9] = -float("nan")
    logits.requires_grad_()
    loss = soft_cross_entropy(logits, SparseTarget.recover(index, value, C), reduction="none")
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    wanted = dense_loss(logits.detach()[:2], rebuilt(index[:2], value[:2]))
    assert torch.allclose(loss[:2].double(), wanted, rtol=1e-5)
    assert grad[:2].isfinite().all()
    assert loss[2:].isnan().all()


def test_backward_may_run_twice(generator):
    """What it needs is kept as it was."""
    index, value = store_of(generator)
    logits = torch.randn(B, C, generator=generator, requires_grad=True)
    loss = soft_cross_entropy(logits, SparseTarget.recover(index, value, C))
    loss.backward(retain_graph=True)
    once = logits.grad.clone()
    loss.backward()
    assert torch.equal(logits.grad, 2 * once)


def test_logits_may_lie_in_any_order(generator):
    """Transposed ones, and every second row of a larger tensor."""
    index, value = store_of(generator)
    target = SparseTarget.recover(index, value, C)
    plain = torch.randn(B, C, generator=generator)
    wanted = soft_cross_entropy(plain, target)
    assert soft_cross_entropy(plain.t().contiguous().t(), target) == wanted
    assert soft_cross_entropy(plain.repeat_interleave(2, 0)[::2], target) == wanted


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31), k=st.integers(1, C), smoothing=st.floats(0, 1),
    hard_share=st.floats(0, 1), share=st.floats(0, 1), temperature=st.floats(0.3, 8),
    residual=st.sampled_from(["uniform", "zeros"]),
)  # fmt: skip
def test_all_settings_together(seed, k, smoothing, hard_share, share, temperature, residual):
    """Mixup, smoothing, labels and temperature, composed from dense targets in float64."""
    generator = torch.Generator().manual_seed(seed)
    index, value = store_of(generator, k=k)
    value = value.float() + 1e-6  # roots of float16's zeros have no precision
    label = torch.randint(C, (B,), generator=generator)
    partner = torch.tensor([1, 0, 3, 2, 5, 4])
    logits = torch.randn(B, C, generator=generator)
    settings_ = SoftLoss(
        residual=residual, temperature=temperature, smoothing=smoothing, hard_share=hard_share
    )
    found = settings_(logits, index, value, label_B=label, partner_B=partner, share_B=share)

    soft = rebuilt(index, value)
    if residual == "zeros":
        soft = torch.zeros_like(soft).scatter_(1, index.long(), value.double())
        soft /= soft.sum(1, keepdim=True)
    soft **= 1 / temperature
    soft /= soft.sum(1, keepdim=True)
    hard = torch.nn.functional.one_hot(label, C).double()
    losses = []
    for target, divisor in ((soft, temperature), (hard, 1.0)):
        mixed = share * target + (1 - share) * target[partner]
        mixed = (1 - smoothing) * mixed + smoothing / C
        losses.append(divisor**2 * dense_loss(logits.double() / divisor, mixed).mean())
    wanted = (1 - hard_share) * losses[0] + hard_share * losses[1]
    assert found.item() == pytest.approx(wanted.item(), rel=2e-5)


def test_labels_and_soft_targets_share_one_pass():
    """At temperature 1 the mixture equals the sum of both losses: here 0.75 and 0.25 of them."""
    generator = torch.Generator().manual_seed(1)
    index, value = store_of(generator)
    logits = torch.randn(B, C, generator=generator)
    label = torch.randint(C, (B,), generator=generator)
    found = SoftLoss(hard_share=0.25)(logits, index, value, label_B=label)
    soft = SoftLoss()(logits, index, value)
    hard = torch.nn.functional.cross_entropy(logits, label)
    assert found.item() == pytest.approx(0.75 * soft.item() + 0.25 * hard.item(), rel=1e-6)


def test_share_may_differ_by_row(generator):
    """Each row is mixed by its own share, as a mixture of pairs wants it."""
    index, value = store_of(generator)
    target, other = (SparseTarget.recover(index.roll(n, 0), value.roll(n, 0), C) for n in (0, 1))
    share = torch.linspace(0, 1, B)
    wanted = share[:, None] * target.dense() + (1 - share[:, None]) * other.dense()
    assert torch.allclose(target.mix(other, share).dense(), wanted, atol=1e-7)


def test_index_types_of_stores(generator):
    """uint16 indices of more than 32,767 classes."""
    index = torch.tensor([[40_000, 3]], dtype=torch.int32).to(torch.uint16)
    target = SparseTarget.recover(index, torch.tensor([[0.5, 0.25]]), 50_000)
    assert target.classes.tolist() == [[40_000, 3]]


def test_reductions(generator):
    """Sum and mean of the losses of rows."""
    index, value = store_of(generator)
    logits = torch.randn(B, C, generator=generator)
    losses = SoftLoss(reduction="none")(logits, index, value)
    assert losses.shape == (B,)
    assert SoftLoss(reduction="sum")(logits, index, value) == losses.sum()
    assert SoftLoss()(logits, index, value) == losses.mean()


@pytest.mark.parametrize(
    ("name", "value"),
    [("residual", "ones"), ("reduction", "max"), ("temperature", 0.0), ("smoothing", 1.1),
     ("hard_share", -0.1)],
)  # fmt: skip
def test_settings_out_of_range_are_refused(name, value):
    """The message names the field."""
    with pytest.raises(ValueError, match=name):
        replace(SoftLoss(), **{name: value})


def test_inputs_that_do_not_fit_are_refused(generator):
    """Wrong classes, shapes, numbers of rows, missing labels."""
    index, value = store_of(generator)
    logits = torch.randn(B, C, generator=generator)
    target = SparseTarget.recover(index, value, C)
    for wrong in (C, -1):
        label = torch.tensor([0, 1, 2, 3, 4, wrong])
        with pytest.raises(ValueError, match="classes: expected numbers from 0 to 49"):
            soft_cross_entropy(logits, SparseTarget.one_hot(label, C))
    with pytest.raises(ValueError, match="K <= 3"):
        SparseTarget.recover(index, value, 3)
    with pytest.raises(ValueError, match="one shape"):
        SparseTarget.recover(index, value[:, 1:], C)
    with pytest.raises(ValueError, match="logits_BC"):
        soft_cross_entropy(logits[:, 1:], target)
    with pytest.raises(ValueError, match="logits_BC"):
        soft_cross_entropy(logits.long(), target)
    with pytest.raises(ValueError, match="label_B"):
        SoftLoss(hard_share=0.5)(logits, index, value)
    with pytest.raises(ValueError, match="other"):
        target.mix(target.rows(torch.tensor([0])), 0.5)
