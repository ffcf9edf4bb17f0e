"""Conversations with a model: a history that can be changed, kept within the model's context."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError
from omnima.generation import chat_file
from omnima.generation.fitting import newest_that_fit, room_for_history, unseen_sentence
from omnima.generation.generate import Generation, generate
from omnima.generation.prompt_cache import PromptCache
from omnima.generation.turns import turn_ends

if TYPE_CHECKING:
    from omnima.model import Model
    from omnima.tokenizers import Tokenizer

Message = dict[str, Any]
_DEFAULTS: Mapping[str, Any] = {"max_new_tokens": 512}


@dataclass
class ChatSession:
    """A conversation with a model.

    The model's chat template writes the history; control tokens that a user writes out are plain
    text. What no longer fits the model's context is not shown to it any more, the oldest turns
    first, and that is said.

    Parameters
    ----------
    model
        An `omnima.Model` with a tokenizer; one without a chat template gets a plain one.
    system
        What the model is told before all messages.
    options
        Of :func:`omnima.generation.generate`, for every answer: ``max_new_tokens`` (512),
        ``temperature``, ``seed`` and so on. Answers take the seed and the numbers that follow it.
    variables
        Further values for the template, such as ``{"enable_thinking": False}``.
    note
        Called with what the session has to say; a warning when left out.
    prompt_cache
        Remembers what the model has read, so that an answer costs the new message alone; None: the
        whole history is read for every answer.

    Attributes
    ----------
    messages : list of dict
        The history, without the system's words; it may be changed.

    Examples
    --------
    >>> import omnima
    >>> model = omnima.Model.from_preset("nima", vocab_size=259, max_position_embeddings=128)
    >>> model.tokenizer = omnima.Tokenizer.train(["to be"], "byte")
    >>> said = []
    >>> chat = ChatSession(model, options={"max_new_tokens": 5}, note=said.append)
    >>> answer = chat.say("Hi!")
    >>> [message["role"] for message in chat.messages]
    ['user', 'assistant']
    """

    model: Model
    system: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    note: Callable[[str], object] | None = None
    prompt_cache: PromptCache | None = field(default_factory=PromptCache, repr=False)
    messages: list[Message] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        from omnima.tokenizers.chat_default import ensure_template

        if self.model.tokenizer is None:
            raise ConfigError("The model has no tokenizer: set model.tokenizer.")
        if "stop_ids" in self.options or "stream" in self.options:
            raise ConfigError("A session stops at the end of turns, and say() takes stream.")
        if said := ensure_template(self.tokenizer):
            self._note(said)
        self._answers = 0  # that were written, those that were thrown away, too
        self._unseen = 0  # first messages that the model was last not shown

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        assert self.model.tokenizer is not None
        return self.model.tokenizer

    def say(
        self, text: str, stream: Callable[[str], object] | None = None, **options: Any
    ) -> Generation:
        """Say something and return the answer; both go into the history.

        Parameters
        ----------
        text
            The user's message.
        stream
            Called with every new piece of the answer; ends it by returning False.
        options
            Of this answer alone.

        Raises
        ------
        ConfigError
            An empty message, or one that does not fit the context.
        """
        if not isinstance(text, str) or not text.strip():
            raise ConfigError("Say something: a message is text that is not empty.")
        return self._answer([*self.messages, {"role": "user", "content": text}], stream, options)

    def regenerate(
        self, stream: Callable[[str], object] | None = None, **options: Any
    ) -> Generation:
        """Throw the last answer away and write another one, with the next seed."""
        return self._answer(self.messages[: self._last_question() + 1], stream, options)

    def edit(
        self,
        number: int,
        text: str,
        stream: Callable[[str], object] | None = None,
        **options: Any,
    ) -> Generation:
        """Change one of the user's messages and answer it anew; what followed it is gone.

        Parameters
        ----------
        number
            Which of the user's messages, counted from 1; -1 is the last.
        text, stream, options
            As for :meth:`say`.
        """
        asked = [i for i, each in enumerate(self.messages) if each["role"] == "user"]
        if not 1 <= abs(number) <= len(asked):
            raise ConfigError(f"message {number} asked for; the user has said {len(asked)}.")
        if not isinstance(text, str) or not text.strip():
            raise ConfigError("Say something: a message is text that is not empty.")
        place = asked[number - 1 if number > 0 else number]
        changed = [*self.messages[:place], {"role": "user", "content": text}]
        return self._answer(changed, stream, options)

    def undo(self) -> None:
        """Take the last question and its answer out of the history."""
        del self.messages[self._last_question() :]

    def clear(self) -> None:
        """Forget the history; the system's words stay."""
        self.messages.clear()
        self._unseen = 0

    def save(self, path: str | Path) -> None:
        """Write the session as JSON: the system's words, the history and the options."""
        chat_file.write(path, self.system, self.messages, dict(self.options), self._answers)

    @classmethod
    def load(
        cls, path: str | Path, model: Model, note: Callable[[str], object] | None = None
    ) -> ChatSession:
        """Go on with a saved session, with any model.

        Raises
        ------
        DataError
            The file is not what :meth:`save` writes; nothing in it is ever run.
        """
        found = chat_file.read(path)
        session = cls(model, found.system, found.options, note=note)
        session.messages, session._answers = found.messages, found.answers
        return session

    def prompt(self) -> list[int]:
        """Return the ids of the history as the model would read it now, ready for an answer."""
        return self._fitted(self.messages, self._reserve({}))[0]

    def _last_question(self) -> int:
        for place in range(len(self.messages) - 1, -1, -1):
            if self.messages[place]["role"] == "user":
                return place
        raise ConfigError("Nothing has been said yet.")

    def _answer(
        self,
        messages: list[Message],
        stream: Callable[[str], object] | None,
        given: Mapping[str, Any],
    ) -> Generation:
        options = {**_DEFAULTS, **self.options, **given}
        ids, unseen = self._fitted(messages, self._reserve(options))
        seed = options.pop("seed", 0)
        written = generate(
            self.model,
            self.tokenizer,
            [ids],
            stream=stream,
            stop_ids=self._ends(),
            seed=None if seed is None else seed + self._answers,
            **{"prompt_cache": self.prompt_cache, **options},
        )[0]
        self._answers += 1
        self.messages = [*messages, {"role": "assistant", "content": written.text}]
        self._say_unseen(unseen)
        return written

    def _reserve(self, options: Mapping[str, Any]) -> int:
        """Tokens that the history may take."""
        wanted: int = {**_DEFAULTS, **self.options, **options}["max_new_tokens"]
        return room_for_history(self.model.context, wanted)

    def _fitted(self, messages: Sequence[Message], room: int) -> tuple[list[int], int]:
        """The ids of the system's words and of the newest turns that fit, and how many messages
        are left out for that.
        """
        return newest_that_fit(messages, self._encoded, room, self.model.context)

    def _encoded(self, messages: Sequence[Message]) -> list[int]:
        told = [] if self.system is None else [{"role": "system", "content": self.system}]
        ids = self.tokenizer.apply_chat_template(
            [*told, *messages],
            add_generation_prompt=True,
            sanitize_control_tokens=True,
            **self.variables,
        )
        assert isinstance(ids, list)
        return ids

    def _ends(self) -> list[int]:
        """The token by which the template ends the assistant's turns, where it has one."""
        return turn_ends(self.tokenizer, self.variables)

    def _say_unseen(self, unseen: int) -> None:
        if unseen > self._unseen:
            self._note(unseen_sentence(unseen, self.model.context))
        self._unseen = unseen

    def _note(self, sentence: str) -> None:
        if self.note is None:
            warnings.warn(sentence, stacklevel=4)
        else:
            self.note(sentence)
