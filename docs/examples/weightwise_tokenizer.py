"""A vocabulary learnt from text, extended by another language, and a conversation in tokens."""

from weightwise.lm import Tokenizer
from weightwise.lm.chat import ChatTemplate, Message
from weightwise.lm.tiktoken import BYTES, extend_ranks

english = ["Every token has one expert of sixteen, and one that all tokens share.\n"] * 9
chinese = ["每个词有十六个专家中的一个，还有一个所有词共用的专家。\n"] * 9

base = extend_ranks(BYTES, english, 30)
longer = extend_ranks(base, chinese, 40)
print(f"{len(base)} tokens from English, {len(longer)} with Chinese, ids kept:", end=" ")
print(longer[: len(base)] == base)
for text in (english[0], chinese[0]):
    counts = [len(Tokenizer.from_ranks(ranks).encode(text)) for ranks in (BYTES, base, longer)]
    print(f"{len(text)} characters: {counts[0]} bytes, then {counts[1]}, then {counts[2]} tokens")

tokenizer = Tokenizer.from_ranks(longer)
template = ChatTemplate(tokenizer)
talk = [
    Message(role="system", content="Be brief."),
    Message(role="user", content="How many experts?"),
    Message(role="assistant", content="Sixteen."),
]
ids, is_learnt = template.encode_labelled(talk)
print(tokenizer.decode(ids, with_specials=True))
learnt = [token for token, flag in zip(ids, is_learnt, strict=True) if flag]
print("learnt:", tokenizer.decode(learnt, with_specials=True))
