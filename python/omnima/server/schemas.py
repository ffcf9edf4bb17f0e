"""What requests hold, field by field: OpenAI's names, and ours where it has none.

An unknown field is an error. Those of OpenAI that this server does not have are known by name: they
may be sent empty, and anything else is an error that says so, but for a few without effect here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from omnima.server.errors import RequestError


def _not_here(value: Any) -> Any:
    if value in (None, False, 0, "") or value == {} or value == []:
        return None
    raise ValueError("this server does not have it: leave it out")


def _no_suffix(value: Any) -> Any:
    if value in (None, ""):
        return None
    raise ValueError(
        "this server writes behind a prompt alone: leave it out, or write the marks with which "
        "the model was trained to fill in the middle into the prompt"
    )


def _plain_values(given: dict[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        if value is not None and not isinstance(value, (str, int, float)):
            raise ValueError(f"{name!r:.80} is neither a text, a number, true, false nor null")
    return given


def _biases(given: dict[str, Any]) -> dict[str, Any]:
    for name, bias in given.items():
        if isinstance(bias, bool) or not isinstance(bias, (int, float)):
            raise ValueError(f"that of {name!r:.80} is no number")
        if not (name.isascii() and name.isdecimal() and len(name) < 10):
            raise ValueError(f'{name!r:.80} is no token id: its keys are ids such as "42"')
        if not abs(bias) <= _MOST_BIAS:
            raise ValueError(f"that of token {name} is {bias:g}; they go from -100 to 100")
    return given


#: A field of OpenAI's that only an empty value may stand in.
NotHere = Annotated[Any, AfterValidator(_not_here)]

#: The same of `suffix`, with what may serve instead.
NoSuffix = Annotated[Any, AfterValidator(_no_suffix)]

#: A field that changes nothing here, whatever it says.
Ignored = Any
_SEED = 2**63 - 1
_MOST_FIELDS = 64  # of an object
_MOST_BIASES = 1024
_MOST_BIAS = 100.0
_Item = TypeVar("_Item")
#: A list whose first wrong item is the only one told of: a body may hold a million of them.
List = Annotated[list[_Item], Field(fail_fast=True)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
#: What is added to the logits of tokens, by their ids; checked as the variables are.
Biases = Annotated[dict[str, Any], Field(max_length=_MOST_BIASES), AfterValidator(_biases)]
#: What a chat template may be told by name; checked here, where the first wrong value is enough.
Variables = Annotated[dict[str, Any], Field(max_length=64), AfterValidator(_plain_values)]


class Strict(BaseModel):
    """Nothing is converted, nothing unknown is let through."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, given: Any) -> Any:
        """Each unknown field would be an error of its own."""
        if isinstance(given, dict) and len(given) > _MOST_FIELDS:
            raise ValueError(f"{len(given)} fields, but the most are {_MOST_FIELDS}")
        return given


class JsonSchema(Strict):
    """A schema with its name."""

    name: str = Field(default="", max_length=64)
    description: str | None = None
    schema_: dict[str, Any] | bool = Field(default=True, alias="schema")
    strict: bool | None = None


class TextFormat(Strict):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(Strict):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(Strict):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class RegexFormat(Strict):
    """Text that a regular expression matches as a whole. Ours."""

    type: Literal["regex"]
    pattern: str


class ChoiceFormat(Strict):
    """One of several texts. Ours."""

    type: Literal["choice"]
    choices: List[str]


Format = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat | RegexFormat | ChoiceFormat,
    Field(discriminator="type"),
]


class StreamOptions(Strict):
    """What a stream tells beside the text."""

    include_usage: bool | None = None
    include_obfuscation: Ignored = None


class Drawing(Strict):
    """How a text is drawn, and when it ends."""

    model: str = Field(default="", max_length=256)
    temperature: float | None = Field(default=None, ge=0, le=1000)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=1 << 31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Biases | None = None
    seed: int | None = Field(default=None, ge=-_SEED - 1, le=_SEED)
    stop: str | List[str] | None = None
    response_format: Format | None = None


class Sampling(Drawing):
    """What OpenAI's requests for text share."""

    n: int | None = Field(default=None, ge=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Ignored = None


class CompletionRequest(Sampling):
    """/v1/completions."""

    prompt: str | List[str] | List[int] | List[List[int]]
    max_tokens: int | None = Field(default=None, ge=1)
    logprobs: int | None = Field(default=None, ge=0, le=20)
    best_of: int | None = None
    echo: bool | None = None
    suffix: NoSuffix = None


class TextPart(Strict):
    """A part of a message; others (images, sound) are not read, and nothing is fetched."""

    type: Literal["text"]
    text: str


Content = str | List[TextPart]


class FunctionCall(Strict):
    """What a call calls; the arguments are JSON."""

    name: str = Field(max_length=128)
    arguments: str


class Call(Strict):
    """A call of an earlier answer."""

    id: str = Field(max_length=128)
    type: Literal["function"] = "function"
    function: FunctionCall


class SystemMessage(Strict):
    """What the model is told before all messages."""

    role: Literal["system", "developer"]
    content: Content
    name: Ignored = None


class UserMessage(Strict):
    """What a person says."""

    role: Literal["user"]
    content: Content
    name: Ignored = None


class AssistantMessage(Strict):
    """What the model has said."""

    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: List[Call] | None = None
    name: Ignored = None
    refusal: Ignored = None
    annotations: Ignored = None
    audio: NotHere = None
    function_call: NotHere = None


class ToolMessage(Strict):
    """What a call has given."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str = Field(max_length=128)
    name: Ignored = None


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class Function(Strict):
    """A function that the model may call."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.-]+$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict):
    """A function, in its wrapping."""

    type: Literal["function"]
    function: Function


class FunctionName(Strict):
    """Which function."""

    name: str


class NamedTool(Strict):
    """The function that is to be called."""

    type: Literal["function"]
    function: FunctionName


class ChatRequest(Sampling):
    """/v1/chat/completions."""

    messages: List[Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: List[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: Ignored = None
    chat_template_kwargs: Variables | None = None
    metadata: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] | None = None
    modalities: List[Literal["text"]] | None = None
    store: NotHere = None
    audio: NotHere = None
    prediction: NotHere = None
    reasoning_effort: NotHere = None
    verbosity: NotHere = None
    web_search_options: NotHere = None
    functions: NotHere = None
    function_call: NotHere = None


class GenerateRequest(Drawing):
    """/generate: one plain call."""

    prompt: str
    max_new_tokens: int | None = Field(default=None, ge=1)


class EmbeddingRequest(Strict):
    """/v1/embeddings."""

    input: str | List[str] | List[int] | List[List[int]]
    model: str = Field(default="", max_length=256)
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: NotHere = None
    user: Ignored = None


class TokenizeRequest(Strict):
    """/tokenize: the ids of a text, or of a conversation as the model reads it."""

    prompt: str | None = None
    messages: List[Message] | None = None
    add_special_tokens: bool = True
    model: str = Field(default="", max_length=256)


Body = TypeVar("Body", bound=Strict)


def parsed(kind: type[Body], body: bytes) -> Body:
    """Read a request's body.

    Raises
    ------
    RequestError
        Naming the field, what it holds and what it may hold.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _explained(error) from None


def _explained(error: ValidationError) -> RequestError:
    found = error.errors(include_url=False, include_context=False)
    # Of a field that may be of several kinds each has its own error: the deepest says most.
    first = max(found, key=lambda each: len(each["loc"]))
    if first["type"] == "json_invalid":
        return RequestError(f"The body is no JSON: {first['msg']}.", code="invalid_json")
    place = _place(first["loc"]) or "the body"
    given = "" if first["type"] == "missing" else f"; got {_shown(first['input'])}"
    if first["type"] == "extra_forbidden":
        said, code = "there is no such field", "unknown_field"
    else:
        same = [each["msg"] for each in found if _place(each["loc"]) == _place(first["loc"])]
        said, code = "; or ".join(dict.fromkeys(map(_said, same))), "invalid_value"
    return RequestError(f"{place}: {said}{given}.", param=place, code=code)


def _place(loc: tuple[int | str, ...]) -> str:
    """Where, without the parts that say which kind was tried."""
    parts = list(loc)
    if parts[0:1] == ["messages"] and len(parts) > 2:
        del parts[2]
    elif parts[0:1] == ["response_format"] and len(parts) > 1:
        del parts[1]
    return ".".join(str(part) for part in parts if not _is_kind(part))


def _said(message: str) -> str:
    return message.removeprefix("Value error, ")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _is_kind(part: int | str) -> bool:
    return isinstance(part, str) and ("[" in part or part in {"str", "int", "bool", "NamedTool"})
