"""The command `weightwise synthesize` as people call it."""

import json

import pytest

from weightwise.cli import main
from weightwise.lm.post.tasks import solve


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run the command in an empty folder; gives code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)

    def run(*words):
        try:
            code = main(("synthesize", *words))
        except SystemExit as end:  # how the parser refuses words
            code = end.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def lines(path):
    """Records of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_built_in_tasks_need_no_generator(call, tmp_path):
    """A table of the stages, a line of counts; again gives the same, and asks nobody."""
    code, out, err = call("tasks", "--num-tasks", "20", "--held-out", "0.2")
    assert code == 0
    for stage in ("instructions", "evolution", "responses", "filter", "balance"):
        assert stage in out
    assert "near-duplicate" in out
    assert out.splitlines()[-1].endswith(" held out, in out/tasks")
    assert "responses: " in err
    folder = tmp_path / "out/tasks"
    for row in lines(folder / "chats.jsonl"):
        assert row["messages"][1]["content"] == solve(row["messages"][0]["content"])
    before = {path: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}
    again = call("tasks", "--num-tasks", "20", "--held-out", "0.2")
    assert again[:2] == (0, out)
    assert before == {path: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def test_json_is_one_object(call):
    """Machine output on stdout: folder, stages, counts."""
    code, out, _ = call("tasks", "--num-tasks", "5", "--out", "here", "--rounds", "0", "--json")
    result = json.loads(out)
    assert (code, result["folder"]) == (0, "here")
    assert result["stages"][0]["stage"] == "instructions"
    assert result["stages"][0]["made"] == 20
    assert result["chats"]["train"] == len(lines_of("here/chats.jsonl"))


def lines_of(name):
    """Records of a file in the working folder."""
    with open(name, encoding="utf-8") as file:  # noqa: PTH123, as short as it gets
        return [json.loads(line) for line in file]


def test_seeds_of_a_file(call, tmp_path):
    """Instructions of one's own are answered by the generator, routed by their domain."""
    rows = [
        {"domain": "arithmetic", "instruction": "What is 17 + 25?", "answer": "42"},
        {"domain": "lists", "instruction": "Sort the numbers 3, 1, 2.", "source": "book"},
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, _ = call(
        "mine.jsonl", "--generator", "tasks:0", "--route", "lists=tasks:0.2", "--critic", "tasks",
        "--rounds", "0", "--held-out", "0",
    )  # fmt: skip
    assert code == 0
    assert out.splitlines()[-1].startswith("2 chats and ")
    found = lines(tmp_path / "out/mine/records.jsonl")
    assert [row["generator"] for row in found] == ["tasks:0", "tasks:0.2"]
    assert [row["instruction"]["source"] for row in found] == ["mine.jsonl", "book"]
    assert [row["response"] for row in found] == ["42", "1, 2, 3"]


def test_evaluation_sets_are_kept_out(call, tmp_path):
    """An instruction that is in one is dropped before anything is asked about it."""
    rows = [
        {"domain": "arithmetic", "instruction": "What is 17 + 25?"},
        {"domain": "arithmetic", "instruction": "What is 17 + 26?"},
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "exam.jsonl").write_text(json.dumps({"question": "what is 17 + 25", "answer": 42}))
    words = ("mine.jsonl", "--generator", "tasks:0", "--rounds", "0", "--held-out", "0")
    assert call(*words, "--evaluation", "exam.jsonl")[0] == 0
    (kept,) = lines(tmp_path / "out/mine/chats.jsonl")
    assert kept["messages"][1]["content"] == "43"
    (dropped,) = lines(tmp_path / "out/mine/rejected.jsonl")
    assert (dropped["stage"], dropped["reason"], dropped["detail"]) == (
        "instructions", "contaminated", "exam.jsonl",
    )  # fmt: skip
    assert len(lines(tmp_path / "out/mine/calls.jsonl")) == 5 + 1


def test_nothing_left_is_told(call, tmp_path):
    """If every answer is wrong, no record passes: exit code 1 and where the reasons are."""
    code, _, err = call("tasks", "--num-tasks", "4", "--generator", "tasks:1", "--rounds", "0")
    assert code == 1
    assert "no record is left; rejected.jsonl has the reasons" in err
    assert {row["reason"] for row in lines(tmp_path / "out/tasks/rejected.jsonl")} <= {
        "low score", "no agreement", "near-duplicate",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("none.jsonl", "--generator", "tasks"), "none.jsonl: expected a readable file"),
        (("bad.jsonl", "--generator", "tasks"), "bad.jsonl:2: domain: expected one of mathematics"),
        (("good.jsonl",), "generator: expected tasks, a checkpoint or http://HOST/v1, got none"),
        (("good.jsonl", "--generator", "nowhere"), "generator: expected tasks, the folder of a"),
        (("good.jsonl", "--generator", "tasks:2"), "got 'tasks:2': error_rate: expected 0 to 1"),
        (("tasks", "--route", "cooking=tasks"), "route: expected DOMAIN=GENERATOR with a domain"),
        (("tasks", "--num-tasks", "0"), "num_tasks: expected at least 1, got 0"),
        (("tasks", "--evaluation", "none.txt"), "none.txt: expected a readable file"),
        (("tasks", "--prompts", "none.toml"), "none.toml: expected a readable file"),
        (("tasks", "--candidates", "0"), "candidates: expected at least 1, got 0"),
        (("tasks", "--concurrency", "0"), "concurrency: expected at least 1, got 0"),
        (("tasks", "--generator", "http://127.0.0.1:9/v1#m", "--api-key-env", "NO_SUCH_KEY"),
         "api_key_env: expected a variable that is set, NO_SUCH_KEY is not"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, tmp_path, monkeypatch, words, message):
    """Exit code 2, the place and what was expected; nothing is written."""
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    (tmp_path / "good.jsonl").write_text('{"domain": "code", "text": "a"}\n')
    (tmp_path / "bad.jsonl").write_text(
        '{"domain": "code", "text": "a"}\n{"domain": "cooking", "text": "b"}\n'
    )
    code, out, err = call(*words)
    assert code == 2
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("weightwise: ")
    assert message in err
    assert not (tmp_path / "out").exists()


def test_a_server_that_is_away_stops_the_work(call):
    """Exit code 1, one line with the address, and that the same command goes on."""
    code, _, err = call(
        "tasks", "--num-tasks", "3", "--generator", "http://127.0.0.1:9/v1#m", "--max-retries",
        "1", "--backoff-s", "0",
    )  # fmt: skip
    assert code == 1
    assert "http://127.0.0.1:9/v1#m: gave up after 2 tries; the last: no answer" in err
    assert err.strip().endswith("the same command goes on from there")
