"""The engine's thread: order, cancelling, failures and its end."""

from __future__ import annotations

import threading

import pytest
import torch

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, SwiGLUConfig
from weightwise.lm.decoder import Decoder, Request
from weightwise.serve.engine import ClosedError, Engine, Piece, QueueFullError
from weightwise.serve.replies import Usage

WAIT_S = 60


class Reader:
    """Collects the pieces of one call."""

    def __init__(self) -> None:
        self.last: dict[int, Piece] = {}
        self.first = threading.Event()
        self.end = threading.Event()

    def __call__(self, number: int, piece: Piece) -> None:
        """Take a piece."""
        self.last[number] = piece
        self.first.set()
        if piece.finish is not None or piece.error is not None:
            self.end.set()


def request(max_new_tokens: int, **settings) -> Request:
    # Scores make a piece of every token, though there is no tokenizer and so no text.
    return Request(prompt=[1, 2], max_new_tokens=max_new_tokens, num_logprobs=0, **settings)


@pytest.fixture
def model():
    config = ModelConfig(
        vocab_size=29,
        width=16,
        num_layers=1,
        max_length=4096,
        attention=GQAConfig(num_heads=2),
        ffn=SwiGLUConfig(hidden=16),
    )
    built = LanguageModel(config).eval()
    built.initialize(torch.Generator().manual_seed(0))
    return built


@pytest.fixture
def engine(model):
    one = Engine(Decoder(model, num_slots=2), max_queue=1)
    yield one
    one.close()


def test_waiting_request_gets_the_slot_of_a_cancelled_one(engine):
    """Two long texts fill the slots; when one is cancelled the third is written."""
    long = Reader()
    jobs = engine.submit([request(4000), request(4000)], long)
    assert long.first.wait(WAIT_S)
    short = Reader()
    engine.submit([request(3)], short)
    assert not short.end.wait(0.05)
    engine.cancel(jobs[:1])
    assert short.end.wait(WAIT_S)
    assert (short.last[0].finish, short.last[0].num_tokens) == ("length", 3)
    engine.cancel(jobs)
    assert engine.counts["requests"] == 3


def test_all_requests_of_a_call_are_taken_or_none(engine):
    """Two slots and one place: four are refused, nothing is queued; three are taken."""
    with pytest.raises(QueueFullError, match="expected room for 4 more"):
        engine.submit([request(2)] * 4, Reader())
    with pytest.raises(ValueError, match="prompt: expected ids 0 to 28"):
        engine.submit([request(2), Request(prompt=[29], max_new_tokens=1)], Reader())
    assert engine.counts["requests"] == 0
    reader = Reader()
    engine.submit([request(2)] * 3, reader)
    assert reader.end.wait(WAIT_S)


def test_failing_pass_fails_its_texts_and_no_others(model, engine):
    """A layer that raises once: those in the slots get the reason, the next text is written."""

    def fail(*_: object) -> None:
        handle.remove()
        raise RuntimeError("out of memory")

    handle = model.blocks[0].register_forward_pre_hook(fail)
    first = Reader()
    engine.submit([request(5)], first)
    assert first.end.wait(WAIT_S)
    assert first.last[0].error == "the model failed: out of memory"
    second = Reader()
    engine.submit([request(5)], second)
    assert second.end.wait(WAIT_S)
    assert second.last[0].finish == "length"
    assert engine.counts["failed"] == 1


def test_closed_engine_tells_everybody(model):
    """The running and the waiting text get an error, later ones are refused."""
    engine = Engine(Decoder(model, num_slots=1), max_queue=1)
    running, waiting = Reader(), Reader()
    engine.submit([request(4000)], running)
    assert running.first.wait(WAIT_S)
    engine.submit([request(3)], waiting)
    engine.close()
    assert running.end.is_set()
    assert running.last[0].error == waiting.last[0].error == "the server is shutting down"
    assert not engine.is_alive
    with pytest.raises(ClosedError):
        engine.submit([request(1)], Reader())
    with pytest.raises(ValueError, match="max_queue: expected at least 0, got -1"):
        Engine(Decoder(model, num_slots=1), max_queue=-1)


def test_choices_share_their_prompt_and_the_answer_says_so(model):
    """Three texts of 40 tokens: two of them take 39 from the first; a later one takes 39 too."""
    decoder = Decoder(model, num_slots=3, max_length=60, cache_tokens=200)
    engine = Engine(decoder, max_queue=0)
    prompt = [number % 29 for number in range(40)]
    wanted = Request(prompt=prompt, max_new_tokens=2, num_logprobs=0)
    try:
        for number, shared in ((3, [0, 39, 39]), (1, [39])):
            done, last = threading.Semaphore(0), {}

            def deliver(text: int, piece: Piece, done=done, last=last) -> None:
                last[text] = piece
                if piece.finish is not None:
                    done.release()

            engine.submit([wanted] * number, deliver)
            assert all(done.acquire(timeout=WAIT_S) for _ in range(number))
            assert [last[text].num_shared for text in range(number)] == shared
    finally:
        engine.close()
    assert engine.counts["shared_tokens"] == 3 * 39
    usage = Usage(num_prompt=40, num_choices=2)
    for text in range(2):
        usage.count(text, Piece(num_tokens=5, num_shared=39 * text, finish="length"))
    assert usage.reply() == {
        "prompt_tokens": 40,
        "completion_tokens": 10,
        "total_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
