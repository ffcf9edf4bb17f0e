"""Small models for all tests here."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import torch

import omnima
from omnima.server.prepare import stop_ids_of

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = ["To be, or not to be, that is the question: é 日本 🙂 <b>bold</b>"] * 4


def made(adapter: str = "", template: str | None = TEMPLATE, **shape: Any) -> omnima.Model:
    """A model of drawn weights, with an adapter that changes all it writes where one is named."""
    tokenizer = omnima.Tokenizer.train(
        TEXTS, "bpe", vocab_size=300, special_tokens=["<|im_start|>", "<|im_end|>"]
    )
    tokenizer.chat_template = template
    sizes = {
        "max_position_embeddings": 256,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "seed": 3,
    }
    model = omnima.Model.from_preset("nima", vocab_size=tokenizer.vocab_size, **{**sizes, **shape})
    model.tokenizer = tokenizer
    if adapter:
        model.add_adapter("lora", name=adapter, rank=4)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for _, parameter in model.core.adapter_parameters(adapter):
                parameter.normal_(0, 0.5, generator=generator)
        model.set_adapters({})
    return model


def made_slow() -> omnima.Model:
    """One whose likeliest token never ends an answer: there is always time to stop it.

    Greedily drawn, a token with the score 0 is never the best of hundreds.
    """
    model = made(
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=8,
        max_position_embeddings=2048,
        seed=5,
    )
    with torch.no_grad():
        weights = dict(model.core.named_parameters())
        weights["model.embed_tokens.weight"][stop_ids_of(model.tokenizer)] = 0.0
    return model


@asynccontextmanager
async def begun(**models: omnima.Model) -> AsyncGenerator[Any, None]:
    """Models whose engines run."""
    from omnima.demo.models import Models

    found = Models(models)
    await found.begin()
    try:
        yield found
    finally:
        await found.close()


@pytest.fixture(scope="session")
def model() -> omnima.Model:
    return made("bard")
