"""`weightwise sft` and `weightwise dpo` as a user calls them: alone, killed, in two processes."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from weightwise.cli import main
from weightwise.lm.post.tasks import TASKS, WORDS, wrong_answer
from weightwise.train import load_model, read_metrics

FAST = (
    "train.seq_length=48", "train.batch_size=4", "train.micro_batch_size=2", "train.log_every=1",
    "train.eval_every=2", "train.save_every=2", "schedule.peak_lr=1e-2", "data.valid_fraction=0.2",
)  # fmt: skip
IN_TWO = (str(Path(__file__).with_name("launch.py")), "2")


def write_rows(path, rows):
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Chats and preferences of the same small tasks."""
    folder = tmp_path_factory.mktemp("tasks")
    draw = np.random.default_rng(0)
    chats, pairs = [], []
    for number in range(60):
        task = TASKS[number % len(TASKS)]
        arguments = task.draw(draw, 0)
        question, right = task.write(draw, arguments), task.solve(arguments)
        messages = [("user", question), ("assistant", right)]
        chats.append({"messages": [{"role": r, "content": c} for r, c in messages]})
        pairs.append({"prompt": question, "chosen": right, "rejected": wrong_answer(draw, right)})
    write_rows(folder / "chats.jsonl", chats)
    write_rows(folder / "pairs.jsonl", pairs)
    return folder


@pytest.fixture
def call(monkeypatch, capsys, data, tmp_path):
    """Run a command within this process, in an empty folder; gives code, stdout and stderr."""
    monkeypatch.setenv("WEIGHTWISE_CACHE", str(data / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.slow
def test_chats_then_preferences_then_a_text(call, chat_model, data):
    """Each run begins with the one before; words and JSON tell the held-out change."""
    code, out, err = call("sft", chat_model, data / "chats.jsonl", "--set", *FAST)
    assert code == 0, err
    assert out.startswith("base-sft: ")
    assert "held-out loss " in out
    assert "records to learn from" in err
    words = ("dpo", "out/base-sft", data / "pairs.jsonl", "--out", "d", "--epochs", "0.5")
    code, out, _ = call(*words, "--json", "--set", *FAST, "optimizer.average_decay=0.5")
    result = json.loads(out)
    before, after = result["held_out"]["before"], result["held_out"]["after"]
    assert (code, result["is_complete"], before["accuracy"]) == (0, True, 0.0)
    assert after["accuracy"] > 0
    assert set(after) == {"loss", "margin", "accuracy", "ranking", "nll"}
    again = call(*words, "--json", "--set", *FAST, "optimizer.average_decay=0.5")
    assert again == (0, out, "")
    assert call("generate", "d", "--max-new-tokens", "4")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sft", "nowhere", "c.jsonl"), "nowhere: expected a checkpoint or the folder of a run"),
        (("sft", "{base}", "none.jsonl"), "none.jsonl: expected a readable file"),
        (("sft", "{base}", "bad.jsonl"), "bad.jsonl:2: messages[0].role: expected one of system"),
        (("sft", "{base}", "empty.jsonl"), "data.path: expected records to learn from"),
        (("dpo", "{base}", "bad.jsonl"), "bad.jsonl:1: prompt: messages: expected a list"),
        (("sft", "{base}", "bad.jsonl", "--epochs", "0"), "epochs: expected a finite number above"),
        (("dpo", "{base}", "bad.jsonl", "--set", "data.beta=0"), "data.beta: expected more than 0"),
        (("sft", "{base}", "bad.jsonl", "--set", "data.beta=1"), "data.beta: expected one of path"),
    ],
)
def test_bad_input_gets_one_line_and_code_2(call, chat_model, tmp_path, words, message):
    """File, line and field; nothing is written."""
    good = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    bad = {"messages": [{"role": "robot", "content": "q"}]}
    write_rows(tmp_path / "bad.jsonl", [good, bad])
    (tmp_path / "empty.jsonl").write_text("\n")
    code, out, err = call(*(word.format(base=chat_model) for word in words))
    assert (code, out) == (2, ""), err
    assert message in err
    assert err.startswith("weightwise: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_without_chat_is_refused(call, chat_model, data):
    """The line says what to do."""
    code, _, _ = call("train", "tiny", "--set", "train.steps=1")
    assert code == 0
    code, out, err = call("sft", "out/tiny", data / "chats.jsonl")
    assert (code, out) == (2, "")
    assert "tokenizer: expected chat tokens" in err


def untimed(run_dir):
    """All rows without the speed."""
    rows = read_metrics(run_dir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k != "tokens_per_s"} for row in rows]


COMMANDS = {
    "sft": ("chats.jsonl", "train.steps=40"),
    "dpo": ("pairs.jsonl", "train.steps=30", "data.online.max_new_tokens=6"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpo"])
def test_killed_without_warning_and_called_again(start, tmp_path, chat_model, data, name):
    """Killed in the middle, the same command ends with the rows and weights of one never killed."""
    file, *changes = COMMANDS[name]
    cache = data / "cache"

    def words(out):
        settings = (*FAST, *changes, "optimizer.average_decay=0.9")
        return (
            "-m", "weightwise", name, chat_model, data / file, "--out", out, "--set", *settings,
        )  # fmt: skip

    start(*words(tmp_path / "whole"), WEIGHTWISE_CACHE=cache).finish()
    killed = tmp_path / "killed"
    with start(*words(killed), WEIGHTWISE_CACHE=cache) as process:
        while len(list(killed.glob("checkpoints/step-*"))) == 0:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    start(*words(killed), WEIGHTWISE_CACHE=cache).finish()
    assert untimed(killed) == untimed(tmp_path / "whole")
    ours, theirs = (
        max((tmp_path / run / "checkpoints").glob("step-*")) / "model.safetensors"
        for run in ("killed", "whole")
    )
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft"])
def test_two_processes_make_the_steps_of_one(start, tmp_path, chat_model, data, name):
    """Dropout, packing and own answers are those of the micro-batch, not of the process."""
    file, *_ = COMMANDS[name]
    changes = ("train.steps=6", *(COMMANDS[name][2:]))
    for out, launcher in (("one", ()), ("two", IN_TWO)):
        words = (
            *launcher, "-m", "weightwise", name, chat_model, data / file,
            "--out", tmp_path / out, "--set", *FAST, *changes,
        )  # fmt: skip
        start(*words, WEIGHTWISE_CACHE=data / "cache").finish()
    for one, two in zip(untimed(tmp_path / "one"), untimed(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, abs=1e-4)


@pytest.mark.slow
def test_preferences_raise_held_out_accuracy_after_chats(call, chat_model, tmp_path):
    """Fine-tuning lowers the held-out loss; preferences settle what the chats left open.

    Half of the chats shout their answer. On words that no preference was about, the model then
    finds the quiet answer likelier.
    """
    draw = np.random.default_rng(1)
    chats, pairs = [], []
    for word in WORDS:
        question, quiet, loud = f"Say {word}.", word, word.upper()
        messages = [("user", question), ("assistant", str(draw.choice([quiet, loud])))]
        chats.append({"messages": [{"role": r, "content": c} for r, c in messages]})
        pairs.append({"prompt": question, "chosen": quiet, "rejected": loud})
    write_rows(tmp_path / "chats.jsonl", chats)
    write_rows(tmp_path / "pairs.jsonl", pairs)
    common = (
        "data.valid_fraction=0.25", "train.seq_length=64", "train.batch_size=8",
        "schedule.peak_lr=1e-2",
    )  # fmt: skip
    dropouts = ("model.residual_dropout=0.0", "model.attention.dropout=0.0")
    words = ("sft", chat_model, tmp_path / "chats.jsonl", "--out", "s", "--epochs", "30")
    code, out, err = call(*words, "--json", "--set", *common, *dropouts)
    assert code == 0, err
    tuned = json.loads(out)["held_out"]
    assert tuned["after"]["loss"] < tuned["before"]["loss"] - 1
    words = ("dpo", "s", tmp_path / "pairs.jsonl", "--out", "d", "--epochs", "4", "--json")
    code, out, err = call(*words, "--set", *common, "schedule.peak_lr=2e-3",
                          "optimizer.average_decay=0.9")  # fmt: skip
    assert code == 0, err
    found = json.loads(out)["held_out"]
    assert found["before"]["ranking"] < 0.7
    assert found["after"]["ranking"] > 0.9
    assert found["after"]["accuracy"] > 0.9
    assert load_model(tmp_path / "d")[2].name == "base-sft-dpo"
