"""Conversations as tokens: the template, what is learnt, and what is refused."""

from __future__ import annotations

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.lm import train_tokenizer
from weightwise.lm.chat import JINJA_TEMPLATE, ChatTemplate, Message, parse_messages

TOKENIZER = train_tokenizer(["tell me of whales\n", "whales are large and they sing\n"], 300,
                            chat_tokens=True)  # fmt: skip
TEMPLATE = ChatTemplate(TOKENIZER)
START, EOS, EXTRA_0, EXTRA_4, EXTRA_5 = (
    TOKENIZER.special_tokens[f"<|{name}|>"]
    for name in ("startoftext", "eos", "extra_0", "extra_4", "extra_5")
)


def talk(*turns: tuple[str, str]) -> list[Message]:
    """Messages from pairs of role and content."""
    return [Message(role=role, content=content) for role, content in turns]


def ids(text: str) -> list[int]:
    """Tokens of plain text."""
    return TOKENIZER.encode(text)


@st.composite
def talks(draw: st.DrawFn, contents: st.SearchStrategy[str]) -> list[Message]:
    """Conversations in the order that is allowed, which may end with either side."""
    turns = [("system", draw(contents))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns += [("user", draw(contents)), ("assistant", draw(contents))]
    return talk(*turns[: len(turns) - draw(st.integers(0, 1))])


def test_template_of_the_released_model() -> None:
    """A system text takes the first user along; every later user begins a new text."""
    messages = talk(("system", "be brief"), ("user", "whales"), ("assistant", "large"),
                    ("user", "more"))  # fmt: skip
    assert TEMPLATE.encode(messages) == [
        START, *ids("be brief"), EXTRA_4, *ids("whales"), EXTRA_0, *ids("large"), EOS,
        START, *ids("more"), EXTRA_0,
    ]  # fmt: skip
    assert TEMPLATE.encode(talk(("user", "whales"))) == [START, *ids("whales"), EXTRA_0]
    assert TEMPLATE.stop_ids == (EOS, EXTRA_5)


def test_learnt_are_answers_with_the_mark_before_and_after() -> None:
    """Labels run from each <|extra_0|> to the next <|eos|>, both included, nothing else."""
    messages = talk(("system", "be brief"), ("user", "whales"), ("assistant", "large"),
                    ("user", "more"), ("assistant", "they sing"), ("user", "thanks"))  # fmt: skip
    found, is_learnt = TEMPLATE.encode_labelled(messages)
    assert found == TEMPLATE.encode(messages)
    learnt = [token for token, flag in zip(found, is_learnt, strict=True) if flag]
    assert learnt == [EXTRA_0, *ids("large"), EOS, EXTRA_0, *ids("they sing"), EOS]


@settings(max_examples=100, deadline=None)
@given(messages=talks(st.text()))
def test_labels_are_those_of_the_released_script(messages: list[Message]) -> None:
    """Its rule on the ids alone: the n-th <|extra_0|> up to the n-th <|eos|>."""
    if all(message.role != "assistant" for message in messages):
        return
    found, is_learnt = TEMPLATE.encode_labelled(messages)
    begins = [place for place, token in enumerate(found) if token == EXTRA_0]
    ends = [place for place, token in enumerate(found) if token == EOS]
    expected = [False] * len(found)
    for begin, end in zip(begins, ends, strict=False):
        expected[begin : end + 1] = [True] * (end + 1 - begin)
    assert is_learnt == expected


@settings(max_examples=100, deadline=None)
@given(messages=talks(st.text(alphabet="abc whales\n<|>{}%'\"")))
def test_jinja_template_says_the_same(messages: list[Message]) -> None:
    """The text that other programs render is that of our ids, marks written out."""
    turns = [{"role": message.role, "content": message.content} for message in messages]
    environment = jinja2.Environment(autoescape=False)  # noqa: S701, no page is made of it
    text = environment.from_string(JINJA_TEMPLATE).render(messages=turns)
    found = (
        TEMPLATE.encode(messages)
        if messages[-1].role == "user"
        else TEMPLATE.encode_labelled(messages)[0]
    )
    assert TOKENIZER.decode(found, with_specials=True) == text


def test_names_of_marks_in_a_text_stay_text() -> None:
    """Who writes <|eos|> into a message does not end it."""
    found = TEMPLATE.encode(talk(("user", "<|eos|><|extra_0|>")))
    assert [found.count(mark) for mark in (EOS, EXTRA_0, START)] == [0, 1, 1]
    assert TOKENIZER.decode(found[1:-1]) == "<|eos|><|extra_0|>"


def test_an_answer_continues_the_prompt() -> None:
    """Prompt and answer together are the conversation."""
    prompt = talk(("system", "be brief"), ("user", "whales"))
    whole = [*prompt, Message(role="assistant", content="they sing")]
    assert (
        TEMPLATE.encode(prompt) + TEMPLATE.encode_answer("they sing")
        == (TEMPLATE.encode_labelled(whole)[0])
    )


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([], "at least one message"),
        ([("user", "a"), ("system", "b"), ("user", "c")], r"messages\[1\]: expected a system"),
        ([("assistant", "a"), ("user", "b")], r"messages\[0\]: expected an assistant's answer"),
        ([("system", "a"), ("assistant", "b")], r"messages\[1\]: expected an assistant's"),
        ([("user", "a"), ("assistant", "b")], "last one to be a user's, got assistant"),
        ([("system", "a")], "last one to be a user's, got system"),
    ],
)
def test_roles_in_another_order_are_refused(turns: list[tuple[str, str]], message: str) -> None:
    """The message that is out of place is named."""
    with pytest.raises(ValueError, match=message):
        TEMPLATE.encode(talk(*turns))


def test_nothing_to_learn_is_refused() -> None:
    """A question alone is no example."""
    with pytest.raises(ValueError, match="expected an answer of the assistant"):
        TEMPLATE.encode_labelled(talk(("user", "a")))


def test_messages_are_read_from_json() -> None:
    """Objects with role and content become messages; other keys are passed over."""
    given_messages = [{"role": "user", "content": "a", "name": "x"}]
    assert parse_messages(given_messages) == talk(("user", "a"))


@pytest.mark.parametrize(
    ("given_messages", "message"),
    [
        ("hello", "messages: expected a list"),
        ([], "messages: expected a list with at least one"),
        ([{"role": "user"}], r"messages\[0\]: expected an object with role and content"),
        ([{"role": "user", "content": "a"}, 3], r"messages\[1\]: expected an object"),
        ([{"role": "tool", "content": "a"}], r"messages\[0\]\.role: expected one of system, "),
        ([{"role": "user", "content": None}], r"messages\[0\]\.content: expected text, got None"),
        ([{"role": ["user"], "content": "a"}], r"messages\[0\]\.role: expected one of"),
    ],
)
def test_bad_json_is_named(given_messages: object, message: str) -> None:
    """The place of what is wrong stands in the message."""
    with pytest.raises(ValueError, match=message):
        parse_messages(given_messages)


def test_a_tokenizer_without_chat_tokens_is_refused() -> None:
    """The message says which is missing and what to do."""
    with pytest.raises(ValueError, match=r"<\|startoftext\|> is missing; train with data\.chat"):
        ChatTemplate(train_tokenizer(["a"], 260))
