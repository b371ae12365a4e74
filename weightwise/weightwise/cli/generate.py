"""The command ``weightwise generate``."""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 (the parser reads annotations)
from typing import TYPE_CHECKING, Any

import tyro  # noqa: TC002 (the parser reads annotations)

from weightwise.cli.model_options import Dtype, Json, Sampling, Texts, open_model
from weightwise.lm.beams import beam_search
from weightwise.lm.decoder import Request
from weightwise.lm.generate import complete
from weightwise.lm.sampling import SamplingConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightwise.lm import LanguageModel, Tokenizer
    from weightwise.lm.decoder import Continuation

DEFAULT_PROMPT = "def "
DEFAULT_NEW_TOKENS = 100


def generate_command(
    checkpoint: tyro.conf.Positional[Path],
    /,
    prompt: Texts = (),
    prompts: Path | None = None,
    max_new_tokens: int | None = None,
    sampling: Sampling = SamplingConfig(temperature=0.8),  # noqa: B008, it is frozen
    samples: int = 1,
    beams: int | None = None,
    length_penalty: float = 1.0,
    seed: int = 1,
    stop: Texts = (),
    logprobs: int | None = None,
    max_batch: int = 32,
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> int:
    """Continue texts with a trained model; a single one is printed as it comes.

    Args:
        checkpoint: Folder of a checkpoint, or of a run, whose newest checkpoint is taken.
        prompt: Text to continue; may be repeated. Default: "def ".
        prompts: File with one prompt a line, or JSON lines with a field prompt where its name
            ends in .jsonl; - reads standard input.
        max_new_tokens: Most tokens to add, at least 1. Default: 100, or what there is room for.
        sampling: How tokens are chosen.
        samples: Texts for each prompt, at least 1.
        beams: Search for the likeliest texts with this many at a time, at least SAMPLES, of which
            the best are printed; nothing is sampled then.
        length_penalty: With --beams: above 0 longer texts are preferred, below 0 shorter ones.
        seed: Seed of the choice; the same seed gives the same text. Further samples of a prompt
            have the seeds that follow.
        stop: End a text before this one; may be repeated.
        logprobs: With --json, log probabilities of the tokens and of this many likeliest ones.
        max_batch: Texts at a time.
        dtype: Type of the weights.
        as_json: Print one JSON object for each text.
    """
    if samples < 1:
        raise ValueError(f"samples: expected at least 1, got {samples}")
    texts = [*prompt, *(read_prompts(prompts) if prompts is not None else ())]
    texts = texts or [DEFAULT_PROMPT]
    model, tokenizer, _ = open_model(checkpoint, dtype)
    requests = [
        Request(
            prompt=ids,
            max_new_tokens=max_new_tokens or _room(model, ids),
            sampling=sampling,
            seed=seed + sample,
            stop_ids=frozenset({tokenizer.eos_id}),
            stop_texts=stop,
            num_logprobs=logprobs,
        )
        for ids in (tokenizer.encode(text) or [tokenizer.eos_id] for text in texts)
        for sample in range(samples)
    ]
    if beams is not None:
        if beams < samples or stop or logprobs is not None:
            raise ValueError(
                f"beams: expected at least {samples}, the samples, without --stop and --logprobs, "
                f"got {beams}"
            )
        return _search(
            model, tokenizer, texts, requests[::samples], (beams, samples, length_penalty),
            as_json=as_json,
        )  # fmt: skip
    printer = _Printer(tokenizer, texts, samples, as_json=as_json)
    complete(model, requests, tokenizer=tokenizer, max_batch=max_batch, on_token=printer.update)
    return 0


def read_prompts(path: Path) -> list[str]:
    """Prompts of a file, one a line; empty lines are left out.

    Raises
    ------
    ValueError
        If the file is no UTF-8 text, or a line of a ``.jsonl`` file has no prompt.
    """
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, got {error}") from error
    lines = [
        (number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()
    ]
    if not lines:
        raise ValueError(f"{path}: expected at least 1 prompt, got none")
    if path.suffix != ".jsonl":
        return [line.removesuffix("\r") for _, line in lines]
    return [_prompt_of(line, f"{path}:{i}") for i, line in lines]


def _search(
    model: LanguageModel,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    requests: Sequence[Request],
    setting: tuple[int, int, float],
    *,
    as_json: bool,
) -> int:
    """Print the best texts of a search with beams, samples and length penalty, prompt by prompt."""
    num_beams, samples, penalty = setting
    longest = model.config.max_length
    for request in requests:
        room = longest - len(request.prompt)
        if request.max_new_tokens > room:
            raise ValueError(
                f"max_new_tokens: expected at most {room} (max_length {longest}, prompt "
                f"{len(request.prompt)}), got {request.max_new_tokens}"
            )
    for number, (text, request) in enumerate(zip(texts, requests, strict=True)):
        found = beam_search(
            model,
            request.prompt,
            num_beams=num_beams,
            max_new_tokens=request.max_new_tokens,
            stop_ids=request.stop_ids,
            length_penalty=penalty,
        )
        for sample, beam in enumerate(found[:samples]):
            has_stop = beam.tokens[-1] in request.stop_ids
            new = tokenizer.decode(beam.tokens[:-1] if has_stop else beam.tokens)
            if as_json:
                record = {
                    "prompt": text, "sample": sample, "text": new, "num_tokens": len(beam.tokens),
                    "finish_reason": "stop" if has_stop else "length", "score": beam.score,
                }  # fmt: skip
                print(json.dumps(record), flush=True)
                continue
            if len(texts) * samples > 1:
                print(f"--- {number * samples + sample + 1} of {len(texts) * samples}")
            print(text + new, flush=True)
    return 0


def _prompt_of(line: str, place: str) -> str:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place}: expected JSON, got {error}") from error
    prompt = found.get("prompt") if isinstance(found, dict) else None
    if isinstance(prompt, str):
        return prompt
    raise ValueError(f"{place}: prompt: expected a text, got {str(found)[:100]}")


def _room(model: LanguageModel, ids: Sequence[int]) -> int:
    return max(1, min(DEFAULT_NEW_TOKENS, model.config.max_length - len(ids)))


class _Printer:
    """Prints a single text as it comes, and several in their order, each when it is whole."""

    def __init__(
        self, tokenizer: Tokenizer, prompts: Sequence[str], samples: int, *, as_json: bool
    ) -> None:
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._samples = samples
        self._as_json = as_json
        self._num_texts = len(prompts) * samples
        self._whole: dict[int, Continuation] = {}
        self._num_printed = 0
        self._num_shown = 0
        if self._num_texts == 1:
            self._show(prompts[0])

    def update(self, number: int, one: Continuation) -> None:
        """Take note of a new token."""
        if self._num_texts == 1:
            self._show(one.text[self._num_shown :])
            self._num_shown = len(one.text)
            if one.finish is not None:
                self._show("\n")
        if one.finish is not None:
            self._whole[number] = one
        while self._num_printed in self._whole:
            self._print(self._num_printed, self._whole.pop(self._num_printed))
            self._num_printed += 1

    def _show(self, text: str) -> None:
        print(text, end="", file=sys.stderr if self._as_json else sys.stdout, flush=True)

    def _print(self, number: int, one: Continuation) -> None:
        prompt = self._prompts[number // self._samples]
        if self._as_json:
            print(json.dumps(self._record(prompt, number % self._samples, one)), flush=True)
        elif self._num_texts > 1:
            print(f"--- {number + 1} of {self._num_texts}\n{prompt}{one.text}", flush=True)

    def _record(self, prompt: str, sample: int, one: Continuation) -> dict[str, Any]:
        record: dict[str, Any] = {
            "prompt": prompt,
            "sample": sample,
            "text": one.text,
            "num_tokens": len(one.tokens),
            "finish_reason": one.finish,
        }
        if one.scores:
            name = self._tokenizer.decode
            record["logprobs"] = [
                {
                    "token": name([score.token]),
                    "logprob": score.logprob,
                    "top": [{"token": name([t]), "logprob": value} for t, value in score.top],
                }
                for score in one.scores
            ]
        return record
