"""The part of the training tab that goes on with a run of before, or talks to its model."""

from __future__ import annotations

import asyncio
import html
from typing import Any

import gradio as gr

from omnima.demo.models import Models, closed_words
from omnima.demo.past_runs import PastRun, find_run, past_runs
from omnima.demo.settings import QUIET
from omnima.demo.training import Training
from omnima.errors import OmnimaError


class EarlierRuns:
    """Builds the part and answers its events.

    Parameters
    ----------
    models
        Of the page; a run's model is added to them when somebody wants to talk to it.
    training
        Its directory holds the runs.
    """

    def __init__(self, models: Models, training: Training) -> None:
        self._models, self._training = models, training
        self._lock = asyncio.Lock()
        self._opened: dict[tuple[str, int], str] = {}  # names by a model's place and step
        with gr.Column(visible=False, elem_classes="earlier") as self._all:
            gr.HTML("<h2>Earlier runs</h2>")
            self.choice = gr.Dropdown(
                [],
                label="Run",
                info="one that was stopped goes on where it was; its curve goes on, too",
                elem_id="earlier-run",
            )
            with gr.Row(elem_classes="omnima-buttons"):
                self.resume = gr.Button("Resume", min_width=120, elem_id="earlier-resume")
                self.talk = gr.Button("Talk to it", min_width=120, elem_id="earlier-talk")

    def wire(self, page: gr.Blocks, status: Any, tabs: Any, model: Any) -> None:
        """Connect the events but that of `resume`, which is the training's.

        Parameters
        ----------
        page
            To which the part belongs.
        status
            What the tab says; whenever that changes, a run may have begun or ended.
        tabs, model
            Of the page, and the choice of the chat's model.
        """
        for event in (page.load, status.change):
            event(self.offer, [self.choice], [self._all, self.choice], **QUIET)
        self.talk.click(self.talk_to, [self.choice], [tabs, model, status], **QUIET)

    async def offer(self, chosen: Any) -> tuple[Any, Any]:
        """List the runs; what is chosen there stays so while it is there."""
        found = await asyncio.to_thread(past_runs, self._training.runs)
        busy = self._training.progress
        choices = [(_label(each, busy.name if busy.busy else ""), each.name) for each in found]
        names = [each.name for each in found]
        value = chosen if chosen in names else names[0] if names else None
        return gr.update(visible=bool(found)), gr.update(choices=choices, value=value)

    async def talk_to(self, name: Any) -> tuple[Any, Any, Any]:
        """Open a run's model where it is not open yet, and go to the chat with it."""
        try:
            run = await asyncio.to_thread(find_run, self._training.runs, name)
            async with self._lock:
                called = await self._named(run)
        except (OmnimaError, OSError) as error:
            said = f'<p class="error">{html.escape(str(error))}</p>'
            return gr.skip(), gr.skip(), said
        chosen = gr.update(choices=self._models.names, value=called)
        return gr.Tabs(selected="chat"), chosen, gr.skip()

    async def add(self, place: str, step: int, name: str) -> tuple[str, str]:
        """Offer the model of a directory in the place of what it was at another step; return what
        it is called, and what else is to be said.
        """
        model = await asyncio.to_thread(_model_of, place)
        for known in [each for each in self._opened if each[0] == place]:
            await self._models.close_unused(self._opened.pop(known))
        called = await self._models.add(name, model)
        self._opened[place, step] = called
        return called, closed_words(await self._models.close_old())

    async def _named(self, run: PastRun) -> str:
        place = str(await asyncio.to_thread(run.model))
        known = self._opened.get((place, run.step))
        if known in self._models.names:
            return str(known)
        return (await self.add(place, run.step, run.name))[0]


def _label(run: PastRun, training: str) -> str:
    return f"{run.name}: being trained" if run.name == training else run.label


def _model_of(directory: str) -> Any:
    from omnima.evaluation.directory import open_model

    return open_model(directory)[0]
