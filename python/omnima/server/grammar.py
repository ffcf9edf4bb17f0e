"""Structured output: what a text must be, as llguidance has it, with bounds on size and time."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from omnima.errors import ConfigError
from omnima.server.expressions import written_out
from omnima.tokenizers import Tokenizer

MAX_BYTES = 64 << 10  # of a schema, an expression or a list of choices
MAX_CHOICES = 1024
MAX_WRITTEN_OUT = 20_000  # characters of an expression with its repetitions written out
_KEPT = 32  # compiled grammars
_FIRST_SECONDS = 0.5  # of the processor that the first mask may take, beside all texts
_STEP_SECONDS = 0.25  # that a later one may take: all texts wait for it
_DEPTH = 32
# A model that has nothing to say must not fill its answer with spaces.
_JSON_OPTIONS: Any = {"whitespace_pattern": "[ ]?"}


def of_schema(schema: Any) -> str:
    """The grammar of JSON that a schema describes.

    Raises
    ------
    ConfigError
        No schema, one that is too large, or one that points elsewhere: nothing is fetched.
    """
    from llguidance import LLMatcher

    if not isinstance(schema, dict | bool):
        raise ConfigError(f"a JSON schema is an object; got {type(schema).__name__}")
    patterns = _patterns(schema, 0)
    text = json.dumps(schema)
    _check_size(text, "the JSON schema")
    for each in patterns:
        _check_expression(each)
    try:
        return LLMatcher.grammar_from_json_schema(text, overrides=_JSON_OPTIONS)
    except ValueError as error:
        raise ConfigError(f"the JSON schema is none: {_short(error)}") from None


def of_regex(pattern: str) -> str:
    """The grammar of texts that a regular expression matches as a whole."""
    from llguidance import LLMatcher

    _check_size(pattern, "the regular expression")
    _check_expression(pattern)
    return LLMatcher.grammar_from_regex(pattern)


def of_choices(choices: Sequence[str]) -> str:
    """The grammar of one of several texts.

    Raises
    ------
    ConfigError
        No choices, too many, or one that is empty.
    """
    if not 0 < len(choices) <= MAX_CHOICES:
        raise ConfigError(f"there are {len(choices)} choices; give between 1 and {MAX_CHOICES}")
    if not all(choices):
        raise ConfigError("a choice is text that is not empty")
    if (size := sum(map(len, choices))) > MAX_BYTES:  # before each of them is gone through
        raise ConfigError(f"the choices have {size} characters; the limit is {MAX_BYTES} bytes")
    return of_regex("|".join(_escaped(each) for each in choices))


class Grammars:
    """Compiles grammars for a tokenizer, and keeps those that were used last.

    Parameters
    ----------
    tokenizer
        Of the model.
    vocab_size
        Ids that the model has; those behind the tokenizer's stand for nothing.
    stop_ids
        Ids that end a text that is complete.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, stop_ids: Sequence[int]) -> None:
        if not stop_ids:
            raise ConfigError("The tokenizer has no end token, so no structured text could end.")
        self._made = (tokenizer, vocab_size, list(stop_ids))
        self._tokens: Any = None
        self._compiled: OrderedDict[str, Any] = OrderedDict()  # an error where it is refused
        self._lock = threading.Lock()

    def matcher(self, grammar: str) -> Any:
        """A matcher at the beginning of a text.

        Raises
        ------
        ConfigError
            What is wrong with the grammar, or that it is too complex.
        """
        with self._lock:
            found = self._compiled.get(grammar)
            if found is None:
                if self._tokens is None:
                    self._tokens = _tokens(*self._made)
                found = self._compiled[grammar] = _compiled(self._tokens, grammar)
                if len(self._compiled) > _KEPT:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(grammar)
            if isinstance(found, str):
                raise ConfigError(f"the structure cannot be used: {found}")
            return found.deep_copy()


class Constraints:
    """The matchers of the texts that are being written; the scheduler asks it once a step."""

    def __init__(self) -> None:
        self._matchers: dict[int, Any] = {}

    def add(self, request: int, matcher: Any) -> None:
        """A text begins."""
        self._matchers[request] = matcher

    def drop(self, request: int) -> None:
        """A text has ended."""
        self._matchers.pop(request, None)

    def fill(self, requests: list[int], new_ids: list[list[int]], masks: Any) -> list[str]:
        """Take the new ids of texts, and mark what may come next; return an error a text."""
        import numpy as np
        from llguidance.numpy import fill_next_token_bitmask

        rows = np.asarray(masks)
        said = []
        for row, (request, ids) in enumerate(zip(requests, new_ids)):
            try:
                matcher = self._matchers[request]
                began = time.thread_time()
                if ids:
                    matcher.consume_tokens(ids)
                fill_next_token_bitmask(matcher, rows, row)
                wrong = _short(matcher.get_error()) if matcher.is_error() else ""
                if time.thread_time() - began > _STEP_SECONDS:
                    wrong = "the structure takes too much work to be followed"
                said.append(wrong)
            except Exception as error:  # noqa: BLE001 - the engine's thread must go on
                said.append(f"the structure cannot be followed: {_short(error)}")
        return said


class _Codec:
    """A tokenizer as llguidance asks it."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end: int) -> None:
        spare = max(vocab_size - tokenizer.vocab_size, 0)
        self.tokens = [*tokenizer.core.token_bytes(), *[b""] * spare]
        self.special_token_ids = sorted(tokenizer.special_tokens.values())
        self.eos_token_id, self.bos_token_id = end, tokenizer.bos_id
        self._tokenizer = tokenizer

    def __call__(self, text: str | bytes) -> list[int]:
        return self._tokenizer.encode(text if isinstance(text, str) else text.decode())


def _tokens(tokenizer: Tokenizer, vocab_size: int, stop_ids: list[int]) -> Any:
    from llguidance import LLTokenizer, TokenizerWrapper

    codec = _Codec(tokenizer, vocab_size, stop_ids[0])
    return LLTokenizer(TokenizerWrapper(codec), eos_token=stop_ids)


def _compiled(tokens: Any, grammar: str) -> Any:
    """A matcher that knows its first mask, or what is wrong with the grammar."""
    from llguidance import LLMatcher

    began = time.thread_time()
    found = LLMatcher(tokens, grammar, log_level=0, limits=_limits())
    if not found.is_error():
        found.compute_bitmask()
    if found.is_error():
        return _short(found.get_error())
    if time.thread_time() - began > _FIRST_SECONDS:
        return "it takes too much work to be followed"
    return found


def _limits() -> Any:
    """Work that a grammar may cost: some tens of milliseconds to compile, a few a step."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=500_000,
        step_lexer_fuel=100_000,
        step_max_items=20_000,
        max_lexer_states=20_000,
        max_grammar_size=50_000,
        precompute_large_lexemes=False,
        verbose_errors=False,
    )


def _patterns(value: Any, depth: int) -> list[str]:
    """The expressions in a schema, unread; ConfigError where it is deep or points elsewhere."""
    if depth > _DEPTH:
        raise ConfigError(f"the JSON schema is nested deeper than {_DEPTH}")
    found: list[str] = []
    if isinstance(value, dict):
        target = value.get("$ref")
        if isinstance(target, str) and not target.startswith("#"):
            raise ConfigError(
                f"$ref is {target!r:.80}, but only parts of the schema (#/…) are read"
            )
        for name, each in value.items():
            if name == "pattern" and isinstance(each, str):
                found.append(each)
            if name == "patternProperties" and isinstance(each, dict):
                found.extend(each)
            found += _patterns(each, depth + 1)
    elif isinstance(value, list):
        for each in value:
            found += _patterns(each, depth + 1)
    return found


def _check_size(text: str, what: str) -> None:
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise ConfigError(f"{what} has {len(text)} characters; the limit is {MAX_BYTES} bytes")


def _check_expression(pattern: str) -> None:
    if written_out(pattern, MAX_WRITTEN_OUT) > MAX_WRITTEN_OUT:
        raise ConfigError(
            "a regular expression is too long with its repetitions written out: the limit is "
            f"{MAX_WRITTEN_OUT} characters"
        )


def _escaped(text: str) -> str:
    return re.sub(r"[^\w ]", lambda found: f"\\u{{{ord(found.group()):X}}}", text, flags=re.ASCII)


def _short(error: object) -> str:
    return " ".join(str(error).split())[:300]
