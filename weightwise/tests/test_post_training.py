"""Fine-tuning and preference training in the loop: start, weights, reference, own answers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from weightwise.lm import LanguageModel
from weightwise.recipes import load_recipe
from weightwise.recipes.post import dpo, sft
from weightwise.train import load_model, read_metrics, to_toml, train
from weightwise.train.checkpoint import load_weights
from weightwise.train.examples import score_with
from weightwise.train.post import DPOExamples, SFTExamples, count_examples
from weightwise.train.recipe import from_dict, override, to_dict
from weightwise.train.start import prepare_data, starting_checkpoint

QUIET = Console(quiet=True)
SMALL = ("train.seq_length=48", "train.batch_size=4", "train.micro_batch_size=2")
FAST = (*SMALL, "train.eval_every=2", "train.save_every=2", "train.log_every=1")


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny matrices gain nothing from a second thread, and other jobs may need it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Chats and preferences about letters, and a cache."""
    folder = tmp_path_factory.mktemp("data")
    words = [chr(97 + i % 26) * (1 + i % 5) for i in range(40)]
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"say {w}{i}"},
                {"role": "assistant", "content": w},
            ]
        }
        for i, w in enumerate(words)
    ]
    pairs = [
        {"prompt": f"say {w}{i}", "chosen": w, "rejected": w.upper()} for i, w in enumerate(words)
    ]
    for name, rows in (("chats", chats), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def tuned(kind, chat_model, files, *changes, **options):
    """Recipe of a few steps."""
    make, name = {"sft": (sft, "chats"), "dpo": (dpo, "pairs")}[kind]
    wanted = ("data.valid_fraction=0.2", "schedule.peak_lr=1e-2", *FAST, *changes)
    path = files / f"{name}.jsonl"
    return make(chat_model, path, overrides=wanted, cache_dir=files / "cache", **options)


def rows_of(run_dir):
    """All rows without the speed, which no two runs share."""
    rows = read_metrics(run_dir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k != "tokens_per_s"} for row in rows]


def run(recipe, run_dir, files):
    """Train; returns the rows."""
    train(recipe, run_dir, cache_dir=files / "cache", console=QUIET)
    return rows_of(run_dir)


def test_recipes_take_over_the_model_and_the_papers_numbers(chat_model, files):
    """Model, tokenizer and batch of the checkpoint; three epochs; rates, dropouts, average."""
    recipe = sft(chat_model, files / "chats.jsonl", cache_dir=files / "cache")
    assert (recipe.model.attention.dropout, recipe.model.residual_dropout) == (0.1, 0.2)
    assert (recipe.schedule.peak_lr, recipe.schedule.min_lr_ratio) == (2e-5, 0.1)
    assert recipe.train.batch_size == 8
    data = prepare_data(recipe, files / "cache")
    assert recipe.train.steps == -(-3 * count_examples(recipe, data) // 8)
    given = dpo(chat_model, files / "pairs.jsonl", online=True, cache_dir=files / "cache")
    assert given.optimizer.average_decay == 0.999
    assert (given.data.beta, given.data.nll_coef) == (0.1, 0.2)
    assert (given.model.residual_dropout, given.train.micro_batch_size) == (0.0, 2)
    pairs = len(prepare_data(given, files / "cache").train) // 2
    assert given.train.steps == -(-2 * pairs // 8)
    for one in (recipe, given):
        assert from_dict(to_dict(one), origin="dict") == one


def test_older_recipes_stay_valid():
    """Data without a kind are text; chats and preferences need a start."""
    table = to_dict(load_recipe("tiny"))
    del table["data"]["kind"]
    assert from_dict(table, origin="old") == load_recipe("tiny")
    for kind in ("chats", "preferences"):
        with pytest.raises(
            ValueError, match=f"start: expected a checkpoint for data of kind {kind}"
        ):
            load_recipe("tiny", [f"data={{kind='{kind}', path='x'}}"])
    with pytest.raises(ValueError, match=r"data\.paths: expected one of path, valid_path"):
        load_recipe("tiny", ["data={kind='chats', paths='x'}"])
    with pytest.raises(ValueError, match=r"data\.kind: expected one of"):
        load_recipe("tiny", ["data.kind=images"])


def test_the_start_must_fit(chat_model, files, tmp_path):
    """A model of other weights is refused by field; how it is trained may differ."""
    recipe = tuned("sft", chat_model, files)
    assert starting_checkpoint(recipe).name == "step-000004"
    for change, field in [("model.width=64", "width"), ("model.norm_eps=1e-6", "norm_eps")]:
        other = from_dict(override(to_dict(recipe), [change]), origin="x")
        with pytest.raises(ValueError, match=rf"^model\.{field}: expected .* as in .*step-000004"):
            run(other, tmp_path / "run", files)
    with pytest.raises(ValueError, match="expected a checkpoint or the folder of a run"):
        run(replace(recipe, start=str(tmp_path)), tmp_path / "run", files)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_on_text_begins_with_the_weights_and_tokenizer_of_another(chat_model, tmp_path):
    """Its first evaluation is that of the checkpoint; the tokenizer is the same file."""
    before = load_model(chat_model)[2]
    recipe = replace(before, start=str(chat_model), train=replace(before.train, steps=2))
    train(recipe, tmp_path / "run", cache_dir=tmp_path / "cache", console=QUIET)
    first = rows_of(tmp_path / "run")[0]
    last = [row for row in rows_of(chat_model) if "valid_loss" in row][-1]
    assert first["step"] == 0
    assert first["valid_loss"] == last["valid_loss"]
    ours, theirs = (
        next((folder / "checkpoints").glob("step-*")) / "tokenizer.json"
        for folder in (tmp_path / "run", chat_model)
    )
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize(
    ("kind", "changes", "options"),
    [
        ("sft", (), {}),
        ("dpo", (), {}),
        ("dpo", ("data.reference=average", "optimizer.average_decay=0.8"), {}),
        ("dpo", ("data.online.max_new_tokens=4", "data.online.reward=reward_of_a_test:short"), {}),
    ],
)
def test_runs_learn_and_go_on_bit_for_bit(
    chat_model, files, tmp_path, monkeypatch, kind, changes, options
):
    """Four steps at once or two and two: the same rows and files, dropout and sampling included."""
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "def short(prompt, answer):\n    return -len(answer)\n"
    (tmp_path / "reward_of_a_test.py").write_text(code)
    steady = ("schedule.decay_steps=9", *changes)
    for name, stops in (("whole", [4]), ("parts", [2, 4])):
        for stop in stops:
            recipe = tuned(kind, chat_model, files, *steady, f"train.steps={stop}", **options)
            rows = run(recipe, tmp_path / name, files)
    assert rows == rows_of(tmp_path / "whole")
    one, two = (tmp_path / name / "checkpoints/step-000004" for name in ("whole", "parts"))
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    losses = [row["valid_loss"] for row in rows if "valid_loss" in row]
    assert losses[-1] < losses[0]
    if kind == "dpo":
        first = next(row for row in rows if "valid_margin" in row)
        assert (first["valid_margin"], first["valid_accuracy"]) == (0.0, 0.0)
        assert first["valid_loss"] == pytest.approx(np.log(2) + 0.2 * first["valid_nll"], rel=1e-5)
    if "data.online.max_new_tokens=4" in changes:
        assert any(row.get("train_online", 0) > 0 for row in rows)


def test_every_learnt_token_weighs_the_same_however_a_batch_is_cut(chat_model, files, tmp_path):
    """Micro-batches of one and of four sequences give the same losses and norms."""
    losses = []
    for micro in (1, 4):
        recipe = tuned(
            "sft", chat_model, files, "model.residual_dropout=0", "model.attention.dropout=0",
            f"train.micro_batch_size={micro}", "train.steps=3",
        )  # fmt: skip
        rows = run(recipe, tmp_path / str(micro), files)
        losses.append([row[k] for row in rows for k in ("train_loss", "grad_norm") if k in row])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_examples_of_a_split_have_the_loss_of_their_chats(chat_model, files):
    """Weights are numbers of targets, and the mean is over all of them, packed or not."""
    recipe = tuned("sft", chat_model, files)
    data = prepare_data(recipe, files / "cache")
    model = LanguageModel(recipe.model).eval()
    load_weights(model, starting_checkpoint(recipe))
    examples = SFTExamples(data.train, 48)
    index = np.arange(examples.count)
    assert examples.count < len(data.train)
    assert examples.weight(index) == data.train.num_targets_N.sum()
    alone = SFTExamples(data.train, int(data.train.length_N.max()) - 1)
    score = score_with(model, "float32")
    with torch.no_grad():
        packed = examples.measure(score, index)["loss"]
        other = alone.measure(score, np.arange(alone.count))["loss"]
    torch.testing.assert_close(packed, other, atol=1e-5, rtol=0)


def test_reference_is_computed_once_and_belongs_to_the_start(chat_model, files, tmp_path):
    """A second run reads it; other weights have another, and may not continue the run."""
    base = shutil.copytree(chat_model, tmp_path / "base")
    recipe = tuned("dpo", base, files, "train.steps=2")
    folder = prepare_data(recipe, files / "cache").folder
    for path in folder.glob("reference-*"):
        path.unlink()
    run(recipe, tmp_path / "one", files)
    (path,) = folder.glob("reference-*")
    written = path.stat().st_mtime_ns
    run(recipe, tmp_path / "two", files)
    assert path.stat().st_mtime_ns == written
    shorter = replace(load_model(base)[2], start=str(base))
    shorter = replace(shorter, train=replace(shorter.train, steps=2))
    train(shorter, tmp_path / "moved", cache_dir=files / "cache", console=QUIET)
    (other,) = (tmp_path / "moved/checkpoints").iterdir()
    start = starting_checkpoint(recipe)
    shutil.rmtree(start)
    shutil.copytree(other, start)
    with pytest.raises(ValueError, match=r"data: expected documents .* as in the run so far"):
        run(replace(recipe, train=replace(recipe.train, steps=2)), tmp_path / "one", files)


def test_own_answers_are_asked_for_half_of_the_time(chat_model, files):
    """An epoch is every pair of the file and every prompt once; what cannot be paired is file's."""
    recipe = tuned("dpo", chat_model, files, online=True)
    data = prepare_data(recipe, files / "cache")

    asked = []

    class NoPairs:
        def sample(self, numbers):
            asked.extend(numbers)
            return [None] * len(numbers)

    num_pairs = len(data.train) // 2
    table = torch.zeros(num_pairs, 2, dtype=torch.float64)
    both = DPOExamples(data.train, recipe.data, table, online=NoPairs())
    file = DPOExamples(data.train, recipe.data, table)
    assert both.count == 2 * num_pairs
    model = LanguageModel(recipe.model).eval()
    load_weights(model, starting_checkpoint(recipe))
    score = score_with(model, "float32")
    with torch.no_grad():
        ours = both.measure(score, np.array([1, num_pairs + 3]))
        theirs = file.measure(score, np.array([1, 3]))
    assert asked == [3]
    assert ours["online"] == 0
    assert ours["loss"] == theirs["loss"]


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("sft", "data.too_long=refuse", r"chats\.jsonl:\d+: length: expected at most 9 tokens"),
        ("sft", "data.valid_fraction=1e-9", r"data\.valid_fraction: expected to hold out"),
        ("dpo", "data.reference=average", r"data\.reference: expected start without"),
        ("dpo", "train.strategy=fsdp", r"train\.strategy: expected ddp"),
        ("dpo", "data.online.reward=nowhere", "expected a checkpoint or the folder of a run"),
    ],
)
def test_what_does_not_go_together_is_refused(chat_model, files, tmp_path, kind, change, message):
    """One line that names the field."""
    changes = [change, *(["train.seq_length=8"] if "too_long" in change else [])]
    if change == "data.reference=average":
        changes.append("optimizer.average_decay=none")
    options = {"online": True} if "strategy" in change else {}
    with pytest.raises(ValueError, match=message):
        run(tuned(kind, chat_model, files, *changes, **options), tmp_path / "run", files)


def test_recipes_of_runs_read_back(chat_model, files, tmp_path):
    """What is beside the checkpoint says what was trained on."""
    recipe = tuned("dpo", chat_model, files, online=True)
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe))
    assert load_recipe(path) == recipe


@pytest.mark.slow
def test_experts_learn_with_their_losses_on(tmp_path, files):
    """Balance loss in both; overflow is recycled in fine-tuning and unknown to preferences."""
    base = load_recipe("moe")
    base = replace(
        base,
        model=replace(base.model, vocab_size=384, width=32, num_layers=2),
        data=replace(load_recipe("tiny").data, chat_tokens=True),
        train=replace(base.train, steps=2),
    )
    train(base, tmp_path / "base", cache_dir=files / "cache", console=QUIET)
    overflow = {}
    for kind in ("sft", "dpo"):
        recipe = tuned(kind, tmp_path / "base", files, "train.steps=2")
        rows = [row for row in run(recipe, tmp_path / kind, files) if "lr" in row]
        assert all(row["balance_loss"] > 0 for row in rows)
        overflow[kind] = max(row["overflow"] for row in rows)
    assert overflow["sft"] > 0
    assert overflow["dpo"] == 0
