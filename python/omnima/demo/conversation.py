"""A tab of the page in which one model, or two beside each other, answer."""

from __future__ import annotations

import html
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import gradio as gr

from omnima.demo.models import Models
from omnima.demo.probabilities import legend_html
from omnima.demo.sessions import Session, Sessions, together
from omnima.demo.settings import NO_ADAPTER, QUIET, settings, wish_of
from omnima.demo.talk import Talk
from omnima.demo.transcript import growing_html
from omnima.errors import ConfigError

_EMPTY = '<p class="empty">Nothing has been said yet.</p>'
# An edited message: page.js says it to the place where it stands, and Gradio to this page.
_ON_LOAD = 'element.addEventListener("omnima-edit", (event) => trigger("edit", event.detail));'
NO_MODEL = (
    '<p class="notice">No model is open. Train one in the tab “Training”, or start the demo with '
    "one: <code>omnima demo DIRECTORY</code>.</p>"
)


class ConversationTab:
    """Builds a tab and answers its events.

    Parameters
    ----------
    models, sessions
        Of the page.
    kind
        "chat" (one lane) or "compare" (two): the session's conversations of that name.
    lanes
        What each model's column is called; one alone needs no name.
    """

    def __init__(self, models: Models, sessions: Sessions, kind: str, lanes: Sequence[str]) -> None:
        self._models, self._sessions, self.kind = models, sessions, kind
        self.dropdowns: list[Any] = []
        self.notice: Any = None
        self._adapters: list[Any] = []
        self._panes: list[Any] = []
        self._build(lanes)
        self._wire()

    def _build(self, lanes: Sequence[str]) -> None:
        self.notice = gr.HTML(NO_MODEL, visible=not self._models.names)
        wide = len(lanes) > 1
        with gr.Row(elem_classes="omnima-split"):
            with gr.Column(scale=3, min_width=320):
                with gr.Row(elem_classes="omnima-lanes"):
                    for number, lane in enumerate(lanes):
                        self._lane(number, lane)
                self._status = gr.HTML(elem_id=f"{self.kind}-status", elem_classes="status")
                self._message_and_buttons()
                with gr.Row(elem_classes="omnima-buttons omnima-tools"):
                    self._coloured = gr.Checkbox(
                        True,
                        label="Colour tokens by probability",
                        container=False,
                        scale=2,
                        min_width=250,
                        elem_id=f"{self.kind}-coloured",
                    )
                    self._small("Copy conversation", "copy")
                    self._small("Save conversation", "save")
                gr.HTML(legend_html())
                if wide:
                    with gr.Accordion("System prompt and parameters", open=False):
                        self._settings = settings(self.kind)
            if not wide:
                with gr.Column(scale=1, min_width=260):
                    gr.HTML("<h2>Settings</h2>")
                    self._settings = settings(self.kind)

    def _lane(self, number: int, lane: str) -> None:
        names = self._models.names
        chosen = names[min(number, len(names) - 1)] if names else None
        with gr.Column(min_width=280):
            with gr.Row(elem_classes="omnima-who"):
                model = gr.Dropdown(
                    names,
                    value=chosen,
                    label=f"{lane} model".strip().capitalize(),
                    min_width=120,
                    elem_id=f"{self.kind}-model-{number}",
                )
                adapter = gr.Dropdown(
                    [NO_ADAPTER, *self._models.adapters(chosen)],
                    value=NO_ADAPTER,
                    label=f"{lane} adapter".strip().capitalize(),
                    min_width=120,
                    elem_id=f"{self.kind}-adapter-{number}",
                )
            with gr.Column(elem_id=f"{self.kind}-log-{number}", elem_classes="log"):
                history = gr.HTML(_EMPTY, elem_classes="history", js_on_load=_ON_LOAD)
                growing = gr.HTML(elem_classes="growing")
        self.dropdowns.append(model)
        self._adapters.append(adapter)
        self._panes += [history, growing]

    def _message_and_buttons(self) -> None:
        self._message = gr.Textbox(
            label="Message",
            info="Enter sends; Shift and Enter begin a new line",
            lines=1,
            max_lines=8,
            elem_id=f"{self.kind}-message",
        )
        with gr.Row(elem_classes="omnima-buttons"):
            self._send = self._button("Send", "send", "primary")
            self._stop = self._button("Stop", "stop")
            self._again = self._button("Regenerate", "again")
            self._new = self._button("New chat", "new")

    def _button(self, label: str, name: str, variant: str = "secondary") -> Any:
        return gr.Button(label, variant=variant, min_width=120, elem_id=f"{self.kind}-{name}")

    def _small(self, label: str, name: str) -> None:
        """A button whose work is done in the browser alone."""
        button = gr.Button(label, size="sm", min_width=140, elem_id=f"{self.kind}-{name}")
        js = f"() => window.omnimaConversation('{self.kind}', '{name}')"
        button.click(None, None, None, js=js, api_visibility="private")

    def _wire(self) -> None:
        asked = [*self.dropdowns, *self._adapters, *self._settings, self._coloured]
        shown = [*self._panes, self._status, self._stop]
        said: dict[str, Any] = {
            "fn": self.say,
            "inputs": [self._message, *asked],
            "outputs": [self._message, *shown],
            **QUIET,
        }
        self._send.click(**said)
        self._message.submit(**said)
        for history in self._panes[::2]:
            history.edit(self.edit, asked, shown, **QUIET)
        self._again.click(self.regenerate, asked, shown, **QUIET)
        self._stop.click(self.stop, None, [self._status], **QUIET)
        self._new.click(self.clear, None, shown, **QUIET)
        self._coloured.change(self.recolour, [self._coloured], self._panes, **QUIET)
        for model, adapter in zip(self.dropdowns, self._adapters):
            model.change(self.adapters_of, [model], [adapter], **QUIET)

    def _session(self, request: gr.Request) -> Session:
        return self._sessions.of(request.session_hash)

    def _talks(self, request: gr.Request) -> list[Talk]:
        found: list[Talk] = getattr(self._session(request), self.kind)
        return found

    def _colour(self, session: Session, coloured: bool) -> None:
        (session.plain.discard if coloured else session.plain.add)(self.kind)

    async def say(
        self, request: gr.Request, message: str, *asked: Any
    ) -> AsyncGenerator[list[Any], None]:
        """Send a message to all lanes; yields what is to be shown."""
        text, talks, cleared = str(message or ""), self._talks(request), False
        stream = self._written(
            request, asked, lambda talk, wish: talk.say(self._models, wish, text)
        )
        async for shown in stream:
            # Emptied once it is taken, and then left to whoever writes the next one.
            taken = not cleared and any(talk.busy for talk in talks)
            cleared = cleared or taken
            yield ["" if taken else gr.skip(), *shown]

    async def edit(
        self, request: gr.Request, event: gr.EventData, *asked: Any
    ) -> AsyncGenerator[list[Any], None]:
        """Say an earlier message differently, in all lanes, and have it answered anew."""
        told = event._data if isinstance(event._data, dict) else {}
        number, text = told.get("number"), str(told.get("text") or "")
        number = number if isinstance(number, int) else 0
        stream = self._written(
            request, asked, lambda talk, wish: talk.edit(self._models, wish, number, text)
        )
        async for shown in stream:
            yield shown

    async def regenerate(self, request: gr.Request, *asked: Any) -> AsyncGenerator[list[Any], None]:
        """Write all lanes' last answers again."""
        stream = self._written(
            request, asked, lambda talk, wish: talk.regenerate(self._models, wish)
        )
        async for shown in stream:
            yield shown

    async def _written(
        self,
        request: gr.Request,
        asked: Sequence[Any],
        begin: Callable[[Talk, Any], AsyncGenerator[None, None]],
    ) -> AsyncGenerator[list[Any], None]:
        session, talks = self._session(request), self._talks(request)
        lanes = len(talks)
        if any(talk.busy for talk in talks):
            yield self._only(_failed("An answer is still being written: stop it first, or wait."))
            return
        try:
            wishes = [
                wish_of(asked[lane], asked[lanes + lane], asked[2 * lanes : -1])
                for lane in range(lanes)
            ]
        except ConfigError as error:
            yield self._only(_failed(str(error)))
            return
        # The colours may change while it is written: each picture is drawn as they are then.
        self._colour(session, bool(asked[-1]))
        chats = [talk.chats for talk in talks]
        histories: list[int] = []
        status: Any = _said("Writing …")
        streams = [begin(talk, wish) for talk, wish in zip(talks, wishes)]
        async with aclosing(together(streams)) as news:
            async for _ in news:
                if chats != [talk.chats for talk in talks]:
                    continue  # a new chat has begun, which is no longer this one's to show
                lengths = [len(talk.turns) for talk in talks]
                changed, histories = lengths != histories, lengths
                panes = _panes(talks, self.kind not in session.plain, changed)
                yield [*panes, status, gr.update(variant="stop")]
                status = gr.skip()  # told once: what else is said meanwhile stays
        if chats == [talk.chats for talk in talks]:
            panes = _panes(talks, self.kind not in session.plain)
            yield [*panes, _ended(talks), gr.update(variant="secondary")]

    def _only(self, status: str) -> list[Any]:
        """Show a status and leave all else."""
        return [*[gr.skip()] * len(self._panes), status, gr.skip()]

    async def stop(self, request: gr.Request) -> Any:
        """End what is being written."""
        talks = self._talks(request)
        if not any(talk.busy for talk in talks):
            return _said("Nothing is being written.")
        for talk in talks:
            talk.stop()
        return gr.skip()

    async def clear(self, request: gr.Request) -> list[Any]:
        """Forget the conversation."""
        talks = self._talks(request)
        for talk in talks:
            talk.clear()
        status = _said("A new chat has begun.")
        return [*_panes(talks, True), status, gr.update(variant="secondary")]

    async def recolour(self, request: gr.Request, coloured: bool) -> list[Any]:
        """Draw the conversation with or without colours."""
        self._colour(self._session(request), bool(coloured))
        return _panes(self._talks(request), bool(coloured))

    async def adapters_of(self, model: str | None) -> Any:
        """Offer the adapters of the model that was chosen."""
        return gr.update(choices=[NO_ADAPTER, *self._models.adapters(model)], value=NO_ADAPTER)


def _panes(talks: Sequence[Talk], coloured: bool, histories: bool = True) -> list[Any]:
    found: list[Any] = []
    for talk in talks:
        done = "".join(turn.drawn(coloured) for turn in talk.turns)
        growing = growing_html(talk.growing, coloured) if talk.growing is not None else ""
        found += [(done or _EMPTY) if histories else gr.skip(), growing]
    return found


def _ended(talks: Sequence[Talk]) -> str:
    """What the page says at the end; whoever listens hears the answers, too."""
    said = "".join(_failed(talk.failed) if talk.failed else _said(talk.note) for talk in talks)
    heard = "".join(
        f'<p class="sr-only">{html.escape(f"{last.who} says: {last.text}")}</p>'
        for talk in talks
        if not talk.failed and talk.turns and (last := talk.turns[-1]).role == "assistant"
    )
    return said + heard


def _said(text: str) -> str:
    return f"<p>{html.escape(text)}</p>" if text else ""


def _failed(text: str) -> str:
    return f'<p class="error">{html.escape(text[:1].upper() + text[1:])}</p>'
