"""Taps record what a direct computation gives, in models of ours and of others."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from weightwise.distill.matching import LayerMatch, even_match
from weightwise.distill.relations import RelationConfig, RelationLoss
from weightwise.distill.taps import Taps
from weightwise.multiplex import HeadAttention
from weightwise.vision import TinyViT, TinyViTConfig
from weightwise.vision.deit import DeiT
from weightwise.vision.deit_config import DeiTConfig
from weightwise.vision.swin import Swin
from weightwise.vision.swin_config import SwinConfig

HEADS, WIDTH = 2, 8


class Block(nn.Module):
    """Attention with a residual; queries, keys and values beside each other."""

    def __init__(self, mixes=False, is_own=True):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.attend = HeadAttention(HEADS, mixes=mixes, bias=True) if is_own else None

    def heads(self, x_BNC):
        """Queries, keys and values, shape (B, M, N, d) each."""
        qkv = self.qkv(x_BNC).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return qkv.unbind(0)

    def forward(self, x_BNC):
        """Attend."""
        q, k, v = self.heads(x_BNC)
        attend = self.attend or F.scaled_dot_product_attention
        return x_BNC + attend(q, k, v).transpose(1, 2).flatten(2)


class Looped(nn.Module):
    """One block, executed several times."""

    def __init__(self, times, **options):
        super().__init__()
        self.blocks = nn.ModuleList([Block(**options)])
        self.times = times
        self.is_recomputed = False

    def forward(self, x):
        """Call the block again and again."""
        for _ in range(self.times):
            block = self.blocks[0]
            x = checkpoint(block, x, use_reentrant=False) if self.is_recomputed else block(x)
        return x


@pytest.fixture
def x():
    """Two sequences of five tokens."""
    return torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def timm(monkeypatch):
    """The package, where it is installed."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    from timm_shim import import_timm

    return import_timm()


def same(one, other):
    return one.shape == other.shape and (one - other).abs().max() < 1e-6


def side_by_side(x_BMNd):
    """Heads beside each other, one after the other."""
    return torch.cat(list(x_BMNd.unbind(1)), dim=-1)


@pytest.mark.parametrize("options", [{"mixes": True}, {"mixes": False}, {"is_own": False}])
def test_each_execution_is_recorded_once(x, options):
    """Ours with and without mixes, and torch's function: before any mix or scale."""
    model = Looped(3, **options)
    with Taps(model) as taps:
        y = model(x)
    assert list(taps.heads) == list(taps.hidden) == [0, 1, 2]
    assert taps.hidden[2] is y
    for number, state in enumerate([x, taps.hidden[0], taps.hidden[1]]):
        q, k, v = model.blocks[0].heads(state)
        found = taps.heads[number]
        assert same(found.q, q)
        assert same(found.k, k)
        assert same(found.v, v)
        for one, other in zip(found.concatenated(), (q, k, v), strict=True):
            assert same(one, side_by_side(other))


def test_chosen_layers_alone_are_kept(x):
    """Execution 1 of three."""
    model = Looped(3)
    with Taps(model, layers=[1]) as taps:
        model(x)
    assert list(taps.heads) == list(taps.hidden) == [1]


def test_every_call_starts_anew_and_the_model_stays_as_it_was(x):
    """No hook is left, other models that run inside are not seen, and values are the same."""
    model, other = Looped(2), Looped(2, is_own=False)
    with Taps(model) as taps, Taps(other) as others:
        model(2 * x)
        y = model(x)
        other(x)
        F.scaled_dot_product_attention(x, x, x)
    assert len(taps.heads) == len(others.heads) == 2
    assert taps.hidden[1] is y
    assert torch.equal(model(x), y)
    assert taps.hidden[1] is y
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_models_within_one_another_are_both_seen(x):
    """A teacher that is asked from within the student's call does not count as the student's."""
    teacher = Looped(2, is_own=False)

    class Asking(Looped):
        def forward(self, x):
            asked.append(teacher(x))
            return super().forward(x)

    asked, student = [], Asking(3, is_own=False)
    with Taps(student) as taps, Taps(teacher) as others:
        y = student(x)
    assert others.hidden[1] is asked[0]
    assert taps.hidden[max(taps.hidden)] is y


def test_a_call_that_fails_leaves_nothing_open(x):
    """The next call is recorded as if it were the first, and torch's functions are as before."""
    model = Looped(2, is_own=False)
    with Taps(model) as taps:
        with pytest.raises(RuntimeError):
            model(x[:, :, :3])
        assert not torch.overrides._get_current_function_mode_stack()
        y = model(x)
    assert list(taps.heads) == [0, 1]
    assert taps.hidden[1] is y


@pytest.mark.slow
def test_blocks_that_are_computed_anew_are_recorded_once(x):
    """Gradient checkpointing within the context: gradients are those without it."""
    grads = []
    model = Looped(3)
    for model.is_recomputed in (False, True):
        model.zero_grad()
        with Taps(model) as taps:
            model(x.requires_grad_())
            (sum(h.q.square().sum() for h in taps.heads.values()) + taps.hidden[2].sum()).backward()
            assert len(taps.heads) == 3
        grads.append(model.blocks[0].qkv.weight.grad.clone())
    torch.testing.assert_close(*grads)


def test_named_blocks_are_numbered_by_their_calls(x):
    """A model without attention; a name that is none is refused."""
    model = nn.Sequential(nn.Linear(WIDTH, 4), nn.Identity(), nn.Linear(4, 3))
    with Taps(model, blocks=["0", "2"]) as taps:
        y = model(x)
    assert taps.hidden[1] is y
    assert same(taps.hidden[0], model[0](x))
    assert not taps.heads
    with pytest.raises(ValueError, match="blocks: expected names of modules, got '7'"):
        Taps(model, blocks=["0", "7"])
    with pytest.raises(ValueError, match="layers: expected numbers from 0"):
        Taps(model, layers=[-1])


@pytest.mark.parametrize("batch_first", [True, False])
def test_heads_of_torch_encoders_are_projected(x, batch_first):
    """`nn.MultiheadAttention` projects within; hidden states are outputs of its blocks."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, 0.0, batch_first=batch_first)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    states = []
    for block in model.layers:
        block.register_forward_pre_hook(lambda _, args: states.append(args[0]))
    with Taps(model) as taps:
        y = model(x if batch_first else x.transpose(0, 1))
    assert taps.hidden[1] is y
    for number, (state, block) in enumerate(zip(states, model.layers, strict=True)):
        state = state if batch_first else state.transpose(0, 1)
        attn = block.self_attn
        wanted = F.linear(state, attn.in_proj_weight, attn.in_proj_bias).chunk(3, dim=-1)
        for one, other in zip(taps.heads[number].concatenated(), wanted, strict=True):
            assert same(one, other)


def test_heads_of_few_keys_are_shared_by_queries(x):
    """Four heads of queries and two of keys: each of these stands twice, side by side."""
    q, kv = torch.randn(2, 4, 5, 3), torch.randn(2, 2, 5, 3)

    class Grouped(nn.Module):
        def forward(self, _):
            return F.scaled_dot_product_attention(q, kv, kv, enable_gqa=True)

    model = Grouped()
    with Taps(model) as taps:
        model(x)
    found, key, _ = taps.heads[0].concatenated()
    assert same(found, side_by_side(q))
    assert same(key, torch.cat((kv[:, 0], kv[:, 0], kv[:, 1], kv[:, 1]), dim=-1))


def qkv_inputs(model, name):
    """Outputs of all modules of a name, in the order of their calls."""
    found = []
    for full, module in model.named_modules():
        if full.rpartition(".")[2] == name:
            module.register_forward_hook(lambda _, __, out: found.append(out))
    return found


def test_tiny_vit_is_recorded_by_windows():
    """Three stages of attention, whose linear layers hold head after head: q, k, v of each."""
    config = TinyViTConfig(
        widths=(8, 32, 32, 48), depths=(1, 1, 2, 1), windows=(4, 4, 2), head_width=16,
        image_size=64, num_classes=10,
    )  # fmt: skip
    model = TinyViT(config).eval()
    model.initialize(torch.Generator().manual_seed(0))
    outputs = qkv_inputs(model, "qkv")
    with Taps(model) as taps, torch.no_grad():
        model(torch.randn(2, 3, 64, 64))
    assert len(taps.heads) == len(outputs) == 4
    for number, out in enumerate(outputs):
        out_XNG3 = out.unflatten(-1, (taps.heads[number].q.shape[1], -1))
        wanted = [part.flatten(2) for part in out_XNG3.chunk(3, dim=-1)]
        for one, other in zip(taps.heads[number].concatenated(), wanted, strict=True):
            assert same(one, other.view(one.shape))
        assert taps.hidden[number].shape[-1] == config.widths[(1, 2, 2, 3)[number]]


def test_mini_deit_and_mini_swin_are_recorded_by_execution():
    """Shared weights, mixes, terms of position: what ``qkv`` and blocks give, by execution."""
    deit = DeiT(
        DeiTConfig(
            width=12, num_heads=3, groups=(2, 1), patch=8, image_size=32, num_classes=5,
            class_token=False, relative=True, mixes=True, local="kept",
        )
    )  # fmt: skip
    swin = Swin(
        SwinConfig(
            width=8, head_width=4, groups=((2,), (1,), (3,), (1,)), window=4, image_size=64,
            num_classes=5, mixes=True, local="kept",
        )
    )  # fmt: skip
    for model, blocks in ((deit, deit.blocks), (swin, [b for s in swin.layers for b in s.blocks])):
        model.initialize(torch.Generator().manual_seed(0))
        outputs, states = qkv_inputs(model.eval(), "qkv"), []
        for block in blocks:
            block.register_forward_hook(lambda _, __, out, states=states: states.append(out))
        with Taps(model) as taps, torch.no_grad():
            model(torch.randn(2, 3, model.config.image_size, model.config.image_size))
        assert len(taps.heads) == len(outputs) == len(blocks)
        for number, (out, state) in enumerate(zip(outputs, states, strict=True)):
            for one, other in zip(taps.heads[number].concatenated(), out.chunk(3, -1), strict=True):
                assert same(one, other.view(one.shape))
            assert taps.hidden[number] is state


@pytest.mark.slow
def test_windows_of_our_swin_are_those_of_timm(timm):
    """With the same weights all relations are equal, layer by layer, shifted windows as well."""
    teacher = timm.models.SwinTransformer(
        img_size=64, patch_size=4, embed_dim=8, depths=(2, 2, 2, 1), num_heads=(2, 4, 8, 16),
        window_size=2, num_classes=5,
    ).eval()  # fmt: skip
    for module in teacher.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = True
    config = SwinConfig(
        width=8, head_width=4, groups=((1, 1), (1, 1), (1, 1), (1,)), window=2, image_size=64,
        num_classes=5,
    )  # fmt: skip
    student = Swin(config).eval()
    student.load_state_dict(teacher.state_dict())
    loss = RelationLoss(
        RelationConfig(attention="kl", hidden="kl", hidden_window=2), even_match((7,), (7,))
    )
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad(), Taps(student) as ours, Taps(teacher) as theirs:
        student(x)
        teacher(x)
        found = loss(ours, theirs)
        teacher(x.flip(-1))
        other = loss(ours, theirs)
    for name in ("attention", "hidden"):
        assert abs(found[name]) < 1e-3 * other[name], name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_models_of_timm_are_recorded(timm, kind):
    """Linear layers that hold q, k and v of all heads; states behind blocks."""
    options = {"img_size": 32, "num_classes": 5}
    if kind == "vit":
        model = timm.models.VisionTransformer(
            patch_size=8, embed_dim=16, depth=3, num_heads=2, **options
        )
        blocks = list(model.blocks)
    else:
        model = timm.models.SwinTransformer(
            patch_size=4, embed_dim=8, depths=(2, 1), num_heads=(2, 4), window_size=4, **options
        )
        blocks = [block for stage in model.layers for block in stage.blocks]
    outputs, states = qkv_inputs(model.eval(), "qkv"), []
    for block in blocks:
        block.attn.fused_attn = True
        block.register_forward_hook(lambda _, __, out: states.append(out))
    with Taps(model) as taps, torch.no_grad():
        model(torch.randn(2, 3, 32, 32))
    assert len(taps.heads) == len(outputs) == 3
    for number, (out, state) in enumerate(zip(outputs, states, strict=True)):
        for one, other in zip(taps.heads[number].concatenated(), out.chunk(3, -1), strict=True):
            assert same(one, other.view(one.shape))
        assert taps.hidden[number] is state


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "gpt2"])
def test_models_of_transformers_are_recorded(kind):
    """Three projections of their own, or one; attention of torch is what they are built with."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "vit":
        config = transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            image_size=32, patch_size=8, attn_implementation="sdpa",
        )  # fmt: skip
        model, given = transformers.ViTModel(config).eval(), torch.randn(2, 3, 32, 32)
    else:
        config = transformers.GPT2Config(
            n_embd=16, n_layer=2, n_head=2, n_positions=16, vocab_size=50, bos_token_id=0,
            eos_token_id=0, attn_implementation="sdpa",
        )  # fmt: skip
        model, given = transformers.GPT2Model(config).eval(), torch.arange(8)[None]
    linears = [qkv_inputs(model, name) for name in ("q_proj", "k_proj", "v_proj")]
    joined = qkv_inputs(model, "c_attn")
    with Taps(model) as taps, torch.no_grad():
        out = model(given, output_hidden_states=True)
    wanted = [x.chunk(3, dim=-1) for x in joined] or list(zip(*linears, strict=True))
    assert len(taps.heads) == len(wanted) == 2
    for number in range(2):
        for one, other in zip(taps.heads[number].concatenated(), wanted[number], strict=True):
            assert same(one, other)
    assert same(taps.hidden[0], out.hidden_states[1])


def test_a_student_learns_its_teachers_relations(x):
    """Twenty steps of gradient descent on L_attention and L_hidden alone bring both down."""
    torch.manual_seed(0)
    teacher, student = Looped(4, is_own=False), Looped(2, mixes=True)
    loss = RelationLoss(RelationConfig(attention="kl"), LayerMatch(student=(0, 1), teacher=(1, 3)))
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.02)
    with torch.no_grad(), Taps(teacher, layers=loss.match.teacher) as targets:
        teacher(x)
    found = []
    with Taps(student, layers=loss.match.student) as taps:
        for _ in range(20):
            student(x)
            losses = loss(taps, targets)
            optimizer.zero_grad()
            losses["total"].backward()
            optimizer.step()
            found.append(losses)
    for name in ("attention", "hidden"):
        assert found[-1][name] < 0.5 * found[0][name], name
