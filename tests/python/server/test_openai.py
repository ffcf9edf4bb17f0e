"""The official client of OpenAI, unmodified, against a server of a small model."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
import torch

import omnima
from omnima.generation import generate

ASKED = [{"role": "user", "content": "To be, or not?"}]
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "now", "description": "time", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "roll", "parameters": SCHEMA}},
]


def written(model: omnima.Model, prompt: Any, adapter: str | None = None, **options: Any) -> Any:
    """What the engine writes without a server."""
    assert model.tokenizer is not None
    ends = [model.tokenizer.special_tokens["<|im_end|>"]]
    return generate(model, model.tokenizer, [prompt], stop_ids=ends, adapters=[adapter], **options)[
        0
    ]


def test_a_completion_is_what_the_engine_writes(client: Any, model: omnima.Model) -> None:
    answer = client.completions.create(model="tiny", prompt="To be", temperature=0, max_tokens=24)
    alone = written(model, "To be", temperature=0.0, top_p=1.0, max_new_tokens=24)
    assert answer.choices[0].text == alone.text and alone.text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.prompt_tokens == alone.prompt_tokens
    assert answer.usage.completion_tokens == 24
    assert answer.usage.total_tokens == alone.prompt_tokens + 24


def test_penalties_and_biases_are_those_of_the_engine(client: Any, model: omnima.Model) -> None:
    plain = written(model, "To be", temperature=0.0, top_p=1.0, max_new_tokens=24)
    barred = plain.ids[0]
    options: dict[str, Any] = {"frequency_penalty": 1.5, "presence_penalty": 0.5}
    alone = written(
        model, "To be", temperature=0.0, top_p=1.0, max_new_tokens=24, logit_bias={barred: -100},
        **options,
    )  # fmt: skip
    asked = {"model": "tiny", "prompt": "To be", "temperature": 0, "max_tokens": 24}
    answer = client.completions.create(**asked, logit_bias={str(barred): -100}, **options)
    assert answer.choices[0].text == alone.text != plain.text
    assert barred not in alone.ids
    forced = client.completions.create(**asked, logit_bias={str(barred): 100})
    assert forced.choices[0].logprobs is None
    most = written(
        model, "To be", temperature=0.0, top_p=1.0, max_new_tokens=24, logit_bias={barred: 100}
    )
    assert forced.choices[0].text == most.text and set(most.ids) == {barred}


def test_a_chat_is_what_the_engine_writes_after_the_template(
    client: Any, model: omnima.Model
) -> None:
    assert model.tokenizer is not None
    answer = client.chat.completions.create(
        model="tiny", messages=ASKED, temperature=0, max_completion_tokens=16
    )
    ids = model.tokenizer.apply_chat_template(ASKED, add_generation_prompt=True)
    alone = written(model, ids, temperature=0.0, top_p=1.0, max_new_tokens=16)
    assert answer.choices[0].message.content == alone.text
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage.prompt_tokens == len(ids)


def test_a_stream_is_the_same_text_with_its_cost(client: Any) -> None:
    options = {"model": "tiny", "messages": ASKED, "seed": 5, "max_tokens": 40}
    whole = client.chat.completions.create(**options)
    chunks = list(
        client.chat.completions.create(
            **options, stream=True, stream_options={"include_usage": True}
        )
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(each.content or "" for each in deltas) == whole.choices[0].message.content
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons[-1] == whole.choices[0].finish_reason and not any(reasons[:-1])
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_completions_stream(client: Any) -> None:
    options = {"model": "tiny", "prompt": "or", "seed": 2, "max_tokens": 30, "logprobs": 1}
    whole = client.completions.create(**options).choices[0]
    chunks = list(client.completions.create(**options, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.text
    told = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert [token for each in told for token in each.tokens] == whole.logprobs.tokens
    assert [at for each in told for at in each.text_offset] == whole.logprobs.text_offset


@pytest.mark.parametrize("prompt,shown", [("To be", ["To be"]), (["a", "or not"], ["a", "or not"])])
def test_the_prompt_stands_before_its_answer(client: Any, prompt: Any, shown: list[str]) -> None:
    options = {"model": "tiny", "prompt": prompt, "seed": 4, "max_tokens": 6, "n": 2}
    plain = client.completions.create(**options).choices
    expected = [shown[i // 2] + each.text for i, each in enumerate(plain)]
    whole = client.completions.create(**options, echo=True)
    assert [each.text for each in whole.choices] == expected
    texts = [""] * len(expected)
    for chunk in client.completions.create(**options, echo=True, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == expected


def test_a_prompt_of_ids_stands_as_text_before_its_answer(client: Any, model: omnima.Model) -> None:
    assert model.tokenizer is not None
    ids = model.tokenizer.encode("to be")
    options = {"model": "tiny", "prompt": ids, "temperature": 0, "max_tokens": 3}
    plain = client.completions.create(**options, echo=False).choices[0].text
    assert client.completions.create(**options, echo=True).choices[0].text == "to be" + plain


def test_a_seed_repeats_a_text_and_copies_differ(client: Any) -> None:
    def texts(seed: int) -> list[str]:
        answer = client.completions.create(
            model="tiny", prompt="To be", seed=seed, n=3, max_tokens=20
        )
        assert [each.index for each in answer.choices] == [0, 1, 2]
        return [each.text for each in answer.choices]

    assert texts(7) == texts(7) and texts(7) != texts(8)
    assert len(set(texts(7))) == 3


def test_several_prompts_are_answered_in_order(client: Any) -> None:
    options = {"model": "tiny", "temperature": 0, "max_tokens": 8}
    prompts = ["To be", "or not", [5, 6, 7]]
    alone = [client.completions.create(prompt=each, **options).choices[0].text for each in prompts]
    together = client.completions.create(prompt=prompts[:2], **options)
    assert [each.text for each in together.choices] == alone[:2]
    assert client.completions.create(prompt=[[5, 6, 7]], **options).choices[0].text == alone[2]


def test_adapters_are_models(client: Any, model: omnima.Model) -> None:
    assert {each.id for each in client.models.list().data} == {"tiny", "bard"}
    assert client.models.retrieve("bard").parent == "tiny"
    texts = {
        name: client.completions.create(model=name, prompt="To be", temperature=0, max_tokens=12)
        .choices[0]
        .text
        for name in ("tiny", "bard")
    }
    alone = written(model, "To be", "bard", temperature=0.0, top_p=1.0, max_new_tokens=12)
    assert texts["bard"] == alone.text != texts["tiny"]


def test_logprobs_are_those_of_the_model(client: Any, model: omnima.Model) -> None:
    assert model.tokenizer is not None
    answer = client.chat.completions.create(
        model="tiny", messages=ASKED, temperature=0, max_tokens=6, logprobs=True, top_logprobs=3
    )
    prompt = model.tokenizer.apply_chat_template(ASKED, add_generation_prompt=True)
    assert isinstance(prompt, list)
    pieces = model.tokenizer.core.token_bytes()
    found = answer.choices[0].logprobs.content
    assert len(found) == answer.usage.completion_tokens == 6
    for each in found:
        logits = model.engine.logits(prompt)[-1][: model.tokenizer.vocab_size]
        logprobs = torch.log_softmax(logits, 0)
        values, ids = logprobs.topk(3)
        assert [bytes(one.bytes) for one in each.top_logprobs] == [pieces[i] for i in ids.tolist()]
        assert [one.logprob for one in each.top_logprobs] == pytest.approx(
            values.tolist(), abs=1e-3
        )
        assert each.logprob == each.top_logprobs[0].logprob  # greedy
        prompt.append(int(ids[0]))


def test_logprobs_stream(client: Any) -> None:
    options = {"model": "tiny", "messages": ASKED, "seed": 2, "max_tokens": 9, "top_logprobs": 2}
    whole = client.chat.completions.create(**options, logprobs=True).choices[0].logprobs.content
    chunks = client.chat.completions.create(**options, logprobs=True, stream=True)
    told = [chunk.choices[0].logprobs for chunk in chunks]
    assert [each for part in told if part for each in part.content] == whole


def test_a_second_request_knows_the_first_ones_prompt(client: Any) -> None:
    options = {"model": "tiny", "prompt": "that is the question: " * 20, "temperature": 0}
    first = client.completions.create(**options, max_tokens=2)
    again = client.completions.create(**options, max_tokens=2)
    known = again.usage.prompt_tokens_details.cached_tokens
    assert 64 <= known < again.usage.prompt_tokens
    assert again.choices[0].text == first.choices[0].text


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_is_kept(client: Any, stream: bool) -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    for seed in range(3):
        answer = client.chat.completions.create(
            model="tiny",
            messages=ASKED,
            seed=seed,
            max_tokens=60,
            temperature=1.5,
            response_format=asked,
            stream=stream,
        )
        if stream:
            text = "".join(each.choices[0].delta.content or "" for each in answer)
        else:
            assert answer.choices[0].finish_reason == "stop"
            text = answer.choices[0].message.content
        assert set(json.loads(text)) == {"a"} and 0 <= json.loads(text)["a"] <= 99


def test_expressions_and_choices_are_kept(client: Any) -> None:
    def text(**format: Any) -> str:
        answer = client.chat.completions.create(
            model="tiny",
            messages=ASKED,
            seed=1,
            max_tokens=60,
            extra_body={"response_format": format},
        )
        return str(answer.choices[0].message.content)

    found = text(type="regex", pattern=r"[a-c]{3}-\d{2}")
    assert len(found) == 6 and set(found[:3]) <= set("abc") and found[4:].isdigit()
    assert text(type="choice", choices=["yes", "nö.*", "日本 🙂"]) in {"yes", "nö.*", "日本 🙂"}
    assert text(type="json_object").startswith("{")


@pytest.mark.parametrize("name", ["now", "roll", None])
def test_a_call_that_is_asked_for_is_made(client: Any, name: str | None) -> None:
    choice: Any = {"type": "function", "function": {"name": name}} if name else "required"
    options = {"model": "tiny", "messages": ASKED, "seed": 3, "max_tokens": 80}
    answer = client.chat.completions.create(**options, tools=TOOLS, tool_choice=choice).choices[0]
    assert answer.finish_reason == "tool_calls" and answer.message.content is None
    [call] = answer.message.tool_calls
    assert call.function.name in ({name} if name else {"now", "roll"})
    assert set(json.loads(call.function.arguments)) == {"a"}
    chunks = list(
        client.chat.completions.create(**options, tools=TOOLS, tool_choice=choice, stream=True)
    )
    [told] = [
        chunk.choices[0].delta.tool_calls for chunk in chunks if chunk.choices[0].delta.tool_calls
    ]
    assert told[0].function.name == call.function.name
    assert told[0].function.arguments == call.function.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    # What a call has given goes back into the conversation.
    back = [
        *ASKED,
        answer.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "12"},
    ]
    assert client.chat.completions.create(**{**options, "messages": back}).choices


def test_embeddings_are_means_of_hidden_states(client: Any, model: omnima.Model) -> None:
    answer = client.embeddings.create(model="tiny", input=["To be", "or"], encoding_format="float")
    assert model.tokenizer is not None
    ids = model.tokenizer.encode("To be", add_bos=True)
    expected = model.engine.embedding(ids).tolist()
    assert answer.data[0].embedding == pytest.approx(expected)
    assert answer.usage.prompt_tokens == len(ids) + len(model.tokenizer.encode("or", add_bos=True))
    raw = client.embeddings.with_raw_response.create(
        model="tiny", input="To be", encoding_format="base64"
    )
    packed = base64.b64decode(json.loads(raw.text)["data"][0]["embedding"])
    assert struct.unpack(f"<{len(expected)}f", packed) == pytest.approx(expected, rel=1e-5)
    other = client.embeddings.create(model="bard", input="To be").data[0].embedding
    assert other != pytest.approx(expected)
