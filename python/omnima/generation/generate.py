"""Text in, text out: one call of the C++ engine for all prompts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from omnima import _core
from omnima.errors import ConfigError
from omnima.generation import prompts as prompting
from omnima.generation.adapters import AdapterChoices, adapted_of
from omnima.generation.prompt_cache import PromptCache
from omnima.generation.prompts import Prompts
from omnima.generation.protocols import LanguageModel, TextCodec
from omnima.generation.speculation import draft_of, guesses_of
from omnima.generation.text import TextAssembler, check_stop


@dataclass(frozen=True)
class Generation:
    """What was written after one prompt.

    Attributes
    ----------
    text
        The new text, cut before a stop string; empty without a tokenizer.
    prompt_tokens, new_tokens
        How many tokens were read and written, the end token included.
    ids
        The new ids, the end token included.
    seconds
        From the start of the call to this sequence's last token.
    finish_reason
        ``"eos"`` (the end token), ``"stop"`` (a stop string, or the callback said so) or
        ``"length"`` (``max_new_tokens``, or the context is full).
    proposed_tokens, accepted_tokens
        With speculation: how many tokens were guessed ahead, and how many of these were right.
    cached_tokens
        How many of the prompt's tokens a prompt cache knew: they were not read again.
    """

    text: str
    prompt_tokens: int
    new_tokens: int
    ids: list[int]
    seconds: float
    finish_reason: str
    proposed_tokens: int = 0
    accepted_tokens: int = 0
    cached_tokens: int = 0


def generate(
    model: LanguageModel,
    tokenizer: TextCodec | None,
    prompts: Prompts,
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 0.95,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    frequency_penalty: float = 0.0,
    presence_penalty: float = 0.0,
    logit_bias: Mapping[int, float] | None = None,
    stop: str | Sequence[str] = (),
    seed: int | Sequence[int] | None = 0,
    stream: Callable[..., object] | None = None,
    ignore_eos: bool = False,
    stop_ids: Sequence[int] = (),
    speculation: str | LanguageModel | None = None,
    speculative_tokens: int = 15,
    prompt_precision: str = "fp32",
    cache_precision: str = "fp32",
    adapters: AdapterChoices | None = None,
    prompt_cache: PromptCache | None = None,
) -> list[Generation]:
    """Write on from one or several prompts.

    A text depends on the model, its own prompt, the options and the seed; never on the prompts
    beside it.

    Parameters
    ----------
    model
        An :class:`omnima.Model`.
    tokenizer
        Its tokenizer; may be None for prompts of token ids. With one only its ids are written, even
        where the model has more rows.
    prompts
        A text, a list of token ids, or a list of these.
    max_new_tokens
        The most tokens to write. A sequence ends before that when the context is full.
    temperature
        Divides the logits before the draw; 0 takes the likeliest token always.
    top_k, top_p, min_p, repetition_penalty
        Meaning and order as in transformers; 0, 1, 0 and 1 switch them off.
    frequency_penalty, presence_penalty
        Taken from the logits of tokens that were written: for each time, and once. 0: off.
    logit_bias
        What is added to the logits of these ids, -1000 to 1000, before anything else.
    stop
        Texts that end a sequence.
    seed
        A number for all prompts (copies of the same prompt take the numbers that follow it, so that
        they differ), a number for each, or None for new numbers every time.
    stream
        Called with every new piece of text: ``stream(text)`` for one prompt, ``stream(text,
        index)`` for several. A sequence ends when it returns False.
    ignore_eos
        Go on after the end token.
    stop_ids
        Ids that end a sequence as the end token does, and are no part of its text.
    speculation
        Guess tokens ahead and check them together in one pass over the weights: ``"lookup"`` copies
        what followed the same words before, and a smaller model with the same vocabulary writes
        ahead. The text is the same as without (Leviathan et al. 2023 for a proposal of one token).
    speculative_tokens
        The most tokens to guess at once; where guesses are wrong, fewer are made, and with many
        prompts, too.
    prompt_precision
        Number format of the products of a prompt of 32 tokens or more: ``"fp32"``, or ``"bf16"``
        with float32 sums, which is faster on CPUs with bfloat16 products (AMX, avx512_bf16).
    cache_precision
        Number format of the keys and values that a sequence remembers: ``"fp32"``, ``"bf16"`` (half
        the memory) or ``"int8"`` (about a quarter), which are faster in long texts, and rounded.
    adapters
        Of the model, in the place of those in use (on the CPU): a name or ``{name: weight}`` for
        all prompts, or a list with one a prompt; None or ``{}`` there is the base alone. The
        prompts of a call share the base's weights, whatever their adapters.
    prompt_cache
        Knows texts of earlier calls, and keeps these: what a prompt shares with one of them, or
        with another prompt of the call, is not read again. See
        :class:`omnima.generation.PromptCache`.

    Returns
    -------
    list of Generation
        One a prompt, in order.

    Raises
    ------
    ConfigError
        An option out of its bounds, a prompt that is empty or does not fit the context, a draft
        model with another vocabulary, or an adapter that is not there.
    NonFiniteError
        The model gave NaN or infinite logits.

    Examples
    --------
    >>> from omnima.generation import generate
    >>> generate(model, tokenizer, "Once upon", temperature=0.0)[0].text  # doctest: +SKIP
    >>> generate(model, tokenizer, "Once upon", speculation="lookup")[0].text  # doctest: +SKIP
    >>> generate(model, tokenizer, ["Once", "One"], adapters=["a", "b"])  # doctest: +SKIP
    """
    words = check_stop(stop)
    rows = [prompting.encode(prompt, tokenizer) for prompt in prompting.as_list(prompts)]
    listener = _Listener(tokenizer, words, stream, rows, ignore_eos, stop_ids)
    options: dict[str, float | str] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "frequency_penalty": frequency_penalty,
        "presence_penalty": presence_penalty,
        "speculative_tokens": guesses_of(speculation, speculative_tokens),
        "prompt_precision": prompt_precision,
        "cache_precision": cache_precision,
    }
    engine = model.engine
    clock = _core.TokenClock(len(rows))
    written = engine.generate(
        rows,
        options,
        prompting.seeds(rows, seed),
        listener.stop_ids,
        listener if words or stream else clock,
        # Rows that a model has to spare stand for no token.
        known_ids=0 if tokenizer is None else min(tokenizer.vocab_size, engine.vocab_size),
        draft=draft_of(speculation, tokenizer),
        adapters=adapted_of(model, adapters, len(rows)),
        prompt_cache=None if prompt_cache is None else prompt_cache.core,
        logit_bias={id: bias for id, bias in (logit_bias or {}).items()},
    )
    if not (words or stream):
        listener.hear_all([ids for ids, *_ in written], clock.seconds)
    return [
        listener.result(index, len(row), *found)
        for index, (row, found) in enumerate(zip(rows, written, strict=True))
    ]


class _Listener:
    """Hears every token of the engine; keeps the text and the time of each sequence."""

    def __init__(
        self,
        tokenizer: TextCodec | None,
        stop: tuple[str, ...],
        stream: Callable[..., object] | None,
        prompts: Sequence[Sequence[int]],
        ignore_eos: bool,
        stop_ids: Sequence[int],
    ) -> None:
        if tokenizer is None and (stop or stream):
            raise ConfigError("stop and stream work on text: give the tokenizer, too.")
        end = None if tokenizer is None or ignore_eos else tokenizer.eos_id
        self.stop_ids = list(dict.fromkeys([*([] if end is None else [end]), *stop_ids]))
        self._texts = (
            []
            if tokenizer is None
            else [TextAssembler(tokenizer.stream_decoder(after=ids), stop) for ids in prompts]
        )
        self._stream = stream
        self._count = len(prompts)
        self._began = time.perf_counter()
        self._seconds = [0.0] * len(prompts)

    def __call__(self, index: int, token: int) -> bool:
        self._seconds[index] = time.perf_counter() - self._began
        if not self._texts or token in self.stop_ids:
            return True
        text = self._texts[index]
        return self._tell(text.push(token), index) and not text.stopped

    def hear_all(self, written: Sequence[Sequence[int]], seconds: Sequence[float]) -> None:
        """Take whole sequences, where nobody listens to their tokens."""
        self._seconds = list(seconds)
        for text, ids in zip(self._texts, written, strict=False):
            text.take(id for id in ids if id not in self.stop_ids)

    def result(
        self,
        index: int,
        prompt_tokens: int,
        ids: list[int],
        reason: str,
        proposed: int,
        accepted: int,
        cached: int,
    ) -> Generation:
        """Release what is still held of a sequence, and describe it."""
        text = ""
        if self._texts:
            whole = self._texts[index]
            was_stopped = whole.stopped
            self._tell(whole.finish(), index)
            text = whole.text
            if whole.stopped and not was_stopped:
                reason = "stop"
        seconds = self._seconds[index]
        return Generation(
            text, prompt_tokens, len(ids), ids, seconds, reason, proposed, accepted, cached
        )

    def _tell(self, piece: str, index: int) -> bool:
        if self._stream is None or not piece:
            return True
        said = self._stream(piece) if self._count == 1 else self._stream(piece, index)
        return said is not False
