"""Models that learn with quantised latents see what their cache will give them."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from weightwise.lm import (
    Cache,
    CodeConfig,
    LanguageModel,
    LatentConfig,
    ModelConfig,
    MoEConfig,
    SwiGLUConfig,
)
from weightwise.lm.latent.codes import encode
from weightwise.recipes import tiny
from weightwise.recipes.long_context import long_context
from weightwise.train import load_model, read_metrics, train
from weightwise.train.recipe_conflicts import resume_conflict
from weightwise.train.start import starting_checkpoint

NUM_TOKENS = 40
INT4 = CodeConfig(bits=4)
ATTENTION = LatentConfig(num_heads=4, share_factor=2, codes=INT4)
CONFIG = ModelConfig(
    vocab_size=50,
    width=32,
    num_layers=4,
    max_length=128,
    attention=ATTENTION,
    ffn=SwiGLUConfig(hidden=48),
)
ASYMMETRIC = replace(ATTENTION, codes=CodeConfig(bits=3, group_width=16, is_symmetric=False))
OTHERS = {
    "int4": ATTENTION,
    "int3": replace(ASYMMETRIC, rope_codes=CodeConfig(bits=8), rotate_latent=True),
    "layers": replace(ATTENTION, rope_key="layer", latent_norm="layer", share_up=True),
    "groups": replace(ATTENTION, group_bits=(2, 16), rope_codes="plain", query_latent_width=12),
}
all_kinds = pytest.mark.parametrize("attention", OTHERS.values(), ids=OTHERS)


def build(attention: LatentConfig, *, ffn=None, dtype=torch.float32) -> LanguageModel:
    config = replace(CONFIG, attention=attention, ffn=ffn or CONFIG.ffn)
    model = LanguageModel(config)
    model.initialize(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(3.0)
    return model.to(dtype)


def tokens() -> torch.Tensor:
    return torch.randint(50, (2, NUM_TOKENS), generator=torch.Generator().manual_seed(1))


def bytes_kept(cache: Cache) -> dict[tuple[int, str], torch.Tensor]:
    return {
        (number, name): store.memory
        for number, layer in enumerate(cache.layers)
        if layer is not None
        for name, store in layer.stores.items()
    }


@all_kinds
def test_training_evaluation_and_prefill_are_the_same_bits(attention):
    """One pass over the same tokens: trained, judged, or read into a cache."""
    model = build(attention)
    with torch.no_grad():
        trained = model.train()(tokens())
        judged = model.eval()(tokens())
        read = model(tokens(), model.new_cache(2))
    assert torch.equal(trained, judged)
    assert torch.equal(judged, read)
    # With gradients the products may be taken in another order.
    torch.testing.assert_close(model.train()(tokens()), trained, atol=1e-5, rtol=0)


@all_kinds
@pytest.mark.parametrize("chunk", [1, 7, 32])
def test_codes_do_not_depend_on_the_pieces_of_a_prompt(attention, chunk):
    """In double precision, where no rounding comes near a code, every byte is the same."""
    model = build(attention, dtype=torch.float64).eval()
    whole, pieces = model.new_cache(2), model.new_cache(2)
    with torch.no_grad():
        expected = model(tokens(), whole)
        got = [model(part, pieces) for part in tokens().split(chunk, dim=1)]
    kept, other = bytes_kept(whole), bytes_kept(pieces)
    for key, memory in kept.items():
        if memory.dtype in (torch.uint8, torch.float16):
            assert torch.equal(memory, other[key]), key
        else:
            torch.testing.assert_close(memory, other[key])
    torch.testing.assert_close(torch.cat(got, dim=1), expected, atol=2e-6, rtol=0)


def test_codes_in_single_precision_differ_where_rounding_does():
    """Products over one row and over many add up in other orders; hardly a code notices."""
    model = build(ATTENTION).eval()
    whole, steps = model.new_cache(2), model.new_cache(2)
    with torch.no_grad():
        expected = model(tokens(), whole)
        got = [model(tokens()[:, [i]], steps) for i in range(NUM_TOKENS)]
    kept, other = bytes_kept(whole), bytes_kept(steps)
    codes = [key for key, memory in kept.items() if memory.dtype == torch.uint8]
    differing = [(kept[key] != other[key]).double().mean().item() for key in codes]
    assert max(differing) < 1e-3
    torch.testing.assert_close(torch.cat(got, dim=1), expected, atol=2e-2, rtol=0)


def test_cache_holds_the_codes_of_what_the_leader_computes():
    """The bytes of the first group are those of its latents, encoded."""
    model = build(ATTENTION).eval()
    cache = model.new_cache(2, NUM_TOKENS)
    with torch.no_grad():
        model(tokens(), cache)
        block = model.blocks[0]
        latent_BTC, _ = block.attention.latent_and_rope(block.attention_norm(model.embed(tokens())))
    stores = cache.layers[0].stores
    expected = encode(latent_BTC, INT4)
    assert torch.equal(stores["latent_code"].memory, expected.code)
    assert torch.equal(stores["latent_scale"].memory, expected.scale)


def test_gradients_pass_straight_through_codes():
    """At 8 bits the gradients are nearly those without codes; no weight is left without."""
    grads = {}
    for codes in (None, CodeConfig(bits=8)):
        model = build(replace(ATTENTION, codes=codes))
        model(tokens()).logsumexp(-1).mean().backward()
        grads[codes] = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    plain, coded = grads.values()
    assert (plain - coded).norm() < 0.1 * plain.norm()
    assert (coded != 0).double().mean() > 0.9


def test_training_turns_to_codes_when_asked():
    """Before that share of the steps it sees plain latents; evaluation always sees codes."""
    late, plain = (
        build(replace(ATTENTION, quantize_from=0.5)),
        build(replace(ATTENTION, codes=None)),
    )
    always = build(ATTENTION)
    with torch.no_grad():
        assert torch.equal(late.train()(tokens()), plain(tokens()))
        late.set_progress(0.49)
        assert torch.equal(late(tokens()), plain(tokens()))
        late.set_progress(0.5)
        assert torch.equal(late(tokens()), always(tokens()))
        late.set_progress(0.0)
        assert torch.equal(late.eval()(tokens()), always(tokens()))
        never = build(replace(ATTENTION, quantize_from=1.0))
        never.set_progress(1.0)
        assert torch.equal(never.train()(tokens()), plain(tokens()))


EXPERTS = MoEConfig(hidden=24, num_experts=4, top_k=2, overflow="recycle", min_capacity=1)


@pytest.mark.parametrize("ffn", [EXPERTS, SwiGLUConfig(hidden=24)], ids=["moe", "swiglu"])
@all_kinds
def test_recomputed_activations_give_the_same_gradients(attention, ffn):
    """Latents travel from the leader to its followers through blocks that are computed twice."""
    model = build(replace(attention, latent_grad="mean"), ffn=ffn)
    found = []
    for is_wanted in (False, True):
        model.recompute_activations(is_wanted)
        model.zero_grad()
        torch.manual_seed(2)
        (model(tokens()).logsumexp(-1).mean() + model.auxiliary_loss()).backward()
        found.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


def test_bfloat16_trains_and_decodes_alike():
    """Under autocast the cache holds what training saw, within the steps of the type."""
    model = build(ATTENTION)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        trained = model.train()(tokens())
        cache = model.eval().new_cache(2)
        read = model(tokens(), cache)
        steps = model.new_cache(2)
        got = torch.cat([model(tokens()[:, [i]], steps) for i in range(NUM_TOKENS)], dim=1)
    assert torch.equal(trained, read)
    assert (got - read).float().std() < 0.05 * read.float().std()


def test_narrow_first_weights_of_what_is_added_to_the_stream():
    """0.02 / sqrt(2 * 4) for output and down, experts too; 0.02 for all others."""
    for ffn in (CONFIG.ffn, EXPERTS):
        model = LanguageModel(replace(CONFIG, width=64, scaled_output_init=True, ffn=ffn))
        model.initialize(torch.Generator().manual_seed(0))
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                is_output = name.endswith(("output.weight", "down.weight", "experts.down"))
                expected = 0.02 / 8**0.5 if is_output else 0.02
                assert weight.std().item() == pytest.approx(expected, rel=0.12), name


def recipe_of(steps: int, **change):
    base = tiny()
    attention = replace(ATTENTION, **change)
    return replace(
        base,
        model=replace(base.model, attention=attention),
        schedule=replace(base.schedule, warmup_steps=2),
        train=replace(base.train, steps=steps, save_every=2, eval_every=4, log_every=1),
    )


@pytest.mark.slow
def test_run_that_was_stopped_turns_to_codes_all_the_same(tmp_path):
    """Progress is a matter of the step: two runs of which one was stopped end in equal bytes."""
    recipe = recipe_of(6, quantize_from=0.5, outer_scale=True)
    quiet = Console(file=io.StringIO())
    train(recipe, tmp_path / "whole", cache_dir=tmp_path / "cache", console=quiet)
    ends = tmp_path / "whole/checkpoints/step-000006/model.safetensors"
    stopped = tmp_path / "stopped"
    (stopped / "checkpoints").mkdir(parents=True)
    first = tmp_path / "whole/checkpoints/step-000004"
    first.rename(stopped / "checkpoints/step-000004")
    for name in ("recipe.toml", "metrics.jsonl"):
        (stopped / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    train(recipe, stopped, cache_dir=tmp_path / "cache", console=quiet)
    again = stopped / "checkpoints/step-000006/model.safetensors"
    assert again.read_bytes() == ends.read_bytes()
    rows = read_metrics(tmp_path / "whole/metrics.jsonl")
    assert len([row for row in rows if "train_loss" in row]) == 6
    model = load_model(tmp_path / "whole")[0]
    assert model.config == recipe.model
    longer = long_context(tmp_path / "whole", seq_length=256, tokens=1e4).model.attention
    plain = replace(recipe.model.attention, codes=None, quantize_from=0.0)
    start = replace(
        recipe, start=str(tmp_path / "whole"), model=replace(recipe.model, attention=plain)
    )
    assert starting_checkpoint(start) is not None
    other = replace(start.model, attention=replace(plain, latent_norm="none"))
    with pytest.raises(ValueError, match=r"model\.attention\.latent_norm: expected 'leader'"):
        starting_checkpoint(replace(start, model=other))
    assert longer == replace(recipe.model.attention, rope_alpha=256 / recipe.train.seq_length)


def test_number_of_steps_stays_where_codes_come_on_the_way():
    """Another number of steps would move the start of quantisation."""
    for share, is_refused in ((0.0, False), (0.5, True), (1.0, False)):
        recipe = recipe_of(6, quantize_from=share)
        recipe = replace(recipe, schedule=replace(recipe.schedule, decay_steps=20))
        longer = replace(recipe, train=replace(recipe.train, steps=9))
        conflict = resume_conflict(recipe, longer, 6)
        assert (conflict is not None) == is_refused
        assert conflict is None or "quantize_from between 0 and 1" in conflict


def test_weights_of_other_blocks_are_refused_where_they_are_sharded():
    """A leader's up-projection is gathered for its own block only."""
    recipe = recipe_of(2, share_up=True)
    with pytest.raises(ValueError, match=r"train\.strategy: expected ddp with model\.attention"):
        replace(recipe, train=replace(recipe.train, strategy="fsdp"))
    alone = recipe_of(2, share_up=True, share_factor=1)
    replace(alone, train=replace(alone.train, strategy="fsdp"))
