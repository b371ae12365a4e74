"""What is learnt of a chat, how chats share sequences, and what a preference costs."""

import torch

from weightwise.lm import train_tokenizer
from weightwise.lm.chat import ChatTemplate, Message
from weightwise.lm.post.dpo import dpo_loss
from weightwise.lm.post.sft import collate, encode_chat, pack

template = ChatTemplate(train_tokenizer(["one two three"], 300, chat_tokens=True))


def chat(question: str, answer: str) -> list[Message]:
    """A question and its answer."""
    return [Message(role="user", content=question), Message(role="assistant", content=answer)]


samples = [encode_chat(template, chat("2+2?", "4")), encode_chat(template, chat("1+9?", "10"))]
for sample in samples:
    print(f"{len(sample.ids)} tokens, {sample.num_targets} of them learnt")
print(f"lengths 5 3 6 2 4 in sequences of 10: {pack([5, 3, 6, 2, 4], 10)}")
batch = collate([samples])
print("segments", batch.segments[0].tolist())
print("targets ", (batch.targets[0] >= 0).int().tolist())

policy = torch.tensor([[-4.0, -9.0], [-6.0, -5.0]])
reference = torch.tensor([[-5.0, -6.0], [-5.0, -6.0]])
told = dpo_loss(policy, reference, torch.tensor([2.0, 2.0]), beta=0.1, nll_coef=0.2)
print(", ".join(f"{name} {value:.3f}" for name, value in told.items()))
