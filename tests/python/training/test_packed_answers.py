"""Packed rows of conversations: the loss and the gradients of each sample by itself, and those of
transformers with labels of -100 outside of the answers."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from omnima import Model, Tokenizer
from omnima.data.conversations import Conversation, ConversationData, Encoder, Sample

CONTEXT = 96


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    made = Tokenizer.train(
        ["Hi? Ho. Why? So."], "byte", special_tokens=["<|im_start|>", "<|im_end|>"]
    )
    made.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return made


@pytest.fixture
def model(tokenizer: Tokenizer) -> Model:
    return Model.from_preset("nima", vocab_size=tokenizer.vocab_size, max_position_embeddings=128)


def drawn(tokenizer: Tokenizer, count: int, seed: int = 0) -> list[Sample]:
    """Conversations of one to three turns, with words of uneven lengths."""
    chance = random.Random(seed)
    word = lambda: "".join(chance.choices("abcde ", k=chance.randint(1, 5))).strip() or "a"  # noqa: E731
    encoder = Encoder(tokenizer, CONTEXT)
    samples = []
    for _ in range(count):
        turns = []
        for _ in range(chance.choice((1, 1, 2))):
            turns.append({"role": "user", "content": word()})
            turns.append({"role": "assistant", "content": word()})
        samples += encoder.encode(Conversation(tuple(turns)))
    return samples


def batches(data: ConversationData, rows: int) -> list[tuple[Any, Any, Any]]:
    loader = data.loader("train", rows, CONTEXT, sequential=True)
    return [loader.next() for _ in range(loader.batches_per_epoch)]


def summed(model: Model, found: list[tuple[Any, Any, Any]]) -> tuple[float, torch.Tensor]:
    """The sum of the losses over all labels, and its gradient, flat."""
    parameters = [each for _, each in model.named_parameters()]
    total: Any = sum(
        model.loss(ids, labels, None if segments is None else segments.int())
        * (labels != -100).sum()
        for ids, labels, segments in found
        if (labels != -100).any()
    )
    gradients = torch.autograd.grad(total, parameters)
    return float(total.detach()), torch.cat([each.flatten() for each in gradients])


def test_packed_rows_have_loss_and_gradients_of_their_samples(
    model: Model, tokenizer: Tokenizer
) -> None:
    samples = drawn(tokenizer, 40)
    packed = ConversationData(samples, tokenizer, CONTEXT, val_fraction=0)
    padded = ConversationData(samples, tokenizer, CONTEXT, val_fraction=0, packed=False)
    rows = packed.loader("train", 1, CONTEXT).rows_per_epoch
    assert rows < 0.7 * len(samples)
    wanted, slopes = summed(model, batches(padded, 1))
    for found in (batches(packed, 2), batches(padded, 8)):
        loss, gradient = summed(model, found)
        assert loss == pytest.approx(wanted, rel=1e-6)
        assert (gradient - slopes).norm() < 1e-5 * slopes.norm()
        assert (gradient - slopes).abs().max() < 1e-5 * slopes.abs().max()


def test_a_packed_sample_sees_nothing_of_those_beside_it(
    model: Model, tokenizer: Tokenizer
) -> None:
    """Other neighbours, same loss, to the last bits."""
    mine = [min(drawn(tokenizer, 9, seed=5), key=lambda each: len(each.ids))]
    losses = []
    for seed in range(3):
        samples = [*drawn(tokenizer, 6, seed=seed), *mine]
        data = ConversationData(samples, tokenizer, CONTEXT, val_fraction=0)
        loader = data.loader("train", 1, CONTEXT, sequential=True)
        row = next(r for r in range(loader.rows_per_epoch) if 6 in loader.samples_of_row(r))
        number = loader.samples_of_row(row).index(6)
        assert len(loader.samples_of_row(row)) > 1
        loader.seek(row)
        ids, labels, segments = loader.next()
        labels[segments != number] = -100
        losses.append(model.loss(ids, labels, segments.int()).item())
    alone = ConversationData(mine, tokenizer, CONTEXT, val_fraction=0, packed=False)
    ((ids, labels, _),) = batches(alone, 1)
    assert losses == pytest.approx([model.loss(ids, labels).item()] * 3, rel=1e-6)


@pytest.mark.parametrize("packed", [True, False])
def test_loss_and_gradients_are_those_of_transformers(
    model: Model, tokenizer: Tokenizer, packed: bool, tmp_path: Any
) -> None:
    transformers = pytest.importorskip("transformers")
    model.tokenizer = tokenizer
    model.save_pretrained(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    samples = drawn(tokenizer, 12)
    longest = max(len(each.ids) for each in samples)
    ids = torch.zeros(len(samples), longest, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    seen = torch.zeros_like(ids)
    for row, each in enumerate(samples):
        length = len(each.ids)
        ids[row, :length], seen[row, :length] = torch.tensor(each.ids), 1
        marks = torch.tensor(each.supervised, dtype=torch.bool)
        labels[row, :length] = torch.where(marks, ids[row, :length], -100)
    expected = theirs(input_ids=ids, attention_mask=seen, labels=labels).loss
    expected.backward()
    data = ConversationData(samples, tokenizer, CONTEXT, val_fraction=0, packed=packed)
    loss, gradient = summed(model, batches(data, 16))
    count = data.train_supervised
    assert loss / count == pytest.approx(expected.item(), rel=1e-5)
    names = [name for name, _ in model.named_parameters()]
    found = dict(theirs.named_parameters())
    slopes = torch.cat([found[name].grad.flatten() for name in names])
    assert (gradient / count - slopes).norm() < 1e-5 * slopes.norm()
