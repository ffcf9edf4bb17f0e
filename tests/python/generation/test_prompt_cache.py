"""Texts kept between calls: what is read again, and that answers stay the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from omnima import ChatSession, Model, PromptCache, Tokenizer
from omnima.errors import ConfigError

GREEDY = {"max_new_tokens": 6, "temperature": 0.0}


@pytest.fixture
def model() -> Model:
    made = Model.from_preset("nima", vocab_size=300, max_position_embeddings=256)
    made.tokenizer = Tokenizer.train(["Hi? Ho. Why? So."], "byte")
    return made


def test_a_talk_reads_the_new_message_alone(model: Model) -> None:
    said: list[str] = []
    options = {"max_new_tokens": 5, "temperature": 0.9}
    with_it = ChatSession(model, options=options, note=said.append)
    without = ChatSession(model, options=options, note=said.append, prompt_cache=None)
    cached = []
    for question in ("Who are you, and where do you come from?", "Why?", "And then?"):
        kept, plain = with_it.say(question), without.say(question)
        assert kept.ids == plain.ids and plain.cached_tokens == 0
        cached.append(kept.cached_tokens / kept.prompt_tokens)
    assert cached[0] == 0 and min(cached[1:]) > 0.5
    again = with_it.regenerate()
    assert again.cached_tokens == again.prompt_tokens - 1


def test_training_between_two_answers_is_noticed(model: Model) -> None:
    cache = PromptCache()
    ids = list(range(40))
    model.generate(ids, **GREEDY, prompt_cache=cache)
    assert model.generate(ids, **GREEDY, prompt_cache=cache).cached_tokens == 39
    with torch.no_grad():
        model.named_parameters()[0][1][7, 3] += 1.0
    after = model.generate(ids, **GREEDY, prompt_cache=cache)
    assert after.cached_tokens == 0 and after.ids == model.generate(ids, **GREEDY).ids


def test_adapters_have_texts_of_their_own(model: Model) -> None:
    cache, ids = PromptCache(), list(range(40))
    for name in ("a", "b"):
        model.add_adapter("lora", rank=2, name=name, seed=1)
    model.set_adapters({})
    asked = {**GREEDY, "prompt_cache": cache}
    assert model.generate(ids, **asked).cached_tokens == 0
    assert model.generate(ids, **asked, adapters="a").cached_tokens == 0
    assert model.generate(ids, **asked, adapters={"a": 0.5}).cached_tokens == 0
    assert model.generate(ids, **asked, adapters="a").cached_tokens == 39
    assert model.generate(ids, **asked).cached_tokens == 39


def test_memory_is_bounded_and_freed(model: Model) -> None:
    cache = PromptCache()
    for start in range(5):
        model.generate(list(range(start, start + 40)), **GREEDY, prompt_cache=cache)
    assert len(cache) == 5 and cache.bytes > 0
    small = PromptCache(cache.bytes // 2)
    for start in range(5):
        model.generate(list(range(start, start + 40)), **GREEDY, prompt_cache=small)
    assert 0 < len(small) < 5 and small.bytes <= cache.bytes // 2
    cache.clear()
    assert len(cache) == cache.bytes == 0
    with pytest.raises(ConfigError, match="prompt cache of 0 bytes"):
        PromptCache(0)


def test_several_threads_share_one(model: Model) -> None:
    cache = PromptCache()
    prompts = [[*range(60), n] for n in range(12)]
    wanted = [model.generate(ids, **GREEDY).ids for ids in prompts]
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda ids: model.generate(ids, **GREEDY, prompt_cache=cache), prompts)
        )
    assert [each.ids for each in found] == wanted
    assert max(each.cached_tokens for each in found) == 60


def test_an_answer_that_was_broken_off_leaves_nothing(model: Model) -> None:
    cache, ids = PromptCache(), list(range(40))

    def fail(piece: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.generate(ids, **GREEDY, prompt_cache=cache, stream=fail, ignore_eos=True)
    assert model.generate(ids, **GREEDY, prompt_cache=cache).cached_tokens == 0


@pytest.mark.parametrize("method", ["prefix", "prompt", "bottleneck", "bitfit"])
def test_other_kinds_of_adapters_go_on_as_they_began(model: Model, method: str) -> None:
    cache, ids = PromptCache(), list(range(40))
    options = {"virtual_tokens": 3} if method in ("prefix", "prompt") else {}
    model.add_adapter(method, name="a", seed=1, **options)
    model.set_adapters({})
    asked = {**GREEDY, "adapters": "a"}
    first = model.generate(ids, **asked, prompt_cache=cache)
    longer = [*ids, *first.ids, 7, 8]
    again = model.generate(longer, **asked, prompt_cache=cache)
    assert again.cached_tokens == len(longer) - 3
    assert again.ids == model.generate(longer, **asked).ids
