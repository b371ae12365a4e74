"""The training loop against slow, obvious references."""

import io
import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn

from weightwise.lm import LanguageModel
from weightwise.numerics import PrecisionConfig
from weightwise.optim import ScheduleConfig, learning_rate, parameter_groups
from weightwise.recipes import tiny
from weightwise.train import DivergedError, load_model, prepare, read_metrics, train
from weightwise.train.batches import BatchOrder, Windows, evaluation_windows
from weightwise.train.checkpoint import list_checkpoints, verify
from weightwise.train.trainer import micro_batch_size

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny matrices gain nothing from a second thread, and other jobs may need it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Prepared data for all tests of this file."""
    return tmp_path_factory.mktemp("cache")


def short(steps=6, **train_settings):
    """The tiny recipe with few steps, one evaluation and one checkpoint."""
    base = tiny()
    settings = {"steps": steps, "eval_every": steps, "save_every": steps, **train_settings}
    return replace(base, train=replace(base.train, **settings))


def losses(run_dir, name="train_loss"):
    """One column of a run's metrics."""
    return [row[name] for row in read_metrics(run_dir / "metrics.jsonl") if name in row]


def test_loop_makes_the_steps_of_a_hand_written_one(tmp_path, cache):
    """Same data, initial weights, clipping, schedule and torch.optim.AdamW: same losses."""
    recipe = short(steps=8, micro_batch_size=8)
    train(recipe, tmp_path, cache_dir=cache, console=QUIET)
    data = prepare(recipe.data, recipe.model.vocab_size, cache)
    windows = Windows(data.train, 32, "train")
    order = BatchOrder(windows.count, 8, recipe.seed)
    model = LanguageModel(recipe.model)
    model.initialize(torch.Generator().manual_seed(recipe.seed))
    # The head is tied to the embedding, so matrices that decay are those of the blocks.
    matrices = [w for w in model.blocks.parameters() if w.ndim == 2]
    others = [w for w in model.parameters() if all(w is not m for m in matrices)]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, fused=True)
    expected = []
    for step in range(1, 9):
        tokens, targets = windows.read(order.windows(step))
        loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe.schedule, step, 8)
        optimizer.step()
        expected.append(loss.item())
    assert losses(tmp_path) == expected
    # An untrained model guesses evenly: ln 384 = 5.951.
    assert abs(expected[0] - math.log(384)) < 0.05


@pytest.mark.slow
def test_accumulated_micro_batches_equal_the_whole_batch(tmp_path, cache):
    """8 sequences at once, or 4 times 2: the same losses and norms up to rounding."""
    for micro in (8, 2):
        recipe = short(micro_batch_size=micro)
        train(recipe, tmp_path / str(micro), cache_dir=cache, console=QUIET)
    for name in ("train_loss", "grad_norm", "valid_loss"):
        whole, parts = losses(tmp_path / "8", name), losses(tmp_path / "2", name)
        assert whole == pytest.approx(parts, abs=1e-5)
        assert whole


def test_same_seed_same_bits_other_seed_other_bits(tmp_path, cache):
    """The seed decides weights and order, and nothing else does."""
    runs = [short(), short(), replace(short(), seed=2)]
    for number, recipe in enumerate(runs):
        train(recipe, tmp_path / str(number), cache_dir=cache, console=QUIET)
    first, again, other = (losses(tmp_path / str(number)) for number in range(3))
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("format_name", [None, "e4m3", "e2m1"])
def test_saved_model_scores_text_as_the_run_did(tmp_path, cache, format_name):
    """Loaded weights give the recorded validation loss, with the format of the training."""
    recipe = replace(short(), precision=PrecisionConfig(format=format_name))
    result = train(recipe, tmp_path, cache_dir=cache, console=QUIET)
    model, tokenizer, loaded = load_model(result.checkpoint)
    assert loaded == recipe
    data = prepare(recipe.data, recipe.model.vocab_size, cache)
    assert tokenizer.encode("def f():") == data.tokenizer.encode("def f():")
    windows = Windows(data.valid, 32, "valid")
    token_BT, target_BT = windows.read(evaluation_windows(windows.count, 4 * 8))
    with torch.no_grad():
        loss = F.cross_entropy(model(token_BT).flatten(0, 1), target_BT.flatten())
    assert result.valid_loss == pytest.approx(loss.item(), abs=1e-5)
    assert losses(tmp_path, "valid_loss") == [result.valid_loss]


@pytest.mark.slow
def test_fewer_bits_change_the_numbers(tmp_path, cache):
    """A run in four bits is another run, in bfloat16 nearly the same, and both learn."""
    base = short(steps=20)
    arms = {
        "float32": base,
        "bfloat16": replace(base, train=replace(base.train, dtype="bfloat16")),
        "e2m1": replace(base, precision=PrecisionConfig(format="e2m1")),
    }
    for name, recipe in arms.items():
        train(recipe, tmp_path / name, cache_dir=cache, console=QUIET)
    exact, half, four = (losses(tmp_path / name) for name in arms)
    # 8 bits of mantissa: relative steps of 0.4 %, averaged over 256 tokens.
    assert exact != half
    assert half == pytest.approx(exact, abs=0.05)
    assert four != half
    assert all(run[-1] < run[0] - 0.5 for run in (exact, half, four))


def test_metrics_rows_say_what_was_asked_for(tmp_path, cache):
    """Training rows every 2 steps and at the end, evaluation rows every 3 and at the end."""
    recipe = short(steps=7, log_every=2, eval_every=3)
    train(recipe, tmp_path, cache_dir=cache, console=QUIET)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    logged = [row["step"] for row in rows if "train_loss" in row]
    evaluated = [row["step"] for row in rows if "valid_loss" in row]
    assert logged == [2, 4, 6, 7]
    assert evaluated == [3, 6, 7]
    # 8 sequences of 32 tokens a step.
    assert all(row["tokens"] == row["step"] * 256 for row in rows)
    assert set(rows[0]) == {"step", "tokens", "train_loss", "lr", "grad_norm", "tokens_per_s"}
    assert rows[0]["lr"] == learning_rate(recipe.schedule, 2, 7)


def test_divergence_stops_before_the_step_and_keeps_the_checkpoint(tmp_path, cache):
    """An absurd learning rate: a clear message, no row of NaN, and a whole checkpoint."""
    recipe = replace(
        short(steps=6, save_every=1),
        schedule=ScheduleConfig(kind="constant", peak_lr=1e30),
    )
    with pytest.raises(DivergedError) as caught:
        train(recipe, tmp_path, cache_dir=cache, console=QUIET)
    checkpoint = list_checkpoints(tmp_path / "checkpoints")[-1]
    assert verify(checkpoint).step == 1
    message = str(caught.value)
    assert message.startswith("step 2: loss is ")
    assert str(checkpoint) in message
    assert "schedule.peak_lr" in message
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1]


def test_batch_must_split_over_the_processes():
    """Seven sequences fit one process and not two; eight go to two as twice four."""
    seven = short(batch_size=7, micro_batch_size=None).train
    assert micro_batch_size(seven, 1) == 7
    with pytest.raises(ValueError, match=r"multiple of 3 sequences x 2 processes, got 7"):
        micro_batch_size(seven, 2)
    assert micro_batch_size(replace(seven, batch_size=8), 2) == 4
    assert micro_batch_size(replace(seven, batch_size=8, micro_batch_size=2), 2) == 2


def test_plain_console_gets_a_line_per_row(tmp_path, cache):
    """Pipes and logs get loss, speed and validation as plain text."""
    text = io.StringIO()
    train(short(steps=2), tmp_path, cache_dir=cache, console=Console(file=text))
    lines = text.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("step 1/2  loss 5.9")
    assert lines[0].endswith("tokens/s")
    assert lines[2].startswith("step 2/2  validation ")


def test_terminal_gets_a_bar_with_loss_and_time_left(tmp_path, cache):
    """Terminals see the count, the newest numbers and the time left."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    train(short(steps=2), tmp_path, cache_dir=cache, console=console)
    assert "2/2" in text.getvalue()
    assert "validation " in text.getvalue()


def test_tensorboard_files_hold_the_losses(tmp_path, cache):
    """Asked for, the same numbers go to TensorBoard."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(short(steps=3, tensorboard=True), tmp_path, cache_dir=cache, console=QUIET)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [event.value for event in events.Scalars("train_loss")]
    assert shown == pytest.approx(losses(tmp_path))


def test_schedule_passes_through_its_corners():
    """Warm-up of 10 to 1.0, then to 0.1 at step 110; half-way the mean of both."""
    for kind, half_way in (("cosine", 0.55), ("linear", 0.55), ("constant", 1.0)):
        config = ScheduleConfig(kind=kind, peak_lr=1.0, warmup_steps=10, min_lr_ratio=0.1)
        assert learning_rate(config, 1, 110) == pytest.approx(0.1)
        assert learning_rate(config, 10, 110) == 1.0
        assert learning_rate(config, 60, 110) == pytest.approx(half_way)
        end = 1.0 if kind == "constant" else 0.1
        assert learning_rate(config, 110, 110) == pytest.approx(end)
    quarter = ScheduleConfig(peak_lr=1.0)
    # (1 + cos(pi / 4)) / 2 = 0.8536
    assert learning_rate(quarter, 25, 100) == pytest.approx(0.853553, abs=1e-6)
    assert learning_rate(quarter, 100, 100) == pytest.approx(0.0)


def test_schedule_with_decay_steps_does_not_depend_on_the_length_of_the_run():
    """After the last decay step the floor is kept."""
    config = ScheduleConfig(peak_lr=1.0, decay_steps=50, min_lr_ratio=0.2)
    assert learning_rate(config, 30, 60) == learning_rate(config, 30, 600)
    assert learning_rate(config, 500, 600) == pytest.approx(0.2)


def test_run_shorter_than_its_warm_up_stays_on_the_slope():
    """Step 3 of 4 in a warm-up of 10: three tenths of the peak."""
    config = ScheduleConfig(peak_lr=1.0, warmup_steps=10)
    assert learning_rate(config, 3, 4) == pytest.approx(0.3)


def test_only_matrices_decay():
    """Embeddings, tied heads, gains and biases do not; an untied head and linear weights do."""
    config = replace(tiny().model, tie_embeddings=False)
    for model_config, decaying in ((config, 2 * 7 + 1), (tiny().model, 2 * 7)):
        # Two blocks of seven matrices: query, key, value, output, gate, up, down.
        decayed, kept = parameter_groups(LanguageModel(model_config), 0.1)
        assert len(decayed["params"]) == decaying
        assert decayed["weight_decay"] == 0.1
        # Embedding, two gains a block, the last gain.
        assert len(kept["params"]) == 1 + 2 * 2 + 1
        assert kept["weight_decay"] == 0.0
    decayed, kept = parameter_groups(nn.Linear(2, 3), 0.1)
    assert [w.shape for w in decayed["params"]] == [(3, 2)]
    assert [w.shape for w in kept["params"]] == [(3,)]
