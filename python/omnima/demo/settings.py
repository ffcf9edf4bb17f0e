"""The controls that say how an answer is drawn, and what they mean to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr

from omnima.demo.talk import Wish
from omnima.errors import ConfigError

# What all events of the page have in common.
QUIET: dict[str, Any] = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "concurrency_limit": None,
}
NO_ADAPTER = "none"
_LEAST_TOP_P = 1e-6


class Control(NamedTuple):
    """A number of the drawing: its name for the engine, and how the page shows it."""

    name: str
    label: str
    info: str
    least: float
    most: float
    step: float
    usual: float


CONTROLS = (
    Control("max_new_tokens", "New tokens at most", "of an answer", 1, 2048, 1, 256),
    Control("temperature", "Temperature", "0: always the likeliest token", 0, 2, 0.05, 0.8),
    Control("top_p", "Top p", "only tokens that make up this share", 0, 1, 0.01, 0.95),
    Control("top_k", "Top k", "only so many of the likeliest; 0: all", 0, 200, 1, 0),
    Control("min_p", "Min p", "only those with this share of the likeliest's", 0, 1, 0.01, 0),
    Control(
        "repetition_penalty", "Repetition penalty", "1: none; more: fewer repeats", 1, 2, 0.01, 1
    ),
)


def settings(kind: str) -> list[Any]:
    """Build the controls: the system prompt, one a number, and the seed."""
    system = gr.Textbox(
        label="System prompt",
        info="what the model is told before all messages",
        lines=2,
        max_lines=6,
        elem_id=f"{kind}-system",
    )
    with gr.Row():  # as many beside each other as there is room for
        sliders = [
            gr.Slider(
                each.least,
                each.most,
                each.usual,
                step=each.step,
                label=each.label,
                info=each.info,
                min_width=240,
                elem_id=f"{kind}-{each.name}",
                buttons=[],
            )
            for each in CONTROLS
        ]
    seed = gr.Textbox(
        label="Seed",
        info="a whole number: same seed, same answer; empty: drawn",
        max_lines=1,
        elem_id=f"{kind}-seed",
    )
    return [system, *sliders, seed]


def wish_of(model: str | None, adapter: str | None, values: Sequence[Any]) -> Wish:
    """Return what the controls ask for.

    Raises
    ------
    ConfigError
        A value that is none, or out of bounds.
    """
    system, *numbers, seed = values
    options: dict[str, float] = {}
    for control, value in zip(CONTROLS, numbers):
        number = _number(control.label, value)
        if not control.least <= number <= control.most:
            raise ConfigError(
                f"{control.label} is {number:g}, but lies between {control.least:g} and "
                f"{control.most:g}."
            )
        options[control.name] = int(number) if control.step == 1 else number
    options["top_p"] = max(options["top_p"], _LEAST_TOP_P)
    chosen = None if adapter in (None, "", NO_ADAPTER) else adapter
    return Wish(model, chosen, str(system or ""), options, _seed(seed))


def _number(label: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{label} is {value!r:.40}, but it is a number.") from None


def _seed(value: Any) -> int | None:
    text = str(value or "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ConfigError(f"The seed is {text!r:.40}, but it is a whole number, 0 or more.")
    return int(text)
