"""Texts of unequal length, each with settings of its own, written together."""

import torch

from weightwise.lm import (
    GQAConfig,
    LanguageModel,
    ModelConfig,
    Request,
    SamplingConfig,
    SwiGLUConfig,
    complete,
    train_tokenizer,
)

tokenizer = train_tokenizer(["the whale sings and the sea sings\n"] * 20, vocab_size=280)
model = LanguageModel(
    ModelConfig(
        vocab_size=tokenizer.vocab_size,
        width=32,
        num_layers=2,
        max_length=64,
        attention=GQAConfig(num_heads=4, num_kv_heads=2),
        ffn=SwiGLUConfig(hidden=64),
    )
)
model.initialize(torch.Generator().manual_seed(0))

requests = [
    Request(
        prompt=tokenizer.encode("the whale"),
        max_new_tokens=12,
        sampling=SamplingConfig(temperature=0),
    ),
    Request(
        prompt=tokenizer.encode("and"),
        max_new_tokens=20,
        sampling=SamplingConfig(temperature=0.7, top_k=20, top_p=0.6, repetition_penalty=1.05),
        seed=7,
        stop_ids=frozenset({tokenizer.eos_id}),
        num_logprobs=0,
    ),
]
together = complete(model, requests, tokenizer=tokenizer)
alone = [complete(model, [request], tokenizer=tokenizer)[0] for request in requests]
for one, same in zip(together, alone, strict=True):
    print(f"{len(one.tokens)} tokens, ended by {one.finish}, as alone: {one.tokens == same.tokens}")
print(f"{len(together[1].scores)} log probabilities, all at most 0:", end=" ")
print(all(score.logprob <= 0 for score in together[1].scores))
