"""Commands that write text: generate, chat and serve as people call them."""

from __future__ import annotations

import io
import json
import signal
from http.client import HTTPConnection

import pytest
import torch

from weightwise.cli import main
from weightwise.cli.chat import Conversation
from weightwise.lm.beams import beam_search
from weightwise.lm.chat import ChatTemplate
from weightwise.lm.sampling import CHAT_SAMPLING
from weightwise.train import load_model


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of a few steps: plain, and chat with the chat tokens."""
    folder = tmp_path_factory.mktemp("runs")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEIGHTWISE_CACHE", str(folder / "cache"))
        few = ("--set", "train.steps=2", "schedule.warmup_steps=1")
        assert main(["train", "tiny", "--out", str(folder / "plain"), *few]) == 0
        chat = ("data.chat_tokens=true", "name=talker")
        assert main(["train", "tiny", "--out", str(folder / "chat"), *few, *chat]) == 0
    yield folder
    torch.set_num_threads(before)


class Input(io.StringIO):
    """Standard input that is or is no terminal."""

    def __init__(self, text: str, *, is_terminal: bool = False) -> None:
        super().__init__(text)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        """Whether a person types."""
        return self._is_terminal


@pytest.fixture
def call(monkeypatch, capsys, runs):
    """Run a command within this process; gives code, stdout and stderr."""

    def run(*words, stdin=""):
        monkeypatch.setattr("sys.stdin", stdin if isinstance(stdin, Input) else Input(stdin))
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    capsys.readouterr()
    return run


def records(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.slow
def test_several_prompts_come_in_order_and_as_alone(call, runs, tmp_path):
    """Prompts of the words, of a file and of standard input; each has the text it has alone."""
    (tmp_path / "prompts.txt").write_text("import os\n\nclass Ä:\n", encoding="utf-8")
    words = ("generate", runs / "plain", "--max-new-tokens", "9", "--json")
    code, out, err = call(*words, "--prompt", "def f", "--prompts", tmp_path / "prompts.txt")
    assert (code, err) == (0, "")
    together = records(out)
    assert [row["prompt"] for row in together] == ["def f", "import os", "class Ä:"]
    for row in together:
        _, out, _ = call(*words, "--prompt", row["prompt"])
        assert records(out) == [row]
    (tmp_path / "p.jsonl").write_text('{"prompt": "def f"}\n{"prompt": "a\\nb"}\n')
    code, out, _ = call(*words, "--prompts", tmp_path / "p.jsonl")
    assert [row["prompt"] for row in records(out)] == ["def f", "a\nb"]
    assert records(out)[0] == together[0]
    code, out, _ = call(*words, "--prompts", "-", stdin="def f\nimport os\n")
    assert records(out) == together[:2]


def test_samples_have_seeds_in_turn(call, runs):
    """Sample i of seed 5 is sample 0 of seed 5 + i; without --json they stand below each other."""
    words = ("generate", runs / "plain", "--max-new-tokens", "9", "--prompt", "def f")
    _, out, _ = call(*words, "--seed", "5", "--samples", "3", "--json")
    rows = records(out)
    assert [row["sample"] for row in rows] == [0, 1, 2]
    _, out, _ = call(*words, "--seed", "7", "--json")
    assert records(out)[0]["text"] == rows[2]["text"]
    code, out, _ = call(*words, "--seed", "5", "--samples", "2")
    assert code == 0
    assert out == "".join(
        f"--- {i} of 2\ndef f{row['text']}\n" for i, row in enumerate(rows[:2], start=1)
    )


def test_stop_and_logprobs(call, runs):
    """The text ends before the stop; scores belong to the tokens."""
    words = ("generate", runs / "plain", "--prompt", "def f", "--temperature", "0", "--json")
    _, out, _ = call(*words, "--max-new-tokens", "20")
    free = records(out)[0]
    stop = free["text"][1:3]
    _, out, _ = call(*words, "--max-new-tokens", "20", "--stop", stop, "--logprobs", "1")
    row = records(out)[0]
    assert row["text"] == free["text"][: free["text"].index(stop)]
    assert (free["finish_reason"], row["finish_reason"]) == ("length", "stop")
    assert all(score["top"][0]["logprob"] >= score["logprob"] for score in row["logprobs"])


def test_beams_give_the_likeliest_texts(call, runs):
    """They are those of the search, best first, and no worse than the greedy text."""
    words = ("generate", runs / "plain", "--prompt", "def f", "--max-new-tokens", "6", "--json")
    code, out, _ = call(*words, "--beams", "4", "--samples", "2", "--length-penalty", "0.5")
    rows = [json.loads(line) for line in out.splitlines()]
    model, tokenizer, _ = load_model(runs / "plain")
    wanted = beam_search(
        model, tokenizer.encode("def f"), num_beams=4, max_new_tokens=6,
        stop_ids={tokenizer.eos_id}, length_penalty=0.5,
    )[:2]  # fmt: skip
    assert code == 0
    assert [row["score"] for row in rows] == pytest.approx([beam.score for beam in wanted])
    assert [row["text"] for row in rows] == [tokenizer.decode(beam.tokens) for beam in wanted]
    _, out, _ = call(*words, "--beams", "1", "--length-penalty", "0.5")
    assert json.loads(out)["score"] <= rows[0]["score"]


def test_bfloat16_weights_write_too(call, runs):
    """Half of the bytes; some text."""
    words = ("generate", runs / "plain", "--dtype", "bfloat16", "--max-new-tokens", "5", "--json")
    code, out, _ = call(*words)
    assert code == 0
    assert 1 <= records(out)[0]["num_tokens"] <= 5


def test_one_message_on_standard_input(call, runs):
    """The answer goes to standard output; the same seed gives it again."""
    words = ("chat", runs / "chat", "--max-new-tokens", "12", "--system", "Be short.")
    code, out, err = call(*words, stdin="What is Python?\n")
    assert (code, err) == (0, "")
    assert out.endswith("\n")
    assert call(*words, stdin="What is Python?")[1] == out
    assert call(*words, "--seed", "9", stdin="What is Python?")[1] != out


def test_talk_in_a_terminal(call, runs, tmp_path, monkeypatch):
    """Questions, an unknown command, saving, forgetting, leaving."""
    monkeypatch.chdir(tmp_path)
    script = "Hi\n\n/what\n/save talk.json\n/save\n/reset\n/save empty.json\n/quit\nnever\n"
    words = ("chat", runs / "chat", "--max-new-tokens", "6")
    code, out, err = call(*words, stdin=Input(script, is_terminal=True))
    assert code == 0
    told = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert [message["role"] for message in told] == ["user", "assistant"]
    assert told[0]["content"] == "Hi"
    assert told[1]["content"] in out
    assert json.loads((tmp_path / "empty.json").read_text()) == {"messages": []}
    assert err.count("/reset forgets") == 2
    assert "/save: expected the name of a file" in err


def test_long_conversation_forgets_its_beginning(runs, capsys):
    """64 tokens of length: the oldest questions go, the newest stays."""
    model, tokenizer, _ = load_model(runs / "chat")
    chat = Conversation(
        model,
        tokenizer,
        ChatTemplate(tokenizer),
        system="Sys",
        max_new_tokens=5,
        sampling=CHAT_SAMPLING,
        seed=1,
    )
    for number in range(6):
        chat.ask(f"question {number}")
    assert chat.messages[-2].content == "question 5"
    assert 2 <= len(chat.messages) < 12
    assert "oldest question and answer are forgotten" in capsys.readouterr().err
    with pytest.raises(ValueError, match="message: expected at most 63 tokens, got"):
        chat.ask("long " * 60)


@pytest.mark.parametrize(
    ("words", "stdin", "message"),
    [
        (("generate", "plain", "--samples", "0"), "", "samples: expected at least 1, got 0"),
        (("generate", "plain", "--prompts", "none.txt"), "", "none.txt"),
        (("generate", "plain", "--beams", "1", "--samples", "2"), "", "beams: expected at least 2"),
        (("generate", "plain", "--beams", "2", "--stop", "a"), "", "without --stop and --logprobs"),
        (
            ("generate", "plain", "--beams", "2", "--max-new-tokens", "64"),
            "",
            "max_new_tokens: expected at most",
        ),
        (("generate", "plain", "--prompts", "-"), "\n", "-: expected at least 1 prompt, got none"),
        (("generate", "plain", "--prompts", "bad.jsonl"), "", "bad.jsonl:1: prompt: expected a"),
        (("generate", "plain", "--prompts", "bad.txt"), "", "bad.txt: expected UTF-8 text"),
        (("generate", "plain", "--logprobs", "30"), "", "logprobs: expected 0 to 20, got 30"),
        (("generate", "plain", "--temperature", "-1"), "", "temperature: expected 0 (greedy) or"),
        (("generate", "plain", "--top-p", "2"), "", "top_p: expected above 0 and at most 1"),
        (("chat", "chat", "--min-p", "-1"), "hi", "min_p: expected 0 to 1, got -1"),
        (("chat", "plain"), "hi", "plain: tokenizer: expected chat tokens"),
        (("chat", "chat"), "  ", "standard input: expected a message, got nothing"),
        (("chat", "chat", "--max-new-tokens", "0"), "", "max_new_tokens: expected at least 1"),
        (("serve", "plain", "--port", "70000"), "", "port: expected 0 to 65535, got 70000"),
        (("serve", "plain", "--max-batch", "0"), "", "max_batch: expected at least 1, got 0"),
        (("serve", "plain", "--max-length", "65"), "", "max_length: expected 2 to 64, got 65"),
        (("serve", "nowhere"), "", "nowhere: expected a checkpoint or the folder of a run"),
    ],
)
def test_bad_input_gets_one_line_and_code_2(call, runs, monkeypatch, words, stdin, message):
    """The line names the option or the file and the range."""
    monkeypatch.chdir(runs)
    (runs / "bad.jsonl").write_text('["prompt"]\n')
    (runs / "bad.txt").write_bytes(b"\xff\n")
    code, out, err = call(*words, stdin=stdin)
    assert (code, out) == (2, "")
    assert err.startswith("weightwise: ")
    assert message in err
    assert err.count("\n") == 1


def post(port: int, body: dict) -> dict:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body))
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


@pytest.mark.slow
def test_killed_server_starts_again_and_terminated_one_finishes(start, runs):
    """SIGKILL, start again, the same seeded text; SIGTERM ends it between requests."""
    pytest.importorskip("uvicorn")
    words = ("-m", "weightwise", "serve", runs / "plain", "--port", "0")
    body = {"model": "tiny", "prompt": "def f", "max_tokens": 20, "seed": 4}
    texts = []
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0)):
        with start(*words) as process:
            found = process.until(r"tiny at http://127\.0\.0\.1:(\d+)/v1")
            texts.append(post(int(found[1]), body)["choices"][0]["text"])
            process.send_signal(number)
            assert process.wait(60) == code
        assert "Traceback" not in process.err
    assert texts[0] == texts[1] != ""
