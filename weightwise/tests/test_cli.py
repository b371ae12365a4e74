"""The command line as people call it."""

import json
import signal
import time

import pytest
import torch

from weightwise import __version__
from weightwise.cli import COMMANDS, main
from weightwise.recipes import tiny
from weightwise.train import to_toml

FAST = ("train.steps=4", "schedule.warmup_steps=1", "train.save_every=2", "train.eval_every=4")


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


@pytest.fixture
def call(monkeypatch, capsys, cache, tmp_path):
    """Run a command within this process, in an empty folder; gives code, stdout and stderr."""
    monkeypatch.setenv("WEIGHTWISE_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_train_then_again_then_generate(call, tmp_path):
    """The first call trains, the second finds it done, the model writes the same text twice."""
    code, out, err = call("train", "tiny", "--set", *FAST)
    assert code == 0
    assert out.startswith("tiny: 4 steps, training loss ")
    assert "step 4/4" in err
    assert (tmp_path / "out/tiny/checkpoints/step-000004/model.safetensors").is_file()
    again = call("train", "tiny", "--set", *FAST)
    assert again == (0, out, "")
    words = ("generate", "out/tiny", "--prompt", "def f", "--max-new-tokens", "12", "--seed", "3")
    code, text, err = call(*words)
    assert (code, err) == (0, "")
    assert text.startswith("def f")
    assert call(*words) == (0, text, "")
    assert call(*words[:-1], "4")[1] != text
    # 64 tokens of length leave less room than the default of 100; more than that is refused.
    assert call("generate", "out/tiny")[0] == 0
    code, out, err = call("generate", "out/tiny", "--max-new-tokens", "100")
    assert code == 2
    assert "max_new_tokens: expected at most" in err


def test_json_on_stdout_and_talk_on_stderr(call):
    """Machine output is one object; longer runs, plain words and repeated --set are understood."""
    code, out, _ = call("train", "tiny", "--out", "r", "--set", *FAST, "--set", "seed=3", "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["step"], result["is_complete"], result["run_dir"]) == (4, True, "r")
    assert 5 < result["valid_loss"] < 6
    code, out, err = call("generate", "r", "--max-new-tokens", "5", "--temperature", "0", "--json")
    written = json.loads(out)
    assert (code, written["prompt"], written["num_tokens"]) == (0, "def ", 5)
    assert err == "def " + written["text"] + "\n"


def test_streamed_text_is_the_decoded_text(call):
    """Characters that are spread over tokens come out whole."""
    call("train", "tiny", "--set", *FAST)
    code, out, err = call(
        "generate", "out/tiny", "--max-new-tokens", "40", "--temperature", "5", "--json"
    )
    written = json.loads(out)
    assert code == 0
    assert err == "def " + written["text"] + "\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "nothing"), "recipe: expected a TOML file or one of demo, tiny, "),
        (
            ("train", "tiny", "--set", "train.steps=x"),
            "tiny: train.steps: expected a valid integer",
        ),
        (("train", "tiny", "--set", "train.stepz=1"), "tiny: train.stepz: expected one of steps, "),
        (("train", "tiny", "--set", "steps"), "--set: expected key=value, got 'steps'"),
        (("train", "broken.toml"), "broken.toml: expected TOML, got "),
        (("generate", "nowhere"), "nowhere: expected a checkpoint or the folder of a run"),
        (("train", "tiny", "--out", "broken.toml"), "broken.toml"),
    ],
)
def test_bad_input_gets_one_line_and_code_2(call, tmp_path, words, message):
    """The line names what is wrong; standard output stays empty, nothing is written."""
    (tmp_path / "broken.toml").write_text("name =")
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert err.startswith("weightwise: ")
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["broken.toml"]


@pytest.mark.parametrize("words", [(), ("fly",), ("train", "tiny", "--fast"), ("train",)])
def test_wrong_usage_leaves_with_code_2(call, words):
    """Unknown commands and options are refused."""
    with pytest.raises(SystemExit) as caught:
        call(*words)
    assert caught.value.code == 2


def test_divergence_is_code_1_and_says_what_to_try(call):
    """A result that was not reached is not a usage error."""
    code, out, err = call("train", "tiny", "--set", *FAST, "schedule.peak_lr=1e30")
    assert (code, out) == (1, "")
    assert "weightwise: step 2: loss is " in err
    assert "schedule.peak_lr" in err


def test_recipe_file_trains(call, tmp_path):
    """What to_toml writes can be handed to the command; the run keeps a copy."""
    (tmp_path / "mine.toml").write_text(to_toml(tiny()).replace('"tiny"', '"mine"'))
    assert call("train", "mine.toml", "--set", *FAST)[0] == 0
    assert 'name = "mine"' in (tmp_path / "out/mine/recipe.toml").read_text()


def test_no_resume_refuses_a_folder_with_a_run(call):
    """The refusal names the checkpoint; the run stays."""
    assert call("train", "tiny", "--set", *FAST)[0] == 0
    code, _, err = call("train", "tiny", "--no-resume", "--set", *FAST)
    assert code == 2
    assert "step-000004; choose another --out" in err


def test_version_and_commands(call):
    """The version is the package's; the commands are those of the table."""
    assert call("--version") == (0, f"weightwise {__version__}\n", "")
    verbs = ("fit", "compare", "predict", "plan", "next", "sweep", "noise", "isoflop", "size")
    tokenizers = [f"tokenizer {verb}" for verb in ("train", "extend", "show")]
    training = ["train", "long-context", "synthesize", "sft", "dpo", "shrink", "uptrain"]
    writing = ["generate", "chat", "serve"]
    others = [*tokenizers, "convert", "formats", *(f"law {verb}" for verb in verbs), "demo"]
    stored = ("save", "check", "train", "info", "verify", "merge", "subset", "pack", "salvage")
    distilling = [f"distill {verb}" for verb in (*stored, "convert", "contract")]
    assert sorted(COMMANDS) == sorted([*training, *writing, *distilling, *others])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_signal_saves_and_the_same_command_goes_on(start, tmp_path, cache, number):
    """Ctrl-C or SIGTERM: exit code 1, a checkpoint of the last step, and the way on is told."""
    settings = ("train.steps=100000", "train.save_every=100000", "schedule.kind=constant")
    words = ("-m", "weightwise", "train", "tiny", "--out", tmp_path, "--set", *settings)
    metrics = tmp_path / "metrics.jsonl"
    with start(*words, WEIGHTWISE_CACHE=cache) as process:
        while not (metrics.exists() and metrics.stat().st_size):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait() == 1
    assert "the same command goes on from there" in process.err
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    step = int(checkpoint.name.removeprefix("step-"))
    again = start(*words, f"train.steps={step + 2}", WEIGHTWISE_CACHE=cache)
    again.finish()
    assert f"going on from step {step} " in again.err
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, step + 3))
