"""The command ``weightwise serve``."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path  # noqa: TC003 (the parser reads annotations)

import tyro  # noqa: TC002 (the parser reads annotations)

from weightwise.cli.model_options import Dtype, open_model
from weightwise.lm.decoder import PREFILL_TOKENS, Decoder


def serve_command(
    checkpoint: tyro.conf.Positional[Path],
    /,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    api_key: str | None = None,
    max_batch: int = 16,
    max_queue: int = 64,
    max_length: int | None = None,
    cache_tokens: int | None = None,
    prefill_tokens: int = PREFILL_TOKENS,
    dtype: Dtype = "float32",
) -> int:
    """Serve a model over HTTP with OpenAI's interface, until Ctrl-C.

    Args:
        checkpoint: Folder of a checkpoint, or of a run, whose newest checkpoint is taken.
        host: Address to listen on. Default: this machine only.
        port: Port to listen on; 0 takes a free one.
        name: What clients call the model. Default: the name of its recipe.
        api_key: Key that clients must send. Default: the variable WEIGHTWISE_API_KEY, or none.
        max_batch: Texts that are written at a time.
        max_queue: Requests that wait for a place; more are told to come back later.
        max_length: Most tokens of a prompt and its text. Default: the model's.
        cache_tokens: Tokens of all texts together. Default: max_batch times max_length.
        prefill_tokens: Most tokens of prompts that are read between two tokens of other texts.
        dtype: Type of the weights and of the cache.
    """
    try:
        from weightwise.serve.app import create_app
        from weightwise.serve.engine import Engine
        from weightwise.serve.server import run_server
    except ImportError as error:
        raise ValueError(
            f"serve: expected the packages of the extra serve ({error}); "
            "pip install 'weightwise[serve]'"
        ) from error
    _check_sizes(port, max_batch, prefill_tokens)
    model, tokenizer, recipe_name = open_model(checkpoint, dtype)
    with _listener(host, port) as listener:
        decoder = Decoder(
            model,
            tokenizer,
            num_slots=max_batch,
            max_length=max_length,
            prefill_tokens=prefill_tokens,
            cache_tokens=cache_tokens,
        )
        engine = Engine(decoder, max_queue=max_queue)
        app = create_app(
            engine,
            tokenizer,
            name=name or recipe_name,
            api_key=api_key or os.environ.get("WEIGHTWISE_API_KEY") or None,
        )
        place = f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        print(
            f"weightwise: {name or recipe_name} at http://{place}/v1, {max_batch} texts at a time, "
            f"cache {decoder.cache.num_bytes / 2**20:.1f} MiB; Ctrl-C stops",
            file=sys.stderr,
            flush=True,
        )
        run_server(app, listener, engine)
    return 0


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def _check_sizes(port: int, max_batch: int, prefill_tokens: int) -> None:
    if not 0 <= port < 2**16:
        raise ValueError(f"port: expected 0 to {2**16 - 1}, got {port}")
    for option, value in (("max_batch", max_batch), ("prefill_tokens", prefill_tokens)):
        if value < 1:
            raise ValueError(f"{option}: expected at least 1, got {value}")
