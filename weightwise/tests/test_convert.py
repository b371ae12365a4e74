"""Checkpoints of Hugging Face's mixture-of-experts family, read and written."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, MoEConfig
from weightwise.lm.convert import read_checkpoint, write_hunyuan
from weightwise.lm.hunyuan import config_of
from weightwise.lm.tensor_file import fresh_folder
from weightwise.recipes import hunyuan_large

if TYPE_CHECKING:
    from pathlib import Path

transformers = pytest.importorskip("transformers")
CONFIG = ModelConfig(
    vocab_size=61,
    width=48,
    num_layers=3,
    max_length=64,
    attention=GQAConfig(num_heads=6, num_kv_heads=2, head_width=12, qk_norm=True, rope_alpha=50.0),
    ffn=MoEConfig(hidden=40, num_experts=6, top_k=2),
    init_std=0.1,
)
TOKEN_BT = torch.randint(61, (2, 30), generator=torch.Generator().manual_seed(3))


def built(config: ModelConfig = CONFIG) -> LanguageModel:
    """A model with new weights, gains other than 1."""
    model = LanguageModel(config)
    generator = torch.Generator().manual_seed(0)
    model.initialize(generator)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.uniform_(0.5, 1.5, generator=generator)
    return model


@pytest.mark.parametrize("max_shard_size", ["5GB", "40KB"])
def test_their_checkpoints_are_read(tmp_path: Path, max_shard_size: str) -> None:
    """What transformers saves, in one file or in shards, gives the same scores here."""
    write_hunyuan(built(), tmp_path / "first")
    theirs = transformers.HunYuanMoEV1ForCausalLM.from_pretrained(
        tmp_path / "first", attn_implementation="eager"
    )
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=max_shard_size)
    ours = read_checkpoint(tmp_path / "theirs")
    torch.testing.assert_close(ours(TOKEN_BT), theirs(TOKEN_BT).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("max_shard_bytes", [10**9, 40_000])
def test_ours_are_read_by_them(tmp_path: Path, max_shard_bytes: int) -> None:
    """What we save, in one file or in shards, transformers loads without a word of complaint."""
    ours = built()
    write_hunyuan(ours, tmp_path, max_shard_bytes=max_shard_bytes)
    theirs, report = transformers.HunYuanMoEV1ForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    torch.testing.assert_close(theirs(TOKEN_BT).logits, ours(TOKEN_BT), rtol=0, atol=1e-5)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (max_shard_bytes < 10**9)


@pytest.mark.parametrize("is_tied", [True, False])
def test_shared_keys_survive_the_way_there_and_back(tmp_path: Path, is_tied: bool) -> None:
    """A model of the released layout comes back bit for bit, in bfloat16 as well."""
    config = replace(
        CONFIG,
        num_layers=4,
        tie_embeddings=is_tied,
        attention=replace(CONFIG.attention, share_factor=2),
        ffn=replace(CONFIG.ffn, top_k=1, num_shared=2),
    )
    model = LanguageModel(config).bfloat16()
    model.initialize(torch.Generator().manual_seed(0))
    write_hunyuan(model, tmp_path)
    back = read_checkpoint(tmp_path)
    assert back.config == config
    for name, weight in back.state_dict().items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, model.state_dict()[name])


def test_settings_of_the_released_model_are_ours(tmp_path: Path) -> None:
    """The fields of its configuration file, lists for layers included, give our settings."""
    given = config_of(hunyuan_large()) | {
        "rope_parameters": None,
        "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0},
        "moe_topk": [1] * 64,
        "num_shared_expert": [1] * 64,
    }
    (tmp_path / "config.json").write_text(json.dumps(given), encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected model.safetensors"):
        read_checkpoint(tmp_path)
    from_file = config_of(hunyuan_large())
    assert from_file["cla_share_factor"] == 2
    assert from_file["model_type"] == "hunyuan"


def saved(tmp_path: Path) -> Path:
    write_hunyuan(built(), tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act: expected 'silu', got 'gelu'"),
        ({"model_type": "gpt2"}, "model_type: expected one of deepseek_v2, .*, got 'gpt2'"),
        ({"moe_topk": [1, 2, 2]}, "moe_topk: expected one number for all layers"),
        ({"num_experts": None}, "num_experts"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling: expected"),
        ({"hidden_size": 24}, "expected shape"),
        ({"num_hidden_layers": 2}, r"layers\.2\..*got unknown"),
        ({"num_hidden_layers": 4}, r"layers\.3\..*expected in the checkpoint, found none"),
        ({"moe_topk": "two"}, "moe_topk: expected one number for all layers, got two"),
        ({"rope_parameters": [1]}, "rope_scaling: expected an object"),
        ({"quantization_config": {"bits": 8}}, "quantization_config: expected None, got"),
        ({"num_key_value_heads": 4}, "num_kv_heads: expected a divisor"),
        ({"hidden_size": None}, "hidden_size: Input should be a valid integer, got None"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, change: dict, message: str) -> None:
    """Each is refused in a line that names the file and the field or tensor."""
    path = saved(tmp_path) / "config.json"
    given = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(given | change), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        read_checkpoint(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    """A file cut short, a tensor too many, one too few, an index that leads elsewhere."""
    folder = saved(tmp_path)
    file = next(folder.glob("*.safetensors"))
    weights = load_file(file)
    save_file(weights | {"model.extra.weight": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"model\.extra\.weight.*got unknown"):
        read_checkpoint(folder)
    name = "model.layers.1.mlp.experts.3.up_proj.weight"
    save_file({key: value for key, value in weights.items() if key != name}, file)
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.experts\.3\.up_proj.*found none"):
        read_checkpoint(folder)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="expected a whole safetensors file"):
        read_checkpoint(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}), encoding="utf-8")
    with pytest.raises(ValueError, match="expected names of files here"):
        read_checkpoint(folder)


def test_models_of_another_family_are_not_written(tmp_path: Path) -> None:
    """Settings that the layout cannot say, and a folder that is taken, are refused."""
    plain = replace(CONFIG, attention=replace(CONFIG.attention, qk_norm=False))
    with pytest.raises(ValueError, match=r"attention\.qk_norm: expected true"):
        write_hunyuan(LanguageModel(plain), tmp_path)
    alone = replace(CONFIG, ffn=replace(CONFIG.ffn, num_shared=0))
    with pytest.raises(ValueError, match=r"ffn\.num_shared: expected at least 1"):
        write_hunyuan(LanguageModel(alone), tmp_path)
    folder = saved(tmp_path)
    with pytest.raises(ValueError, match="expected a new or an empty folder"):
        write_hunyuan(LanguageModel(CONFIG), folder)


def test_types_and_doubles_are_named(tmp_path: Path) -> None:
    """Whole numbers, experts of two types, a tensor in two files."""
    folder = saved(tmp_path)
    file = next(folder.glob("*.safetensors"))
    weights = load_file(file)
    name = "model.layers.1.mlp.experts.3.up_proj.weight"
    save_file(weights | {name: weights[name].to(torch.int8)}, file)
    with pytest.raises(ValueError, match=r"3\.up_proj\.weight: expected type F32, .*, got I8"):
        read_checkpoint(folder)
    save_file(weights | {name: weights[name].bfloat16()}, file)
    with pytest.raises(ValueError, match=r"up_proj\.weight: expected F32 as the other experts"):
        read_checkpoint(folder)
    save_file(weights, file)
    save_file({name: weights[name]}, folder / "more.safetensors")
    index = folder / "model.safetensors.index.json"
    places = json.loads(index.read_text(encoding="utf-8"))
    places["weight_map"]["again"] = "more.safetensors"
    index.write_text(json.dumps(places), encoding="utf-8")
    with pytest.raises(ValueError, match=r"up_proj\.weight: expected once"):
        read_checkpoint(folder)


def test_stacked_experts_and_a_float32_router_are_read(tmp_path: Path) -> None:
    """Experts in one tensor, as transformers has them in memory; types stay as they were."""
    model = built().bfloat16()
    model.blocks[1].ffn.router.float()
    write_hunyuan(model, tmp_path)
    file = next(tmp_path.glob("*.safetensors"))
    weights = load_file(file)
    for layer in range(CONFIG.num_layers):
        experts = model.blocks[layer].ffn.experts
        prefix = f"model.layers.{layer}.mlp.experts."
        weights = {key: value for key, value in weights.items() if not key.startswith(prefix)}
        weights[prefix + "gate_up_proj"] = experts.gate_up.detach()
        weights[prefix + "down_proj"] = experts.down.detach()
    save_file(weights, file)
    back = read_checkpoint(tmp_path)
    assert back.blocks[1].ffn.router.weight.dtype == torch.float32
    assert back.blocks[0].ffn.router.weight.dtype == torch.bfloat16
    for name, weight in back.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])


def test_nothing_is_left_of_what_did_not_work(tmp_path: Path) -> None:
    """A full disk or an error in the middle leave no folder; what a kill has left is removed."""
    full = pytest.raises(ValueError, match=r"new: expected 1000000000\.0 GB of free disk, got")
    with full, fresh_folder(tmp_path / "new", 10**18):
        pass
    with pytest.raises(KeyError), fresh_folder(tmp_path / "new", 1) as partial:
        (partial / "file").write_text("half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".partial-new").mkdir()
    (tmp_path / ".partial-new" / "file").write_text("killed")
    with fresh_folder(tmp_path / "new", 1) as partial:
        (partial / "other").write_text("whole")
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "other"]
