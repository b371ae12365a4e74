"""The generator behind HTTP, against a real server on this machine."""

import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from weightwise.lm.chat import Message
from weightwise.lm.post.calls import CallLog, GeneratorError, Request
from weightwise.lm.post.endpoint import EndpointConfig, EndpointGenerator

FAST = EndpointConfig(backoff_s=0.001, timeout_s=5.0)


class Server:
    """A server that answers by a function of the number of the request and its body."""

    def __init__(self, reply):
        outer = self
        self.bodies, self.headers, self.times = [], [], []
        self.most_at_once, self._at_once = 0, 0
        self._lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                self.answer(*reply(0, None))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.bodies.append(body)
                    outer.headers.append(dict(self.headers))
                    outer.times.append(time.monotonic())
                    number = len(outer.bodies)
                    outer._at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer._at_once)
                try:
                    self.answer(*reply(number, body))
                finally:
                    with outer._lock:
                        outer._at_once -= 1

            def answer(self, code, content, headers=None):
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(code)
                for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1#small"

    def start(self):
        """Serve from a thread of its own."""
        self._thread.start()

    def stop(self):
        """End, with all that belongs to it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def serving(reply):
    """A running server."""
    server = Server(reply)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def said(text, reason="stop"):
    """An answer as OpenAI's API has it."""
    message = {"role": "assistant", "content": text}
    return 200, {"choices": [{"index": 0, "message": message, "finish_reason": reason}]}


def echo(_, body):
    """Say what was said."""
    return said("You said: " + body["messages"][-1]["content"])


def requests(count):
    """Requests with different texts."""
    return [
        Request(
            purpose="respond", messages=(Message(role="user", content=f"text {k}"),),
            domain="code", level=0, subject=f"text {k}", seed=k, temperature=0.5, max_new_tokens=9,
        )
        for k in range(count)
    ]  # fmt: skip


def test_requests_and_answers_fit():
    """Model, messages and settings are sent; each answer belongs to its request."""
    with serving(echo) as server:
        generator = EndpointGenerator(server.url, FAST)
        answers = dict(generator.generate(requests(20)))
    assert generator.name == server.url
    assert {k: one.text for k, one in answers.items()} == {
        k: f"You said: text {k}" for k in range(20)
    }
    assert {one.finish_reason for one in answers.values()} == {"stop"}
    (body,) = [body for body in server.bodies if body["seed"] == 7]
    assert body == {
        "model": "small", "messages": [{"role": "user", "content": "text 7"}],
        "temperature": 0.5, "max_tokens": 9, "seed": 7,
    }  # fmt: skip


def test_as_many_at_once_as_allowed():
    """Three answers wait for each other; a fourth is never under way."""
    barrier = threading.Barrier(3, timeout=5)

    def reply(number, body):
        barrier.wait()
        return echo(number, body)

    with serving(reply) as server:
        generator = EndpointGenerator(server.url, EndpointConfig(concurrency=3))
        assert len(dict(generator.generate(requests(12)))) == 12
    assert server.most_at_once == 3


def test_passing_faults_are_tried_again():
    """Codes that may pass, half an answer, no JSON, another shape: then the answer."""
    faults = [
        (503, {"error": {"message": "busy"}}), (429, b"slow down", {"Retry-After": "0.01"}),
        (200, b"{", {"Content-Length": "100"}), (200, b"<html>"), (200, {"choices": []}),
        (500, b""),
    ]  # fmt: skip

    def reply(number, body):
        return faults[number - 1] if number <= len(faults) else echo(number, body)

    with serving(reply) as server:
        config = EndpointConfig(backoff_s=0.001, max_retries=6, concurrency=1, timeout_s=0.3)
        ((_, answer),) = EndpointGenerator(server.url, config).generate(requests(1))
    assert answer.text == "You said: text 0"
    assert len(server.bodies) == 7
    assert len({json.dumps(body) for body in server.bodies}) == 1


def test_waits_double_and_retry_after_is_heeded():
    """The second wait is at least as long as the shortest first; the server's word counts more."""
    replies = [(500, b""), (500, b""), (429, b"", {"Retry-After": "0.3"})]

    def reply(number, body):
        return replies[number - 1] if number <= 3 else echo(number, body)

    with serving(reply) as server:
        config = EndpointConfig(backoff_s=0.1)
        assert len(dict(EndpointGenerator(server.url, config).generate(requests(1)))) == 1
    waits = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    for wait, least in zip(waits, (0.05, 0.1, 0.3), strict=True):
        assert wait >= least


def test_a_server_that_stays_broken_ends_the_work():
    """After the last try there is one line with address, number of tries and reason."""
    with serving(lambda *_: (500, {"error": "out of memory"})) as server:
        config = EndpointConfig(backoff_s=0.0, max_retries=2, concurrency=1)
        with pytest.raises(GeneratorError) as error:
            dict(EndpointGenerator(server.url, config).generate(requests(3)))
    message = "gave up after 3 tries; the last: 500 Internal Server Error: out of memory"
    assert str(error.value) == f"{server.url}: {message}"
    assert len(server.bodies) == 3


def test_silence_and_absence_are_told():
    """A server that says nothing in time, and none at all."""
    release = threading.Event()

    def silent(number, body):
        release.wait(5)
        return echo(number, body)

    config = EndpointConfig(backoff_s=0.0, max_retries=1, timeout_s=0.1)
    with serving(silent) as server:
        with pytest.raises(GeneratorError, match="2 tries; the last: no answer: timed out"):
            dict(EndpointGenerator(server.url, config).generate(requests(1)))
        release.set()
    with pytest.raises(GeneratorError, match=r"no answer: .*refused"):
        dict(EndpointGenerator(server.url, config).generate(requests(1)))


def test_a_wrong_key_ends_the_work_at_once_and_is_not_shown(monkeypatch):
    """No second try; the line says what to set. The key goes into the header and nowhere else."""
    monkeypatch.setenv("SMALL_KEY", "sesame")
    with serving(lambda *_: (401, {"error": {"message": "no such key"}})) as server:
        config = EndpointConfig(api_key_env="SMALL_KEY", concurrency=1)
        with pytest.raises(GeneratorError, match="401 Unauthorized: no such key; set api") as error:
            dict(EndpointGenerator(server.url, config).generate(requests(5)))
    assert [headers["Authorization"] for headers in server.headers] == ["Bearer sesame"]
    assert "sesame" not in str(error.value)


def test_no_key_is_sent_unless_asked_for(monkeypatch):
    """A key of some other service in the environment stays there."""
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    with serving(echo) as server:
        dict(EndpointGenerator(server.url, FAST).generate(requests(1)))
    assert "Authorization" not in server.headers[0]


def test_answers_before_a_failure_are_kept(tmp_path):
    """The log has them; the next call asks for the others only, and nothing is asked twice."""
    count = Counter()

    def reply(number, body):
        if number == 15:
            return 403, {"error": {"message": "quota"}}
        count[body["seed"]] += 1
        return echo(number, body)

    with serving(reply) as server:
        generator = EndpointGenerator(server.url, FAST)
        calls = [(generator, request) for request in requests(40)]
        with pytest.raises(GeneratorError, match="403 Forbidden: quota"):
            CallLog(tmp_path / "calls.jsonl").ask(calls)
        num_kept = (tmp_path / "calls.jsonl").read_text().count("\n")
        assert num_kept == sum(count.values()) >= 14
        answers = CallLog(tmp_path / "calls.jsonl").ask(calls)
    assert [answer.text for answer in answers] == [f"You said: text {k}" for k in range(40)]
    assert count == dict.fromkeys(range(40), 1)


def test_refusals_are_answers(tmp_path):
    """Single requests that the server will not take are recorded with its words, once."""

    def reply(number, body):
        if body["seed"] % 4 == 0:
            return 400, {"error": {"message": "content policy"}}
        return said(None, "content_filter") if body["seed"] == 1 else echo(number, body)

    with serving(reply) as server:
        generator = EndpointGenerator(server.url, FAST)
        calls = [(generator, request) for request in requests(12)]
        answers = CallLog(tmp_path / "calls.jsonl").ask(calls)
        again = CallLog(tmp_path / "calls.jsonl").ask(calls)
    refused = [k for k, answer in enumerate(answers) if answer.finish_reason == "refused"]
    assert refused == [0, 1, 4, 8]
    assert answers[4].text == "400 Bad Request: content policy"
    assert again == answers
    assert len(server.bodies) == 12


def test_many_refusals_in_a_row_are_an_error(tmp_path):
    """Ten without an answer between them are due to the settings, and none is recorded."""
    with serving(lambda *_: (422, {"error": {"message": "unknown model"}})) as server:
        generator = EndpointGenerator(server.url, FAST)
        calls = [(generator, request) for request in requests(50)]
        with pytest.raises(GeneratorError, match=r"10 requests in a row .*422 .*: unknown model"):
            CallLog(tmp_path / "calls.jsonl").ask(calls)
    assert (tmp_path / "calls.jsonl").read_text() == ""
    assert len(server.bodies) < 20


def test_requests_are_paced():
    """At 1,200 in a minute eight requests take at least seven times 50 ms."""
    with serving(echo) as server:
        config = EndpointConfig(requests_per_minute=1200)
        assert len(dict(EndpointGenerator(server.url, config).generate(requests(8)))) == 8
    assert max(server.times) - min(server.times) >= 0.34


def test_the_only_model_is_taken():
    """Without a name the server is asked; with several the line lists them."""
    models = ["small"]

    def reply(number, body):
        if body is None:
            return 200, {"data": [{"id": name} for name in models]}
        return echo(number, body)

    with serving(reply) as server:
        address = server.url.removesuffix("#small")
        assert EndpointGenerator(address, FAST).name == server.url
        models.append("large")
        with pytest.raises(GeneratorError, match=r"expected #MODEL .* one of small, large"):
            EndpointGenerator(address, FAST)
    with pytest.raises(GeneratorError, match="/v1/models: no answer"):
        EndpointGenerator(address, FAST)


def test_bad_settings_are_named(monkeypatch):
    """Addresses, keys and numbers."""
    monkeypatch.delenv("SMALL_KEY", raising=False)
    with pytest.raises(ValueError, match="url: expected http://host/v1"):
        EndpointGenerator("ftp://host/v1#m", FAST)
    with pytest.raises(ValueError, match="api_key_env: expected a variable that is set, SMALL_KEY"):
        EndpointGenerator("http://host/v1#m", EndpointConfig(api_key_env="SMALL_KEY"))
    for field, value in [
        ("timeout_s", 0.0), ("max_retries", -1), ("backoff_s", -1.0), ("concurrency", 0),
        ("requests_per_minute", 0.0),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"{field}: expected .*, got {value}"):
            EndpointConfig(**{field: value})
