"""The tab in which a model is trained on the user's text and drawn while it learns."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable
from typing import Any

import gradio as gr

from omnima.demo.curve import curve_svg, curve_words
from omnima.demo.earlier import EarlierRuns
from omnima.demo.models import Models
from omnima.demo.progress import Progress
from omnima.demo.settings import QUIET
from omnima.demo.training import LEAST_BYTES, MOST_STEPS, TEXT_BYTES, Order, Training
from omnima.errors import ConfigError, OmnimaError

_SIZES = [
    ("0.5 million parameters", "nima"),
    ("1 million", "1m"),
    ("5 million", "5m"),
    ("10 million", "10m"),
]
_FILE = f"""
<div class="file">
  <label for="text-file">Or open a text file (.txt, UTF-8, at most {TEXT_BYTES >> 20} MB)</label>
  <input type="file" id="text-file" accept=".txt,text/plain" data-most="{TEXT_BYTES}">
  <p id="text-file-said" role="status"></p>
</div>"""


class TrainingTab:
    """Builds the tab and answers its events.

    Parameters
    ----------
    models
        Of the page; what was trained is added to them.
    training
        The run, one for all tabs of the browser.
    """

    def __init__(self, models: Models, training: Training) -> None:
        self._models, self.training = models, training
        self._lock = asyncio.Lock()
        self._offered: Progress | None = None
        self._new = ""  # what the model that was trained last is called
        self._build()

    def _build(self) -> None:
        with gr.Row(elem_classes="omnima-split"):
            with gr.Column(min_width=320):
                self._text = gr.Textbox(
                    label="Text to learn from",
                    info=f"plain text, at least {LEAST_BYTES} characters; much text is better",
                    lines=7,
                    max_lines=14,
                    max_length=TEXT_BYTES,
                    elem_id="training-text",
                )
                gr.HTML(_FILE)
                self._fields()
                with gr.Row(elem_classes="omnima-buttons"):
                    self._start = gr.Button("Start", variant="primary", elem_id="training-start")
                    self._stop = gr.Button("Stop", elem_id="training-stop")
                self._status = gr.HTML(elem_id="training-status", elem_classes="status")
                self.earlier = EarlierRuns(self._models, self.training)
            with gr.Column(min_width=320):
                gr.HTML("<h2>Loss</h2>")
                self._facts = gr.HTML(elem_id="training-facts")
                self._curve = gr.HTML(curve_svg([]), elem_id="training-curve")
                self.chat = gr.Button(
                    "Chat with the new model",
                    variant="primary",
                    visible=False,
                    elem_id="training-chat",
                )
                gr.HTML("<h2>What it writes</h2>")
                self._samples = gr.HTML(_samples([]), elem_id="training-samples")
        self._timer = gr.Timer(0.5, active=False)
        # A run may be begun in another tab of the browser.
        self._slow_timer = gr.Timer(5)
        self._seen = gr.State(("", 0))

    def _fields(self) -> None:
        self._size = gr.Radio(_SIZES, value="nima", label="Model size", elem_id="training-size")
        with gr.Row():
            self._steps = gr.Number(
                300,
                precision=0,
                minimum=1,
                maximum=MOST_STEPS,
                label="Steps",
                min_width=100,
                elem_id="training-steps",
            )
            self._lr = gr.Number(
                0.002, label="Learning rate", step=0.0005, min_width=100, elem_id="training-lr"
            )
        with gr.Row():
            self._patience = gr.Number(
                4,
                precision=0,
                minimum=0,
                label="Patience",
                info="the run ends when the held-out loss, measured 20 times, was so many times in "
                "a row no better; 0: never",
                min_width=200,
                elem_id="training-patience",
            )
            self._name = gr.Textbox(
                label="Name",
                info="of the model; empty: the time",
                max_lines=1,
                min_width=200,
                elem_id="training-name",
            )

    def wire(self, page: gr.Blocks, tabs: Any, notices: list[Any], dropdowns: list[Any]) -> None:
        """Connect the events, once all of the page is there.

        Parameters
        ----------
        page, tabs
            To which the tab belongs.
        notices
            Shown where no model is open.
        dropdowns
            Which offer models, that of the chat first.
        """
        shown = [
            self._seen,
            self._status,
            self._facts,
            self._curve,
            self._samples,
            self.chat,
            self._timer,
            *notices,
            *dropdowns,
        ]
        fields = [self._text, self._size, self._steps, self._lr, self._patience, self._name]
        self._others = len(notices), len(dropdowns)
        self._start.click(self.start, [*fields, self._seen, *dropdowns], shown, **QUIET)
        self._stop.click(self.stop, [self._seen, *dropdowns], shown, **QUIET)
        known = [self._seen, *dropdowns]
        self.earlier.resume.click(self.resume, [self.earlier.choice, *known], shown, **QUIET)
        self.earlier.wire(page, self._status, tabs, dropdowns[0])
        self.chat.click(self.newest, None, [tabs, dropdowns[0]], **QUIET)
        self._timer.tick(self.look, known, shown, **QUIET)
        self._slow_timer.tick(self.look, known, shown, **QUIET)
        page.load(self.look, known, shown, **QUIET)

    async def start(
        self,
        text: Any,
        size: Any,
        steps: Any,
        lr: Any,
        patience: Any,
        name: Any,
        seen: Any,
        *chosen: Any,
    ) -> list[Any]:
        """Begin a run; what is wrong with it is said."""

        def begin() -> None:
            order = Order(
                str(text or ""),
                str(size),
                int(_number("Steps", steps)),
                _number("Learning rate", lr),
                int(_number("Patience", patience)),
                str(name or "").strip(),
            )
            self.training.start(order)

        return await self._begun(begin, seen, *chosen)

    async def resume(self, name: Any, seen: Any, *chosen: Any) -> list[Any]:
        """Go on with an earlier run; what is wrong with it is said."""
        return await self._begun(lambda: self.training.resume(str(name or "")), seen, *chosen)

    async def _begun(self, begin: Callable[[], None], seen: Any, *chosen: Any) -> list[Any]:
        try:
            await asyncio.to_thread(begin)
        except (OmnimaError, OSError, ValueError, OverflowError) as error:
            shown = await self.look(seen, *chosen)
            shown[1] = _paragraph(str(error), "error")  # until there is news of the run
            return shown
        return await self.look(("", seen[1]), *chosen)

    async def stop(self, seen: Any, *chosen: Any) -> list[Any]:
        """End the run; its model is kept."""
        if not self.training.progress.busy:
            shown = await self.look(seen, *chosen)
            shown[1] = _paragraph("Nothing is being trained.")
            return shown
        await asyncio.to_thread(self.training.stop)
        return await self.look(seen, *chosen)

    async def look(self, seen: Any, *chosen: Any) -> list[Any]:
        """Show how the run stands; what this tab of the browser knows already is left alone.

        Parameters
        ----------
        seen
            The last sentence that the tab was told, and how often the models had changed.
        chosen
            What its dropdowns say.
        """
        progress = self.training.progress
        await self._offer(progress)
        said, known = seen
        names = self._models.names
        status = gr.skip()
        if progress.said != said:
            status = _paragraph(progress.said, "error" if progress.state == "failed" else "")
        ready = progress.state == "done" and progress is self._offered
        notices, dropdowns = self._others
        offers: list[Any] = [gr.skip() for _ in range(dropdowns)]
        if self._models.changes != known:
            offers = [
                _offer(names, chosen[number] if number < len(chosen) else None)
                for number in range(dropdowns)
            ]
        return [
            (progress.said, self._models.changes),
            status,
            _facts(progress),
            curve_svg(progress.history, progress.of if progress.busy else 0),
            _samples(progress.samples),
            gr.update(visible=ready),
            gr.Timer(active=progress.busy),
            *(gr.update(visible=not names) for _ in range(notices)),
            *offers,
        ]

    async def newest(self) -> tuple[Any, Any]:
        """Go to the chat with the model that was trained last."""
        names = self._models.names
        value = self._new if self._new in names else names[-1]
        return gr.Tabs(selected="chat"), gr.update(choices=names, value=value)

    async def _offer(self, progress: Progress) -> None:
        """Let the page offer a model that has been trained."""
        async with self._lock:
            if progress.state != "done" or self._offered is progress:
                return
            try:
                step = progress.history[-1]["step"] if progress.history else 0
                name, closed = await self.earlier.add(progress.directory, step, progress.name)
                self._new = name
                progress.said += f" It can be chosen as “{name}” under Chat and Compare.{closed}"
            except Exception as error:  # noqa: BLE001 - the page says it, and goes on
                ours = isinstance(error, OmnimaError)
                why = str(error) if ours else f"{type(error).__name__}: {error}"
                progress.said += f" It cannot be opened: {why}"
                progress.state = "failed"
            self._offered = progress


def _offer(names: list[str], chosen: Any) -> Any:
    """What a dropdown offers; what is chosen there stays so while it is offered."""
    if chosen in names or not names:
        return gr.update(choices=names)
    return gr.update(choices=names, value=names[0])


def _number(label: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        said = "empty" if value in (None, "") else f"{value!r:.40}"
        raise ConfigError(f"{label} is {said}, but it is a number.") from None


def _facts(progress: Progress) -> str:
    if not progress.history:
        return ""
    last = progress.history[-1]["step"]
    of = max(last, progress.of) if progress.busy else last
    bar = f'<progress aria-label="Steps done" value="{last}" max="{of}"></progress>'
    return f"{bar}{_paragraph(f'Step {last} of {of}. {curve_words(progress.history)}')}"


def _samples(samples: list[tuple[int, str]]) -> str:
    if not samples:
        return '<p class="empty">Some words appear here on the way.</p>'
    return "".join(
        f'<h3 class="who">After step {step}</h3><p class="said">{html.escape(text)}</p>'
        for step, text in reversed(samples[-6:])
    )


def _paragraph(text: str, kind: str = "") -> str:
    if not text:
        return ""
    return f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>"
