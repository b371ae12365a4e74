"""What signals do to a server with texts under way: a real process, ended from outside."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from http.client import HTTPConnection, HTTPException

import pytest
from rich.console import Console

from weightwise.recipes import tiny
from weightwise.train import train

pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

SERVE = "import sys, weightwise.cli, weightwise.serve.server as server\n"
NEW_TOKENS = 600  # a second or two


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run of a step of a model that writes long texts."""
    base, folder = tiny(), tmp_path_factory.mktemp("served")
    recipe = replace(
        base,
        model=replace(base.model, max_length=2048),
        data=replace(base.data, chat_tokens=True),
        train=replace(base.train, steps=1),
    )
    train(recipe, folder / "run", cache_dir=folder / "cache", console=Console(quiet=True))
    return folder / "run"


@pytest.fixture
def server(start, run, tmp_path):
    """Start a server of the run; gives the process and its port."""

    def begin(shutdown_s=None):
        limit = "" if shutdown_s is None else f"server.SHUTDOWN_S = {shutdown_s}\n"
        program = tmp_path / "program.py"
        program.write_text(f"{SERVE}{limit}sys.exit(weightwise.cli.main(sys.argv[1:]))")
        process = start(program, "serve", run, "--port", "0")
        return process, int(process.until(r"http://.*:(\d+)/v1")[1])

    return begin


def begin(port):
    """Ask for a long text in pieces; gives connection and answer after the first piece."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    body = {
        "model": "tiny", "messages": [{"role": "user", "content": "hello"}], "stream": True,
        "max_completion_tokens": NEW_TOKENS, "temperature": 0,
    }  # fmt: skip
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    assert answer.readline().startswith(b"data: ")
    return connection, answer


def pieces(connection, answer):
    """What else comes of an answer, as far as it comes."""
    try:
        rest = answer.read()
    except HTTPException as error:
        rest = getattr(error, "partial", b"")
    connection.close()
    return [line[6:] for line in rest.splitlines() if line.startswith(b"data: ")]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_texts_are_finished_before_the_end(server, number) -> None:
    """Every piece up to the last one arrives, and the process says that all is well."""
    process, port = server()
    answers = [begin(port) for _ in range(3)]
    process.send_signal(number)
    for answer in answers:
        *rows, last = pieces(*answer)
        assert last == b"[DONE]"
        assert json.loads(rows[-1])["choices"][0]["finish_reason"] == "length"
    assert process.wait(60) == 0
    assert "Traceback" not in process.err


@pytest.mark.slow
def test_texts_that_take_too_long_are_given_up(server) -> None:
    """Clients are told, and the process still says that all is well."""
    process, port = server(shutdown_s=0)
    answer = begin(port)
    process.send_signal(signal.SIGTERM)
    *_, last = pieces(*answer)
    assert "shutting down" in json.loads(last)["error"]["message"]
    assert process.wait(60) == 0
    assert "Traceback" not in process.err
