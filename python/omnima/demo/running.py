"""A page that runs: in this process beside other code, or as all that the process does."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.server import extras
from omnima.server.running import listen, quiet_server, run_loop, serving, start_thread

if TYPE_CHECKING:
    import uvicorn

    from omnima.demo.guard import App
    from omnima.demo.models import Models
    from omnima.demo.training import Training
    from omnima.model import Model

HOST = "127.0.0.1"
_EXTRA = ("gradio",)
# Before Gradio is loaded: it asks nobody for anything, neither at its start nor later, unless
# somebody has set it so.
_QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_VIBE_MODE": "",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def check_extra() -> None:
    """OmnimaError where what the page needs is not installed."""
    extras.check_extra("The demo", _EXTRA, "demo")


@dataclass
class Demo:
    """A page that is served.

    Attributes
    ----------
    host, port
        Where; only this machine can connect.
    """

    host: str
    port: int
    _parts: Parts = field(repr=False)
    _stop: Callable[[], None] = field(repr=False)

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{self.host}:{self.port}"

    def close(self) -> None:
        """End what is being written and trained, and the page."""
        self._stop()

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _repr_html_(self) -> str:
        return f'<a href="{self.url}" target="_blank" rel="noopener">{self.url}</a>'


def demo(
    models: Mapping[str, Model] | None = None, *, port: int = 0, runs: str | Path = "runs"
) -> Demo:
    """Serve a page over models that you hold: chat, comparison, tokens in colour, training.

    Parameters
    ----------
    models
        By the names that the page offers; each with its tokenizer, and with the adapters that can
        be chosen. None of them is in use meanwhile.
    port
        To listen on; 0: any that is free. Only this machine can connect.
    runs
        Where models go that are trained on the page, a directory each.

    Returns
    -------
    Demo
        Runs until its ``close()``, or until its ``with`` block is left.

    Raises
    ------
    ConfigError
        A model without a tokenizer, or a port that is taken.
    OmnimaError
        The extra ``demo`` is not installed.

    Examples
    --------
    >>> import omnima, urllib.request
    >>> model = omnima.Model.from_preset("nima", vocab_size=259, max_position_embeddings=128)
    >>> model.tokenizer = omnima.Tokenizer.train(["to be"], "byte")
    >>> with omnima.demo.demo({"small": model}) as page:
    ...     with urllib.request.urlopen(page.url) as answer:
    ...         print(answer.status)
    200
    """
    parts = Parts.made(models or {}, port, runs)
    try:
        server, port = parts.server(), parts.port
        stop = start_thread(server, lambda ready: parts.serve(server, ready), lambda: None)
    except BaseException:
        parts.listening.close()
        parts.models.end()
        raise
    return Demo(HOST, port, parts, stop)


@dataclass
class Parts:
    """What a page is made of.

    Attributes
    ----------
    listening
        Where it is asked.
    models, training
        What it shows.
    app
        What answers.
    """

    listening: socket.socket
    models: Models
    training: Training
    app: App

    @classmethod
    def made(cls, models: Mapping[str, Model], port: int, runs: str | Path) -> Parts:
        """Make the page and listen; nothing is answered yet."""
        check_extra()
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        from omnima.demo.models import Models
        from omnima.demo.training import Training

        listening = listen(HOST, port)
        try:
            held, training = Models(models), Training(runs)
            try:
                return cls(listening, held, training, build_app(held, training))
            except BaseException:
                held.end()
                raise
        except BaseException:
            listening.close()
            raise

    @property
    def port(self) -> int:
        """That it listens on."""
        found: int = self.listening.getsockname()[1]
        return found

    def server(self) -> uvicorn.Server:
        """Return what serves it."""
        import uvicorn

        config = uvicorn.Config(
            self.app,
            log_config=None,
            access_log=False,
            server_header=False,
            # Answers that stream until the tab is closed are not waited for.
            timeout_graceful_shutdown=1,
            lifespan="on",
            ws="none",
        )
        return quiet_server(config)

    async def serve(self, server: uvicorn.Server, ready: Callable[[], object]) -> None:
        """Serve until the server is told to exit; then end all that is under way."""
        try:
            await self.models.begin()
            await serving(server, self.listening, ready)
        finally:
            self.listening.close()
            try:
                # On this thread: where a script ends without close(), no other can be begun.
                self.training.close()
            finally:
                await self.models.close()

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C; one line on standard output says that it is ready."""
        server = self.server()

        def end() -> None:
            server.force_exit, server.should_exit = server.should_exit, True

        def ready() -> None:
            print(f"The demo is at http://{HOST}:{self.port} for this machine.", flush=True)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            for each in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(each, end)
            await self.serve(server, ready)

        run_loop(main())


def build_app(models: Models, training: Training) -> App:
    """Return the page as an application that answers."""

    async def built() -> App:
        return _app(models, training)

    # Gradio makes event loops, and never closes them, where none runs; a notebook has one already.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, built()).result()


def _app(models: Models, training: Training) -> App:
    import gradio as gr
    from fastapi import FastAPI

    from omnima.demo.guard import Guard
    from omnima.demo.page import build_page, looks

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    mounted: Any = gr.mount_gradio_app(
        app,
        build_page(models, training),
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=1,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        **looks(),
    )
    return Guard(mounted)
