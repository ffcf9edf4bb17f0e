"""Conversations to text and ids: the chat template that a tokenizer carries."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from omnima.errors import ConfigError, DataError
from omnima.templates import process
from omnima.templates.template import ChatTemplate, RenderedChat
from omnima.templates.values import conversation, plain
from omnima.tokenizers import chat_files, chat_mask, chat_turns
from omnima.tokenizers.chat_files import DEFAULT, Templates
from omnima.tokenizers.description import (
    ROLE_ADDED,
    ROLE_SPECIAL,
    ROLE_USER,
    Description,
)

# Characters for private use that enclose a control token in what users wrote, while it is rendered.
_OPEN, _CLOSE = "\U000f0000", "\U000f0001"
#: Special tokens, by the names that a template knows them by.
TOKEN_VARIABLES = ("bos_token", "eos_token", "pad_token", "unk_token")
#: What apply_chat_template of transformers takes and this one does not; a template would ignore it.
ELSEWHERE = frozenset(
    "conversation chat_template continue_final_message padding truncation max_length return_tensors"
    " return_dict return_assistant_tokens_mask tokenizer_kwargs".split()
)


@dataclass(frozen=True)
class EncodedChat:
    """A conversation as text, as ids, and which ids the assistant wrote (1) and which not (0)."""

    text: str
    ids: list[int]
    assistant_mask: list[int]


class ChatTemplates(ABC):
    """The part of a tokenizer that carries chat templates and applies them."""

    description: Description
    _templates: Templates
    # What finds control tokens, by template, for one description.
    _control: tuple[Description | None, dict[ChatTemplate, re.Pattern[str]]] = (None, {})
    _control_ids: Mapping[re.Pattern[str], frozenset[int]] = MappingProxyType({})

    @abstractmethod
    def encode(
        self, text: str, add_bos: bool = False, add_eos: bool = False, parse_special: bool = False
    ) -> list[int]:
        """Return the ids of a text; see :class:`omnima.Tokenizer`."""

    @property
    def chat_template(self) -> str | dict[str, str] | None:
        """The chat template (Jinja): one text, several by name, or None. Set it to change it."""
        texts = {name: each.text for name, each in self._templates.items()}
        if list(texts) == [DEFAULT]:
            return texts[DEFAULT]
        return texts or None

    @chat_template.setter
    def chat_template(self, value: str | Mapping[str, str] | None) -> None:
        self._templates = chat_files.from_value(value, "the chat template that was set")

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: str | None = None,
        *,
        documents: Sequence[Mapping[str, Any]] | None = None,
        sanitize_control_tokens: bool = False,
        **variables: Any,
    ) -> list[int] | str:
        """Write a conversation as its model expects it.

        The text and the ids are those of transformers' method of the same name. A template is
        untrusted code: it runs in a sandbox, without files, and with a bound on its work.

        Parameters
        ----------
        messages
            ``{"role": "user", "content": "Hello"}`` and the like, in order.
        add_generation_prompt
            End with the words that open the assistant's turn.
        tokenize
            Return ids; else the text.
        tools
            JSON schemas of functions that the model may call.
        template
            The name of one of the tokenizer's templates, or the text of another. When left out:
            the one named ``tool_use`` if there are tools, else the default.
        documents
            Texts to answer from, where the template takes any.
        sanitize_control_tokens
            Encode control tokens that are written out in messages, tools, documents and variables
            as plain text. Without it (as in transformers) ``<|im_end|>`` in a user's message ends
            the message: use it whenever others write the messages. A control token that the
            template joins from several strings is not found, and U+F0000 and U+F0001 are taken out
            of what others wrote.
        **variables
            Further values for the template, such as ``enable_thinking=False``.

        Raises
        ------
        ConfigError
            No template, a name that is none of the tokenizer's, an option of transformers only.
        DataError
            Messages of a wrong form; a template that is no Jinja, raises, does what the sandbox
            forbids or too much work. Names the template's source, and its line where known.

        Examples
        --------
        >>> from omnima import Tokenizer
        >>> tokenizer = Tokenizer.train(["to be or not to be"], "byte")
        >>> each = "{{ m.role }}: {{ m.content }}"
        >>> tokenizer.chat_template = "{% for m in messages %}" + each + "{% endfor %}"
        >>> tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
        'user: Hi'
        """
        chosen = self._chosen(template, tools is not None)
        rendered, control = self._render(
            chosen, messages, add_generation_prompt, tools, documents, variables,
            sanitize_control_tokens,
        )  # fmt: skip
        if tokenize:
            return self._encode_rendered(rendered.text, control)
        return rendered.text if control is None else _unmarked(rendered.text)

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: str | None = None,
        *,
        documents: Sequence[Mapping[str, Any]] | None = None,
        sanitize_control_tokens: bool = False,
        last_turn_only: bool = False,
        **variables: Any,
    ) -> EncodedChat:
        """Return a conversation's text, ids and the mask of what the assistant wrote.

        That is what stands between ``{% generation %}`` and ``{% endgeneration %}`` in the
        template. A template without such a block is asked for the conversation up to each of the
        assistant's turns, with and without the turn: what the turn adds is what was written, up to
        its last control token. A token that is partly inside counts as written.

        Parameters
        ----------
        messages, tools, template, documents, sanitize_control_tokens, **variables
            As in :meth:`apply_chat_template`.
        last_turn_only
            Of several turns mask the last one alone.

        Raises
        ------
        DataError
            Also for a tokenizer that does not give its text back exactly, and for a template
            without such a block that writes earlier turns otherwise once others follow them.
        """
        chosen = self._chosen(template, tools is not None)
        given = (tools, documents, variables, sanitize_control_tokens)
        rendered, control = self._render(chosen, messages, False, *given)
        spans = rendered.spans[-1:] if last_turn_only else rendered.spans
        if not chat_turns.GENERATION.search(chosen.text):
            spans = chat_turns.spans(
                lambda part, opens: self._render(chosen, part, opens, *given)[0].text,
                messages,
                rendered.text,
                self._control_tokens(chosen),
                last_turn_only,
            )
        text, ids = rendered.text, self._encode_rendered(rendered.text, control)
        places = sorted({place for span in spans for place in span})
        moved = dict(zip(places, places))
        if control is not None:
            text = _unmarked(text)
            moved = chat_mask.lengths(rendered.text, places, lambda part: len(_unmarked(part)))
        plain_spans = [(moved[start], moved[end]) for start, end in spans]
        return EncodedChat(text, ids, chat_mask.written(self.description, text, ids, plain_spans))

    def control_token_ids(self, template: str | None = None) -> frozenset[int]:
        """Return the ids that give a conversation its form: special ones, and others that the
        template writes.
        """
        control = self._control_tokens(self._chosen(template, False))
        if control not in self._control_ids:
            pieces = enumerate(self.description.pieces)
            found = frozenset(id for id, piece in pieces if control.fullmatch(piece))
            self._control_ids = {control: found}
        return self._control_ids[control]

    def _chosen(self, template: str | None, with_tools: bool) -> ChatTemplate:
        known = self._templates
        if template is None:
            name = "tool_use" if with_tools and "tool_use" in known else DEFAULT
            if name in known:
                return known[name]
        elif template in known:
            return known[template]
        elif "{" in template:
            return ChatTemplate(template, "the chat template that was given")
        names = f"; it has {', '.join(sorted(known))}" if known else ", and it has none at all"
        wanted = "default chat template" if template is None else f"chat template {template!r}"
        raise ConfigError(
            f"the tokenizer has no {wanted}{names}. Set tokenizer.chat_template, or give"
            " template: a name, or a template's text"
        )

    def _render(
        self,
        template: ChatTemplate,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None,
        documents: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any],
        sanitize: bool,
    ) -> tuple[RenderedChat, re.Pattern[str] | None]:
        """The text, with control tokens of users enclosed if asked, and what finds those."""
        unknown = sorted(ELSEWHERE & set(variables))
        if unknown:
            raise ConfigError(
                f"apply_chat_template has no option {unknown[0]!r}; it has add_generation_prompt,"
                " tokenize, tools, template, documents and sanitize_control_tokens, and encode_chat"
                " gives the mask of the assistant's tokens"
            )
        given: dict[str, Any] = {
            "messages": conversation(messages),
            "tools": plain(tools, "tools"),
            "documents": plain(documents, "documents"),
            **{name: plain(each, name) for name, each in variables.items()},
        }
        control = None
        if sanitize:
            control = self._control_tokens(template)
            given = {name: _marked(each, control) for name, each in given.items()}
        named = self.description
        ids = (named.bos, named.eos, named.pad, named.unknown)
        tokens = {n: named.pieces[i] for n, i in zip(TOKEN_VARIABLES, ids) if i is not None}
        values = {**tokens, "add_generation_prompt": bool(add_generation_prompt), **given}
        return process.render(template, values), control

    def _control_tokens(self, template: ChatTemplate) -> re.Pattern[str]:
        """Special tokens, and the added ones that the template writes (but spaces are text)."""
        if self._control[0] is not self.description:
            self._control = (self.description, {})
        known = self._control[1]
        if template not in known:
            known[template] = self._found_control_tokens(template)
        return known[template]

    def _found_control_tokens(self, template: ChatTemplate) -> re.Pattern[str]:
        literals = process.literals(template)
        tokens = [
            piece
            for piece, role in zip(self.description.pieces, self.description.roles)
            if role == ROLE_SPECIAL
            or (role in (ROLE_ADDED, ROLE_USER) and not piece.isspace() and piece in literals)
        ]
        longest_first = sorted(tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def _encode_rendered(self, text: str, control: re.Pattern[str] | None) -> list[int]:
        if control is None:
            return self.encode(text, parse_special=True)
        # Odd parts are control tokens that a user wrote, or None for a sign that the template has
        # parted from its other half.
        parts = re.split(f"{_OPEN}({control.pattern}){_CLOSE}|[{_OPEN}{_CLOSE}]", text)
        ids: list[int] = []
        for number, part in enumerate(parts):
            if part:
                ids += self._encode_part(part, number > 0, as_text=number % 2 == 1)
        return ids

    def _encode_part(self, part: str, inside: bool, as_text: bool) -> list[int]:
        """The ids of a part of a text; behind others no space is put in front of it."""
        ids = self.encode(part, parse_special=not as_text)
        if inside and self.description.marking is not None:
            line = self.encode("\n")
            behind = self.encode("\n" + part, parse_special=not as_text)
            ids = behind[len(line) :] if behind[: len(line)] == line else ids
        if as_text and any(self.description.pieces[i] == part for i in ids):
            raise DataError(
                f"{part!r} in a message cannot be plain text: this tokenizer finds it in every text"
            )
        return ids


def _marked(value: Any, control: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return control.sub(f"{_OPEN}\\g<0>{_CLOSE}", _unmarked(value))
    if isinstance(value, dict):
        # Keys that are names stay: templates look for them.
        return {
            key if isinstance(key, str) and key.isidentifier() else _marked(key, control): _marked(
                each, control
            )
            for key, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        return type(value)(_marked(each, control) for each in value)
    return value


def _unmarked(text: str) -> str:
    return text.replace(_OPEN, "").replace(_CLOSE, "")
