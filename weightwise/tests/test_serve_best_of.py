"""The likeliest of several texts, chosen by the server, against each text scored alone."""

from __future__ import annotations

import pytest
import torch

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, SwiGLUConfig, train_tokenizer
from weightwise.lm.decoder import Decoder, Request
from weightwise.lm.generate import complete
from weightwise.lm.sampling import SamplingConfig

pytest.importorskip("fastapi")
testclient = pytest.importorskip("starlette.testclient")

from weightwise.serve.app import create_app  # noqa: E402
from weightwise.serve.engine import Engine  # noqa: E402

TOKENIZER = train_tokenizer(["whales are large and they sing\n"], 290)
PROMPTS = ["whales ", "they "]


def build() -> LanguageModel:
    config = ModelConfig(
        vocab_size=TOKENIZER.vocab_size,
        width=32,
        num_layers=2,
        max_length=64,
        attention=GQAConfig(num_heads=4, num_kv_heads=2),
        ffn=SwiGLUConfig(hidden=24),
        init_std=0.3,
    )
    model = LanguageModel(config).eval()
    model.initialize(torch.Generator().manual_seed(0))
    with torch.no_grad():  # so that some texts end early, and one at once
        model.embed.weight[TOKENIZER.eos_id] *= 3
    return model


MODEL = build()


@pytest.fixture(scope="module")
def ask():
    """Posts a body to a server whose cache has pages, fewer rows than texts."""
    decoder = Decoder(MODEL, TOKENIZER, num_slots=5, cache_tokens=256)
    engine = Engine(decoder, max_queue=200)
    with testclient.TestClient(create_app(engine, TOKENIZER, name="tiny")) as client:
        yield lambda **body: client.post(
            "/v1/completions", json={"model": "tiny", "prompt": "whales ", **body}
        )


def ranked(prompt: str, count: int) -> list[tuple[float, str, int]]:
    """Mean log probability, text and number of tokens of every text, best first."""
    ids, found = TOKENIZER.encode(prompt), []
    requests = [
        Request(
            prompt=ids,
            max_new_tokens=6,
            seed=9 + k,
            stop_ids=frozenset({TOKENIZER.eos_id}),
            sampling=SamplingConfig(temperature=1.5),
        )
        for k in range(count)
    ]
    for one in complete(MODEL, requests, tokenizer=TOKENIZER):
        with torch.no_grad():
            logprob_TV = MODEL(torch.tensor([[*ids, *one.tokens]]))[0].log_softmax(-1)
        each = [float(logprob_TV[len(ids) - 1 + i, t]) for i, t in enumerate(one.tokens)]
        found.append((sum(each) / len(each), one.text, len(one.tokens)))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("logprobs", [None, 2])
def test_choices_are_the_likeliest_of_all_texts(ask, logprobs) -> None:
    """Of twelve texts for each prompt come the three whose tokens are likeliest on average."""
    reply = ask(
        prompt=PROMPTS, n=3, best_of=12, max_tokens=6, seed=9, temperature=1.5, logprobs=logprobs
    ).json()
    texts = [ranked(prompt, 12) for prompt in PROMPTS]
    wanted = [text for one in texts for _, text, _ in one[:3]]
    assert [choice["text"] for choice in reply["choices"]] == wanted
    assert [choice["index"] for choice in reply["choices"]] == list(range(6))
    assert all((choice["logprobs"] is None) == (logprobs is None) for choice in reply["choices"])
    num_prompt = sum(len(TOKENIZER.encode(prompt)) for prompt in PROMPTS)
    assert reply["usage"]["prompt_tokens"] == num_prompt
    # Texts that were written count, whether they are told or not.
    assert reply["usage"]["completion_tokens"] == sum(n for one in texts for *_, n in one)
    assert len({n for one in texts for *_, n in one}) > 1, "some texts should end early"


def test_as_many_texts_as_choices_keep_their_order(ask) -> None:
    """With ``best_of`` equal to ``n`` all is as without it; such texts can be streamed."""
    body = {"n": 3, "max_tokens": 6, "seed": 9, "temperature": 1.5}
    plain = ask(**body).json()["choices"]
    assert ask(**body, best_of=3).json()["choices"] == plain
    assert ask(**body, best_of=3, stream=True).text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"best_of": 1, "n": 2}, "best_of: expected at least n 2, got 1"),
        ({"best_of": 2, "stream": True}, "best_of: expected n 1 in a stream, whose texts are sent"),
        ({"best_of": 129}, "best_of: "),
        ({"best_of": 128, "prompt": ["a", "b"]}, "n: expected at most 128 texts in all, got 2"),
    ],
)
def test_best_of_is_checked(ask, body, message) -> None:
    """Fewer texts than choices, streams and too many texts are refused by name."""
    reply = ask(**body)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith(message)
    assert reply.json()["error"]["type"] == "invalid_request_error"
