"""The engine against transformers: logits and greedy ids."""

from __future__ import annotations

import pytest
import torch

from omnima import _core

from . import models

PROMPT = [5, 17, 3, 88, 42, 9, 61, 2]
CASES = [*models.LLAMA, "gpt2"]


def build(case):
    if case == "gpt2":
        return models.gpt2()
    return models.llama(**models.LLAMA[case])


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(case):
    reference, values, parameters = build(case)
    engine = _core.Engine(values, parameters)
    ids = torch.randint(0, 97, (70,), generator=torch.Generator().manual_seed(1)).tolist()
    with torch.no_grad():
        expected = reference(torch.tensor([ids])).logits[0]
    for stepwise in (False, True):
        torch.testing.assert_close(engine.logits(ids, stepwise), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("length", [1, 8, 40])
def test_greedy_ids_equal_transformers(case, length):
    reference, values, parameters = build(case)
    prompt = (PROMPT * 5)[:length]
    expected = reference.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, length, dtype=torch.int64),
        max_new_tokens=40,
        do_sample=False,
    )[0, length:].tolist()
    [(ids, reason, *_)] = _core.Engine(values, parameters).generate(
        [prompt], {"max_new_tokens": 40}, seeds=[0]
    )
    assert ids == expected
    assert reason == "length"


def test_repetition_penalty_equals_transformers_greedy_text():
    reference, values, parameters = models.llama()
    expected = reference.generate(
        torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, 8, dtype=torch.int64),
        max_new_tokens=40,
        do_sample=False,
        repetition_penalty=1.3,
    )[0, 8:].tolist()
    options = {"max_new_tokens": 40, "repetition_penalty": 1.3}
    [(ids, *_)] = _core.Engine(values, parameters).generate([PROMPT], options, seeds=[0])
    assert ids == expected
