"""The formats of records: how each is told from the others, and what its fields mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from omnima.data.conversations.examples import (
    Completion,
    Conversation,
    Example,
    Judged,
    Messages,
    Pair,
    PlainText,
)
from omnima.data.text import lone_surrogate
from omnima.errors import DataError

ROLES = ("system", "developer", "user", "assistant", "tool")
_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "tool": "tool",
    "observation": "tool",
}
_ANSWERS = ("output", "response", "completion", "answer")
_INPUTS = ("input", "context")
# What a message may say besides role and content; templates read it.
_BESIDE = ("name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True)
class Format:
    """One form of records: its name, its fields in words, and how a record is read."""

    name: str
    fields: str
    fits: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any], str], Iterator[Example]]


def format_of(record: Mapping[str, Any]) -> Format:
    """Return the format of a record by its fields.

    >>> format_of({"instruction": "Add.", "input": "1 1", "output": "2"}).name
    'instruction'

    Raises
    ------
    DataError
        It has the fields of no format.
    """
    for each in FORMATS:
        if each.fits(record):
            return each
    known = ["messages", "conversations", "instruction", "prompt", "completion", "text"]
    near = next((m[0] for key in record if (m := get_close_matches(key, known, n=1))), None)
    hint = f" Did you mean {near!r}?" if near else ""
    shown = ", ".join(map(repr, list(record)[:20])) or "none"
    formats = "; ".join(f"{each.name} ({each.fields})" for each in FORMATS)
    raise DataError(f"no known format has the fields {shown}.{hint} The formats are: {formats}.")


def check_message(message: Any, number: int) -> dict[str, Any]:
    """Return a message with a role that is known and a content that is text.

    Raises
    ------
    DataError
        Says which message (counted from 1) and what is wrong with it.
    """
    where = f"message {number}"
    if not isinstance(message, Mapping):
        raise DataError(f"{where} is a {type(message).__name__}; expected role and content")
    role = message.get("role")
    if "role" not in message:
        raise DataError(f"{where} has no role; expected one of {', '.join(ROLES)}")
    if role not in ROLES:
        near = get_close_matches(str(role).lower(), ROLES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{where} has the role {role!r}; expected one of {', '.join(ROLES)}{hint}")
    kept = {"role": role, "content": _joined(message.get("content"), where)}
    kept.update((key, message[key]) for key in _BESIDE if message.get(key) is not None)
    calls = role == "assistant" and kept.get("tool_calls")
    if kept["content"] is None and "content" not in message and not calls:
        raise DataError(f"{where} has no content")
    if not (calls and kept["content"] in (None, "")):
        kept["content"] = _text(kept["content"], f"the content of {where}")
    return kept


def _joined(content: Any, where: str) -> Any:
    """A content in parts is its texts, joined; other parts need another kind of model."""
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise DataError(f"{where} has a part of type {kind!r}; only text can be learned")
    return "".join(_text(part.get("text"), f"a part of {where}") for part in content)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        kind = "missing" if value is None else f"a {type(value).__name__}, not text"
        raise DataError(f"{what} is {kind}")
    if not value.strip():
        raise DataError(f"{what} is empty")
    if fault := lone_surrogate(value):
        raise DataError(f"{what}: {fault}")
    return value


def _messages(given: Any, field: str) -> Messages:
    if not isinstance(given, list):
        raise DataError(f"field {field!r} is a {type(given).__name__}; expected a list of messages")
    if not given:
        raise DataError(f"field {field!r} is an empty list; expected messages")
    return tuple(check_message(each, number) for number, each in enumerate(given, start=1))


def _conversation(messages: Messages, place: str, tools: Any = None) -> Conversation:
    if not any(each["role"] == "assistant" for each in messages):
        raise DataError("no message is the assistant's, so there is nothing to learn")
    if messages[0]["role"] == "assistant":
        raise DataError(
            "the first message is the assistant's: it answers nothing. Begin with the user's"
        )
    if tools is not None and not (
        isinstance(tools, list) and all(isinstance(each, Mapping) for each in tools)
    ):
        raise DataError("field 'tools' must be a list of JSON schemas")
    return Conversation(messages, place, tuple(tools) if tools else None)


def _read_messages(record: Mapping[str, Any], place: str) -> Iterator[Example]:
    yield _conversation(_messages(record["messages"], "messages"), place, record.get("tools"))


def _read_sharegpt(record: Mapping[str, Any], place: str) -> Iterator[Example]:
    turns = record["conversations"]
    if not isinstance(turns, list):
        raise DataError(f"field 'conversations' is a {type(turns).__name__}; expected a list")
    messages = []
    for number, turn in enumerate(turns, start=1):
        if isinstance(turn, Mapping) and "from" in turn:
            speaker = turn["from"]
            if speaker not in _SHAREGPT_ROLES:
                known = ", ".join(_SHAREGPT_ROLES)
                raise DataError(f"turn {number} is from {speaker!r}; expected one of {known}")
            if "value" not in turn:
                raise DataError(f"turn {number} has no value")
            turn = {"role": _SHAREGPT_ROLES[speaker], "content": turn["value"]}
        messages.append(turn)
    if system := record.get("system"):
        messages.insert(0, {"role": "system", "content": system})
    yield _conversation(_messages(messages, "conversations"), place, record.get("tools"))


def _asked(record: Mapping[str, Any], beside: Any) -> list[dict[str, Any]]:
    """The messages that an instruction and what belongs to it make."""
    instruction = _text(record["instruction"], "field 'instruction'")
    if beside is not None and not isinstance(beside, str):
        raise DataError(f"the input of the instruction is a {type(beside).__name__}, not text")
    if beside and beside.strip():
        instruction = f"{instruction}\n\n{_text(beside, 'the input of the instruction')}"
    opening = [{"role": "user", "content": instruction}]
    if system := record.get("system"):
        opening.insert(0, {"role": "system", "content": _text(system, "field 'system'")})
    return opening


def _input(record: Mapping[str, Any]) -> Any:
    return next((record[key] for key in _INPUTS if record.get(key)), None)


def _read_instruction(record: Mapping[str, Any], place: str) -> Iterator[Example]:
    field = next((key for key in _ANSWERS if key in record), None)
    if field is None:
        raise DataError(f"no answer to the instruction: expected a field {' or '.join(_ANSWERS)}")
    answer = _text(record[field], f"field {field!r}")
    messages = (*_asked(record, _input(record)), {"role": "assistant", "content": answer})
    yield Conversation(messages, place)


def _read_tasks(record: Mapping[str, Any], place: str) -> Iterator[Example]:
    instances = record["instances"]
    if not isinstance(instances, list) or not instances:
        raise DataError("field 'instances' must be a list of objects with input and output")
    for number, each in enumerate(instances, start=1):
        if not isinstance(each, Mapping):
            raise DataError(f"instance {number} is a {type(each).__name__}; expected an object")
        answer = _text(each.get("output"), f"the output of instance {number}")
        asked = _asked(record, each.get("input"))
        yield Conversation((*asked, {"role": "assistant", "content": answer}), place)


def _read_question(record: Mapping[str, Any], place: str) -> Iterator[Example]:
    asked = {**record, "instruction": record["question"]}
    yield from _read_instruction(asked, place)


def _read_completion(record: Mapping[str, Any], place: str) -> Iterator[Example]:
    yield _answer(record["prompt"], record["completion"], "completion", place)


def _answer(prompt: Any, answer: Any, field: str, place: str) -> Conversation | Completion:
    """A prompt with one answer, both as texts or both as messages."""
    if isinstance(prompt, str) and isinstance(answer, str):
        return Completion(_text(prompt, "field 'prompt'"), _text(answer, f"field {field!r}"), place)
    if not (isinstance(prompt, list) and isinstance(answer, list)):
        raise DataError(
            f"fields 'prompt' and {field!r} must be two texts or two lists of messages, not "
            f"{type(prompt).__name__} and {type(answer).__name__}"
        )
    said = _messages(answer, field)
    if len(said) != 1 or said[0]["role"] != "assistant":
        raise DataError(f"field {field!r} must hold one message, the assistant's")
    messages = (*_messages(prompt, "prompt"), *said)
    return Conversation(messages, place, last_turn_only=True)


def _read_pair(record: Mapping[str, Any], place: str) -> Iterator[Example]:
    both = []
    for field in ("chosen", "rejected"):
        given = record[field]
        if "prompt" in record:
            both.append(_answer(record["prompt"], given, field, place))
        elif "instruction" in record:
            answer = {"role": "assistant", "content": _text(given, f"field {field!r}")}
            both.append(Conversation((*_asked(record, _input(record)), answer), place))
        elif isinstance(given, list):
            found = _conversation(_messages(given, field), place)
            both.append(Conversation(found.messages, place, last_turn_only=True))
        else:
            raise DataError(
                "there is no prompt: expected a field 'prompt' or 'instruction', or the whole "
                "conversations as lists of messages in 'chosen' and 'rejected'"
            )
    chosen, rejected = both
    if _before(chosen) != _before(rejected):
        raise DataError("chosen and rejected answer different things: their last messages alone "
                        "may differ")  # fmt: skip
    yield Pair(chosen, rejected, place)


def _before(answered: Conversation | Completion) -> Any:
    if isinstance(answered, Completion):
        return answered.prompt
    if answered.messages[-1]["role"] != "assistant":
        raise DataError("the last message must be the assistant's")
    return answered.messages[:-1]


def _read_judged(record: Mapping[str, Any], place: str) -> Iterator[Example]:
    answer = _answer(record["prompt"], record["completion"], "completion", place)
    yield Judged(answer, record["label"], place)


def _is_judged(record: Mapping[str, Any]) -> bool:
    return _has("prompt", "completion")(record) and isinstance(record.get("label"), bool)


def _read_text(record: Mapping[str, Any], place: str) -> Iterator[Example]:
    yield PlainText(_text(record["text"], "field 'text'"), place)


def _has(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda record: all(name in record for name in names)


#: In the order in which they are tried.
FORMATS = (
    Format("preference", "chosen, rejected and prompt or instruction", _has("chosen", "rejected"),
           _read_pair),
    Format("messages", "messages: a list of role and content", _has("messages"), _read_messages),
    Format("sharegpt", "conversations: a list of from and value", _has("conversations"),
           _read_sharegpt),
    Format("tasks", "instruction and instances", _has("instruction", "instances"), _read_tasks),
    Format("instruction", "instruction, perhaps input, and output", _has("instruction"),
           _read_instruction),
    Format("question", "question, perhaps context, and answer", _has("question", "answer"),
           _read_question),
    Format("judged", "prompt, completion and label: true or false", _is_judged, _read_judged),
    Format("completion", "prompt and completion", _has("prompt", "completion"), _read_completion),
    Format("text", "text", _has("text"), _read_text),
)  # fmt: skip
