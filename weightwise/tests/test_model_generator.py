"""The generator that is a model of ours, in this process."""

import socket
import threading
import time

import pytest
import torch

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, SwiGLUConfig, train_tokenizer
from weightwise.lm.chat import Message
from weightwise.lm.decoder import Decoder
from weightwise.lm.post.calls import CallLog, Request
from weightwise.lm.post.endpoint import EndpointConfig, EndpointGenerator
from weightwise.lm.post.model_generator import ModelGenerator

TEXTS = ["What is 2 + 3? Answer: 5", "Spell the word planet backwards."] * 20


@pytest.fixture(scope="module")
def tokenizer():
    """Bytes, a few merges and the chat tokens."""
    return train_tokenizer(TEXTS, 300, chat_tokens=True)


@pytest.fixture(scope="module")
def model(tokenizer):
    """Random weights: what it says has no sense, but is the same each time."""
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, width=32, num_layers=2, max_length=96,
        attention=GQAConfig(num_heads=2), ffn=SwiGLUConfig(hidden=64),
    )  # fmt: skip
    model = LanguageModel(config)
    model.initialize(torch.Generator().manual_seed(1))
    return model


def requests(temperature, count=6):
    """Requests of different lengths, each with a seed."""
    return [
        Request(
            purpose="respond", messages=(Message(role="user", content="What is it? " * (k + 1)),),
            domain="code", level=0, subject="-", seed=k, temperature=temperature, max_new_tokens=12,
        )
        for k in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_answers_do_not_depend_on_the_batch(model, tokenizer, temperature):
    """One at a time or four: the same texts, so that a run that goes on is the same run."""
    alone = ModelGenerator(model, tokenizer, name="m", max_batch=1)
    together = ModelGenerator(model, tokenizer, name="m", max_batch=4)
    asked = requests(temperature)
    answers = dict(alone.generate(asked))
    assert dict(together.generate(asked)) == answers
    assert dict(together.generate(asked[3:])) == {k - 3: answers[k] for k in (3, 4, 5)}
    assert {answer.finish_reason for answer in answers.values()} <= {"stop", "length"}
    if temperature:
        again = [one for _, one in sorted(alone.generate(requests(temperature, 6)[::-1]))]
        assert again[::-1] == [answers[k] for k in range(6)]


def test_chats_without_room_are_refused(model, tokenizer, tmp_path):
    """The reason names both lengths; a shorter answer is asked for where there is some room."""
    generator = ModelGenerator(model, tokenizer, name="m")
    long = requests(0.0, 1)[0].messages[0].content * 100
    asked = [
        *requests(0.0, 1),
        Request(
            purpose="respond", messages=(Message(role="user", content=long),), domain="code",
            level=0, subject="-", seed=0, temperature=0.0, max_new_tokens=12,
        ),
    ]  # fmt: skip
    calls = [(generator, one) for one in asked]
    first, second = CallLog(tmp_path / "calls.jsonl").ask(calls)
    assert first.finish_reason in ("stop", "length")
    assert second.finish_reason == "refused"
    assert second.text.endswith("tokens leave no room in 96")


def test_bad_settings_are_named(model, tokenizer):
    """Batches of nobody, and tokenizers that cannot chat."""
    with pytest.raises(ValueError, match="max_batch: expected at least 1, got 0"):
        ModelGenerator(model, tokenizer, name="m", max_batch=0)
    with pytest.raises(ValueError, match="tokenizer: expected chat tokens"):
        ModelGenerator(model, train_tokenizer(TEXTS, 300), name="m")


def test_our_server_gives_the_same_answers(model, tokenizer):
    """Through HTTP or in this process: the same model says the same."""
    pytest.importorskip("fastapi")
    uvicorn = pytest.importorskip("uvicorn")
    from weightwise.serve.app import create_app
    from weightwise.serve.engine import Engine

    engine = Engine(Decoder(model, tokenizer, num_slots=4), max_queue=64)
    app = create_app(engine, tokenizer, name="tiny")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            remote = EndpointGenerator(url, EndpointConfig())
            asked = [*requests(0.0), *requests(0.8)]
            answers = dict(remote.generate(asked))
            assert remote.name == f"{url}#tiny"
        finally:
            server.should_exit = True
            thread.join()
    assert answers == dict(ModelGenerator(model, tokenizer, name="m").generate(asked))
