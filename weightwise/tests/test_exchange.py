"""Checkpoints in and out with their tokenizers, as the command line converts them."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from weightwise.cli import main
from weightwise.lm import (
    GQAConfig,
    LanguageModel,
    ModelConfig,
    MoEConfig,
    Tokenizer,
    train_tokenizer,
)
from weightwise.lm.chat import ChatTemplate, Message
from weightwise.lm.convert import read_checkpoint, write_hunyuan
from weightwise.lm.hunyuan import config_of
from weightwise.lm.tiktoken import BYTES, write_ranks
from weightwise.train import CheckpointError, load_model, read_recipe
from weightwise.train.exchange import export_hunyuan, import_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

transformers = pytest.importorskip("transformers")
WORDS = train_tokenizer(["whales are large and they sing\n"], 290, chat_tokens=True)
CONFIG = ModelConfig(
    vocab_size=480,
    width=48,
    num_layers=4,
    max_length=64,
    attention=GQAConfig(num_heads=6, num_kv_heads=2, head_width=12, qk_norm=True, rope_alpha=50.0),
    ffn=MoEConfig(hidden=40, num_experts=6, top_k=2),
    init_std=0.1,
)
SHARED = replace(
    CONFIG,
    attention=replace(CONFIG.attention, share_factor=2),
    ffn=replace(CONFIG.ffn, top_k=1),
)
TALK = [
    Message(role="system", content="be brief"),
    Message(role="user", content="are whales large?"),
    Message(role="assistant", content="they are"),
    Message(role="user", content="and do they sing <3?"),
]


def built(config: ModelConfig = CONFIG) -> LanguageModel:
    """A model with new weights, gains other than 1."""
    model = LanguageModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    model.initialize(generator)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.uniform_(0.5, 1.5, generator=generator)
    return model


def theirs(folder: Path, config: ModelConfig = CONFIG) -> Path:
    """A checkpoint of the family with a tokenizer.json."""
    write_hunyuan(built(config), folder, max_shard_bytes=100_000)
    WORDS.save(folder / "tokenizer.json")
    return folder


@pytest.fixture
def call(monkeypatch, capsys, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """Run a command within this process, in an empty folder; gives code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_in_and_out_again_and_into_transformers(call, tmp_path: Path) -> None:
    """Weights survive bit for bit, and transformers scores the same text the same."""
    theirs(tmp_path / "hf")
    code, out, err = call("convert", "hf", "--out", "ours", "--json")
    told = json.loads(out)
    assert (code, told["direction"], told["folder"], err) == (0, "in", "ours", "")
    model, words, recipe = load_model("ours")
    assert (recipe.name, recipe.model) == ("hf", CONFIG)
    for name, weight in built().state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])
    assert told["num_parameters"] == sum(weight.numel() for weight in model.parameters())
    code, out, err = call("convert", "ours", "--out", "back", "--shard-gb", "0.0001")
    assert (code, err) == (0, "")
    assert out.startswith("ours: ")
    assert len(list((tmp_path / "back").glob("*.safetensors"))) > 1
    peer = transformers.AutoModelForCausalLM.from_pretrained("back", attn_implementation="eager")
    assert isinstance(peer, transformers.HunYuanMoEV1ForCausalLM)
    token_BT = torch.tensor([words.encode("whales are large and they sing")])
    torch.testing.assert_close(peer(token_BT).logits, model(token_BT), rtol=0, atol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {"hf", "ours", "back"}


def test_their_tokenizer_is_ours(tmp_path: Path) -> None:
    """Same ids of text and of a conversation, same special tokens, same text from ids."""
    import_checkpoint(theirs(tmp_path / "hf"), tmp_path / "ours")
    export_hunyuan(tmp_path / "ours", tmp_path / "back")
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    for text in ("whales sing", "Größe 专家 123  \n\n x", "\t<3"):
        assert peer(text, add_special_tokens=True)["input_ids"] == WORDS.encode(text)
        assert peer.decode(WORDS.encode(text)) == text
    special = WORDS.special_tokens
    assert (peer.eos_token_id, peer.pad_token_id) == (special["<|eos|>"], special["<|pad|>"])
    turns = [{"role": one.role, "content": one.content} for one in TALK]
    found = peer.apply_chat_template(turns, tokenize=True, return_dict=False)
    assert found == ChatTemplate(WORDS).encode(TALK)
    settings = transformers.GenerationConfig.from_pretrained(tmp_path / "back")
    assert settings.eos_token_id == [
        special[name] for name in ("<|eos|>", "<|extra_5|>", "<|endoftext|>")
    ]
    assert settings.bos_token_id == special["<|startoftext|>"]


def test_a_tokenizer_without_chat_is_exported_without_a_template(tmp_path: Path) -> None:
    """Documents end with <|endoftext|> then, and generation with it."""
    folder = theirs(tmp_path / "hf")
    plain = train_tokenizer(["whales are large and they sing\n"], 280)
    plain.save(folder / "tokenizer.json")
    import_checkpoint(folder, tmp_path / "ours")
    export_hunyuan(tmp_path / "ours", tmp_path / "back")
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    assert peer.chat_template is None
    assert peer.eos_token_id == plain.eos_id
    assert peer("whales sing")["input_ids"] == plain.encode("whales sing")


def released(folder: Path) -> dict[str, torch.Tensor]:
    """A checkpoint as the released Hunyuan-Large is laid out, made without our writer.

    bfloat16 with float32 routers, tied, every expert by itself, biases that are switched off,
    no keys in every other layer, lists of equal numbers, a rank file with a token twice.
    """
    width, hidden, heads, head_width, kv_heads = 48, 40, 6, 12, 2
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).mul(0.1).to(dtype)

    tensors = {"model.embed_tokens.weight": drawn(480, width), "model.norm.weight": drawn(width)}
    for layer in range(4):
        at = f"model.layers.{layer}."
        shapes = {
            "input_layernorm": (width,),
            "post_attention_layernorm": (width,),
            "self_attn.q_proj": (heads * head_width, width),
            "self_attn.o_proj": (width, heads * head_width),
            "self_attn.query_layernorm": (head_width,),
            "self_attn.key_layernorm": (head_width,),
        }
        if layer % 2 == 0:
            shapes |= {f"self_attn.{one}_proj": (kv_heads * head_width, width) for one in "kv"}
        for mlp in ("mlp.shared_mlp", *(f"mlp.experts.{expert}" for expert in range(6))):
            shapes |= {f"{mlp}.gate_proj": (hidden, width), f"{mlp}.up_proj": (hidden, width)}
            shapes[f"{mlp}.down_proj"] = (width, hidden)
        tensors |= {f"{at}{name}.weight": drawn(*shape) for name, shape in shapes.items()}
        tensors[f"{at}self_attn.q_proj.bias"] = torch.zeros(heads * head_width).bfloat16()
        tensors[f"{at}self_attn.rotary_emb.inv_freq"] = torch.zeros(6)
        tensors[f"{at}mlp.gate.wg.weight"] = drawn(6, width, dtype=torch.float32)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    settings = config_of(SHARED)
    del settings["rope_parameters"], settings["head_dim"]
    settings |= {
        "rope_scaling": {"type": "dynamic", "alpha": 50.0, "factor": 1.0, "beta_fast": 32},
        "num_shared_expert": [1] * 4,
        "moe_topk": [1] * 4,
        "capacity_factor": 1.0,
        "moe_drop_tokens": False,
    }
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    tokens = [*BYTES, b"ab", b"a", b"abc"]
    lines = (b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens))
    (folder / "hy.tiktoken").write_bytes(b"".join(lines))
    return tensors


def test_the_released_layout_comes_in(call, tmp_path: Path) -> None:
    """Every tensor finds its place, keeps its type, and what is idle is told."""
    given = released(tmp_path / "large")
    code, out, err = call("convert", "large", "--out", "ours")
    assert code == 0
    assert "saved as a checkpoint in ours" in out
    told = " ".join(err.split())
    assert "8 tensors that the model has no use for are left out, such as model.layers.0." in told
    weights = load_file(tmp_path / "ours" / "model.safetensors")
    assert weights["blocks.2.ffn.router.weight"].dtype == torch.float32
    assert weights["blocks.2.ffn.experts.gate_up"].dtype == torch.bfloat16
    at = "model.layers.2.mlp.experts.5."
    gate, up = weights["blocks.2.ffn.experts.gate_up"][5].chunk(2)
    assert torch.equal(gate, given[at + "gate_proj.weight"])
    assert torch.equal(up, given[at + "up_proj.weight"])
    assert torch.equal(weights["blocks.2.ffn.experts.down"][5], given[at + "down_proj.weight"])
    _, words, recipe = load_model("ours")
    assert recipe.model == SHARED
    assert words.ranks() == [*BYTES, b"ab", b"abc"]
    assert words.encode("abc") == [257]
    assert words.vocab_size == 258 + 209


def test_the_released_layout_goes_out(call, tmp_path: Path) -> None:
    """Names, shapes and values are those that came in; a note says who can read them."""
    given = released(tmp_path / "large")
    call("convert", "large", "--out", "ours")
    code, _, err = call("convert", "ours", "--out", "back")
    assert code == 0
    assert "transformers has no class for it" in " ".join(err.split())
    found: dict[str, torch.Tensor] = {}
    for file in (tmp_path / "back").glob("*.safetensors"):
        found |= load_file(file)
    wanted = {name for name in given if not name.endswith((".bias", "inv_freq"))}
    assert found.keys() == wanted
    assert all(torch.equal(found[name], given[name]) for name in wanted)
    assert all(found[name].dtype == given[name].dtype for name in wanted)
    settings = json.loads((tmp_path / "back" / "config.json").read_text(encoding="utf-8"))
    assert settings["model_type"] == "hunyuan"
    assert settings["rope_scaling"] == {"type": "dynamic", "alpha": 50.0, "factor": 1.0}
    assert settings["pad_token_id"] == 258 + 4
    assert read_checkpoint(tmp_path / "back").config == SHARED


def test_one_expert_is_told_about(tmp_path: Path) -> None:
    """Transformers weighs it by 1, which the user should know."""
    config = replace(CONFIG, ffn=replace(CONFIG.ffn, top_k=1))
    import_checkpoint(theirs(tmp_path / "hf", config), tmp_path / "ours")
    notes = export_hunyuan(tmp_path / "ours", tmp_path / "back").notes
    assert len(notes) == 1
    assert "transformers gives it the weight 1" in notes[0]


def test_the_tokenizer_may_come_from_elsewhere(call, tmp_path: Path) -> None:
    """A folder without one needs it; with too many ids for the model it is refused."""
    write_hunyuan(built(), tmp_path / "hf")
    code, _, err = call("convert", "hf", "--out", "ours")
    assert code == 2
    assert "hf: expected tokenizer.json or hy.tiktoken, found none" in err
    write_ranks(tmp_path / "a.tiktoken", [*BYTES, *(bytes([65, i]) for i in range(100))])
    code, _, err = call("convert", "hf", "--out", "ours", "--tokenizer", "a.tiktoken")
    assert code == 2
    assert "tokenizer: expected at most vocab_size = 480 token ids, got 565" in err
    write_ranks(tmp_path / "b.tiktoken", BYTES)
    assert call("convert", "hf", "--out", "ours", "--tokenizer", "b.tiktoken")[0] == 0
    assert Tokenizer.load(tmp_path / "ours" / "tokenizer.json").ranks() == BYTES
    code, _, err = call("convert", "ours", "--out", "x", "--tokenizer", "b.tiktoken")
    assert code == 2
    assert "tokenizer: expected only for a checkpoint that comes in" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("convert", "nowhere", "--out", "x"), "nowhere: expected a checkpoint or the folder of"),
        (("convert", "hf", "--out", "hf"), "hf: expected a new or an empty folder"),
        (("convert", "broken", "--out", "x"), "broken: model.layers.0.self_attn.k_proj.weight: "),
        (("convert", "odd", "--out", "x"), "config.json: hidden_act: expected 'silu', got 'gelu'"),
        (("convert", "hf", "--out", "x", "--shard-gb", "0"), "shard_gb: expected more than 0"),
    ],
)
def test_bad_input_gets_one_line_and_nothing_is_written(
    call, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    """The line names file and tensor or field."""
    theirs(tmp_path / "hf")
    for name in ("broken", "odd"):
        write_hunyuan(built(), tmp_path / name)
        WORDS.save(tmp_path / name / "tokenizer.json")
    file = next((tmp_path / "broken").glob("*.safetensors"))
    weights = load_file(file)
    del weights["model.layers.0.self_attn.k_proj.weight"]
    save_file(weights, file)
    settings = json.loads((tmp_path / "odd" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "odd" / "config.json").write_text(json.dumps(settings | {"hidden_act": "gelu"}))
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert err.startswith("weightwise: ")
    assert message in err
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"hf", "broken", "odd"}


@pytest.mark.slow
def test_a_damaged_checkpoint_of_ours_is_not_exported(tmp_path: Path) -> None:
    """Its checksum is looked at, and its tensors are those of its recipe."""
    import_checkpoint(theirs(tmp_path / "hf"), tmp_path / "ours")
    file = tmp_path / "ours" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: expected checksum"):
        export_hunyuan(tmp_path / "ours", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_the_recipe_of_an_import_is_whole(tmp_path: Path) -> None:
    """It reads back, with the name of the folder made fit for a run."""
    import_checkpoint(theirs(tmp_path / "my model (v2)"), tmp_path / "ours")
    recipe = read_recipe(tmp_path / "ours" / "recipe.toml")
    assert recipe.name == "my-model-v2-"
    assert recipe.train.seq_length == 64
