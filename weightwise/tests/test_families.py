"""Checkpoints of Hugging Face's model families, read and refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from weightwise.lm import GQAConfig, LanguageModel, num_stored_parameters, train_tokenizer
from weightwise.lm.convert import read_checkpoint
from weightwise.lm.deepseek import scoring
from weightwise.lm.rope_scaling import LinearScaling, RopeScaling, YarnScaling
from weightwise.lm.scoring import ScoringConfig
from weightwise.lm.tokenizer import Tokenizer
from weightwise.train import import_checkpoint, load_model

if TYPE_CHECKING:
    from pathlib import Path

transformers = pytest.importorskip("transformers")
COMMON: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.15,
}
LATENT = COMMON | {
    "num_key_value_heads": 6,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "qk_nope_head_dim": 12,
    "first_k_dense_replace": 3,
}
EXPERTS = LATENT | {
    "first_k_dense_replace": 0,
    "moe_intermediate_size": 20,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 1.0,
}
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 4.0,
    "beta_fast": 4.0,
    "original_max_position_embeddings": 16,
}
# As in DeepSeek's checkpoints: sharper scores by another way than the amplitude of the rotation.
SHARPER = {"rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 0.7}}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", COMMON),
    "llama, wide heads": ("LlamaConfig", COMMON | {"head_dim": 20, "tie_word_embeddings": True}),
    "llama 3": (
        "LlamaConfig",
        COMMON
        | {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "llama, linear": (
        "LlamaConfig",
        COMMON | {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
    ),
    "llama, yarn": ("LlamaConfig", COMMON | {"rope_parameters": YARN}),
    "qwen3, yarn": ("Qwen3Config", COMMON | {"head_dim": 12, "rope_parameters": YARN}),
    "hunyuan dense": (
        "HunYuanDenseV1Config",
        COMMON
        | {
            "head_dim": 12,
            "rope_parameters": {
                "rope_type": "dynamic",
                "rope_theta": 500.0,
                "alpha": 8.0,
                "factor": 1.0,
            },
        },
    ),
    "mistral": ("MistralConfig", COMMON | {"sliding_window": None}),
    "qwen2": ("Qwen2Config", COMMON),
    "qwen3": ("Qwen3Config", COMMON | {"head_dim": 12}),
    "deepseek v2": ("DeepseekV2Config", LATENT | {"q_lora_rank": 20}),
    "deepseek v3": ("DeepseekV3Config", LATENT | {"q_lora_rank": None}),
    "deepseek v3, halves": (
        "DeepseekV3Config",
        LATENT | {"q_lora_rank": 20, "rope_interleave": False},
    ),
    "deepseek v2, experts": ("DeepseekV2Config", EXPERTS | {"q_lora_rank": 20}),
    "deepseek v2, experts, all groups": (
        "DeepseekV2Config",
        EXPERTS | {"q_lora_rank": None, "topk_method": "group_limited_greedy", "topk_group": 4},
    ),
    "deepseek v2, groups, dense layer": (
        "DeepseekV2Config",
        EXPERTS
        | {
            "q_lora_rank": 20,
            "topk_method": "group_limited_greedy",
            "first_k_dense_replace": 1,
            "routed_scaling_factor": 4.0,
        },
    ),
    "deepseek v3, experts": ("DeepseekV3Config", EXPERTS | {"q_lora_rank": None}),
    "deepseek v3, experts, halves": (
        "DeepseekV3Config",
        EXPERTS
        | {
            "q_lora_rank": 20,
            "rope_interleave": False,
            "first_k_dense_replace": 2,
            "routed_scaling_factor": 2.5,
        },
    ),
    "deepseek v3, experts, no shares": (
        "DeepseekV3Config",
        EXPERTS | {"q_lora_rank": 20, "norm_topk_prob": False, "first_k_dense_replace": 1},
    ),
    "mistral, wide window": ("MistralConfig", COMMON | {"sliding_window": 64}),
    "qwen2, wide window": (
        "Qwen2Config",
        COMMON | {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1},
    ),
    "qwen3, no layer with a window": (
        "Qwen3Config",
        COMMON
        | {"head_dim": 12, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3},
    ),
    "qwen2, window": (
        "Qwen2Config",
        COMMON | {"use_sliding_window": True, "sliding_window": 63, "max_window_layers": 1},
    ),
    "deepseek v2, yarn": ("DeepseekV2Config", LATENT | {"q_lora_rank": None} | SHARPER),
    "deepseek v3, yarn": ("DeepseekV3Config", LATENT | {"q_lora_rank": 20} | SHARPER),
}


def saved(folder: Path, name: str) -> Any:
    """A model of a family with weights that are not those of a start, saved by transformers."""
    cls, settings = FAMILIES[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        getattr(transformers, cls)(**settings), attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if key.endswith(".bias"):
                weight.normal_()
            elif weight.ndim == 1:
                weight.uniform_(0.5, 1.5)
        for key, table in model.named_buffers():
            if key.endswith("e_score_correction_bias"):
                table.normal_(std=0.3)
    model.save_pretrained(folder)
    return model


REFUSED = ("qwen2, window",)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in REFUSED])
def test_scores_are_theirs(tmp_path: Path, name: str) -> None:
    """What transformers saves gives the same scores here, with a cache as well."""
    theirs = saved(tmp_path, name)
    ours = read_checkpoint(tmp_path).eval()
    token_BT = torch.randint(300, (2, 30), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted, got = theirs(token_BT).logits, ours(token_BT)
        cache = ours.new_cache(2)
        ours(token_BT[:, :29], cache)
        last = ours(token_BT[:, 29:], cache)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(last[:, 0], wanted[:, -1], rtol=0, atol=1e-5)
    assert num_stored_parameters(ours.config) == sum(p.numel() for p in ours.parameters())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("llama", {"attention_bias": True}, "attention_bias: expected False, got True"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 8.0}},
         "rope_scaling: expected one of the types 'default', .*, got 'dynamic'"),
        ("llama", {"rope_parameters": {"rope_type": "linear"}}, "factor: expected a value"),
        ("llama", {"rope_parameters": YARN | {"factor": 0.5}}, "factor: Input should be greater"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor: expected 1, got 0.5"),
        ("mistral", {"sliding_window": 63},
         "sliding_window: expected none or at least max_position_embeddings 64, .*, got 63"),
        ("qwen2, window", {}, "sliding_window: expected none or at least .* 64, .*, got 63"),
        ("qwen2, window", {"layer_types": None}, "sliding_window: expected none .*, got 63"),
        ("qwen3", {"layer_types": ["chunked_attention"]}, "layer_types: expected"),
        ("deepseek v2, experts", {"topk_method": "noaux_tc"}, "topk_method: expected 'greedy' or"),
        ("deepseek v2, experts", {"norm_topk_prob": True}, "norm_topk_prob: expected False"),
        ("deepseek v2, experts", {"scoring_func": "sigmoid"}, "scoring_func: expected 'softmax'"),
        ("deepseek v2, experts", {"moe_layer_freq": 2}, "moe_layer_freq: expected 1, got 2"),
        ("deepseek v2, experts", {"num_experts_per_tok": 9},
         "num_experts_per_tok: expected at most n_routed_experts 8, got 9"),
        ("deepseek v3, experts", {"n_group": 3}, "num_groups: expected a divisor"),
        ("deepseek v3", {"qk_rope_head_dim": 7}, "qk_rope_head_dim|rope_width"),
        ("deepseek v2", {"kv_lora_rank": 24}, "kv_a_layernorm.weight: expected shape"),
        ("llama", {"model_type": "gpt2"}, "model_type: expected one of"),
    ],
)  # fmt: skip
def test_other_models_are_refused_by_name(
    tmp_path: Path, name: str, change: dict[str, Any], message: str
) -> None:
    """What would have another meaning here is named, with the file."""
    saved(tmp_path, name)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message) as caught:
        read_checkpoint(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_stacked_experts_are_read(tmp_path: Path) -> None:
    """All experts of a layer in one tensor, as in transformers' memory, are the separate ones."""
    saved(tmp_path, "deepseek v2, experts")
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    assert "model.layers.0.mlp.experts.7.up_proj.weight" in weights
    wanted = read_checkpoint(tmp_path).state_dict()
    for layer in range(3):
        prefix = f"model.layers.{layer}.mlp.experts."
        gate, up, down = (
            torch.stack([weights.pop(f"{prefix}{e}.{role}_proj.weight") for e in range(8)])
            for role in ("gate", "up", "down")
        )
        weights |= {f"{prefix}gate_up_proj": torch.cat((gate, up), 1), f"{prefix}down_proj": down}
    save_file(weights, file)
    got = read_checkpoint(tmp_path).state_dict()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("version", "change", "wanted"),
    [
        (2, {"topk_method": "greedy", "routed_scaling_factor": 16.0}, ScoringConfig(scale=16.0)),
        (2, {"topk_method": "group_limited_greedy", "n_group": 8, "topk_group": 3},
         ScoringConfig(num_groups=8, top_groups=3)),
        (3, {"n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5},
         ScoringConfig(score="sigmoid", is_corrected=True, num_groups=8, top_groups=4,
                       experts_per_group=2, scale=2.5)),
    ],
    ids=["v2 lite", "v2", "v3"],
)  # fmt: skip
def test_routers_of_deepseek_are_told_apart(
    version: int, change: dict[str, Any], wanted: ScoringConfig
) -> None:
    """The settings of the released models say which rules `weightwise.lm.scoring` has for them."""
    assert scoring({"model_type": f"deepseek_v{version}"} | change) == wanted


def test_missing_constants_are_named(tmp_path: Path) -> None:
    """A constant that the settings ask for is no idle tensor."""
    saved(tmp_path, "qwen2")
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.self_attn.k_proj.bias"]
    save_file(weights, file)
    with pytest.raises(ValueError, match=r"layers\.1\.self_attn\.k_proj\.bias: expected in the"):
        read_checkpoint(tmp_path)


def test_a_tokenizer_with_another_end_comes_along(tmp_path: Path) -> None:
    """A vocabulary that ends documents as Llama's does is taken with the weights."""
    saved(tmp_path / "hf", "llama")
    words = tmp_path / "hf" / "tokenizer.json"
    train_tokenizer(["to be or not to be"], 290).save(words)
    words.write_text(words.read_text().replace("<|endoftext|>", "</s>"))
    import_checkpoint(tmp_path / "hf", tmp_path / "ours")
    model, tokenizer, _ = load_model(tmp_path / "ours")
    assert isinstance(model, LanguageModel)
    assert tokenizer.special_tokens["</s>"] == tokenizer.eos_id
    words.write_text(words.read_text().replace("</s>", "<end>"))
    with pytest.raises(ValueError, match="expected a vocabulary with one of"):
        Tokenizer.load(words)


def test_gains_before_the_rotation_are_not_shared() -> None:
    """Layers with keys in common keep them without gains, which such gains do not allow."""
    GQAConfig(num_heads=2, qk_norm=True, qk_gain="before")
    with pytest.raises(ValueError, match="qk_gain: expected 'after' where layers share keys"):
        GQAConfig(num_heads=2, qk_norm=True, qk_gain="before", share_factor=2)


def test_scaled_pairs_turn_as_the_rule_says() -> None:
    """Fast pairs as before, slow ones a factor more slowly, and between them by degrees.

    Over 64 tokens pairs turn 64 / 2 pi * (1, 0.5, 0.25, 0.05) = 10.2, 5.1, 2.5, 0.5 times.
    """
    scaling = RopeScaling(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_length=64)
    turn = torch.tensor([1.0, 0.5, 0.25, 0.05])
    got = (scaling.scaled(turn, 500.0) / turn).tolist()
    assert got[:2] == [1.0, 1.0]
    kept = (64 * 0.25 / (2 * 3.14159265) - 1) / 3
    assert got[2] == pytest.approx(kept + (1 - kept) / 4, rel=1e-5)
    assert got[3] == pytest.approx(0.25)
    with pytest.raises(ValueError, match="high_freq_factor: expected more than low_freq_factor 2"):
        RopeScaling(factor=2.0, low_freq_factor=2.0, high_freq_factor=2.0)


def test_yarn_blends_between_two_pairs() -> None:
    """With theta = e^4 pair i of 8 turns 50 e^(-i/2) times over 100 pi tokens.

    That is 50 / e for i = 2 and 50 / e^3 for i = 6: pairs up to 2 stay, from 6 on they turn half
    as often, and pair 4 lies halfway.
    """
    theta = 2.718281828**4
    scaling = YarnScaling(
        factor=2.0, original_length=314, beta_fast=50 / 2.7182818, beta_slow=50 / 2.7182818**3,
        is_truncated=False,
    )  # fmt: skip
    turn = theta ** (-torch.arange(8) / 8)
    got = scaling.scaled(turn, theta) / turn
    assert got.tolist() == pytest.approx([1, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.5], abs=1e-3)
    assert scaling.amplitude == pytest.approx(0.1 * 0.693147 + 1)
    assert LinearScaling(factor=4.0).scaled(turn, theta).tolist() == (turn / 4).tolist()
    with pytest.raises(ValueError, match="beta_fast: expected more than beta_slow 1, got 1"):
        YarnScaling(factor=2.0, original_length=8, beta_fast=1.0)


def test_layers_of_two_kinds_go_through_a_recipe(tmp_path: Path) -> None:
    """A model with dense layers, then experts, is converted, written down and loaded again."""
    theirs = saved(tmp_path / "hf", "deepseek v3, experts, halves")
    train_tokenizer(["to be or not to be"], 290).save(tmp_path / "hf" / "tokenizer.json")
    import_checkpoint(tmp_path / "hf", tmp_path / "ours")
    model, _, _ = load_model(tmp_path / "ours")
    token_BT = torch.arange(20).view(1, 20)
    with torch.no_grad():
        wanted, got = theirs(token_BT).logits, model.eval()(token_BT)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
