"""Preferences: the loss in closed form and against TRL, reading, and pairs of own answers."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, SwiGLUConfig, train_tokenizer
from weightwise.lm.chat import ChatTemplate, Message
from weightwise.lm.post.dpo import (
    Preference,
    answer_logps,
    dpo_loss,
    encode_pair,
    read_preferences,
)
from weightwise.lm.post.online import ExactAnswer, Judge, best_and_worst, import_reward
from weightwise.lm.post.sft import collate

CONFIG = ModelConfig(
    vocab_size=300,
    width=32,
    num_layers=2,
    max_length=64,
    attention=GQAConfig(num_heads=4, num_kv_heads=2),
    ffn=SwiGLUConfig(hidden=48),
    init_std=0.2,
)
PROMPT = (Message(role="user", content="2 + 2?"),)


@pytest.fixture(scope="module")
def template():
    """A chat format over a small vocabulary."""
    return ChatTemplate(train_tokenizer(["a b c d"], 300, chat_tokens=True))


def model_of(seed):
    """A model with weights of this seed."""
    model = LanguageModel(CONFIG)
    model.initialize(torch.Generator().manual_seed(seed))
    return model.eval()


def draws(seed, count=5):
    """Log-probabilities of pairs by two models, and lengths."""
    generator = torch.Generator().manual_seed(seed)
    policy, reference = torch.randn(2, count, 2, generator=generator, dtype=torch.float64) * 5 - 20
    return policy, reference, torch.arange(1.0, count + 1, dtype=torch.float64)


def test_loss_is_the_formula_pair_by_pair():
    """-log sigmoid(margin) + coefficient * NLL per token, with floats of the standard library."""
    policy, reference, lengths = draws(0)
    found = dpo_loss(policy, reference, lengths, beta=0.3, nll_coef=0.2)
    losses, margins = [], []
    for (w, v), (rw, rv), n in zip(
        policy.tolist(), reference.tolist(), lengths.tolist(), strict=True
    ):
        margin = 0.3 * (w - rw - v + rv)
        margins.append(margin)
        losses.append(math.log1p(math.exp(-margin)) - 0.2 * w / n)
    assert found["loss"].item() == pytest.approx(sum(losses) / 5)
    assert found["margin"].item() == pytest.approx(sum(margins) / 5)
    assert found["accuracy"].item() == pytest.approx(sum(m > 0 for m in margins) / 5)
    ranking = (policy[:, 0] > policy[:, 1]).double().mean().item()
    assert found["ranking"].item() == pytest.approx(ranking)


@given(seed=st.integers(0, 1000), beta=st.floats(0.01, 2.0), nll_coef=st.floats(0.0, 1.0))
def test_gradient_is_that_of_finite_differences(seed, beta, nll_coef):
    """Also the closed form: beta * sigmoid(-margin) over the pairs, with both signs."""
    policy, reference, lengths = draws(seed)
    policy.requires_grad_()

    def loss(values):
        return dpo_loss(values, reference, lengths, beta=beta, nll_coef=nll_coef)["loss"]

    assert torch.autograd.gradcheck(loss, policy)
    (grad,) = torch.autograd.grad(loss(policy), policy)
    margin = beta * ((policy - reference) * torch.tensor([1.0, -1.0])).sum(dim=1)
    pull = beta * torch.sigmoid(-margin) / 5
    torch.testing.assert_close(grad[:, 1], pull)
    torch.testing.assert_close(grad[:, 0], -pull - nll_coef / lengths / 5)


def test_small_beta_forgets_the_pairs_and_a_swap_turns_the_margin():
    """Loss log 2 for beta -> 0; swapped answers turn the margin; equal models have none."""
    policy, reference, lengths = draws(1)
    nothing = dpo_loss(policy, reference, lengths, beta=1e-12, nll_coef=0.0)
    assert nothing["loss"].item() == pytest.approx(math.log(2))
    one = dpo_loss(policy, reference, lengths, beta=0.2, nll_coef=0.0)
    other = dpo_loss(policy.flip(1), reference.flip(1), lengths, beta=0.2, nll_coef=0.0)
    assert other["margin"].item() == pytest.approx(-one["margin"].item())
    # -log s(-m) = m - log s(m)
    assert other["loss"].item() == pytest.approx(one["margin"].item() + one["loss"].item())
    same = dpo_loss(policy, policy, lengths, beta=0.2, nll_coef=0.0)
    assert same["loss"].item() == pytest.approx(math.log(2))
    assert (same["accuracy"].item(), same["margin"].item()) == (0.0, 0.0)


def test_log_probability_is_that_of_the_answer_token_by_token(template):
    """Each answer alone, each token from its own pass over what stands before it."""
    pair = Preference(prompt=PROMPT, chosen="four", rejected="5")
    model, samples = model_of(2), encode_pair(template, pair)
    batch = collate([[sample] for sample in samples])
    with torch.no_grad():
        found = answer_logps(model(batch.tokens), batch.targets)
        for sample, total in zip(samples, found.tolist(), strict=True):
            start = len(template.encode(PROMPT))
            ids = torch.tensor([list(sample.ids)])
            slow = sum(
                model(ids[:, :end])[0, -1].log_softmax(-1)[ids[0, end]].item()
                for end in range(start, ids.shape[1])
            )
            assert total == pytest.approx(slow, abs=1e-4)


def test_a_pair_shares_its_prompt_and_learns_answers_with_their_end(template):
    """Earlier answers of the conversation are a part of the prompt and not counted."""
    talk = (
        *PROMPT,
        Message(role="assistant", content="4"),
        Message(role="user", content="sure?"),
    )
    chosen, rejected = encode_pair(template, Preference(prompt=talk, chosen="y", rejected="no"))
    prompt = template.encode(talk)
    for sample, text in ((chosen, "y"), (rejected, "no")):
        assert list(sample.ids) == prompt + template.encode_answer(text)
        assert list(sample.is_learnt) == [False] * len(prompt) + [True] * (len(text) + 1)


def test_a_prompt_may_be_a_text_or_messages(tmp_path):
    """TRL's columns; a reference and unknown columns may be there."""
    path = tmp_path / "pairs.jsonl"
    messages = [{"role": "user", "content": "2 + 2?"}]
    rows = [
        {"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "margin": 1},
        {"prompt": messages, "chosen": "4", "rejected": "5", "reference": "4"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = (pair for _, pair in read_preferences(path))
    assert first == Preference(prompt=PROMPT, chosen="4", rejected="5")
    assert second == Preference(prompt=PROMPT, chosen="4", rejected="5", reference="4")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "a", "rejected": "b"}, "prompt: messages: expected a list"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt: messages: expected a list"),
        ({"prompt": "p", "rejected": "b"}, "chosen: expected text, got NoneType"),
        ({"prompt": "p", "chosen": "a", "rejected": ["b"]}, "rejected: expected text, got list"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "rejected: expected another text"),
        (
            {"prompt": "p", "chosen": "a", "rejected": "b", "reference": 4},
            "reference: expected text, got int",
        ),
        (
            {"prompt": [{"role": "assistant", "content": "x"}], "chosen": "a", "rejected": "b"},
            "prompt: expected messages that end with a user's",
        ),
    ],
)
def test_a_bad_preference_is_named(tmp_path, row, message):
    """File, line and field."""
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(ValueError, match=r"pairs\.jsonl:1: ") as caught:
        list(read_preferences(path))
    assert message in str(caught.value)


def test_best_and_worst_are_the_first_of_their_kind():
    """Ties go to the first; nothing to choose gives nothing; infinite rewards are refused."""
    assert best_and_worst([1.0, 3.0, 3.0, 0.0, 0.0]) == (1, 3)
    assert best_and_worst([2.0, 2.0]) is None
    assert best_and_worst([]) is None
    with pytest.raises(ValueError, match="reward: expected finite numbers"):
        best_and_worst([0.0, math.nan])


def test_exact_answers_are_rewarded():
    """The reference counts, else the chosen answer; blanks around an answer do not."""
    other = (Message(role="user", content="3 + 3?"),)
    reward = ExactAnswer(
        [
            Preference(prompt=PROMPT, chosen="It is 4.", rejected="5", reference="4"),
            Preference(prompt=other, chosen="6", rejected="5"),
        ]
    )
    assert [reward(PROMPT, text) for text in ("4", " 4\n", "It is 4.")] == [1.0, 1.0, 0.0]
    assert reward(other, "6") == 1.0


def test_a_judge_is_a_ratio_of_probabilities(template):
    """The same model judges everything 0; another one prefers what it finds likelier."""
    judge, reference = model_of(3), model_of(4)
    assert Judge(judge, judge, template)(PROMPT, "4") == 0.0
    pair = Preference(prompt=PROMPT, chosen="4", rejected="5")
    batch = collate([[sample] for sample in encode_pair(template, pair)])
    with torch.no_grad():
        ours, theirs = (answer_logps(m(batch.tokens), batch.targets) for m in (judge, reference))
    for text, wanted in zip(("4", "5"), (ours - theirs).tolist(), strict=True):
        assert Judge(judge, reference, template)(PROMPT, text) == pytest.approx(wanted, abs=1e-4)


def test_a_reward_is_imported_by_name():
    """module:function; anything else is refused."""
    assert import_reward("math:sqrt") is math.sqrt
    for name in ("math:none", "no_such_module:f", "math:pi"):
        with pytest.raises(ValueError, match=r"data\.online\.reward: expected"):
            import_reward(name)
