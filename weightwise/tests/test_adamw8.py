"""AdamW in few bits: torch's step on the values, whatever they are stored in."""

import copy
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightwise.numerics import ScaledTensor
from weightwise.numerics.stored import LARGEST
from weightwise.optim import AdamW8
from weightwise.optim import low_bit_step as steps
from weightwise.optim.low_bit_step import Settings, Slot, step_all

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
USUAL = Settings(lr=1e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)


def stored(x, dtype):
    """Plain or scaled, as the optimizer keeps it."""
    return x.to(dtype) if dtype in (torch.float32, torch.bfloat16) else ScaledTensor.of(x, dtype)


def trained(optimizer_of, num_steps=50, weight_dtype=None, gradient_dtype=None, shape=(33, 47)):
    """Weights after some steps on the same noisy quadratic."""
    generator = torch.Generator().manual_seed(0)
    goal = torch.randn(shape, generator=generator)
    start = torch.randn(shape, generator=generator)
    data = start if weight_dtype is None else stored(start, weight_dtype)
    weight = torch.nn.Parameter(data)
    optimizer = optimizer_of([weight])
    for _ in range(num_steps):
        noise = torch.randn(shape, generator=generator)
        gradient = (weight.detach() - goal) + 0.3 * noise
        weight.grad = gradient if gradient_dtype is None else stored(gradient, gradient_dtype)
        optimizer.step()
    return weight.detach() + 0.0


def decibels(signal, found):
    """Signal over error."""
    return 10 * torch.log10(signal.square().sum() / (signal - found).square().sum()).item()


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("decoupled", [False, True])
def test_with_float32_moments_it_is_torchs(decoupled, maximize):
    """AdamW and Adam, up and down: the same weights to 1e-6."""
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    settings = {"lr": 1e-2, "weight_decay": 0.05, "maximize": maximize}
    theirs = trained(lambda p: kind(p, **settings))
    ours = trained(
        lambda p: AdamW8(
            p, **settings, exp_avg="float32", exp_avg_sq="float32",
            decoupled_weight_decay=decoupled,
        )
    )  # fmt: skip
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("first", "second"), list(itertools.product(["e4m3", "float16"], ["e4m3", "float16"]))
)
def test_few_bits_stay_close_in_a_few_steps(first, second):
    """Four steps of a 4 x 4 layer with any pair of low types: weights within 3e-4."""
    settings = {"lr": 1e-3, "weight_decay": 1e-3}
    theirs = trained(lambda p: torch.optim.AdamW(p, **settings), 4, shape=(4, 4))
    ours = trained(
        lambda p: AdamW8(p, **settings, exp_avg=first, exp_avg_sq=second), 4, shape=(4, 4)
    )
    assert (ours - theirs).abs().max() <= 3e-4


@pytest.mark.parametrize("rule", ["bound", "exact"])
def test_a_thousand_steps_stay_within_decibels(rule):
    """Weights that moved, against AdamW in float64 on the same gradients: at least 30 dB."""
    generator = torch.Generator().manual_seed(1)
    start = 0.02 * torch.randn(40, 50, generator=generator)
    exact = torch.nn.Parameter(start.double())
    weight = torch.nn.Parameter(ScaledTensor.of(start, torch.float16))
    settings = {"lr": 3e-4, "betas": (0.9, 0.95), "weight_decay": 0.0}
    theirs = torch.optim.AdamW([exact], **settings)
    ours = AdamW8([weight], **settings, scale_rule=rule)
    mean = torch.randn(40, 50, generator=generator)
    for _ in range(1000):
        gradient = mean + torch.randn(40, 50, generator=generator)
        exact.grad, weight.grad = gradient.double(), ScaledTensor.of(gradient, E4M3)
        theirs.step()
        ours.step()
    moved = exact.detach() - start
    assert decibels(moved, weight.detach().decode().double() - start) >= 30


KINDS = [
    (torch.float32, torch.float32, E4M3, torch.float16),
    (torch.float16, E4M3, E4M3, torch.float16),
    (torch.float16, E4M3, torch.float32, torch.float32),
    (torch.float32, E5M2, E5M2, torch.bfloat16),
    (E4M3, torch.bfloat16, torch.float16, E5M2),
    (torch.bfloat16, torch.float16, E4M3, E4M3),
]


def slots_of(kinds, size, seed=0, spread=1.0):
    """Two equal slots of given types."""
    generator = torch.Generator().manual_seed(seed)

    def draw(scale=1.0):
        x = torch.randn(size, generator=generator)
        return scale * x * torch.exp(spread * torch.randn(size, generator=generator))

    values = (draw(), draw(0.1), draw(0.05), draw(0.01).square())
    tensors = [stored(x, dtype) for x, dtype in zip(values, kinds, strict=True)]
    amax = steps.amax_of(tensors[1])
    return [Slot(*map(copy.deepcopy, tensors), 3, amax) for _ in range(2)]


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("rule", ["bound", "exact"])
@pytest.mark.parametrize("size", [1, 31, 1000, 100_001])
def test_the_compiled_pass_has_the_bits_of_the_definition(monkeypatch, kinds, rule, size):
    """Payloads, scales and largest magnitudes, for tensors of every length and type."""
    ours, theirs = slots_of(kinds, size)
    settings = Settings(lr=1e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, scale_rule=rule)
    assert steps.is_compiled(ours)
    step_all([ours], settings)
    monkeypatch.setattr(steps, "is_compiled", lambda _: False)
    step_all([theirs], settings)
    for mine, other in zip(ours, theirs, strict=True):
        if isinstance(mine, ScaledTensor):
            assert (mine.scale, mine.amax) == (other.scale, other.amax)
            assert torch.equal(mine.payload.view(torch.uint8), other.payload.view(torch.uint8))
        elif isinstance(mine, torch.Tensor):
            assert torch.equal(mine, other)


@given(st.integers(0, 10_000), st.floats(0, 6), st.floats(0, 0.999), st.floats(0, 0.9999))
def test_bounds_hold(seed, spread, beta1, beta2):
    """New moments never exceed what was promised, for values over many magnitudes."""
    slot, _ = slots_of((torch.float16, E4M3, E4M3, torch.float16), 50, seed, spread)
    settings = Settings(lr=1e-3, beta1=beta1, beta2=beta2, eps=1e-8, weight_decay=0.0)
    bounds = steps.bounds_of([slot], settings)[0]
    _, first, second = steps.move(slot, settings)
    assert first.abs().max() <= bounds[1] * (1 + 1e-6)
    assert second.abs().max() <= bounds[2] * (1 + 1e-6)


def test_weights_that_grow_fast_get_another_scale():
    """From zero, and from tiny weights with a huge rate: nothing saturates."""
    for start in (torch.zeros(5000), 1e-6 * torch.randn(5000)):
        for rate in (1e-3, 10.0):
            weight = torch.nn.Parameter(ScaledTensor.of(start, torch.float16))
            plain = torch.nn.Parameter(start.clone())
            gradient = torch.randn(5000)
            gradient[4321] = 1e-3
            for one, kind in ((weight, AdamW8), (plain, torch.optim.AdamW)):
                optimizer = kind([one], lr=rate, betas=(0.5, 0.999))
                for factor in (1.0, 30.0, 30.0):
                    one.grad = factor * gradient
                    optimizer.step()
            found = weight.detach().decode()
            assert found.abs().max() * weight.scale <= LARGEST[torch.float16]
            assert decibels(plain.detach(), found) > 25


def test_a_wrong_guess_of_the_scale_is_put_right():
    """Without bias correction the first step is 16 rates, four times what is guessed."""
    weight = torch.nn.Parameter(ScaledTensor.of(torch.zeros(300_000), torch.float16))
    gradient = torch.linspace(-1, 1, 300_000)
    gradient[:1000] = 0.0
    weight.grad = gradient
    AdamW8([weight], lr=1e-2, betas=(0.5, 0.999), bias_correction=False).step()
    expected = -1e-2 * 0.5 * gradient / (1e-3**0.5 * gradient.abs() + 1e-8)
    torch.testing.assert_close(weight.detach().decode(), expected, rtol=2e-3, atol=1e-6)
    assert weight.amax * weight.scale <= LARGEST[torch.float16]


def test_zero_gradients_leave_zero_moments():
    """Moments stay zero, scales finite, weights still."""
    weight = torch.nn.Parameter(torch.ones(2000))
    optimizer = AdamW8([weight], weight_decay=0.0)
    for _ in range(3):
        weight.grad = torch.zeros(2000)
        optimizer.step()
    state = optimizer.state[weight]
    for name in ("exp_avg", "exp_avg_sq"):
        assert state[name].scale.isfinite()
        assert not state[name].decode().any()
    assert torch.equal(weight.detach(), torch.ones(2000))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_skips_the_step(bad):
    """No parameter of any group changes, nor state; the next step is as if nothing had been."""
    weights = [torch.nn.Parameter(torch.ones(30, 40)) for _ in range(2)]
    optimizer = AdamW8([{"params": [one]} for one in weights])
    for one in weights:
        one.grad = torch.randn(30, 40)
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict())
    values = [one.detach().clone() for one in weights]
    weights[1].grad[3, 4] = bad
    optimizer.step()
    assert optimizer.num_skipped == 1
    assert all(torch.equal(one.detach(), value) for one, value in zip(weights, values, strict=True))
    after = optimizer.state_dict()
    assert after["state"][0]["step"] == before["state"][0]["step"] == 1
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(
            after["state"][1][name].payload.view(torch.uint8),
            before["state"][1][name].payload.view(torch.uint8),
        )


def test_state_has_three_bytes_and_comes_back():
    """Three bytes an element and a few numbers; saved, loaded and continued with the same bits."""
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(100, 100, generator=generator) for _ in range(6)]
    runs = []
    for stops in (False, True):
        weight = torch.nn.Parameter(torch.ones(100, 100))
        optimizer = AdamW8([weight], lr=0.1)
        for number, gradient in enumerate(gradients):
            if stops and number == 3:
                table = copy.deepcopy(optimizer.state_dict())
                optimizer = AdamW8([weight], lr=7.0)
                optimizer.load_state_dict(table)
            weight.grad = gradient.clone()
            optimizer.step()
        runs.append(weight.detach())
    assert torch.equal(*runs)
    state = optimizer.state[weight]
    moments = [state[name] for name in ("exp_avg", "exp_avg_sq")]
    assert sum(one.payload.nbytes for one in moments) == 3 * 100 * 100
    assert sum(one.num_bytes() for one in moments) <= 3 * 100 * 100 + 16


def test_states_go_to_adamw_and_come_from_it():
    """Half of the way with one, the other half with the other, and the other way round."""

    def path(kinds):
        generator = torch.Generator().manual_seed(3)
        weight = torch.nn.Parameter(torch.randn(20, 30, generator=generator))
        optimizer = None
        for kind in kinds:
            table = None
            if isinstance(optimizer, AdamW8):
                table = optimizer.plain_state_dict()
            elif optimizer is not None:
                table = optimizer.state_dict()
            optimizer = kind([weight], lr=1e-2)
            if table is not None:
                optimizer.load_state_dict(table)
            for _ in range(10):
                weight.grad = torch.randn(20, 30, generator=generator) + weight.detach()
                optimizer.step()
        return weight.detach()

    whole = path([torch.optim.AdamW] * 2)
    for kinds in ([AdamW8, torch.optim.AdamW], [torch.optim.AdamW, AdamW8]):
        assert decibels(whole, path(kinds)) > 40


def test_groups_closures_and_schedulers_work():
    """Rates of their own, a closure, and a scheduler that sets rates."""
    weights = [torch.nn.Parameter(torch.ones(50)) for _ in range(2)]
    optimizer = AdamW8([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.0}], lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)

    def closure():
        optimizer.zero_grad()
        loss = sum(one.square().sum() for one in weights)
        loss.backward()
        return loss

    first = optimizer.step(closure)
    scheduler.step()
    assert optimizer.step(closure) < first
    assert torch.equal(weights[1].detach(), torch.ones(50))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    optimizer.param_groups[0]["lr"] = torch.tensor(0.5)
    optimizer.step(closure)


def test_small_parameters_may_keep_float32():
    """``min_numel`` leaves vectors alone; each group may have its own types."""
    weights = [torch.nn.Parameter(torch.ones(n)) for n in (10, 5000)]
    optimizer = AdamW8(
        [{"params": weights[:1]}, {"params": weights[1:], "exp_avg": "e5m2"}], min_numel=100
    )
    for one in weights:
        one.grad = torch.ones_like(one)
    optimizer.step()
    assert optimizer.state[weights[0]]["exp_avg"].dtype == torch.float32
    assert not isinstance(optimizer.state[weights[0]]["exp_avg"], ScaledTensor)
    assert optimizer.state[weights[1]]["exp_avg"].payload.dtype == E5M2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, r"lr: expected at least 0, got -1"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\]: expected in \[0, 1\), got 1.0"),
        ({"eps": -1e-8}, r"eps: expected at least 0"),
        ({"amsgrad": True}, r"amsgrad: expected False"),
        ({"exp_avg": "int8"}, r"exp_avg: expected one of e4m3, e5m2"),
        ({"scale_rule": "guess"}, r"scale_rule: expected bound or exact"),
        ({"min_numel": -1}, r"min_numel: expected at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    """The message names the setting and what it accepts."""
    with pytest.raises(ValueError, match=message):
        AdamW8([torch.nn.Parameter(torch.ones(3))], **settings)


def test_parameters_that_no_step_can_move_are_refused():
    """Complex and sparse parameters, and sparse gradients."""
    with pytest.raises(ValueError, match=r"params: expected dense float32.*complex64"):
        AdamW8([torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))])
    embedding = torch.nn.Embedding(10, 4, sparse=True)
    optimizer = AdamW8(embedding.parameters())
    embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(ValueError, match="grad: expected a dense gradient"):
        optimizer.step()


@pytest.mark.parametrize("place", [100, 4999])
def test_a_weight_that_is_not_a_number_harms_no_other(place):
    """It becomes the largest value in its block or its tail; all others move as without it."""
    found = []
    for spoilt in (False, True):
        weight = torch.nn.Parameter(ScaledTensor.of(torch.linspace(-1, 1, 5000), torch.float16))
        if spoilt:
            weight.payload[place] = torch.nan
        optimizer = AdamW8([weight])
        weight.grad = ScaledTensor.of(torch.linspace(1, -2, 5000), E4M3)
        optimizer.step()
        found.append(weight.payload.clone())
    assert found[1][place] == LARGEST[torch.float16]
    found[1][place] = found[0][place]
    assert torch.equal(*found)


def test_threads_change_no_bits():
    """Tensors of many sizes in one step, whose parts one thread takes or two."""
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            pairs = [
                slots_of(KINDS[0], size, seed=size)[0] for size in (3, 200_001, 40_000, 70_000)
            ]
            step_all(pairs, USUAL)
            found.append(
                [steps.payload_of(one).view(torch.uint8) for slot in pairs for one in slot[:4]]
            )
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))
