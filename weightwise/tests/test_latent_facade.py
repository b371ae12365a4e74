"""Our cache under transformers' DeepSeek-V3: the same texts, in fewer bytes."""

from __future__ import annotations

import warnings

import pytest
import torch

from weightwise.lm import GQAConfig, ModelConfig, SwiGLUConfig
from weightwise.lm.config import layer_groups
from weightwise.lm.latent.codes import bytes_per_row, decode, encode
from weightwise.lm.latent.config import CodeConfig, LatentConfig

with warnings.catch_warnings():
    # Where hqq is installed, transformers imports it, and it what torch has deprecated.
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")
    from weightwise.lm.latent.facade import LatentCache

INT8 = CodeConfig(bits=8, group_width=16)


@pytest.fixture(scope="module")
def model():
    config = transformers.DeepseekV3Config(
        vocab_size=31,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        first_k_dense_replace=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        q_lora_rank=None,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=4,
        v_head_dim=8,
        max_position_embeddings=256,
        # Large weights give logits that differ clearly, so that no two are nearly equal.
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    return transformers.DeepseekV3ForCausalLM(config).eval()


def padded_prompts():
    """Two prompts, the shorter one padded on the left."""
    generator = torch.Generator().manual_seed(0)
    token_BT = torch.randint(3, 31, (2, 55), generator=generator)
    token_BT[0, :4] = 0
    return {"input_ids": token_BT, "attention_mask": (token_BT != 0).long()}


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 1},
        {"num_beams": 3},
        {"num_beams": 1, "do_sample": True, "num_return_sequences": 2},
    ],
    ids=["greedy", "beams", "sampled"],
)
def test_generate_gives_the_texts_of_its_own_cache(model, settings):
    """Left padding, beams, several texts of a prompt, and more tokens than the first memory."""
    texts = []
    for cache in (None, LatentCache.of_deepseek(model.config)):
        torch.manual_seed(1)
        texts.append(
            model.generate(
                **padded_prompts(),
                max_new_tokens=14,
                min_new_tokens=14,
                past_key_values=cache,
                **{"do_sample": False} | settings,
            )
        )
    assert torch.equal(*texts)


def test_guessed_tokens_are_taken_back(model):
    """Tokens guessed from the prompt (prompt lookup) are cropped where they are wrong."""
    token_BT = padded_prompts()["input_ids"][1:].repeat(1, 3)
    texts = [
        model.generate(
            token_BT,
            max_new_tokens=12,
            do_sample=False,
            past_key_values=LatentCache.of_deepseek(model.config),
            prompt_lookup_num_tokens=guesses,
        )
        for guesses in (None, 4)
    ]
    assert torch.equal(*texts)


def test_codes_are_those_of_each_token_alone(model):
    """The prompt in pieces: what is read is each token coded once; bytes are as computed."""
    token_BT = padded_prompts()["input_ids"][1:]
    plain, coded = transformers.DynamicCache(), LatentCache.of_deepseek(model.config, codes=INT8)
    with torch.no_grad():
        model(token_BT, past_key_values=plain)
        for piece in token_BT.split(16, dim=1):
            model(piece, past_key_values=coded)
    # The first layer's input does not depend on the cache.
    latent, rope = plain.layers[0].keys, plain.layers[0].values
    for got, wanted in zip(coded[0], (latent, rope), strict=True):
        codes = encode(wanted, INT8)
        again = decode(codes, INT8, wanted.shape[-1], torch.float32)
        torch.testing.assert_close(got, again, atol=1e-5, rtol=0)
    assert coded.get_seq_length() == 55
    per_token = 3 * (bytes_per_row(16, INT8) + bytes_per_row(4, INT8))
    assert coded.num_bytes == 64 * per_token


def test_coded_cache_writes_nearly_the_same(model):
    """Scores of the token after the prompt with 8-bit codes: within 2 % of their spread."""
    token_BT = padded_prompts()["input_ids"][1:]
    with torch.no_grad():
        plain_V = model(token_BT).logits[0, -1]
        cache = LatentCache.of_deepseek(model.config, codes=INT8)
        coded_V = model(token_BT, past_key_values=cache).logits[0, -1]
    error = (coded_V - plain_V).abs().max()
    assert 0 < error < 0.02 * (plain_V.max() - plain_V.min())


def test_followers_read_and_do_not_write():
    """Five layers in groups of two: entries 0, 2 and 4; the others are the same tensors' values."""
    config = ModelConfig(
        vocab_size=8,
        width=32,
        num_layers=5,
        max_length=16,
        attention=LatentConfig(num_heads=4, share_factor=2, codes=INT8),
        ffn=SwiGLUConfig(hidden=8),
    )
    cache = LatentCache(layer_groups(config))
    latent, rope = torch.randn(2, 1, 6, 32), torch.randn(2, 1, 6, 4)
    with pytest.raises(ValueError, match="expected tokens before it is read"):
        cache[1]
    for layer in (0, 2, 4):
        got = cache.update(latent, rope, layer)
        assert torch.equal(got[0], cache[layer][0])
    assert torch.equal(cache[1][0], cache[0][0])
    assert cache.get_seq_length(3) == 6
    with pytest.raises(ValueError, match="from the first layer of a group only"):
        cache.update(latent, rope, 3)
    cache.crop(-2)
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([0, 3]))
    assert cache[3][0].shape == (2, 1, 4, 32)
    assert torch.equal(cache[2][1], decode(encode(rope, INT8), INT8, 4, torch.float32)[:, :, :4])
    cache.layers[0].offload()
    cache.layers[0].prefetch()
    cache.reset()
    assert cache.get_seq_length() == 0


def test_other_models_are_refused(model):
    """Grouped-query attention, keys of each layer, and settings without latents."""
    base = {"vocab_size": 8, "width": 32, "num_layers": 2, "max_length": 16}
    for attention in (
        GQAConfig(num_heads=4),
        LatentConfig(num_heads=4, share_factor=2, rope_key="layer"),
    ):
        config = ModelConfig(**base, attention=attention, ffn=SwiGLUConfig(hidden=8))
        with pytest.raises(ValueError, match=r"groups\[0\]: expected latent attention"):
            LatentCache(layer_groups(config))
    with pytest.raises(ValueError, match="config: expected kv_lora_rank"):
        LatentCache.of_deepseek(transformers.LlamaConfig())
