"""The filters against transformers' processors, and the draws against their probabilities."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as theirs

from omnima import _core
from omnima.errors import ConfigError

SEEN = [3, 3, 8, 40]


def logits(seed, count=64):
    return 3 * torch.randn(count, generator=torch.Generator().manual_seed(seed))


def expected(scores, options):
    ids, scores = torch.tensor([SEEN]), scores[None].clone()
    steps = [
        ("repetition_penalty", theirs.RepetitionPenaltyLogitsProcessor),
        ("temperature", theirs.TemperatureLogitsWarper),
        ("top_k", theirs.TopKLogitsWarper),
        ("top_p", theirs.TopPLogitsWarper),
        ("min_p", theirs.MinPLogitsWarper),
    ]
    for name, step in steps:
        if name in options:
            scores = step(options[name])(ids, scores)
    return scores[0]


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 0.6},
        {"temperature": 0.3},
        {"temperature": 2.0},
        {"top_k": 1},
        {"top_k": 7},
        {"top_k": 500},
        {"top_p": 0.01},
        {"top_p": 0.5},
        {"top_p": 0.95},
        {"min_p": 0.02},
        {"min_p": 1.0},
        {"temperature": 1.5, "top_k": 20, "top_p": 0.8, "min_p": 0.1, "repetition_penalty": 1.2},
    ],
)
def test_filters_equal_transformers(options):
    for seed in range(20):
        scores = logits(seed)
        ours = _core.process_logits(scores.tolist(), SEEN, {"temperature": 1.0, **options})
        torch.testing.assert_close(torch.tensor(ours), expected(scores, options))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    temperature=st.floats(0.1, 5),
    top_k=st.integers(1, 80),
    top_p=st.floats(0.05, 0.999),
    min_p=st.floats(0, 1),
)
def test_something_is_always_left_and_it_holds_the_likeliest(
    seed, temperature, top_k, top_p, min_p
):
    scores = logits(seed)
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    ours = torch.tensor(_core.process_logits(scores.tolist(), [], options))
    assert math.isfinite(ours[scores.argmax()])
    assert 1 <= ours.isfinite().sum() <= top_k


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.4}])
def test_penalties_of_what_was_written_and_biases(options):
    """(logit + bias) by the penalty of repetition where seen, - count * frequency - presence."""
    written, bias = [8, 9, 9, 60], {3: -100.0, 12: 4.5}
    penalties = {"frequency_penalty": 0.7, "presence_penalty": -0.3}
    for seed in range(20):
        scores = logits(seed)
        ours = _core.process_logits(
            scores.tolist(), SEEN, {**options, **penalties}, written=written, logit_bias=bias
        )
        for id, value in bias.items():
            scores[id] += value
        if options:
            process = theirs.RepetitionPenaltyLogitsProcessor(options["repetition_penalty"])
            scores = process(torch.tensor([SEEN + written]), scores[None])[0]
        counts = torch.bincount(torch.tensor(written), minlength=len(scores))
        scores = scores - 0.7 * counts + 0.3 * (counts > 0)
        torch.testing.assert_close(torch.tensor(ours), scores)


def test_ties_with_the_kth_stay():
    ours = _core.process_logits([1.0, 2.0, 2.0, 0.0], [], {"temperature": 1.0, "top_k": 1})
    assert [math.isfinite(x) for x in ours] == [False, True, True, False]


def test_a_seen_id_beyond_the_logits_is_an_error():
    with pytest.raises(ConfigError, match="id 4 is not among the 4"):
        _core.process_logits([0.0] * 4, [4], {"repetition_penalty": 1.5})
    with pytest.raises(ConfigError, match="id 4 is not among the 4"):
        _core.process_logits([0.0] * 4, [], {}, logit_bias={4: 1.0})


def test_numbers_are_uniform_and_independent_of_neighbouring_seeds_and_steps():
    table = torch.tensor(
        [[_core.uniform(seed, step) for step in range(200)] for seed in range(200)],
        dtype=torch.float64,
    )
    assert 0 <= table.min() and table.max() < 1
    counts = torch.histc(table.float(), 20, 0, 1)
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_square < 50  # 19 degrees of freedom: p = 1e-4
    centred = table - 0.5
    for shifted in (centred.roll(1, 0), centred.roll(1, 1), centred.t()):
        assert abs((centred * shifted).mean() * 12) < 0.03
