"""Messages of a request as a chat template takes them, and the ids that it makes of them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from omnima.server import schemas
from omnima.server.errors import RequestError
from omnima.server.limits import Limits
from omnima.tokenizers import Tokenizer
from omnima.tokenizers.chat import ELSEWHERE, TOKEN_VARIABLES


def ids_of(
    tokenizer: Tokenizer,
    messages: Sequence[Any],
    limits: Limits,
    tools: Sequence[schemas.Tool] | None = None,
    variables: dict[str, Any] | None = None,
) -> list[int]:
    """Return the ids of a conversation up to where the assistant's turn opens.

    Control tokens that a client wrote out are plain text.

    Raises
    ------
    RequestError
        Too many messages or tools, or tools for a template that takes none.
    ConfigError, DataError
        The template does not take these messages.
    """
    limits.check("messages", len(messages), limits.messages, "messages")
    offered = None
    if tools:
        limits.check("tools", len(tools), limits.tools, "functions")
        if not takes_tools(tokenizer):
            raise RequestError(
                "tools: the chat template of this model knows no tools.", param="tools"
            )
        offered = [each.model_dump(exclude_none=True) for each in tools]
    _check_variables(variables or {})
    ids = tokenizer.apply_chat_template(
        [_plain(each) for each in messages],
        add_generation_prompt=True,
        tools=offered,
        sanitize_control_tokens=True,
        **(variables or {}),
    )
    assert isinstance(ids, list)
    return ids


def _check_variables(given: Mapping[str, Any]) -> None:
    """RequestError where a client would say what the server or the template's sandbox says."""
    for name in sorted(given.keys() & _reserved()):
        raise RequestError(
            f"chat_template_kwargs.{name}: the server says this to a chat template itself: leave "
            f"it out; got {given[name]!r:.80}.",
            param=f"chat_template_kwargs.{name}",
            code="invalid_value",
        )


@cache
def _reserved() -> frozenset[str]:
    """What the method that writes conversations is called with, and all that it gives to a
    template: words, tokens such as ``bos_token``, functions such as ``raise_exception``.
    """
    from omnima.templates.sandbox import ChatEnvironment

    options = inspect.signature(Tokenizer.apply_chat_template).parameters.values()
    named = [each.name for each in options if each.kind is not inspect.Parameter.VAR_KEYWORD]
    return frozenset([*named, *TOKEN_VARIABLES, *ELSEWHERE, *ChatEnvironment().globals])


def takes_tools(tokenizer: Tokenizer) -> bool:
    """Whether a chat template tells the model of tools."""
    template = tokenizer.chat_template
    texts = template.values() if isinstance(template, dict) else [template or ""]
    return any("tools" in text for text in texts)


def _plain(message: Any) -> dict[str, Any]:
    content = message.content
    if isinstance(content, list):
        content = "".join(part.text for part in content)
    found: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": content or "",
    }
    if isinstance(message, schemas.ToolMessage):
        found["tool_call_id"] = message.tool_call_id
    if isinstance(message, schemas.AssistantMessage) and message.tool_calls:
        found["tool_calls"] = [_call(each) for each in message.tool_calls]
    return found


def _call(call: schemas.Call) -> dict[str, Any]:
    """Templates write the arguments as JSON: they want the object, not its text."""
    try:
        arguments = json.loads(call.function.arguments)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        arguments = call.function.arguments
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}
