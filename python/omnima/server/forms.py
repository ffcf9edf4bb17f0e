"""The answers' JSON: OpenAI's forms of a whole text and of its pieces, and a plain one of ours.

Pieces are written by hand around one call of the JSON encoder: they cost a few microseconds each.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from omnima.server.prepare import Prepared
from omnima.server.service import Piece, Run, TokenLogprob
from omnima.server.tools import ToolCall, ToolParser
from omnima.tokenizers import Tokenizer

DONE = b"data: [DONE]\n\n"


def usage_of(run: Run) -> dict[str, Any]:
    """What a request has cost."""
    prompt, new = run.prompt_tokens, run.new_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": new,
        "total_tokens": prompt + new,
        "prompt_tokens_details": {"cached_tokens": run.cached_tokens},
    }


class Spelling:
    """How tokens are called in logprobs: their text and their bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._bytes: list[bytes] = []

    def bytes_of(self, id: int) -> bytes:
        """The bytes that a token writes inside a text."""
        if not self._bytes:
            self._bytes = self._tokenizer.core.token_bytes()
        return self._bytes[id] if id < len(self._bytes) else b""

    def text_of(self, id: int) -> str:
        """The same as text; bytes that are no whole characters are U+FFFD."""
        return self.bytes_of(id).decode("utf-8", "replace")

    def chat(self, known: Sequence[TokenLogprob]) -> dict[str, Any]:
        """Logprobs as chats have them."""

        def one(id: int, logprob: float) -> dict[str, Any]:
            raw = self.bytes_of(id)
            return {
                "token": raw.decode("utf-8", "replace"),
                "logprob": _finite(logprob),
                "bytes": list(raw),
            }

        return {
            "content": [
                {**one(id, logprob), "top_logprobs": [one(*each) for each in top]}
                for id, logprob, top in known
            ],
            "refusal": None,
        }

    def completion(self, known: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
        """Logprobs as completions have them; the offset is that of the first token."""
        offsets = []
        for id, _, _ in known:
            offsets.append(offset)
            offset += len(self.text_of(id))
        return {
            "tokens": [self.text_of(id) for id, _, _ in known],
            "token_logprobs": [_finite(logprob) for _, logprob, _ in known],
            "top_logprobs": [
                {self.text_of(id): _finite(logprob) for id, logprob in top} for _, _, top in known
            ],
            "text_offset": offsets,
        }


@dataclass
class _Said:
    """What a choice has got so far."""

    text: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reason: str = ""
    offset: int = 0  # characters that logprobs have been told of
    tools: ToolParser | None = None


class Form:
    """Answers to one request, in one of the forms.

    Parameters
    ----------
    prepared
        The request.
    spelling
        Of the model's tokens.
    chat
        The form of chats, else that of completions.
    counts
        Say in a stream what the request has cost.
    """

    def __init__(self, prepared: Prepared, spelling: Spelling, chat: bool, counts: bool) -> None:
        self._prepared, self._spelling, self._chat = prepared, spelling, chat
        self._logprobs = prepared.request.jobs[0].top_logprobs >= 0
        self.counts = counts
        self._about = {
            "id": ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12),
            "object": ("chat.completion" if chat else "text_completion"),
            "created": int(time.time()),
            "model": prepared.model,
        }
        self._said = [_Said() for _ in prepared.request.jobs]
        if prepared.functions and not prepared.forced:
            for each in self._said:
                each.tools = ToolParser(prepared.functions)
        about = {**self._about, "object": "chat.completion.chunk" if chat else "text_completion"}
        self._start = f'data: {json.dumps(about)[:-1]}, "choices": [{{"index": '
        self._end = ', "usage": null}\n\n' if counts else "}\n\n"

    # A stream.

    def opening(self) -> bytes:
        """The first piece of each choice says who speaks, or holds the prompt."""
        if not self._chat:
            echo = enumerate(self._prepared.echo)
            return "".join(self._text(i, text, "null") for i, text in echo).encode()
        who = {"role": "assistant", "content": None if self._prepared.forced else ""}
        return "".join(self._chunk(i, who) for i in range(len(self._said))).encode()

    def piece(self, piece: Piece) -> bytes:
        """A piece of a choice; b"" when there is nothing to be told yet."""
        said, index = self._said[piece.choice], piece.choice
        text, calls = piece.text, []
        if self._prepared.forced:
            said.text.append(text)
            calls = self._forced(said) if piece.reason else []
            text = ""
        elif said.tools is not None:
            text = said.tools.push(text)
            if piece.reason:
                rest, calls = said.tools.finish()
                text += rest
        found = []
        if text or (piece.logprobs and not self._prepared.forced):
            found.append(self._text(index, text, self._logprobs_of(said, piece.logprobs)))
        if calls:
            deltas = [{"index": i, **call.as_json()} for i, call in enumerate(calls)]
            found.append(self._chunk(index, {"tool_calls": deltas}))
        if piece.reason:
            reason = "tool_calls" if calls and piece.reason == "stop" else piece.reason
            found.append(
                self._chunk(index, {}, reason) if self._chat else self._last(index, reason)
            )
        return "".join(found).encode()

    def closing(self, run: Run) -> bytes:
        """The end of a stream."""
        if not self.counts:
            return DONE
        about: dict[str, Any] = {**self._about, "choices": [], "usage": usage_of(run)}
        if self._chat:
            about["object"] = "chat.completion.chunk"
        return f"data: {json.dumps(about)}\n\n".encode() + DONE

    def _text(self, index: int, text: str, logprobs: str) -> str:
        if self._chat:
            said = f'{index}, "delta": {{"content": {quoted(text)}}}'
        else:
            said = f'{index}, "text": {quoted(text)}'
        return f'{self._start}{said}, "logprobs": {logprobs}, "finish_reason": null}}]{self._end}'

    def _chunk(self, index: int, delta: dict[str, Any], reason: str = "") -> str:
        said = f'{index}, "delta": {json.dumps(delta)}, "logprobs": null'
        why = quoted(reason) if reason else "null"
        return f'{self._start}{said}, "finish_reason": {why}}}]{self._end}'

    def _last(self, index: int, reason: str) -> str:
        said = f'{index}, "text": "", "logprobs": null, "finish_reason": {quoted(reason)}}}]'
        return f"{self._start}{said}{self._end}"

    def _logprobs_of(self, said: _Said, known: Sequence[TokenLogprob]) -> str:
        if not self._logprobs:
            return "null"
        if self._chat:
            return json.dumps(self._spelling.chat(known))
        told = self._spelling.completion(known, said.offset)
        said.offset += sum(map(len, told["tokens"]))
        return json.dumps(told)

    # A whole answer.

    def take(self, piece: Piece) -> None:
        """Keep a piece for the whole answer."""
        said = self._said[piece.choice]
        said.text.append(piece.text)
        said.logprobs += piece.logprobs
        said.reason = piece.reason or said.reason

    def whole(self, run: Run) -> bytes:
        """The answer, when all choices are done."""
        build: Callable[[int, _Said], dict[str, Any]]
        build = self._message if self._chat else self._completion
        choices = [build(index, said) for index, said in enumerate(self._said)]
        about = {**self._about, "choices": choices, "usage": usage_of(run)}
        return json.dumps(about).encode()

    def _completion(self, index: int, said: _Said) -> dict[str, Any]:
        logprobs = self._spelling.completion(said.logprobs, 0) if self._logprobs else None
        return {
            "index": index,
            "text": "".join([*self._prepared.echo[index : index + 1], *said.text]),
            "logprobs": logprobs,
            "finish_reason": said.reason,
        }

    def _message(self, index: int, said: _Said) -> dict[str, Any]:
        text, calls = "".join(said.text), []
        if self._prepared.forced:
            calls = self._forced(said)
            text = "" if calls else text
        elif said.tools is not None:
            words = said.tools.push(text)
            rest, calls = said.tools.finish()
            text = words + rest
        message: dict[str, Any] = {"role": "assistant", "content": text or None if calls else text}
        if calls:
            message["tool_calls"] = [each.as_json() for each in calls]
        return {
            "index": index,
            "message": message,
            "logprobs": self._spelling.chat(said.logprobs) if self._logprobs else None,
            "finish_reason": "tool_calls" if calls and said.reason == "stop" else said.reason,
        }

    def _forced(self, said: _Said) -> list[ToolCall]:
        """The call that a grammar has asked for; none where the text ended before it did."""
        parser = ToolParser(self._prepared.functions)
        parser.push("".join(said.text))
        return parser.finish()[1]


def plain_answer(run: Run, pieces: Sequence[Piece]) -> bytes:
    """The answer of /generate."""
    reason = next((each.reason for each in reversed(pieces) if each.reason), "")
    timing = run.timing
    return json.dumps(
        {
            "text": "".join(each.text for each in pieces),
            "finish_reason": reason,
            "prompt_tokens": run.prompt_tokens,
            "new_tokens": run.new_tokens,
            "cached_tokens": run.cached_tokens,
            "seconds": (timing.ended or time.perf_counter()) - timing.began,
        }
    ).encode()


def _finite(logprob: float) -> float:
    return max(float(logprob), -9999.0)
