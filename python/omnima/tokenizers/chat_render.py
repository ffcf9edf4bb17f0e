"""A chat template rendered: messages in, text out, and errors that name the template's line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from omnima.errors import DataError

if TYPE_CHECKING:
    from jinja2 import Template

LARGEST = 128 << 10  # bytes: compiling a longer one can take many seconds
# The names that the thoughts of a message go by; templates read the first, some the second.
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True)
class ChatTemplate:
    """The text of a template, and where it is from, for messages."""

    text: str
    source: str = "the chat template"

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise DataError(
                f"{self.source}: a chat template is text, not {type(self.text).__name__}"
            )
        try:
            check_size(len(self.text.encode("utf-8")), self.source)
        except UnicodeEncodeError as error:
            raise DataError(
                f"{self.source}: character {error.start} is half of a surrogate pair"
            ) from None


def check_size(size: int, source: str) -> None:
    """Refuse what is too long to be a template (in bytes)."""
    if size > LARGEST:
        raise DataError(
            f"{source}: longer than {LARGEST} bytes, which no template for chats needs; is this"
            " another file?"
        )


@dataclass(frozen=True)
class RenderedChat:
    """The text of a conversation, and where in it the assistant's words are (in characters)."""

    text: str
    spans: tuple[tuple[int, int], ...] = ()


def render(template: ChatTemplate, variables: Mapping[str, Any]) -> RenderedChat:
    """Render a template with plain values.

    Raises
    ------
    DataError
        With the template's source, and its line where that is known: what is not valid Jinja, what
        the sandbox forbids, what takes too much work, and what the template itself raises.
    """
    import jinja2

    from omnima.tokenizers.chat_meter import Meter
    from omnima.tokenizers.chat_sandbox import rendering

    compiled = _compiled(template)
    with rendering(Meter(variables)) as now:
        parts = []
        try:
            for part in compiled.generate(variables):
                now.length += len(part)
                parts.append(part)
        except jinja2.TemplateError as error:
            raise _said(template, error, error.message or type(error).__name__) from None
        except DataError as error:
            raise _said(template, error, str(error)) from None
        except RecursionError as error:
            raise _said(template, error, "it calls itself without end") from None
        except Exception as error:  # whatever its code runs into: a division by zero, a wrong type
            raise _said(template, error, f"{type(error).__name__}: {error}") from None
    return RenderedChat("".join(parts), tuple(now.spans))


@lru_cache(maxsize=32)
def literals(template: ChatTemplate) -> str:
    """All that a template writes by itself: its text and its constants, with breaks between."""
    from jinja2 import nodes

    tree = _compiled(template).environment.parse(template.text)
    texts = [node.data for node in tree.find_all(nodes.TemplateData)]
    values = [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    return "\0".join([*texts, *values])


@lru_cache(maxsize=32)
def _compiled(template: ChatTemplate) -> Template:
    """The code of a template; compiled once."""
    import jinja2

    from omnima.tokenizers.chat_sandbox import ChatEnvironment

    environment = ChatEnvironment()
    try:
        code = environment.compile(template.text, filename=template.source)
        return jinja2.Template.from_code(environment, code, environment.make_globals(None))
    except jinja2.TemplateSyntaxError as error:
        raise DataError(
            f"{template.source}, line {error.lineno}: not valid Jinja: {error.message}"
        ) from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        # Python's own limits: blocks in blocks beyond twenty, brackets beyond two hundred.
        detail = str(error) or type(error).__name__
        raise DataError(
            f"{template.source}: nested too deeply to be a chat template ({detail})"
        ) from None


def _said(template: ChatTemplate, error: BaseException, what: str) -> DataError:
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == template.source:
            line = trace.tb_lineno
        trace = trace.tb_next
    where = template.source if line is None else f"{template.source}, line {line}"
    return DataError(f"{where}: {what}")


def conversation(messages: Any) -> list[dict[str, Any]]:
    """Return messages as templates take them: plain, without what is None."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise DataError(
            "messages must be a list of at least one message, such as "
            '{"role": "user", "content": "Hello"}'
        )
    found = []
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise DataError(
                f"messages[{number}] is {type(message).__name__}; expected an object with role and"
                " content"
            )
        plain_message = plain(message, f"messages[{number}]")
        kept = {key: value for key, value in plain_message.items() if value is not None}
        thought = next((kept[name] for name in _THOUGHTS if name in kept), None)
        if thought is not None:
            kept = {"thinking": thought, **kept, "reasoning_content": thought}
        found.append(kept)
    return found


def plain(value: Any, name: str, depth: int = 0) -> Any:
    """Copy a value made of JSON's kinds; a template is handed nothing with methods of its own."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # of a class of its own: the text alone
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if depth > 64:
        raise DataError(f"{name} is nested deeper than 64")
    if isinstance(value, Mapping):
        return {
            plain(key, name, depth + 1): plain(each, f"{name}[{key!r}]", depth + 1)
            for key, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        copied = [plain(each, f"{name}[{i}]", depth + 1) for i, each in enumerate(value)]
        return tuple(copied) if isinstance(value, tuple) else copied
    hint = (
        "; give the tool's JSON schema, such as transformers.utils.get_json_schema(function) makes"
        if callable(value)
        else ""
    )
    raise DataError(
        f"{name} is {type(value).__name__}; a chat template takes text, numbers, true, false, none,"
        f" lists and dictionaries{hint}"
    )
