"""The engine's promises: batches, seeds, stops, limits, errors."""

from __future__ import annotations

import math
import signal
import threading
import time

import pytest
import torch

from omnima import _core
from omnima.errors import ConfigError, NonFiniteError

from . import models

PROMPTS = [[5, 17, 3], list(range(50)), [8], [60, 61] * 17, [90, 1, 2, 3]]
CONFIGS = {
    "llama": {"num_key_value_heads": 2},
    "gpt2": models.GPT2,
    "bare": {"positions": "none", "activation": "gelu", "norm": "layer_norm"},
}


def write(engine, prompts, seeds=None, stop_ids=(), on_token=None, **options):
    seeds = [0] * len(prompts) if seeds is None else seeds
    options = {"max_new_tokens": 20, **options}
    return engine.generate(prompts, options, list(seeds), list(stop_ids), on_token)


@pytest.fixture(scope="module")
def engine():
    return _core.Engine(*models.random_parameters())


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "top_p": 0.95, "top_k": 50}])
def test_a_batch_of_unequal_prompts_equals_each_alone(config, options):
    engine = _core.Engine(*models.random_parameters(**CONFIGS[config]))
    seeds = [3, 1, 4, 1, 5]
    together = write(engine, PROMPTS, seeds, **options)
    alone = [
        write(engine, [prompt], [seed], **options)[0]
        for prompt, seed in zip(PROMPTS, seeds, strict=True)
    ]
    assert together == alone


def test_more_prompts_than_places_equal_each_alone(engine):
    prompts = [[i % 97, (7 * i) % 97] for i in range(150)]
    together = write(engine, prompts, range(150), max_new_tokens=5, temperature=1.0)
    for i in (0, 63, 64, 149):
        assert together[i] == write(engine, [prompts[i]], [i], max_new_tokens=5, temperature=1.0)[0]


@pytest.mark.parametrize("config", CONFIGS)
def test_prefill_and_single_steps_give_the_same_logits(config):
    engine = _core.Engine(*models.random_parameters(**CONFIGS[config]))
    ids = [(31 * i + 7) % 97 for i in range(80)]
    torch.testing.assert_close(engine.logits(ids), engine.logits(ids, stepwise=True))


def test_a_short_prefill_gives_the_bits_of_single_steps(engine):
    ids = [(31 * i + 7) % 97 for i in range(31)]
    assert torch.equal(engine.logits(ids), engine.logits(ids, stepwise=True))


def test_the_number_of_threads_changes_nothing(engine):
    threads = torch.get_num_threads()
    texts = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            texts.append(write(engine, PROMPTS[:1], temperature=1.0, max_new_tokens=60))
    finally:
        torch.set_num_threads(threads)
    assert texts[0] == texts[1] == texts[2]


def test_seeds(engine):
    texts = write(engine, [PROMPTS[0]] * 3, [1, 2, 1], temperature=1.0)
    assert texts[0] == texts[2] != texts[1]


def test_changed_weights_are_seen_at_once():
    values, parameters = models.random_parameters()
    engine = _core.Engine(values, parameters)
    before = write(engine, PROMPTS)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter += 0.1 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(9)
            )
    assert write(engine, PROMPTS) == write(_core.Engine(values, parameters), PROMPTS) != before


def test_a_stop_id_ends_its_sequence_and_is_the_last_id(engine):
    plain = write(engine, PROMPTS)
    stop = plain[0][0][4]
    for (ids, reason, *_), (whole, *_) in zip(
        write(engine, PROMPTS, stop_ids=[stop]), plain, strict=True
    ):
        if stop in whole:
            assert (ids, reason) == (whole[: whole.index(stop) + 1], "eos")
        else:
            assert (ids, reason) == (whole, "length")


def test_the_context_ends_a_sequence(engine):
    [(ids, reason, *_)] = write(engine, [list(range(90))], max_new_tokens=50)
    assert (len(ids), reason) == (6, "length")


def test_tokens_are_handed_on_as_they_come(engine):
    heard = {0: [], 1: []}
    results = write(engine, PROMPTS[:2], on_token=lambda i, token: heard[i].append(token))
    assert [heard[0], heard[1]] == [ids for ids, *_ in results]


def test_false_from_the_callback_ends_that_sequence_alone(engine):
    whole = write(engine, PROMPTS[:2])
    results = write(engine, PROMPTS[:2], on_token=lambda i, _: i == 1)
    assert results == [(whole[0][0][:1], "stop", 0, 0, 0), whole[1]]


def test_an_error_in_the_callback_comes_through_and_the_engine_lives_on(engine):
    def fail(_sequence, _token):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        write(engine, PROMPTS, on_token=fail)
    assert write(engine, PROMPTS)


def test_control_c_ends_a_run():
    engine = _core.Engine(*models.random_parameters(max_position_embeddings=20000))
    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
    began = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        write(engine, PROMPTS[:1], max_new_tokens=19000)
    assert time.monotonic() - began < 5


def test_other_threads_run_meanwhile_and_engines_do_not_disturb_each_other(engine):
    expected = write(engine, PROMPTS, temperature=1.0)
    results = [None] * 4

    def work(i):
        results[i] = write(engine, PROMPTS, temperature=1.0)

    threads = [threading.Thread(target=work, args=[i]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def test_no_prompts_give_no_texts(engine):
    assert write(engine, []) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -0.1}, ["temperature", "-0.1", "between 0 and"]),
        ({"temperature": math.nan}, ["temperature"]),
        ({"top_p": 1.5}, ["top_p", "1.5", "between 0 and 1"]),
        ({"min_p": -1.0}, ["min_p", "between 0 and 1"]),
        ({"top_k": -1}, ["top_k"]),
        ({"top_k": 1.5}, ["top_k", "type"]),
        ({"max_new_tokens": 0}, ["max_new_tokens", "between 1"]),
        ({"repetition_penalty": 0.0}, ["repetition_penalty"]),
        ({"temprature": 1.0}, ["temprature", 'nearest is "temperature"']),
    ],
)
def test_bad_options_name_the_field_and_its_bounds(engine, options, words):
    with pytest.raises(ConfigError) as error:
        write(engine, PROMPTS, **options)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([], ["Prompt 0", "no tokens"]),
        ([1, 97], ["id 97", "vocabulary of 97"]),
        ([-1], ["id -1"]),
        ([1] * 96, ["96 tokens", "context of 96"]),
        ([1] * 200, ["200 tokens", "context of 96"]),
    ],
)
def test_bad_prompts_are_refused(engine, prompt, words):
    with pytest.raises(ConfigError) as error:
        write(engine, [prompt])
    for word in words:
        assert word in str(error.value)


def test_seeds_and_stop_ids_are_checked(engine):
    with pytest.raises(ConfigError, match="5 prompts but 1 seeds"):
        write(engine, PROMPTS, [1])
    with pytest.raises(ConfigError, match="stop_ids has 97"):
        write(engine, PROMPTS, stop_ids=[97])


def test_logits_longer_than_the_context_are_refused(engine):
    with pytest.raises(ConfigError, match="97 tokens.*holds 96"):
        engine.logits([1] * 97)


def test_weights_that_are_not_finite_are_named():
    values, parameters = models.random_parameters()
    parameters["model.norm.weight"][3] = math.nan
    with pytest.raises(NonFiniteError, match="nan"):
        write(_core.Engine(values, parameters), PROMPTS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.pop("model.norm.weight"), 'no parameter "model.norm.weight"'),
        (
            lambda p: p.update({"model.norm.weight": torch.ones(3)}),
            r'"model.norm.weight" has shape \[3\].* asks for \[48\]',
        ),
        (lambda p: p.update({"model.norm.weight": torch.ones(48).double()}), "float32"),
        (lambda p: p.update({"model.norm.weight": torch.ones(96)[::2]}), "contiguous"),
    ],
)
def test_parameters_that_do_not_fit_are_named(change, words):
    values, parameters = models.random_parameters()
    change(parameters)
    with pytest.raises(ConfigError, match=words):
        _core.Engine(values, parameters)


def test_an_embedding_is_the_mean_of_the_last_hidden_states():
    model, values, parameters = models.llama(num_key_value_heads=2)
    engine = _core.Engine(values, parameters)
    for ids in ([5], [7, 1, 30], list(range(70))):
        with torch.no_grad():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(engine.embedding(ids), states[0].mean(0), rtol=1e-4, atol=1e-4)
    for wrong in ([], [97], [0] * 97):
        with pytest.raises(ConfigError):
            engine.embedding(wrong)
