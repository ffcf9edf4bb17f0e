"""From a request's fields to the texts that are to be written for it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from omnima.errors import ConfigError, OmnimaError
from omnima.generation.prompts import encode
from omnima.generation.turns import turn_ends
from omnima.server import grammar, schemas
from omnima.server.conversation import ids_of
from omnima.server.errors import RequestError, as_request_error
from omnima.server.jobs import Job
from omnima.server.limits import Limits
from omnima.server.service import TextRequest
from omnima.server.tools import MARKS, schema_of_calls
from omnima.tokenizers import Tokenizer
from omnima.tokenizers.chat_default import ensure_template

_Made = TypeVar("_Made")
_LEAST_TOP_P = 1e-6
_COMPLETION_TOKENS = 16  # as OpenAI has it
_AS_THEY_ARE = ("top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty")


@dataclass(frozen=True)
class Prepared:
    """What is to be written, and what its answer needs to know.

    Attributes
    ----------
    request
        For the service.
    model
        The name that was asked for.
    functions
        Names of the functions that the answer may call.
    forced
        The answer is a call, as JSON alone.
    echo
        What each text begins with before the model's: its prompt. []: nothing.
    """

    request: TextRequest
    model: str
    functions: list[str] = field(default_factory=list)
    forced: bool = False
    echo: list[str] = field(default_factory=list)


class Preparer:
    """Knows the model: its names, its tokenizer and its context.

    Parameters
    ----------
    tokenizer
        Of the model; without a chat template it gets the plain one.
    name
        The model's; the adapters have names of their own.
    adapters
        Their names.
    context
        Tokens that a prompt and its text may have together.
    vocab_size
        How many ids the model has.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        name: str,
        adapters: Sequence[str],
        context: int,
        vocab_size: int,
        limits: Limits,
    ) -> None:
        if name in adapters:
            raise ConfigError(f"The model and an adapter are both named {name!r}.")
        self.tokenizer, self.name, self.context, self.limits = tokenizer, name, context, limits
        self.adapters = tuple(adapters)
        self._vocab_size = vocab_size
        self.stop_ids = stop_ids_of(tokenizer)

    @property
    def models(self) -> list[str]:
        """The names that a request may ask for."""
        return [self.name, *self.adapters]

    def adapter_of(self, model: str) -> str | None:
        """Return which adapter a name asks for; "" asks for the model alone."""
        if model in ("", self.name):
            return None
        if model in self.adapters:
            return model
        raise RequestError(
            f"model: there is no model {model!r}; there is {', '.join(self.models)}.",
            404,
            param="model",
            code="model_not_found",
        )

    async def completion(self, body: schemas.CompletionRequest) -> Prepared:
        """What /v1/completions asks for."""
        if body.best_of not in (None, 0, body.n or 1):
            raise RequestError(
                f"best_of: this server does not have it but as n; got {body.best_of}.",
                param="best_of",
            )
        if body.echo and body.logprobs is not None:
            raise RequestError(
                "echo: true: with logprobs those of the prompt would be told, which this server "
                "does not compute; leave one of the two out.",
                param="echo",
            )
        prompts = await _aside(self.prompts, body.prompt, "prompt", self.limits.prompts)
        shared = _Shared(
            body, body.max_tokens or _COMPLETION_TOKENS, body.max_tokens is not None,
            -1 if body.logprobs is None else body.logprobs,
        )  # fmt: skip
        prepared = await self._prepared(prompts, shared)
        if not body.echo:
            return prepared
        texts = await _aside(self._texts, body.prompt)
        return replace(prepared, echo=[each for each in texts for _ in range(body.n or 1)])

    async def chat(self, body: schemas.ChatRequest) -> Prepared:
        """What /v1/chat/completions asks for."""
        if body.top_logprobs is not None and not body.logprobs:
            raise RequestError("top_logprobs goes with logprobs: true.", param="top_logprobs")
        if body.max_tokens is not None and body.max_completion_tokens is not None:
            raise RequestError(
                "max_tokens and max_completion_tokens say the same: give one.", param="max_tokens"
            )
        tools = body.tools if body.tool_choice != "none" else None
        if body.tool_choice not in (None, "none", "auto") and not tools:
            raise RequestError(
                "tool_choice asks for a call, but there are no tools.", param="tools"
            )
        ids = await _aside(
            ids_of, self.tokenizer, body.messages, self.limits, tools, body.chat_template_kwargs
        )
        wanted = body.max_completion_tokens or body.max_tokens
        shared = _Shared(
            body, wanted or self.context, wanted is not None,
            (body.top_logprobs or 0) if body.logprobs else -1,
        )  # fmt: skip
        functions = [each.function for each in tools or []]
        chosen = _chosen(functions, body.tool_choice)
        structure = None
        if chosen:
            if body.response_format is not None and body.response_format.type != "text":
                raise RequestError(
                    "response_format and a tool_choice that asks for a call exclude each other.",
                    param="response_format",
                )
            about = [each.model_dump(exclude_none=True) for each in chosen]
            structure = await _aside(grammar.of_schema, schema_of_calls(about), param="tools")
        names = [each.name for each in functions]
        return await self._prepared([ids], shared, names, structure)

    async def plain(self, body: schemas.GenerateRequest) -> Prepared:
        """What /generate asks for."""
        prompts = await _aside(self.prompts, body.prompt, "prompt", 1)
        wanted = body.max_new_tokens
        return await self._prepared(prompts, _Shared(body, wanted or 128, wanted is not None, -1))

    def prompts(self, given: Any, name: str, most: int) -> list[list[int]]:
        """Return the ids of one or several prompts: texts, or rows of ids.

        Raises
        ------
        RequestError
            None, too many, one that is too long, or an id that the model has not.
        """
        rows = _rows(given)
        if not rows:
            raise RequestError(f"{name} is empty.", param=name)
        self.limits.check(name, len(rows), most, "texts")
        found = []
        for row in rows:
            ids = encode(row, self.tokenizer)
            known = min(self._vocab_size, self.tokenizer.vocab_size)
            outside = next((id for id in ids if not 0 <= id < known), None)
            if outside is not None:
                raise RequestError(
                    f"{name} holds the id {outside}; ids go from 0 to {known - 1}.", param=name
                )
            if not ids:
                raise RequestError(f"{name} holds an empty row of ids.", param=name)
            found.append(ids)
        return found

    def _texts(self, given: Any) -> list[str]:
        """The prompts as text."""
        rows = _rows(given)
        return [each if isinstance(each, str) else self.tokenizer.decode(each) for each in rows]

    def texts_to_embed(self, given: Any, most: int) -> list[list[int]]:
        """Return the ids of texts, each of which must fit the context."""
        rows = self.prompts(given, "input", most)
        longest = max(map(len, rows))
        if longest > self.context:
            raise RequestError(
                f"input has a text of {longest} tokens; the model's context holds {self.context}.",
                param="input",
                code="context_length_exceeded",
            )
        return rows

    async def _prepared(
        self,
        prompts: list[list[int]],
        shared: _Shared,
        functions: Sequence[str] = (),
        structure: str | None = None,
    ) -> Prepared:
        body = shared.body
        adapter = self.adapter_of(body.model)
        n = getattr(body, "n", None) or 1
        self.limits.check("n", n, self.limits.n, "texts")
        self.limits.check("n", n * len(prompts), self.limits.choices, "texts in all")
        forced = structure is not None
        if structure is None:
            structure = await _aside(_structure, body.response_format, param="response_format")
        seed = secrets.randbits(62) if body.seed is None else body.seed
        biases = self._biases(body.logit_bias)
        jobs: list[Job] = []
        for ids in prompts:
            job_options = self._options(body, self._room(ids, shared))
            for _ in range(n):
                jobs.append(
                    Job(
                        ids,
                        job_options,
                        (seed + len(jobs)) % 2**63,
                        self.stop_ids,
                        adapter,
                        shared.top_logprobs,
                        structure,
                        biases,
                    )
                )
        request = TextRequest(
            jobs,
            self._stop(body.stop),
            whole=bool(functions) and any(each in self.tokenizer.special_tokens for each in MARKS),
            seconds=self.limits.request_seconds,
            held=self.limits.slow_reader_characters,
        )
        return Prepared(request, body.model or self.name, list(functions), forced)

    def _room(self, ids: list[int], shared: _Shared) -> int:
        """How many new tokens a text may have: what was asked for, as far as there is room."""
        room = self.context - len(ids)
        if room < 1:
            raise RequestError(
                f"The prompt has {len(ids)} tokens; the model's context of {self.context} leaves "
                f"room for a prompt of {self.context - 1} at most.",
                code="context_length_exceeded",
            )
        most = self.limits.max_tokens
        if most and shared.said and shared.max_tokens > most:
            self.limits.check("max_tokens", shared.max_tokens, most, "tokens")
        if shared.said and shared.max_tokens > self.context:
            self.limits.check("max_tokens", shared.max_tokens, self.context, "tokens")
        return min(shared.max_tokens, room, most or room)

    def _options(self, body: Any, max_new_tokens: int) -> dict[str, float | str]:
        options: dict[str, float | str] = {
            "max_new_tokens": max_new_tokens,
            "temperature": 1.0 if body.temperature is None else float(body.temperature),
            # 0 is the likeliest token alone, as with OpenAI.
            "top_p": 1.0 if body.top_p is None else max(float(body.top_p), _LEAST_TOP_P),
        }
        for name in _AS_THEY_ARE:
            value = getattr(body, name)
            if value is not None:
                options[name] = value
        return options

    def _biases(self, given: dict[str, Any] | None) -> list[tuple[int, float]]:
        found = [(int(id), float(bias)) for id, bias in (given or {}).items()]
        for id, _ in found:
            if id >= self._vocab_size:
                raise RequestError(
                    f"logit_bias holds the id {id}; ids go from 0 to {self._vocab_size - 1}.",
                    param="logit_bias",
                )
        return found

    def _stop(self, stop: str | list[str] | None) -> tuple[str, ...]:
        words = (stop,) if isinstance(stop, str) else tuple(stop or ())
        self.limits.check("stop", len(words), self.limits.stop_strings, "stop strings")
        for word in words:
            if not word:
                raise RequestError("stop holds an empty text.", param="stop")
            if len(word) > self.limits.stop_characters:
                most = self.limits.stop_characters
                raise RequestError(
                    f"stop holds a text of {len(word)} characters; the limit is {most}.",
                    param="stop",
                    code="limit",
                )
        return words


@dataclass(frozen=True)
class _Shared:
    """What the kinds of requests say each in its own way."""

    body: Any
    max_tokens: int
    said: bool  # by the client
    top_logprobs: int


def stop_ids_of(tokenizer: Tokenizer) -> list[int]:
    """Ids that end a text: the end token, and that which ends the turns of the chat template."""
    ensure_template(tokenizer)
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    return list(dict.fromkeys([*end, *turn_ends(tokenizer)]))


def _rows(given: Any) -> list[Any]:
    """Prompts as a list of them, where only one may stand."""
    return [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else given


def _structure(wanted: Any) -> str | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return grammar.of_schema({"type": "object"})
    if wanted.type == "json_schema":
        return grammar.of_schema(wanted.json_schema.schema_)
    if wanted.type == "regex":
        return grammar.of_regex(wanted.pattern)
    return grammar.of_choices(wanted.choices)


def _chosen(functions: list[schemas.Function], choice: Any) -> list[schemas.Function]:
    """The functions of which one must be called; none: the model decides."""
    if choice in (None, "none", "auto"):
        return []
    if choice == "required":
        return functions
    name = choice.function.name
    found = [each for each in functions if each.name == name]
    if not found:
        raise RequestError(
            f"tool_choice names {name!r:.80}, which is none of the tools.", param="tool_choice"
        )
    return found


async def _aside(work: Callable[..., _Made], *given: Any, param: str | None = None) -> _Made:
    """Do work that may take a while beside the event loop; its errors are the client's."""
    try:
        return await asyncio.to_thread(work, *given)
    except OmnimaError as error:
        raise as_request_error(error, param) from None
