"""The page: three tabs under a heading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from omnima.demo.conversation import ConversationTab
from omnima.demo.models import Models
from omnima.demo.sessions import Sessions
from omnima.demo.training import Training
from omnima.demo.training_tab import TrainingTab

TITLE = "Omnima demo"
_HERE = Path(__file__).parent
_SCRIPTS = ("page.js", "turns.js")


def build_page(models: Models, training: Training) -> gr.Blocks:
    """Build the page over models and a training run."""
    sessions = Sessions()
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        with gr.Row(elem_classes="omnima-head"):
            gr.HTML(f"<h1>{TITLE}</h1>")
            theme = gr.Button("Dark or light", size="sm", elem_id="theme", scale=0, min_width=140)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Chat", id="chat"):
                chat = ConversationTab(models, sessions, "chat", [""])
            with gr.Tab("Compare", id="compare"):
                compare = ConversationTab(models, sessions, "compare", ["left", "right"])
            with gr.Tab("Training", id="training"):
                tab = TrainingTab(models, training)
        dropdowns = [*chat.dropdowns, *compare.dropdowns]
        tab.wire(page, tabs, [chat.notice, compare.notice], dropdowns)
        theme.click(None, None, None, js="() => window.omnimaTheme()", api_visibility="private")

        async def leave(request: gr.Request) -> None:
            sessions.leave(request.session_hash)

        page.unload(leave)
    return page


def looks() -> dict[str, Any]:
    """Return what Gradio is told of the page's looks: nothing of it comes from elsewhere."""
    fonts = ["system-ui", "sans-serif"]
    mono = ["ui-monospace", "monospace"]
    hue = gr.themes.colors
    theme = gr.themes.Default(
        primary_hue=hue.blue, neutral_hue=hue.slate, font=fonts, font_mono=mono
    )
    theme.set(  # a shade darker than Gradio's: white on it can be read
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_cancel_background_fill="#b91c1c",
        button_cancel_background_fill_hover="#991b1b",
        button_cancel_background_fill_dark="#b91c1c",
        button_cancel_background_fill_hover_dark="#991b1b",
    )
    return {
        "theme": theme,
        "css": (_HERE / "page.css").read_text(encoding="utf-8"),
        "head": "".join(
            f"<script>{(_HERE / name).read_text(encoding='utf-8')}</script>" for name in _SCRIPTS
        ),
    }
