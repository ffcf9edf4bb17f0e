"""One small model with adapters and a chat template, and one server of it, for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import omnima
from omnima.server import Limits, Server

TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>"
    "\n{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = ['To be, or not to be, that is the question: é 日本 🙂 {"a": [1, 2]}'] * 4


def made() -> omnima.Model:
    """A model of drawn weights that writes quickly; one of its adapters changes all it writes."""
    tokenizer = omnima.Tokenizer.train(
        TEXTS, "bpe", vocab_size=300, special_tokens=["<|im_start|>", "<|im_end|>"]
    )
    tokenizer.chat_template = TEMPLATE
    model = omnima.Model.from_preset(
        "nima",
        vocab_size=tokenizer.vocab_size,
        max_position_embeddings=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        seed=3,
    )
    model.tokenizer = tokenizer
    model.add_adapter("lora", name="bard", rank=4)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in model.core.adapter_parameters("bard"):
            parameter.normal_(0, 0.5, generator=generator)
    return model


@pytest.fixture(scope="session")
def model() -> omnima.Model:
    found = made()
    found.set_adapters({})
    return found


@pytest.fixture(scope="session")
def server(model: omnima.Model) -> Iterator[Server]:
    with omnima.serve(model, name="tiny", limits=Limits(n=4)) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Server) -> Any:
    from openai import OpenAI

    return OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=120)
