"""The server as clients see it: a real one on a free port, and OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest
import torch

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, MoEConfig, train_tokenizer
from weightwise.lm.chat import ChatTemplate, Message
from weightwise.lm.decoder import Decoder, Request
from weightwise.lm.generate import complete
from weightwise.lm.sampling import CHAT_SAMPLING

openai = pytest.importorskip("openai")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

from weightwise.serve.app import MOST_BODY_BYTES, create_app  # noqa: E402
from weightwise.serve.engine import Engine  # noqa: E402

TEXT = ["tell me of whales\n", "whales are large and they sing\n"]
TOKENIZER = train_tokenizer(TEXT, 300, chat_tokens=True)
QUESTION = [{"role": "user", "content": "tell me of whales"}]
LENGTH = 1024


def build(vocab_size: int) -> LanguageModel:
    config = ModelConfig(
        vocab_size=vocab_size,
        width=32,
        num_layers=2,
        max_length=LENGTH,
        attention=GQAConfig(num_heads=4, num_kv_heads=2, qk_norm=True, share_factor=2),
        ffn=MoEConfig(hidden=24, num_experts=4),
        # Large weights give logits that differ clearly, so that no two are nearly equal.
        init_std=0.3,
    )
    model = LanguageModel(config).eval()
    model.initialize(torch.Generator().manual_seed(0))
    return model


MODEL = build(TOKENIZER.vocab_size)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny matrices gain nothing from a second thread, and other jobs may need it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def new_engine(*, slots: int = 8, queue: int = 64, model=MODEL, tokenizer=TOKENIZER) -> Engine:
    decoder = Decoder(model, tokenizer, num_slots=slots, prefill_tokens=16)
    return Engine(decoder, max_queue=queue)


@contextmanager
def serving(engine: Engine, *, tokenizer=TOKENIZER, api_key: str | None = None):
    """A server in a thread; gives its port."""
    app = create_app(engine, tokenizer, name="tiny", api_key=api_key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = uvicorn.Config(app, log_level="critical", ws="none", timeout_graceful_shutdown=5)
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
    assert not engine.is_alive


@pytest.fixture(scope="module")
def port():
    with serving(new_engine()) as number:
        yield number


@pytest.fixture
def client(port):
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0
    ) as one:
        yield one


def call(port: int, method: str, path: str, body=None, headers=None):
    """Plain HTTP; gives status and parsed JSON, or the text."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        reply = connection.getresponse()
        text = reply.read().decode()
        kind = reply.headers.get("content-type", "")
        return reply.status, json.loads(text) if "json" in kind else text
    finally:
        connection.close()


def metric(port: int, name: str) -> int:
    lines = call(port, "GET", "/metrics")[1].splitlines()
    return next((int(ln.split()[1]) for ln in lines if ln.startswith(f"weightwise_{name} ")), 0)


def wait_until(check) -> None:
    for _ in range(2000):
        if check():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within 20 seconds")


def wanted(number: int) -> tuple[str, dict]:
    """Endpoint and body of one of many unlike requests; every third is greedy."""
    common = {"model": "tiny", "seed": number, "max_tokens": 5 + number}
    if number % 3 == 0:
        common["temperature"] = 0
    text = "whales " * (1 + number * 3 % 13)
    if number % 2:
        return "chat", {**common, "messages": [{"role": "user", "content": text}]}
    return "text", {**common, "prompt": text, "stop": ["sing"]}


async def text_of(client, number: int, *, stream: bool) -> str:
    kind, body = wanted(number)
    endpoint = client.chat.completions if kind == "chat" else client.completions
    reply = await endpoint.create(**body, stream=stream)
    if not stream:
        choice = reply.choices[0]
        return choice.message.content if kind == "chat" else choice.text
    text = ""
    async for chunk in reply:
        choice = chunk.choices[0]
        text += (choice.delta.content or "") if kind == "chat" else choice.text
    return text


@pytest.mark.slow
def test_twenty_streams_at_once_are_those_of_each_alone(port):
    """Greedy and seeded, chats and texts, eight slots for twenty: nobody sees the others."""

    async def everything():
        async with openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0
        ) as client:
            alone = [await text_of(client, number, stream=False) for number in range(20)]
            together = await asyncio.gather(
                *(text_of(client, number, stream=True) for number in range(20))
            )
        return alone, together

    alone, together = asyncio.run(everything())
    assert together == alone
    assert len(set(alone)) > 15


def test_chat_is_what_the_library_writes(client):
    """The template, the sampling of the released model, and the counts of tokens."""
    reply = client.chat.completions.create(
        model="tiny", messages=QUESTION, seed=5, max_completion_tokens=12
    )
    template = ChatTemplate(TOKENIZER)
    ids = template.encode([Message(role="user", content="tell me of whales")])
    request = Request(
        prompt=ids,
        max_new_tokens=12,
        sampling=CHAT_SAMPLING,
        seed=5,
        stop_ids=frozenset(template.stop_ids),
    )
    expected = complete(MODEL, [request], tokenizer=TOKENIZER)[0]
    assert reply.choices[0].message.content == expected.text
    assert reply.choices[0].finish_reason == expected.finish
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (
        len(ids),
        len(expected.tokens),
    )
    in_parts = [{"role": "user", "content": [
        {"type": "text", "text": "tell me "}, {"type": "text", "text": "of whales"}]}]  # fmt: skip
    again = client.chat.completions.create(model="tiny", messages=in_parts, seed=5, max_tokens=12)
    assert again.choices[0].message.content == expected.text


def test_stream_begins_with_the_role_and_ends_with_reason_and_usage(client):
    """Chunks of a chat in OpenAI's order."""
    chunks = list(
        client.chat.completions.create(
            model="tiny",
            messages=QUESTION,
            seed=1,
            max_tokens=6,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks[:-2])
    assert chunks[-1].choices == []
    assert 1 <= chunks[-1].usage.completion_tokens <= 6
    assert len({chunk.id for chunk in chunks}) == 1


def test_choices_prompts_and_scores(client):
    """Two prompts with two choices each: seeds s and s + 1, in order; token ids do as well."""
    body = {"model": "tiny", "max_tokens": 8, "seed": 3, "logprobs": 2}
    reply = client.completions.create(prompt=["whales ", "tell "], n=2, **body)
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    second = client.completions.create(prompt=TOKENIZER.encode("whales "), **{**body, "seed": 4})
    assert second.choices[0].text == reply.choices[1].text
    num_prompt = len(TOKENIZER.encode("whales ")) + len(TOKENIZER.encode("tell "))
    assert reply.usage.prompt_tokens == num_prompt
    scores = second.choices[0].logprobs
    assert len(scores.tokens) == len(scores.token_logprobs) >= 1
    assert all(value <= 0 for value in scores.token_logprobs)
    assert all(1 <= len(top) <= 2 for top in scores.top_logprobs)
    chat = client.chat.completions.create(
        model="tiny", messages=QUESTION, max_tokens=3, logprobs=True, top_logprobs=3, temperature=0
    )
    for token in chat.choices[0].logprobs.content:
        assert token.top_logprobs[0].logprob >= token.logprob
        assert len(token.top_logprobs) == 3


def test_stop_text_ends_the_text_before_it(client):
    """The text up to the place where the third character comes for the first time."""
    body = {"model": "tiny", "prompt": "whales ", "max_tokens": 40, "temperature": 0}
    free = client.completions.create(**body).choices[0].text
    stop = free[2:4]
    reply = client.completions.create(**body, stop=stop)
    assert reply.choices[0].text == free[: free.index(stop)]
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.completion_tokens < 40


def test_sampling_fields_reach_the_sampler(client):
    """top_k 1 is greedy whatever the temperature; a heavy penalty changes greedy text."""
    body = {"model": "tiny", "prompt": "whales ", "max_tokens": 20}
    greedy = client.completions.create(**body, temperature=0).choices[0].text
    one = client.completions.create(**body, temperature=1.9, extra_body={"top_k": 1})
    assert one.choices[0].text == greedy
    other = client.completions.create(**body, temperature=0, frequency_penalty=2)
    assert other.choices[0].text != greedy


def test_models_health_and_metrics(client, port):
    """One model; counters move with requests."""
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert call(port, "GET", "/health") == (200, {"status": "ok"})
    before = metric(port, "new_tokens_total"), metric(port, "requests_total")
    client.completions.create(model="tiny", prompt="whales", max_tokens=4, temperature=0)
    tokens, requests = metric(port, "new_tokens_total"), metric(port, "requests_total")
    assert 1 <= tokens - before[0] <= 4
    assert requests - before[1] == 1


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_goes_frees_its_slot(port, stream):
    """A text of a thousand tokens whose reader leaves is cancelled long before its end."""
    cancelled = metric(port, "cancelled_total")
    body = {"model": "tiny", "prompt": "whales", "max_tokens": 1000, "temperature": 0}
    raw = json.dumps({**body, "stream": stream, "n": 3}).encode()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n\r\n"
        connection.sendall(head.encode() + raw)
        if stream:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        else:
            wait_until(lambda: metric(port, "requests_running") > 0)
    wait_until(lambda: metric(port, "requests_running") == 0)
    assert metric(port, "cancelled_total") > cancelled


@pytest.mark.slow
def test_full_queue_is_told_to_come_back():
    """One slot and one place to wait: the third request gets 429, the first two their texts."""
    with (
        serving(new_engine(slots=1, queue=1)) as port,
        openai.OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0
        ) as client,
    ):
        body = {"model": "tiny", "prompt": "w", "max_tokens": 900, "stream": True}
        streams = [client.completions.create(**body, temperature=0) for _ in range(2)]
        with pytest.raises(openai.RateLimitError, match="try again later"):
            client.completions.create(**{**body, "stream": False})
        first, second = ("".join(c.choices[0].text for c in stream) for stream in streams)
        assert first == second != ""


def test_key_is_asked_for():
    """Without the key no text and no list of models; health needs none."""
    with serving(new_engine(slots=1), api_key="secret") as port:
        address = f"http://127.0.0.1:{port}/v1"
        with (
            openai.OpenAI(base_url=address, api_key="wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.models.list()
        with openai.OpenAI(base_url=address, api_key="secret", max_retries=0) as client:
            assert client.models.list().data
        assert call(port, "GET", "/health")[0] == 200
        assert (
            call(port, "POST", "/v1/completions", b"{}", {"Authorization": "Bearer \xe9"})[0] == 401
        )


def test_model_without_chat_tokens_says_so():
    """Plain texts work, chats are refused with what to do."""
    plain = train_tokenizer(TEXT, 290)
    engine = new_engine(slots=1, model=build(plain.vocab_size), tokenizer=plain)
    with serving(engine, tokenizer=plain) as port:
        body = json.dumps({"model": "tiny", "messages": QUESTION})
        status, reply = call(port, "POST", "/v1/chat/completions", body)
        assert status == 400
        assert "chat tokens" in reply["error"]["message"]
        assert "/v1/completions" in reply["error"]["message"]
        body = json.dumps({"model": "tiny", "prompt": "whales", "max_tokens": 2})
        assert call(port, "POST", "/v1/completions", body)[0] == 200


CHAT, TEXTS = "/v1/chat/completions", "/v1/completions"
WORDS = {"model": "tiny", "prompt": "whales", "max_tokens": 2}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (TEXTS, b"\xff\xfe{", 400, "body: expected JSON"),
        (TEXTS, b'{"model": "tiny", "prompt": "\xff"}', 400, "body: expected JSON"),
        (TEXTS, b'{"model": "tiny", "prompt": "\\ud800"}', 400, "body: expected JSON"),
        (TEXTS, b"", 400, "body: expected JSON"),
        (TEXTS, b"[" * 100_000, 400, "body: expected JSON"),
        (TEXTS, b"[1]", 400, "body: expected a JSON object, got list"),
        (TEXTS, b" " * (MOST_BODY_BYTES + 1), 413, "body: expected at most 4194304 bytes"),
        (TEXTS, {**WORDS, "color": 1}, 400, "color: expected one of model, "),
        (TEXTS, {**WORDS, "tools": []}, 400, "tools: expected one of "),
        (TEXTS, {"model": "tiny"}, 400, "prompt: expected a value, got none"),
        (TEXTS, {**WORDS, "model": "gpt"}, 404, "model: expected tiny, got 'gpt'"),
        (TEXTS, {**WORDS, "max_tokens": "5"}, 400, "max_tokens: expected a valid integer"),
        (TEXTS, {**WORDS, "max_tokens": True}, 400, "max_tokens: expected a valid integer"),
        (TEXTS, {**WORDS, "max_tokens": 0}, 400, "max_tokens: expected at least 1"),
        (TEXTS, {**WORDS, "max_tokens": 2000}, 400, "max_tokens: expected at most 10"),
        (TEXTS, {**WORDS, "temperature": -1}, 400, r"temperature: expected 0 (greedy) or more"),
        (TEXTS, {**WORDS, "temperature": 1e999}, 400, "temperature: expected"),
        (TEXTS, {**WORDS, "temperature": "hot"}, 400, "temperature: expected a valid number"),
        (TEXTS, {**WORDS, "top_p": 0}, 400, "top_p: expected above 0 and at most 1, got 0"),
        (TEXTS, {**WORDS, "top_k": 0}, 400, "top_k: expected at least 1, got 0"),
        (TEXTS, {**WORDS, "seed": 2**70}, 400, "seed: expected -2^63 to 2^63 - 1"),
        (TEXTS, {**WORDS, "n": 129}, 400, "n: expected at most 128, got 129"),
        (TEXTS, {**WORDS, "n": 100, "prompt": ["a", "b"]}, 400, "n: expected at most 128 texts"),
        (TEXTS, {**WORDS, "stop": ""}, 400, "stop: expected texts of 1 to 256 characters"),
        (TEXTS, {**WORDS, "stop": ["x"] * 17}, 400, "stop: expected a text or a list of at most"),
        (TEXTS, {**WORDS, "stop": {"a": 1}}, 400, "stop: expected a text or a list"),
        (TEXTS, {**WORDS, "logprobs": 21}, 400, "logprobs: expected at most 20, got 21"),
        (TEXTS, {**WORDS, "prompt": []}, 400, "prompt: expected a text, token ids, or a list"),
        (TEXTS, {**WORDS, "prompt": [[]]}, 400, "prompt: expected a text, token ids"),
        (TEXTS, {**WORDS, "prompt": [1, True]}, 400, "prompt: expected a text, token ids"),
        (TEXTS, {**WORDS, "prompt": [1, 999]}, 400, "prompt: expected ids 0 to "),
        (TEXTS, {**WORDS, "prompt": [10**30]}, 400, "prompt: expected ids 0 to "),
        (TEXTS, {**WORDS, "prompt": "w " * 500_000}, 400, "prompt: expected at most 1023 tokens"),
        (TEXTS, {**WORDS, "stream_options": {"x": 1}}, 400, "stream_options.x: expected one of"),
        (CHAT, {"model": "tiny", "messages": []}, 400, "messages: expected a list with at least"),
        (CHAT, {"model": "tiny", "messages": "hi"}, 400, "messages: expected a list"),
        (CHAT, {"model": "tiny", "messages": [7]}, 400, "messages[0]: expected an object"),
        (CHAT, {"model": "tiny", "messages": [{"role": "god", "content": ""}]}, 400,
         "messages[0].role: expected one of system, user, assistant, got 'god'"),
        (CHAT, {"model": "tiny", "messages": [{"role": "user", "content": [{"type": "image"}]}]},
         400, "messages[0].content: expected a text or parts of type text"),
        (CHAT, {"model": "tiny", "messages": [*QUESTION, {"role": "assistant", "content": "a"}]},
         400, "messages: expected the last one to be a user's"),
        (CHAT, {"model": "tiny", "messages": QUESTION, "top_logprobs": 2}, 400,
         "top_logprobs: expected logprobs: true beside it"),
        ("/v1/nothing", {}, 404, "Not Found"),
    ],
)  # fmt: skip
def test_hostile_bodies_are_refused_in_words(port, path, body, status, message):
    """One JSON error that names the field and the range; the server goes on."""
    raw = body if isinstance(body, bytes) else json.dumps(body)
    got, reply = call(port, "POST", path, raw)
    assert message in reply["error"]["message"]
    assert got == status
    assert len(reply["error"]["message"]) < 600
    if status == 400:
        assert reply["error"]["param"] == message.split(":")[0].split("[")[0].split(".")[0]
    assert call(port, "POST", TEXTS, json.dumps(WORDS))[0] == 200
