"""A pipeline that is stopped anywhere goes on, asks nothing twice, and writes the same files."""

import json
import random
import signal
import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weightwise.lm.post.calls import CallLog, GeneratorError, Router
from weightwise.lm.post.pipeline import SynthesisConfig
from weightwise.lm.post.synthesize import synthesize
from weightwise.lm.post.tasks import TaskGenerator, task_seeds

CONFIG = SynthesisConfig(instructions_per_seed=2, candidates=3, held_out=0.3)


class Counting:
    """Counts what a generator is asked, and can fail after some answers."""

    def __init__(self, generator, fail_after=None):
        self.name = generator.name
        self.count = 0
        self._generator = generator
        self._fail_after = fail_after

    def generate(self, requests):
        """The answers of the generator."""
        for index, completion in self._generator.generate(requests):
            if self.count == self._fail_after:
                raise GeneratorError("out of credit")
            self.count += 1
            yield index, completion


def run(folder, generator=None, config=CONFIG):
    """The pipeline on twelve seeds."""
    generator = generator or TaskGenerator()
    return synthesize(
        task_seeds(12, 1), folder,
        router=Router(default=(generator,), routes={}), critic=generator, config=config,
    )  # fmt: skip


def content(folder):
    """All files with their bytes, but for the lock of the command."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "lock"}


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """Folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("calm")
    run(folder)
    return folder


def test_a_finished_run_is_left_as_it_is(calm):
    """Nobody is asked, and every byte stays."""
    before = content(calm)
    generator = Counting(TaskGenerator())
    run(calm, generator)
    assert generator.count == 0
    assert content(calm) == before


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(min_value=0, max_value=1))
def test_cut_at_any_byte(calm, tmp_path_factory, share):
    """Whole lines count; only what was not whole is asked again; the files are the same."""
    calls = (calm / "calls.jsonl").read_bytes()
    cut = calls[: round(share * len(calls))]
    folder = tmp_path_factory.mktemp("cut")
    (folder / "calls.jsonl").write_bytes(cut)
    generator = Counting(TaskGenerator())
    run(folder, generator)
    assert generator.count == calls.count(b"\n") - cut.count(b"\n")
    assert content(folder) == content(calm)


def test_a_failing_generator_loses_nothing(calm, tmp_path):
    """What it answered before stays; the next call asks for the rest only."""
    num_calls = (calm / "calls.jsonl").read_bytes().count(b"\n")
    num_asked = 0
    for fail_after in (7, 0, 30, None):
        generator = Counting(TaskGenerator(), fail_after)
        if fail_after is None:
            run(tmp_path, generator)
        else:
            with pytest.raises(GeneratorError, match="out of credit"):
                run(tmp_path, generator)
        num_asked += generator.count
    assert num_asked == num_calls
    assert content(tmp_path) == content(calm)


def test_other_settings_keep_the_answers_that_fit(tmp_path):
    """A stricter filter asks nobody; another candidate asks for that one and its critique."""
    run(tmp_path)
    generator = Counting(TaskGenerator())
    strict = run(tmp_path, generator, replace(CONFIG, min_agreement=1.0))
    assert generator.count == 0
    assert strict.stages[3].dropped["no agreement"] > 0
    num_instructions = strict.stages[2].num_out
    more = run(tmp_path, generator, replace(CONFIG, candidates=4))
    assert more.stages[2].num_out == num_instructions
    assert num_instructions <= generator.count <= 2 * num_instructions


def test_a_damaged_log_is_named(tmp_path):
    """A line in the middle that is no answer is an error with file and line."""
    run(tmp_path)
    path = tmp_path / "calls.jsonl"
    lines = path.read_text().splitlines()
    lines[3] = json.dumps({"key": "a"})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"calls\.jsonl:4: expected the answer to a call"):
        CallLog(path)
    lines[3] = "\0" * 20
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"calls\.jsonl:4: expected a JSON object"):
        CallLog(path)


@pytest.mark.slow
def test_killed_commands_go_on(start, tmp_path):
    """SIGKILL at random moments of the calls; then the files are those of a calm run."""
    words = ("-m", "weightwise", "synthesize", "tasks", "--num-tasks", 100, "--out")
    draw = random.Random(3)
    calls = tmp_path / "out" / "calls.jsonl"
    num_kills = 0
    for _ in range(2):
        process = start(*words, tmp_path / "out")
        size = calls.stat().st_size if calls.exists() else 0
        wanted = size + draw.randrange(1, 150_000)
        while process.poll() is None and not (calls.exists() and calls.stat().st_size > wanted):
            time.sleep(0.002)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            num_kills += 1
        process.wait()
    assert num_kills == 2
    start(*words, tmp_path / "out").finish()
    generator = TaskGenerator()
    synthesize(
        task_seeds(100, 1), tmp_path / "calm",
        router=Router(default=(generator,), routes={}), critic=generator,
    )  # fmt: skip
    assert content(tmp_path / "out") == content(tmp_path / "calm")
