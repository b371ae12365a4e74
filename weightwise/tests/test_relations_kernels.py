"""Chunked relations beside the plain ones: values, gradients, types, memory."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from weightwise.distill import relation_kernels
from weightwise.distill.relation_kernels import Relations, relation_distance, relation_entropy

ALL = tuple(product(range(3), repeat=2))


@pytest.fixture
def generator():
    """Random numbers."""
    return torch.Generator().manual_seed(0)


def draw(generator, *shape, dtype=torch.float32):
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def matrices(generator, *shape, dtype=torch.float32, trained=False):
    return [draw(generator, *shape, dtype=dtype).requires_grad_(trained) for _ in range(3)]


def plain_entropy(student, teacher, relations):
    """Every relation as a whole, through autograd."""
    total = 0
    for i, j in relations.pairs:
        s = relations.scale * student[i] @ student[j].mT
        t = relations.teacher_scale * teacher[i] @ teacher[j].mT
        if relations.rows is not None:
            s, t = s[:, relations.rows], t[:, relations.rows]
        entropy = -(t.softmax(-1) * s.log_softmax(-1)).sum(-1)
        if relations.is_divergence:
            entropy = entropy + (t.softmax(-1) * t.log_softmax(-1)).sum(-1)
        total = total + entropy.mean()
    return total


def plain_distance(h, other):
    return (h @ h.mT - other @ other.mT).square().mean()


# All in one chunk; one window at a time; a window in pieces of 2 and of 5 rows
@pytest.mark.parametrize(("chunk", "least"), [(1 << 18, 32), (500, 32), (1, 2), (300, 5)])
@pytest.mark.parametrize("pairs", [ALL, ((0, 0), (1, 1), (2, 2)), ((2, 0), (0, 1), (0, 2), (1, 2))])
@pytest.mark.parametrize("rows", [None, [0, 3, 4, 9, 10]])
def test_entropy_is_the_plain_one(generator, monkeypatch, chunk, least, pairs, rows):
    """Widths 5 and 8, 11 tokens, 4 windows; the loss is weighted in the backward pass."""
    monkeypatch.setattr(relation_kernels, "CPU_CHUNK", chunk)
    monkeypatch.setattr(relation_kernels, "LEAST_ROWS", least)
    student, teacher = matrices(generator, 4, 11, 5, trained=True), matrices(generator, 4, 11, 8)
    for is_divergence in (False, True):
        relations = Relations(
            pairs=pairs, scale=0.5, teacher_scale=0.3, is_divergence=is_divergence,
            rows=None if rows is None else torch.tensor(rows),
        )  # fmt: skip
        found = relation_entropy(student, teacher, relations)
        wanted = plain_entropy(student, teacher, relations)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
        grads = [torch.autograd.grad(3 * x, student) for x in (found, wanted)]
        for one, other in zip(*grads, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rows", [None, [1, 2]])
def test_entropy_passes_gradcheck(generator, monkeypatch, rows):
    """Differences of the loss in float64, with two windows in chunks of their own."""
    monkeypatch.setattr(relation_kernels, "CPU_CHUNK", 1)
    student = matrices(generator, 2, 4, 3, dtype=torch.float64, trained=True)
    teacher = matrices(generator, 2, 4, 5, dtype=torch.float64)
    relations = Relations(
        pairs=ALL, scale=0.6, teacher_scale=0.4,
        rows=None if rows is None else torch.tensor(rows),
    )  # fmt: skip
    assert torch.autograd.gradcheck(lambda *x: relation_entropy(x, teacher, relations), student)


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 9, 2)])
def test_distance_passes_gradcheck(generator, shape):
    """Few tokens, compared one by one, and many, compared by matrices as large as the widths."""
    h = draw(generator, *shape, dtype=torch.float64).requires_grad_()
    other = draw(generator, *shape[:2], 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: relation_distance(x, other), [h])


@pytest.mark.parametrize(
    ("tokens", "width", "other_width"),
    [(7, 3, 5), (40, 3, 5), (40, 64, 4), (200, 8, 8), (1, 4, 2), (33, 33, 33)],
)
@pytest.mark.parametrize("chunk", [1, 2_000, 1 << 18])
def test_distance_is_the_plain_one(generator, monkeypatch, tokens, width, other_width, chunk):
    """Of tokens of length 1, in both ways of computing it, which then are compared too."""
    monkeypatch.setattr(relation_kernels, "CPU_CHUNK", chunk)
    h, other = (
        F.normalize(draw(generator, 3, tokens, size), dim=-1) for size in (width, other_width)
    )
    h.requires_grad_()
    found, wanted = relation_distance(h, other), plain_distance(h.double(), other.double())
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-6)
    one, other_grad = (torch.autograd.grad(5 * x, h)[0] for x in (found, wanted))
    torch.testing.assert_close(one, other_grad, rtol=1e-5, atol=1e-6)
    ways = (relation_kernels._distance_by_width, relation_kernels._distance_by_rows)
    (a, grad_a), (b, grad_b) = (way(h.detach(), other, is_trained=True) for way in ways)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * tokens)
    torch.testing.assert_close(grad_a, grad_b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.bfloat16, 8e-3), (torch.float16, 1.5e-3)])
def test_half_precision_is_related_in_float32(generator, dtype, rtol):
    """Loss as of the widened tokens, also within autocast; gradients in the tokens' own type.

    They are about 1e-5, where float16 has two digits only, and come out scaled by 2^14 with three.
    """
    shape = (2048, 16, 4)
    student, teacher = (matrices(generator, *shape, dtype=dtype, trained=t) for t in (True, False))
    relations = Relations(pairs=((0, 0), (0, 1), (0, 2)), scale=0.5, teacher_scale=0.5)
    wide = [x.detach().float().requires_grad_() for x in student]
    wanted = plain_entropy(wide, [x.float() for x in teacher], relations)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = relation_entropy(student, teacher, relations)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    grads = torch.autograd.grad(found * 2**14, student)
    for one, other in zip(grads, torch.autograd.grad(wanted * 2**14, wide), strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.float(), other, rtol=rtol, atol=2e-5)


def test_large_logits_stay_finite(generator):
    """Rows that see one token only: e^1000 is no number, and logarithms of 0 are none."""
    student = [(300 * x.detach()).requires_grad_() for x in matrices(generator, 1, 5, 4)]
    teacher = [300 * x for x in matrices(generator, 1, 5, 4)]
    for is_divergence in (False, True):
        relations = Relations(pairs=ALL, scale=1.0, teacher_scale=1.0, is_divergence=is_divergence)
        loss = relation_entropy(student, teacher, relations)
        assert loss.isfinite()
        assert all(x.isfinite().all() for x in torch.autograd.grad(loss, student))


def test_no_relation_is_kept_for_the_backward_pass(generator):
    """What autograd saves are no tensors of N x N; what is kept is as large as the tokens."""
    student, teacher = (matrices(generator, 2, 64, 4, trained=t) for t in (True, False))
    sizes = []

    def note(x):
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        loss = relation_entropy(
            student, teacher, Relations(pairs=ALL, scale=1.0, teacher_scale=1.0)
        )
        distance = relation_distance(student[0], teacher[0])
    assert not sizes
    kept = [x.numel() for x in loss.grad_fn.grads] + [distance.grad_fn.grad.numel()]
    assert kept == [2 * 64 * 4] * 4


def test_nothing_is_kept_where_nothing_is_trained(generator):
    """Evaluation: the same numbers without gradients."""
    student, teacher = matrices(generator, 2, 9, 4), matrices(generator, 2, 9, 4)
    relations = Relations(pairs=ALL, scale=1.0, teacher_scale=1.0)
    wanted = relation_entropy([x.requires_grad_() for x in student], teacher, relations)
    with torch.no_grad():
        found = relation_entropy(student, teacher, relations)
        distance = relation_distance(student[0], teacher[0])
    assert torch.equal(found, wanted)
    assert found.grad_fn is None
    assert torch.equal(distance, relation_distance(student[0], teacher[0]))


def test_backward_twice_gives_the_same(generator):
    """With the graph kept, as for gradients of several losses."""
    student, teacher = (matrices(generator, 2, 9, 4, trained=t) for t in (True, False))
    loss = relation_entropy(student, teacher, Relations(pairs=ALL, scale=1.0, teacher_scale=1.0))
    first = torch.autograd.grad(loss, student, retain_graph=True)
    second = torch.autograd.grad(loss, student)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
