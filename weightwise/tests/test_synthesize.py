"""The instruction-data pipeline: what it keeps, what it drops and why, and provenance."""

import json
from collections import Counter

import pytest

from weightwise.lm.post.calls import Completion, Router
from weightwise.lm.post.contamination import EvaluationSets
from weightwise.lm.post.instructions import Seed, read_seeds
from weightwise.lm.post.pipeline import SynthesisConfig
from weightwise.lm.post.prompts import BUILTIN_BANK, read_bank
from weightwise.lm.post.records import read_records
from weightwise.lm.post.responses import read_score
from weightwise.lm.post.synthesize import synthesize
from weightwise.lm.post.tasks import TaskGenerator, solve, task_seeds

THINGS = ("salt", "wind", "rope", "tide", "wood", "light", "music", "bread")


class Scripted:
    """Answers by a function of the request."""

    def __init__(self, answer, name="scripted"):
        self.name = name
        self._answer = answer

    def generate(self, requests):
        """In order; a plain text ends by itself."""
        for index, request in enumerate(requests):
            answer = self._answer(request)
            if isinstance(answer, str):
                answer = Completion(text=answer, finish_reason="stop")
            yield index, answer


def run(
    seeds, folder, generator, *, critic=None, routes=None, evaluation=None, bank=None, **config
):
    """The pipeline with one generator."""
    return synthesize(
        seeds, folder,
        router=Router(default=(generator,), routes=routes or {}), critic=critic or generator,
        config=SynthesisConfig(**config), evaluation=evaluation, bank=bank,
    )  # fmt: skip


def rows(path):
    """Records of a file."""
    return [record for _, record in read_records(path)]


def reasons(folder):
    """How often each stage dropped something for each reason."""
    return Counter((row["stage"], row["reason"]) for row in rows(folder / "rejected.jsonl"))


def asked(*texts, domain="education", **more):
    """Seeds that are instructions."""
    return [Seed(domain=domain, instruction=text, **more) for text in texts]


def good(request):
    """A critic who likes everything, and answers that differ."""
    return (
        "Score: 4" if request.purpose == "critique" else f"About {request.subject} ({request.seed})"
    )


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A run on small tasks: result and folder."""
    folder = tmp_path_factory.mktemp("tasks") / "out"
    return run(task_seeds(60, 1), folder, TaskGenerator(0.3), held_out=0.2), folder


def test_counts_add_up(tasks):
    """Every record that a stage gets or makes is passed on or in the list of the rejected."""
    result, folder = tasks
    manifest = json.loads((folder / "manifest.json").read_text())
    purposes = {stage.stage: stage for stage in result.stages}
    first, second, third, fourth, fifth = result.stages
    assert first.num_in == 60
    assert first.num_made == 60 * 4
    assert first.num_made == first.num_out + sum(first.dropped.values())
    assert second.num_made == second.num_in == first.num_out  # one round: a child for each
    assert second.num_in + second.num_made == second.num_out + sum(second.dropped.values())
    assert third.num_made == 5 * third.num_out == 5 * second.num_out
    assert fourth.num_in == fourth.num_out + sum(fourth.dropped.values())
    assert fourth.num_out == fifth.num_out
    dropped = sum(sum(stage.dropped.values()) for stage in purposes.values())
    assert dropped == len(rows(folder / "rejected.jsonl")) > 0
    assert manifest["stages"][3]["dropped"] == fourth.dropped
    for split, suffix in (("train", ""), ("held-out", "-held-out")):
        assert result.num_chats[split] == len(rows(folder / f"chats{suffix}.jsonl")) > 10
        assert result.num_preferences[split] == len(rows(folder / f"preferences{suffix}.jsonl"))
    assert sum(result.num_chats.values()) == len(rows(folder / "records.jsonl")) == fifth.num_out


def test_chosen_answers_are_right_and_rejected_ones_wrong(tasks):
    """The critic of the tasks knows; nearly every record has a wrong candidate beside it."""
    result, folder = tasks
    for row in rows(folder / "chats.jsonl"):
        user, assistant = row["messages"]
        assert list(row) == ["messages"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        assert assistant["content"] == solve(user["content"])
    for row in rows(folder / "preferences.jsonl"):
        assert set(row) == {"prompt", "chosen", "rejected"}
        (prompt,) = row["prompt"]
        assert row["chosen"] == solve(prompt["content"]) != row["rejected"]
    assert result.num_preferences["train"] > 0.7 * result.num_chats["train"]


def test_every_record_tells_where_it_comes_from(tasks):
    """Ids are unique; parents, seeds, operators, rounds and generators are there and fit."""
    _, folder = tasks
    seeds = {seed.id for seed in task_seeds(60, 1)}
    written = {row["id"]: row for row in rows(folder / "instructions.jsonl")}
    evolved = {row["id"]: row for row in rows(folder / "evolved.jsonl")}
    assert len(written) == len(rows(folder / "instructions.jsonl"))
    assert len(evolved) == len(rows(folder / "evolved.jsonl"))
    for row in evolved.values():
        assert row["seed_id"] in seeds
        assert row["source"] == "tasks"
        assert row["generator"] == "tasks:0.3"
        if row["operator"] is None:
            assert row["round"] == 0
            assert row["prompt_id"] == f"{row['domain']}/{row['style']}/{row['difficulty']}"
            continue
        parent = written[row["parent_id"]]
        assert (row["round"], row["seed_id"], row["domain"]) == (
            1, parent["seed_id"], parent["domain"],
        )  # fmt: skip
        if row["operator"] == "rewrite":
            assert solve(row["instruction"]) == solve(parent["instruction"])
            assert row["difficulty"] == parent["difficulty"]
        else:
            levels = list(read_bank().difficulties)
            step = levels.index(row["difficulty"]) - levels.index(parent["difficulty"])
            assert step == (parent["difficulty"] != levels[-1])
    assert {row["operator"] for row in evolved.values()} == {None, "rewrite", "harder"}
    for row in rows(folder / "responses.jsonl"):
        assert row["instruction"] == evolved[row["instruction"]["id"]]
        assert len(row["candidates"]) == len({one["seed"] for one in row["candidates"]}) == 5


def test_relatives_stay_on_one_side(tasks):
    """No seed has records in both splits, and about the share asked for is held out."""
    _, folder = tasks
    sides = {"train": set(), "held-out": set()}
    for row in rows(folder / "records.jsonl"):
        sides[row["split"]].add(row["instruction"]["seed_id"])
    assert not sides["train"] & sides["held-out"]
    assert 3 <= len(sides["held-out"]) <= 24  # 20 % of 60, within four standard deviations


def test_planted_duplicates_go_before_and_after_evolution(tmp_path):
    """A seed that repeats another, and a child that repeats its parent."""
    texts = [f"Explain why {thing} matters to people who live by the sea." for thing in THINGS]
    generator = Scripted(lambda r: r.subject + "!" if r.purpose == "rewrite" else good(r))
    run(asked(*texts, texts[0].upper()), tmp_path, generator, rounds=1)
    assert reasons(tmp_path)["instructions", "near-duplicate"] == 1
    children = [row for row in rows(tmp_path / "rejected.jsonl") if row["stage"] == "evolution"]
    assert {row["reason"] for row in children} == {"near-duplicate"}
    for row in children:
        assert row["detail"] == row["record"]["parent_id"]


def test_inconsistent_answers_are_dropped_and_the_majority_is_kept(tmp_path):
    """Of five answers three must agree; the critic is asked about the rest only."""
    said = {"sure": "77777", "likely": "77712", "torn": "77123", "odd": "12345"}
    turn = Counter()

    def answer(request):
        if request.purpose == "critique":
            return "Score: 4" if "7" in request.response else "Score: 2"
        turn[request.subject] += 1
        return f"Answer: {said[request.subject][turn[request.subject] - 1]}.0"

    result = run(asked(*said, domain="logic"), tmp_path, Scripted(answer), rounds=0)
    kept = {row["instruction"]["instruction"]: row for row in rows(tmp_path / "records.jsonl")}
    assert {name: row["agreement"] for name, row in kept.items()} == {"sure": 1.0, "likely": 0.6}
    assert {row["answer"] for row in kept.values()} == {"7"}
    assert kept["sure"]["rejected"] is None
    assert kept["likely"]["rejected"] == "Answer: 1.0"
    assert result.stages[3].dropped == {"no agreement": 2}
    details = {row["detail"] for row in rows(tmp_path / "rejected.jsonl")}
    assert details == {"2 of 5", "1 of 5"}
    critiques = [row for row in rows(tmp_path / "calls.jsonl") if row["text"].startswith("Score")]
    assert len(critiques) == 1 + 3  # one for each different response of the two that are left


def test_majority_against_the_reference_is_dropped(tmp_path):
    """A reference answer counts in its normal form."""
    seeds = [
        *asked("half of one", domain="logic", answer="0.5"),
        *asked("half of two", domain="logic", answer="2"),
    ]
    answers = Scripted(lambda r: "Score: 3" if r.purpose == "critique" else "Answer: 1/2")
    run(seeds, tmp_path, answers, rounds=0)
    (row,) = rows(tmp_path / "records.jsonl")
    assert row["instruction"]["instruction"] == "half of one"
    assert reasons(tmp_path) == {("filter", "differs from reference"): 1}


def test_only_rewriting_keeps_the_reference(tmp_path):
    """A harder question has another answer."""
    seeds = [
        Seed(id=thing, domain="logic", instruction=f"Why {thing}, and how?", answer=thing)
        for thing in THINGS
    ]
    run(seeds, tmp_path, Scripted(good), rounds=1)
    made = rows(tmp_path / "evolved.jsonl") + [
        row["record"] for row in rows(tmp_path / "rejected.jsonl") if row["stage"] == "evolution"
    ]
    assert {row["operator"] for row in made} == {None, "rewrite", "harder"}
    for row in made:
        assert row["answer"] == (None if row["operator"] == "harder" else row["seed_id"])


def test_critic_decides_where_there_is_no_right_answer(tmp_path):
    """The best of the candidates is kept, the worst rejected; low and unreadable scores drop."""
    scores = {"good": "1 2 4 3 4", "poor": "1 2 1 2 1", "mute": "- - - - -", "even": "3 3 3 3 3"}

    def answer(request):
        if request.purpose != "critique":
            return f"{request.subject} candidate {request.seed}"
        order = scores[request.subject].split()
        seeds = sorted(row for row in drawn[request.subject])
        return f"Some flaw.\nScore: {order[seeds.index(request.response)]}"

    drawn = {name: [] for name in scores}

    def generate(request):
        text = answer(request)
        if request.purpose == "respond":
            drawn[request.subject].append(text)
        return text

    run(asked(*scores), tmp_path, Scripted(generate), rounds=0)
    kept = {row["instruction"]["instruction"]: row for row in rows(tmp_path / "records.jsonl")}
    assert set(kept) == {"good", "even"}
    assert kept["good"]["score"] == 4
    assert kept["good"]["response"] in {sorted(drawn["good"])[2], sorted(drawn["good"])[4]}
    assert kept["good"]["rejected"] == min(drawn["good"])
    assert kept["even"]["rejected"] is None
    assert reasons(tmp_path) == {("filter", "low score"): 2}
    assert {row["detail"] for row in rows(tmp_path / "rejected.jsonl")} == {"0", "2"}


@pytest.mark.parametrize(
    ("critique", "score"),
    [
        ("Score: 3", 3), ("Fine.\n**Score:** 4", 4), ("score = 1/4", 1), ("Score: 10", 0),
        ("Score: 2\nOn reflection, Score: 3.", 3), ("3", 0), ("Score: 3.5", 0), ("", 0),
    ],
)  # fmt: skip
def test_score_is_read_from_the_last_line_that_has_one(critique, score):
    """A whole tier from 1 to 4; anything else is none."""
    assert read_score(critique) == score


def test_broken_responses_are_told_apart(tmp_path):
    """Cut off, refused, garbled or contaminated: each instruction is dropped for its reason."""
    river = "seven bridges cross the wide river in the old town and every one is built of stone"
    (tmp_path / "exam.txt").write_text(river)
    answers = {
        "cut": Completion(text="The answer", finish_reason="length"),
        "no": Completion(text="policy", finish_reason="refused"),
        "echo": "echo",
        "bad": "caf\ufffd",
        "exam": f"Well: {river}!",
        "fine": "This is an answer.",
    }
    generator = Scripted(lambda r: "Score: 4" if r.purpose == "critique" else answers[r.subject])
    run(
        asked(*answers), tmp_path / "out", generator, rounds=0, candidates=1,
        evaluation=EvaluationSets([tmp_path / "exam.txt"]),
    )  # fmt: skip
    found = {
        row["record"]["instruction"]["instruction"]: row["reason"]
        for row in rows(tmp_path / "out/rejected.jsonl")
    }
    assert found == {
        "cut": "truncated", "no": "refused", "echo": "format", "bad": "garbled",
        "exam": "contaminated",
    }  # fmt: skip


def test_self_instruct_is_for_low_resources_and_must_be_new(tmp_path):
    """Few-shot from the domain's pool; what is like the pool is dropped."""
    prompts = []

    def answer(request):
        if request.purpose != "self-instruct":
            return f"Clearer: {request.seed}" if request.purpose == "rewrite" else good(request)
        prompts.append((request.messages[-1].content, request.subject))
        return texts[0] + " Please." if len(prompts) % 2 else f"Wholly new {len(prompts)}: why?"

    texts = [f"Describe how {thing} is used by its makers today." for thing in THINGS]
    run(asked(*texts, domain="specialist"), tmp_path, Scripted(answer), rounds=2)
    made = [row for row in rows(tmp_path / "evolved.jsonl") if row["operator"] == "self-instruct"]
    assert made
    assert all(row["instruction"].startswith("Wholly new") for row in made)
    assert all(subject in prompt for prompt, subject in prompts)
    assert any(sum(text in prompt for text in texts) > 1 for prompt, _ in prompts)
    assert reasons(tmp_path)["evolution", "like the pool"] >= 1
    for row in rows(tmp_path / "rejected.jsonl"):
        if row["reason"] == "like the pool":
            assert row["record"]["operator"] == "self-instruct"
    folder = tmp_path / "education"
    run(asked(*texts), folder, Scripted(good), rounds=2)
    assert "self-instruct" not in {row["operator"] for row in rows(folder / "evolved.jsonl")}


def test_router_sends_domains_to_their_generators(tmp_path):
    """Several take turns over the candidates; provenance names them."""
    big, small = Scripted(good, "big"), Scripted(good, "small")
    seeds = [*asked("prove it", domain="code"), *asked("explain it")]
    run(seeds, tmp_path, Scripted(good), routes={"code": (big, small)}, rounds=0, candidates=4)
    names = {
        row["instruction"]["domain"]: [one["generator"] for one in row["candidates"]]
        for row in rows(tmp_path / "responses.jsonl")
    }
    assert names == {"code": ["big", "small"] * 2, "education": ["scripted"] * 4}
    with pytest.raises(ValueError, match="router: expected at least one generator"):
        Router(default=(), routes={})


def test_labels_are_balanced(tmp_path):
    """Of eight, two and two records with twice the median at most four stay of a label."""
    texts = [f"Topic {k} of {'abcdefgh'[k]} number {k * k}" for k in range(8)]
    seeds = [
        *asked(*texts), *asked("code one", "other code", domain="code"),
        *asked("a letter", "two poems", domain="writing"),
    ]  # fmt: skip
    result = run(seeds, tmp_path, Scripted(good), rounds=0, max_over_median=2.0)
    assert result.stages[4].dropped == {"balance": 4}
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["domains"] == {"code": 2, "education": 4, "writing": 2}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"domain": "code"}', "text: expected either text or instruction"),
        ('{"domain": "code", "text": "a", "instruction": "b"}', "text: expected either"),
        ('{"domain": "cooking", "text": "a"}', "domain: expected one of mathematics, logic"),
        ('{"text": "a"}', "domain: expected a value, got none"),
        ('{"domain": "code", "text": 3}', "text: "),
        ('{"domain": "code", "text": "a", "colour": 1}', "colour: expected one of id, source"),
        ('{"domain": "code", "text": "a", "answer": "b"}', "answer: expected none without"),
        ('{"domain": "code", "text": "a"}', "id: expected one that no other seed has"),
        ("[1]", "expected a JSON object, got list"),
        ('{"domain"', "expected a JSON object"),
    ],
)
def test_bad_seeds_are_named_with_file_and_line(tmp_path, line, message):
    """One clear line."""
    path = tmp_path / "seeds.jsonl"
    path.write_text('{"domain": "code", "text": "a"}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"seeds\.jsonl:2: ") as error:
        read_seeds(path, read_bank().domains)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{way}", "", "templates.harder: expected {instruction}, {way}, got instruction"),
        ("{examples}", "{shots}", "templates.self_instruct: expected {domain}, {examples}"),
        ("{text}", "{text", "templates.instruct: "),
        ("is_objective = true", 'is_objective = "yes"', "domains.mathematics.is_objective: "),
        ("[styles]", "[manners]", "manners: "),
        ("[styles]", "[styles", "expected TOML"),
    ],
)
def test_bad_banks_are_named(tmp_path, old, new, message):
    """File and field stand in the message."""
    path = tmp_path / "bank.toml"
    path.write_text(BUILTIN_BANK.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=r"bank\.toml: ") as error:
        read_bank(path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("candidates", 0), ("rounds", -1), ("min_agreement", 1.2), ("min_score", 5),
        ("similarity", 0.0), ("max_over_median", 0.5), ("held_out", -0.1), ("temperature", -1.0),
    ],
)  # fmt: skip
def test_bad_numbers_are_named(field, value):
    """Field, range and value stand in the message."""
    with pytest.raises(ValueError, match=rf"{field}: expected .*, got {value}"):
        SynthesisConfig(**{field: value})
