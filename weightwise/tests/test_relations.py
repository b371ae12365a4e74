"""Losses over layers: their definitions written out, their invariances, and what is refused."""

from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import pytest
import torch

from weightwise.distill.matching import MATCHES, LayerMatch, even_match
from weightwise.distill.relations import ALL_PAIRS, RelationConfig, RelationLoss
from weightwise.distill.taps import Heads

ONE = LayerMatch(student=(0,), teacher=(0,))
KL = RelationConfig(attention="kl", gamma=0)
MSE = RelationConfig(beta=0, gamma=1)


@pytest.fixture
def generator():
    """Random numbers."""
    return torch.Generator().manual_seed(0)


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def taps(heads=(), hidden=()):
    """Records of executions 0, 1, ...: (q, k, v) of each, or hidden states."""
    records = [Heads(q=q, k=k, v=v) for q, k, v in heads]
    return SimpleNamespace(heads=dict(enumerate(records)), hidden=dict(enumerate(hidden)))


def qkv(generator, *shape, trained=False):
    return [draw(generator, *shape).requires_grad_(trained) for _ in "qkv"]


def side_by_side(x_BMNd):
    return torch.cat(list(x_BMNd.unbind(1)), dim=-1)


def written_out(student, teacher, num_heads=1, pairs=ALL_PAIRS):
    """L_attention of a layer, relation by relation and row by row."""
    losses = []
    for name in pairs:
        i, j = ("qkv".index(letter) for letter in name)
        sides = []
        for side in (student, teacher):
            left, right = side_by_side(side[i]), side_by_side(side[j])
            width = left.shape[-1] // num_heads
            cut = [(left[..., a : a + width], right[..., a : a + width])
                   for a in range(0, left.shape[-1], width)]  # fmt: skip
            sides.append(torch.stack([(x @ y.mT / width**0.5) for x, y in cut]))
        for row_s, row_t in zip(sides[0].flatten(0, 2), sides[1].flatten(0, 2), strict=True):
            losses.append(-(row_t.softmax(0) * row_s.log_softmax(0)).sum())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("num_heads", [1, 2, 4])
@pytest.mark.parametrize("pairs", [ALL_PAIRS, ("qq", "kk", "vv"), ("qk", "qv", "kk", "vk", "vq")])
def test_attention_loss_is_its_definition(generator, num_heads, pairs):
    """A student of 3 heads of 4 and a teacher of 5 heads of 8: value and gradients."""
    student = qkv(generator, 2, 3, 7, 4, trained=True)
    teacher = qkv(generator, 2, 5, 7, 8)
    loss = RelationLoss(RelationConfig(gamma=0, relation_heads=num_heads, pairs=pairs), ONE)
    found = loss(taps([student]), taps([teacher]))
    wanted = written_out(student, teacher, num_heads, pairs)
    torch.testing.assert_close(found["attention"], wanted, rtol=1e-12, atol=0)
    assert torch.equal(found["total"], found["attention"])
    grads = [torch.autograd.grad(x, student, allow_unused=True) for x in (found["total"], wanted)]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_layers_are_averaged_and_losses_weighted(generator):
    """Half of L_attention and a tenth of L_hidden, over layers 0 and 2 beside 1 and 3."""
    student = taps([qkv(generator, 1, 2, 4, 3) for _ in range(3)],
                   [draw(generator, 1, 4, 6) for _ in range(3)])  # fmt: skip
    teacher = taps([qkv(generator, 1, 2, 4, 3) for _ in range(4)],
                   [draw(generator, 1, 4, 6) for _ in range(4)])  # fmt: skip
    config = RelationConfig(beta=0.5, gamma=0.1)
    found = RelationLoss(config, LayerMatch(student=(0, 2), teacher=(1, 3)))(student, teacher)
    parts = []
    for s, t in ((0, 1), (2, 3)):
        match = LayerMatch(student=(s,), teacher=(t,))
        parts.append(RelationLoss(config, match)(student, teacher))
    for name in ("attention", "hidden"):
        mean = (parts[0][name] + parts[1][name]) / 2
        torch.testing.assert_close(found[name], mean, rtol=1e-12, atol=0)
    wanted = 0.5 * found["attention"] + 0.1 * found["hidden"]
    torch.testing.assert_close(found["total"], wanted, rtol=1e-12, atol=0)


def test_hidden_loss_is_its_definition(generator):
    """Tokens (3, 4) and (0, 1) are (0.6, 0.8) and (0, 1): the cosine is 0.8; the teacher's is 0.

    Two of the four entries differ, by 0.8: the mean is 0.32, and there are 2 tokens.
    """
    student = torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])
    teacher = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 5.0]]])
    found = RelationLoss(MSE, ONE)(taps(hidden=[student]), taps(hidden=[teacher]))
    assert found["hidden"].item() == pytest.approx(0.64, rel=1e-6)
    config = replace(MSE, hidden_factor=49.0)
    found = RelationLoss(config, ONE)(taps(hidden=[student]), taps(hidden=[teacher]))
    assert found["hidden"].item() == pytest.approx(49 * 0.32, rel=1e-6)


def test_factor_of_hidden_loss_is_the_window_of_attention(generator):
    """Four windows of 4 tokens relate 4, the map of 16 tokens is compared as a whole: 4 for 16."""
    windows = qkv(generator, 4, 1, 4, 2)
    hidden = [draw(generator, 1, 4, 4, 3), draw(generator, 1, 4, 4, 3)]
    alone, beside = (
        RelationLoss(MSE, ONE)(taps(heads, hidden[:1]), taps(hidden=hidden[1:]))["hidden"]
        for heads in ([], [windows])
    )
    torch.testing.assert_close(4 * beside, alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("form", ["cross_entropy", "kl"])
def test_hidden_entropy_is_its_definition(generator, form):
    """Cosines over a temperature, softmaxed; the forms differ by the teacher's entropy."""
    student, teacher = draw(generator, 2, 5, 3).requires_grad_(), draw(generator, 2, 5, 4)
    config = replace(MSE, hidden=form, hidden_temperature=0.5)
    found = RelationLoss(config, ONE)(taps(hidden=[student]), taps(hidden=[teacher]))["hidden"]
    cosines = []
    for h in (student, teacher):
        unit = h / h.norm(dim=-1, keepdim=True)
        cosines.append(unit @ unit.mT / 0.5)
    p = cosines[1].softmax(-1)
    wanted = -(p * cosines[0].log_softmax(-1)).sum(-1).mean()
    if form == "kl":
        wanted = wanted + (p * p.log()).sum(-1).mean()
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=0)
    one, other = (torch.autograd.grad(x, student)[0] for x in (found, wanted))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-14)


def test_projected_loss_is_zero_for_the_map_that_makes_the_teacher(generator):
    """The teacher is twice the student beside its negative; other maps get a gradient."""
    state = torch.randn(4, 6, 3, generator=generator)
    teacher = taps(hidden=[torch.cat((2 * state, -state), dim=-1)])
    loss = RelationLoss(replace(MSE, hidden="projected"), ONE, widths=[(3, 6)], generator=generator)
    assert [tuple(x.shape) for x in loss.parameters()] == [(6, 3), (6,)]
    loss(taps(hidden=[state]), teacher)["total"].backward()
    assert all(x.grad.abs().min() > 0 for x in loss.parameters())
    with torch.no_grad():
        loss.projections[0].weight.copy_(torch.cat((2 * torch.eye(3), -torch.eye(3))))
    assert loss(taps(hidden=[state]), teacher)["total"].item() < 1e-12


def test_stages_have_projections_of_their_own(generator):
    """Layers 0 and 1 lie in stages 0 and 1, whose widths differ."""
    hidden = [draw(generator, 1, 4, 3).float(), draw(generator, 1, 1, 6).float()]
    config, match = replace(MSE, hidden="projected"), even_match((1, 1), (1, 1))
    loss = RelationLoss(config, match, widths=[(3, 3), (6, 6)], generator=generator)
    found = loss(taps(hidden=hidden), taps(hidden=hidden))["hidden"]
    errors = [
        (x @ layer.weight.T - x).square().mean()
        for x, layer in zip(hidden, loss.projections, strict=True)
    ]
    assert found.item() == pytest.approx((errors[0] + errors[1]).item() / 2, rel=1e-5)


@pytest.mark.parametrize("width", [4, 40])
@pytest.mark.parametrize(
    "config",
    [RelationConfig(), RelationConfig(attention="kl", hidden="kl"),
     RelationConfig(hidden="cross_entropy", relation_heads=2)],
)  # fmt: skip
def test_gradient_is_zero_where_student_equals_teacher(generator, config, width):
    """All forms; hidden states narrower and wider than there are tokens."""
    heads = [x.float() for x in qkv(generator, 3, 2, 9, 4)]
    state = draw(generator, 3, 9, width).float()
    student = [[x.clone().requires_grad_() for x in heads], state.clone().requires_grad_()]
    found = RelationLoss(config, ONE)(taps([student[0]], [student[1]]), taps([heads], [state]))
    found["total"].backward()
    for x in (*student[0], student[1]):
        assert x.grad.abs().max() < 1e-7
    if config.attention == "kl":
        assert abs(found["attention"].item()) < 1e-6
        assert abs(found["hidden"].item()) < 1e-6


def test_attention_loss_ignores_a_common_change_of_basis(generator):
    """Queries, keys and values of the student are turned together: products of tokens stay."""
    student, teacher = qkv(generator, 2, 3, 7, 4), qkv(generator, 2, 3, 7, 4)
    turn = torch.linalg.qr(draw(generator, 12, 12)).Q
    turned = [(side_by_side(x) @ turn).unsqueeze(1) for x in student]
    loss = RelationLoss(KL, ONE)
    values = [loss(taps([one]), taps([teacher]))["total"] for one in (student, turned)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-10, atol=0)
    alone = [turned[0], *(side_by_side(x).unsqueeze(1) for x in student[1:])]
    assert abs(loss(taps([alone]), taps([teacher]))["total"] - values[0]) > 1e-3


@pytest.mark.parametrize("form", ["mse", "cross_entropy", "kl"])
def test_hidden_loss_ignores_scale(generator, form):
    """Of the whole state, and of single tokens."""
    student, teacher = draw(generator, 2, 7, 5), draw(generator, 2, 7, 3)
    scale = draw(generator, 2, 7, 1).exp()
    loss = RelationLoss(replace(MSE, hidden=form), ONE)
    values = [
        loss(taps(hidden=[x]), taps(hidden=[teacher]))["total"]
        for x in (student, 1e3 * student, scale * student)
    ]
    torch.testing.assert_close(values[1], values[0], rtol=1e-10, atol=0)
    torch.testing.assert_close(values[2], values[0], rtol=1e-10, atol=0)


def test_windows_of_a_map_are_compared_alone(generator):
    """A map of 4 x 6 in windows of 2 x 2: the mean of the losses of six maps of 2 x 2."""
    student, teacher = draw(generator, 2, 4, 6, 3), draw(generator, 2, 4, 6, 5)
    config = replace(MSE, hidden_window=2)
    found = RelationLoss(config, ONE)(taps(hidden=[student]), taps(hidden=[teacher]))["hidden"]
    parts = []
    for row, column in product((0, 2), (0, 2, 4)):
        cut = (slice(None), slice(row, row + 2), slice(column, column + 2))
        parts.append(RelationLoss(MSE, ONE)(*(taps(hidden=[x[cut]]) for x in (student, teacher))))
    wanted = torch.stack([part["hidden"] for part in parts]).mean()
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_sequences_are_cut_as_square_maps(generator):
    """16 tokens are a map of 4 x 4, as its flattened form has them."""
    student, teacher = draw(generator, 2, 4, 4, 3), draw(generator, 2, 4, 4, 3)
    loss = RelationLoss(replace(MSE, hidden_window=2), ONE)
    maps = loss(taps(hidden=[student]), taps(hidden=[teacher]))
    rows = loss(*(taps(hidden=[x.flatten(1, 2)]) for x in (student, teacher)))
    assert torch.equal(maps["total"], rows["total"])


def test_drawn_rows_and_tokens_have_the_mean_of_all(generator):
    """100 draws of 3 of 8 rows and tokens: within four standard errors; same seed, same bits."""
    student = taps([qkv(generator, 1, 1, 8, 4)], [draw(generator, 1, 8, 4)])
    teacher = taps([qkv(generator, 1, 1, 8, 4)], [draw(generator, 1, 8, 4)])
    whole = RelationLoss(RelationConfig(), ONE)(student, teacher)
    drawn = RelationLoss(RelationConfig(rows=3, hidden_tokens=3), ONE)
    draws = [drawn(student, teacher, generator) for _ in range(100)]
    for name in ("attention", "hidden"):
        values = torch.stack([one[name] for one in draws])
        assert values.std() > 0
        assert abs(values.mean() - whole[name]) < 4 * values.std() / 10
    seeds = [torch.Generator().manual_seed(5) for _ in range(2)]
    first, second = (drawn(student, teacher, seed)["total"] for seed in seeds)
    assert torch.equal(first, second)


def test_prefix_tokens_are_left_out(generator):
    """A student without and a teacher with a class token."""
    heads, hidden = qkv(generator, 2, 1, 4, 3), draw(generator, 2, 4, 3)
    other, state = qkv(generator, 2, 1, 5, 3), draw(generator, 2, 5, 3)
    config = RelationConfig(prefix_tokens=(0, 1))
    found = RelationLoss(config, ONE)(taps([heads], [hidden]), taps([other], [state]))
    cut = taps([[x[:, :, 1:] for x in other]], [state[:, 1:]])
    wanted = RelationLoss(RelationConfig(), ONE)(taps([heads], [hidden]), cut)
    torch.testing.assert_close(found["total"], wanted["total"], rtol=1e-12, atol=0)


def test_teachers_get_no_gradient(generator):
    """Even where they were called with gradients on; a teacher in inference mode is fine too."""
    heads, state = qkv(generator, 2, 1, 4, 3, trained=True), draw(generator, 2, 4, 3)
    teacher = taps([qkv(generator, 2, 1, 4, 3, trained=True)], [state.requires_grad_()])
    for hidden in ("mse", "kl", "projected"):
        loss = RelationLoss(
            RelationConfig(hidden=hidden), ONE, widths=[(3, 3)], generator=generator
        )
        loss.double()
        student = taps([heads], [draw(generator, 2, 4, 3).requires_grad_()])
        loss(student, teacher)["total"].backward()
        assert all(x.grad is None for x in (teacher.heads[0].q, state)), hidden
        with torch.inference_mode():
            frozen = taps([qkv(generator, 2, 1, 4, 3)], [draw(generator, 2, 4, 3)])
        loss(student, frozen)["total"].backward()
        assert student.hidden[0].grad.abs().sum() > 0


def test_published_pairs_of_a_tiny_student_are_even_ones():
    """One of two layers in three stages; three of six and of eighteen in the third one."""
    found = even_match((2, 2, 6, 2), (2, 2, 18, 2), counts=(1, 1, 3, 1))
    assert found == MATCHES["mini-swin-t"]
    assert found.student == (1, 3, 5, 7, 9, 11)
    assert found.teacher == (1, 3, 9, 15, 21, 23)


@pytest.mark.parametrize(
    ("depths", "student", "teacher"),
    [(((6,), (12,)), (0, 1, 2, 3, 4, 5), (1, 3, 5, 7, 9, 11)),
     (((12,), (5,)), (2, 4, 7, 9, 11), (0, 1, 2, 3, 4)),
     (((2, 1), (3, 4)), (0, 1, 2), (1, 2, 6))],
)  # fmt: skip
def test_even_matches_end_with_the_last_layers(depths, student, teacher):
    """Of 5 and 12: ceil(12 m / 5) is 3, 5, 8, 10, 12. Of 2 in 3: 2 and 3; of 1 in 4: 4."""
    found = even_match(*depths)
    assert (found.student, found.teacher) == (student, teacher)


@pytest.mark.parametrize(
    ("build", "message"),
    [(lambda: LayerMatch(student=(1, 1), teacher=(0, 2)), "student: expected ascending"),
     (lambda: LayerMatch(student=(), teacher=()), "student: expected ascending"),
     (lambda: LayerMatch(student=(0,), teacher=(0, 2)), "teacher: expected 1 numbers"),
     (lambda: LayerMatch(student=(0, 1), teacher=(0, 2), stages=(1, 0)), "stages: expected"),
     (lambda: even_match((2,), (2, 2)), "as many in both"),
     (lambda: even_match((2,), (2,), counts=(3,)), "counts: expected 0 to"),
     (lambda: even_match((2,), (2,), counts=(0,)), "counts: expected 0 to"),
     (lambda: RelationConfig(beta=-1.0), "beta: expected a finite number"),
     (lambda: RelationConfig(gamma=float("nan")), "gamma: expected a finite number"),
     (lambda: RelationConfig(attention="mse"), "attention: expected cross_entropy or kl"),
     (lambda: RelationConfig(pairs=("qq", "qq")), "pairs: expected some of"),
     (lambda: RelationConfig(pairs=()), "pairs: expected some of"),
     (lambda: RelationConfig(rows=0), "rows: expected at least 1"),
     (lambda: RelationConfig(hidden_tokens=1), "hidden_tokens: expected at least 2"),
     (lambda: RelationConfig(hidden_temperature=0.0), "hidden_temperature: expected"),
     (lambda: RelationConfig(prefix_tokens=(0, -1)), "prefix_tokens: expected"),
     (lambda: RelationConfig(hidden_window=7, hidden_tokens=9), "expected one of"),
     (lambda: RelationLoss(RelationConfig(hidden="projected"), ONE), "widths of 1 stages")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(build, message):
    """The message names the setting and what is accepted."""
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("config", "student", "teacher", "message"),
    [(KL, (2, 1, 4, 3), (8, 1, 4, 3), "windows and tokens.* layer 0 of the student and 0 of"),
     (KL, (2, 1, 4, 3), (2, 1, 9, 3), r"windows and tokens.*got \(2, 4\) and \(2, 9\)"),
     (replace(KL, relation_heads=2), (2, 1, 4, 3), (2, 1, 4, 4), "relation_heads: expected a div"),
     (replace(KL, rows=2), (2, 1, 4, 3), (2, 1, 4, 3), "generator: expected one"),
     (replace(KL, prefix_tokens=(4, 4)), (2, 1, 4, 3), (2, 1, 4, 3), "at least one"),
     (replace(MSE, hidden_window=2), (2, 1, 4, 3), (2, 1, 4, 3), "hidden_window: expected maps")],
)  # fmt: skip
def test_records_that_do_not_fit_are_refused(generator, config, student, teacher, message):
    """The message names the pair, and what both have."""
    records = (
        taps([qkv(generator, *shape)], [draw(generator, 2, 6, 3)]) for shape in (student, teacher)
    )
    with pytest.raises(ValueError, match=message):
        RelationLoss(config, ONE)(*records)


def test_missing_records_and_cross_attention_are_refused(generator):
    """A layer that was not recorded; keys of another number of tokens than queries."""
    heads = qkv(generator, 2, 1, 4, 3)
    with pytest.raises(
        ValueError, match=r"teacher: expected a record of layer 0, got those of \[\]"
    ):
        RelationLoss(KL, ONE)(taps([heads]), taps())
    crossed = [heads[0], *qkv(generator, 2, 1, 5, 3)[1:]]
    with pytest.raises(ValueError, match="student: expected queries, keys and values of one shape"):
        RelationLoss(KL, ONE)(taps([crossed]), taps([heads]))
