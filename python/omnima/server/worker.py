"""The engine's process, which :mod:`omnima.server.remote` starts, over a socket pair.

It is told first which model to open, says what that is, and then takes jobs. It ends when the other
side goes.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from omnima.errors import ConfigError, OmnimaError
from omnima.server.engine import Engine
from omnima.server.errors import as_request_error
from omnima.server.jobs import EngineOptions, Event, Job
from omnima.server.wire import packed, read_messages


@dataclass(frozen=True)
class Opening:
    """Which model an engine's process opens.

    Attributes
    ----------
    model
        A directory, a GGUF file or a name on the hub.
    adapters
        Directories by name.
    dtype, activations, strict, device
        As ``Model.from_pretrained`` takes them.
    stop_ids
        Ids that end texts.
    options
        How much is written at once.
    """

    model: str
    adapters: dict[str, str] = field(default_factory=dict)
    dtype: str = "auto"
    activations: str = "float32"
    strict: bool = False
    stop_ids: list[int] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=lambda: asdict(EngineOptions()))
    device: str = "cpu"

    def engine(self) -> Engine:
        """Open it."""
        from omnima.evaluation.directory import open_model

        if self.adapters and self.device != "cpu":
            raise ConfigError(
                f"Adapters are chosen for each request on the CPU alone, not on {self.device}: "
                "take --device cpu, or make one part of the model with `omnima merge`."
            )
        model, _ = open_model(
            self.model,
            self.device,
            strict=self.strict,
            dtype=self.dtype,
            activations=self.activations,
        )
        for name, directory in self.adapters.items():
            model.load_adapter(directory, name)
        return Engine(model, EngineOptions(**self.options), self.stop_ids)


class Worker:
    """Serves one engine to the process at the other end."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        # What takes longer than a message may: embeddings, and grammars that are compiled.
        self._aside = ThreadPoolExecutor(2, "omnima-aside")

    def run(self) -> None:
        """Work until the other side goes."""
        messages = read_messages(self._channel)
        first = next(messages, None)
        if first is None:
            return
        try:
            engine = Opening(**first).engine()
        except Exception as error:  # noqa: BLE001 - told to who has asked
            self._tell(
                {"failed": {"message": _said(error), "config": isinstance(error, ConfigError)}}
            )
            return
        about = {
            "context": engine.context,
            "vocab_size": engine.vocab_size,
            "adapters": engine.adapters,
            "memory_bytes": engine.memory_bytes,
        }
        self._tell({"ready": about})
        engine.begin(self._tell_events)
        try:
            for message in messages:
                self._do(engine, message)
        finally:
            engine.close()
            self._aside.shutdown(cancel_futures=True)

    def _do(self, engine: Engine, message: dict[str, Any]) -> None:
        what = message["do"]
        if what == "cancel":
            engine.cancel(message["tag"])
        elif what == "stats":
            self._answer(message, engine.stats)
        elif what == "embed":
            ids, adapter = message["ids"], message["adapter"]
            self._aside.submit(self._answer, message, lambda: engine.embed(ids, adapter))
        else:
            tag, job = message["tag"], Job(**message["job"])
            if job.grammar is None:
                self._answer(message, lambda: engine.submit(tag, job))
            else:
                engine.expect(tag)
                self._aside.submit(self._answer, message, lambda: engine.submit(tag, job))

    def _answer(self, message: dict[str, Any], work: Callable[[], Any]) -> None:
        call = message["call"]
        try:
            self._tell({"call": call, "result": work()})
        except Exception as error:  # noqa: BLE001 - told to who has asked
            self._tell({"call": call, "error": _told(error)})

    def _tell_events(self, events: Sequence[Event]) -> None:
        self._tell({"events": events})

    def _tell(self, message: Any) -> None:
        try:
            with self._lock:
                self._channel.sendall(packed(message))
        except ConnectionError:
            # The other side has gone, and there is nobody else to be told. run() sees it, too, and
            # ends the engine.
            pass


def _told(error: Exception) -> dict[str, Any]:
    """An error for a client; what it says beyond the general is for the server's log alone."""
    found = as_request_error(error)
    return {
        "message": str(found),
        "status": found.status,
        "code": found.code,
        "retry_after": found.retry_after,
        "detail": _said(error) if found.status >= 500 else "",
    }


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, OmnimaError) else f"{type(error).__name__}: {error}"


def main() -> None:
    """Serve over the socket whose descriptor is the argument."""
    # Ctrl-C at a terminal reaches this process, too; the server decides when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        Worker(channel).run()
