"""Loss and gradient of preference training against TRL's trainer, with the same weights."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from weightwise.lm.chat import ChatTemplate, Message
from weightwise.lm.post.dpo import Preference, answer_logps, dpo_loss, encode_pair
from weightwise.lm.post.sft import collate
from weightwise.recipes import load_recipe
from weightwise.train import load_model, train
from weightwise.train.exchange import export_hunyuan

transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PAIRS = [("2 + 2?", "4", "five"), ("say so", "o", "no"), ("1", "1", "11")]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two checkpoints of ours, policy and reference, and the same in transformers."""
    folder = tmp_path_factory.mktemp("models")
    base = load_recipe("moe")
    attention = replace(base.model.attention, share_factor=1)
    ffn = replace(base.model.ffn, num_experts=4, top_k=2)
    base = replace(
        base,
        model=replace(
            base.model, vocab_size=300, width=32, num_layers=2, attention=attention, ffn=ffn
        ),
        data=replace(load_recipe("tiny").data, chat_tokens=True),
        train=replace(base.train, steps=2),
    )
    found = []
    for seed in (1, 2):
        out = folder / str(seed)
        wanted = replace(base, seed=seed)
        train(wanted, out, cache_dir=folder / "cache", console=Console(quiet=True))
        export_hunyuan(out, folder / f"hf-{seed}")
        model, tokenizer, _ = load_model(out)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / f"hf-{seed}")
        found.append((model, tokenizer, theirs.float()))
    return found


def test_loss_and_gradient_are_those_of_trl(models, tmp_path):
    """Sigmoid loss and NLL of the chosen answers with weight 0.2; answers of one length."""
    (policy, tokenizer, their_policy), (reference, _, their_reference) = models
    template = ChatTemplate(tokenizer)
    pairs = [
        encode_pair(
            template,
            Preference(
                prompt=(Message(role="user", content=prompt),), chosen=chosen, rejected=rejected
            ),
        )
        for prompt, chosen, rejected in PAIRS
    ]
    samples = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
    batch = collate([[sample] for sample in samples])
    ours_P2 = answer_logps(policy(batch.tokens), batch.targets).view(2, -1).T
    with torch.no_grad():
        fixed_P2 = answer_logps(reference(batch.tokens), batch.targets).view(2, -1).T
    lengths = torch.tensor([float(pair[0].num_targets) for pair in pairs])
    ours = dpo_loss(ours_P2, fixed_P2, lengths, beta=0.1, nll_coef=0.2)
    ours["loss"].backward()

    theirs = trl_loss(their_policy, their_reference, tokenizer, samples, tmp_path)
    theirs.backward()
    torch.testing.assert_close(theirs.detach(), ours["loss"].detach(), atol=1e-5, rtol=0)
    gradient = their_policy.get_input_embeddings().weight.grad
    torch.testing.assert_close(gradient, policy.embed.weight.grad, atol=1e-5, rtol=1e-4)


def trl_loss(policy, reference, tokenizer, samples, tmp_path):
    """What TRL's trainer computes for these samples, chosen answers first."""
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._backend,
        eos_token="<|eos|>",  # noqa: S106
        pad_token="<|pad|>",  # noqa: S106
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trl.DPOTrainer(
            model=policy,
            ref_model=reference,
            args=trl.DPOConfig(
                output_dir=str(tmp_path),
                loss_type=["sigmoid", "sft"],
                loss_weights=[1.0, 0.2],
                beta=0.1,
                report_to="none",
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
            ),
            train_dataset=datasets.Dataset.from_list(
                [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in PAIRS]
            ),
            processing_class=words,
        )
    width = max(len(sample.ids) for sample in samples)
    inputs = {
        name: torch.zeros(len(samples), width, dtype=torch.int64)
        for name in ("input_ids", "attention_mask", "completion_mask")
    }
    for row, sample in enumerate(samples):
        length = len(sample.ids)
        inputs["input_ids"][row, :length] = torch.tensor(list(sample.ids))
        inputs["attention_mask"][row, :length] = 1
        inputs["completion_mask"][row, :length] = torch.tensor(sample.is_learnt).long()
    policy.eval()
    return trainer.compute_loss(policy, inputs)
