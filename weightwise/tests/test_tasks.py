"""Small tasks with known answers, and the generator that makes and answers them."""

import numpy as np
import pytest

from weightwise.lm.chat import Message
from weightwise.lm.post.calls import Request
from weightwise.lm.post.tasks import (
    DOMAINS,
    TASKS,
    TaskGenerator,
    read_task,
    solve,
    task_seeds,
    wrong_answer,
)


def ask(generator, purpose, **changes):
    """One call."""
    fields = {
        "purpose": purpose, "messages": (Message(role="user", content="-"),),
        "domain": "arithmetic", "level": 0, "subject": "What is 2 + 3?", "seed": 1,
        "temperature": 0.7, "max_new_tokens": 20,
    }  # fmt: skip
    ((index, completion),) = generator.generate([Request(**(fields | changes))])
    assert index == 0
    return completion


@pytest.mark.parametrize(
    ("instruction", "answer"),
    [
        ("What is 17 + 25?", "42"),
        ("Take 8 away from 50.", "42"),
        ("Multiply 6 by 7.", "42"),
        ('Spell "planet" backwards.', "tenalp"),
        ('How many times does the letter "e" occur in "elephant"?', "2"),
        ('Count the letters of "planet".', "6"),
        ("Sort the numbers 10, 9, 2.", "2, 9, 10"),
        ("Which is the largest of 10, 9, 2?", "10"),
        ("Give the minimum of 10, 9, 2.", "2"),
        ("Write a poem.", None),
        ("What is 2 + 3? Be brief.", None),
    ],
)
def test_answers_are_known(instruction, answer):
    """Worked out by hand."""
    assert solve(instruction) == answer


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.sentences[0])
def test_every_sentence_reads_back_into_its_task(task):
    """What is written is understood, in each sentence, at each level."""
    draw = np.random.default_rng(1)
    for level in (0, 1, 2):
        for sentence in task.sentences:
            arguments = task.draw(draw, level)
            assert read_task(sentence.format(**arguments)) == (task, arguments)


def test_wrong_answers_are_wrong():
    """And of the same kind: a number, a word of the same letters, a list of the same numbers."""
    draw = np.random.default_rng(1)
    for right in ["0", "1", "7", "130", "tenalp", "eee", "2, 9, 10", "5, 5"]:
        for _ in range(20):
            wrong = wrong_answer(draw, right)
            assert wrong != right
            assert wrong.isdecimal() == right.isdecimal()
            assert (", " in wrong) == (", " in right)


def test_error_rate_is_as_asked():
    """Of 2,000 answers 30 % are wrong, within four standard deviations; none at 0, all at 1."""
    for rate in (0.0, 0.3, 1.0):
        generator = TaskGenerator(rate)
        answers = [ask(generator, "respond", seed=seed).text for seed in range(2000)]
        share = sum(answer != "5" for answer in answers) / 2000
        assert abs(share - rate) <= 4 * (rate * (1 - rate) / 2000) ** 0.5


def test_parts_of_the_pipeline():
    """It writes, rewrites, hardens and judges, the same each time."""
    generator = TaskGenerator()
    for domain in DOMAINS:
        made = ask(generator, "instruct", domain=domain, subject="seed", level=2).text
        assert read_task(made)[0].domain == domain
        assert ask(generator, "instruct", domain=domain, subject="seed", level=2).text == made
    rewritten = ask(generator, "rewrite").text
    assert rewritten != "What is 2 + 3?"
    assert solve(rewritten) == "5"
    harder = ask(generator, "harder", level=1).text
    assert "+" in harder or "sum" in harder or "Add" in harder
    assert ask(generator, "critique", response="The answer is 5.").text == "Score: 4"
    assert ask(generator, "critique", response="4").text == "Score: 1"
    assert ask(generator, "respond", subject="Write a poem.").finish_reason == "refused"


def test_bad_settings_are_named():
    """Rates, counts and domains out of range."""
    with pytest.raises(ValueError, match=r"error_rate: expected 0 to 1, got 1\.5"):
        TaskGenerator(1.5)
    with pytest.raises(ValueError, match="num_tasks: expected at least 1, got 0"):
        task_seeds(0, 1)
    with pytest.raises(ValueError, match="expected domain arithmetic, strings, lists"):
        ask(TaskGenerator(), "respond", domain="code")
    assert [seed.domain for seed in task_seeds(4, 1)] == [*DOMAINS, DOMAINS[0]]
    assert len({seed.id for seed in task_seeds(50, 1)}) == 50
