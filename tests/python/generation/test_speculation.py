"""Guessing ahead: the same text, sooner; what does not fit is refused by its name."""

from __future__ import annotations

import pytest

from omnima import Model, Tokenizer
from omnima.errors import ConfigError
from omnima.generation import generate, stream

from . import models

TOKENIZER = models.ByteTokenizer()
PROMPTS = ["abc abc abc ab", "the cat, the cat, the c", "x"]


@pytest.fixture(scope="module")
def model():
    return models.Model(vocab_size=259)


@pytest.fixture(scope="module")
def draft():
    return models.Model(seed=5, vocab_size=259)


def text_of(each):
    return each.text, each.ids, each.finish_reason


PENALTIES = {"frequency_penalty": 0.3, "presence_penalty": 0.2, "logit_bias": {101: -3.0}}


@pytest.mark.parametrize("more", [{}, PENALTIES], ids=["plain", "penalties"])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("kind", ["lookup", "draft", "itself"])
def test_the_text_is_the_same(model, draft, kind, temperature, more):
    options = {"max_new_tokens": 60, "temperature": temperature, "stop": ["e"], **more}
    plain = generate(model, TOKENIZER, PROMPTS, **options)
    speculation = {"lookup": "lookup", "draft": draft, "itself": model}[kind]
    for tokens in (1, 4, 15):
        options |= {"speculation": speculation, "speculative_tokens": tokens}
        found = generate(model, TOKENIZER, PROMPTS, **options)
        assert list(map(text_of, found)) == list(map(text_of, plain))
        assert all(0 <= each.accepted_tokens <= each.proposed_tokens for each in found)
        if kind == "itself":
            assert all(each.accepted_tokens == each.proposed_tokens > 0 for each in found[2:])
    assert all(each.proposed_tokens == 0 for each in plain)


def test_streams(model, draft):
    options = {"max_new_tokens": 40, "temperature": 0.0}
    whole = "".join(stream(model, TOKENIZER, PROMPTS[0], **options))
    for speculation in ("lookup", draft):
        pieces = stream(model, TOKENIZER, PROMPTS[0], speculation=speculation, **options)
        assert "".join(pieces) == whole


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"speculation": "look-up"}, 'speculation is "look-up"; it is "lookup"'),
        ({"speculation": "lookup", "speculative_tokens": 0}, "at least one"),
        ({"speculation": "lookup", "speculative_tokens": 65}, "speculative_tokens"),
        ({"speculation": models.Model(vocab_size=97)}, "97 ids, but the model has 259"),
    ],
)
def test_what_does_not_fit_is_refused(model, options, words):
    with pytest.raises(ConfigError, match=words):
        generate(model, TOKENIZER, "abc", **options)


def test_a_draft_model_with_other_pieces_is_refused():
    tokenizer = Tokenizer.train(["abab abab", "cdcd"], vocab_size=270)
    other = Tokenizer.train(["xyxy xyxy", "zwzw"], vocab_size=270)
    made = [
        Model.from_preset(
            "nima",
            vocab_size=270,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
        for _ in range(2)
    ]
    made[0].tokenizer, made[1].tokenizer = tokenizer, other
    with pytest.raises(ConfigError, match=r"token \d+ is .*, but the model's is"):
        made[0].generate("ab", speculation=made[1])
    made[1].tokenizer = tokenizer
    found = made[0].generate("ab", speculation=made[1], max_new_tokens=8)
    assert found.proposed_tokens > 0
