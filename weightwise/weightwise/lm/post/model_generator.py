"""A generator in this process: a language model of ours that has learnt to chat."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from weightwise.lm import decoder
from weightwise.lm.chat import ChatTemplate
from weightwise.lm.post.calls import Completion
from weightwise.lm.sampling import CHAT_SAMPLING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from weightwise.lm.model import LanguageModel
    from weightwise.lm.post.calls import Request
    from weightwise.lm.tokenizer import Tokenizer


class ModelGenerator:
    """Generates with a model, many requests at a time.

    Tokens are chosen as the released Hunyuan-Large does, at the temperature of the request. What a
    request gets depends on its own seed and not on the others, up to the order of additions.

    Parameters
    ----------
    model, tokenizer
        A trained model and its tokenizer, which has the chat tokens. The model is put into
        evaluation mode.
    name
        Tells this model from others, such as the folder of its checkpoint.
    max_batch
        Most requests at a time, at least 1.

    Raises
    ------
    ValueError
        If the tokenizer has no chat tokens, or ``max_batch`` is below 1.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, *, name: str, max_batch: int = 32
    ) -> None:
        if max_batch < 1:
            raise ValueError(f"max_batch: expected at least 1, got {max_batch}")
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer)
        self._max_batch = max_batch
        self.name = name

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """Answer requests as they end; see `Generator`.

        A chat that leaves no room for an answer in the model's length is refused.
        """
        waiting: deque[tuple[int, decoder.Request]] = deque()
        for index, request in enumerate(requests):
            prompt = self._template.encode(request.messages)
            room = self._model.config.max_length - len(prompt)
            if room < 1:
                text = f"{len(prompt)} tokens leave no room in {self._model.config.max_length}"
                yield index, Completion(text=text, finish_reason="refused")
                continue
            waiting.append((index, self._prepare(request, prompt, room)))
        if not waiting:
            return
        writer = decoder.Decoder(
            self._model,
            self._tokenizer,
            num_slots=min(self._max_batch, len(waiting)),
            max_length=max(len(one.prompt) + one.max_new_tokens for _, one in waiting),
        )
        running: dict[decoder.Continuation, int] = {}
        while waiting or not writer.is_idle:
            while waiting and writer.num_free:
                index, one = waiting.popleft()
                running[writer.add(one)] = index
            for ended in writer.step():
                if ended.finish is not None:
                    completion = Completion(text=ended.text, finish_reason=ended.finish)
                    yield running.pop(ended), completion

    def _prepare(self, request: Request, prompt: list[int], room: int) -> decoder.Request:
        return decoder.Request(
            prompt=prompt,
            max_new_tokens=min(request.max_new_tokens, room),
            sampling=replace(CHAT_SAMPLING, temperature=request.temperature),
            seed=request.seed,
            stop_ids=frozenset(self._template.stop_ids),
        )
