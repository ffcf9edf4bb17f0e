"""Posts JSON to a web address from a thread of its own: a slow network never holds up a step."""

from __future__ import annotations

import json
import queue
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

_SECONDS = 10.0  # for one post, and for what waits at the end


class Webhook:
    """Posts in order; a failure is told once and never stops the run.

    Parameters
    ----------
    address
        http:// or https://. It may hold a secret, so it is never shown.
    note
        Told what went wrong.
    """

    def __init__(self, address: str, note: Callable[[str], None]) -> None:
        self._address, self._note = address, note
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._told = False
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)
        self._thread.start()

    def post(self, message: dict[str, Any]) -> None:
        """Post a message soon."""
        self._waiting.put(message)

    def close(self) -> None:
        """Post what waits, for a few seconds at most."""
        self._waiting.put(None)
        self._thread.join(_SECONDS)

    def _work(self) -> None:
        while (message := self._waiting.get()) is not None:
            request = urllib.request.Request(
                self._address,
                data=json.dumps(message, ensure_ascii=False).encode("utf-8"),
                headers={"Content-Type": "application/json; charset=utf-8"},
                method="POST",
            )
            try:
                with urllib.request.urlopen(request, timeout=_SECONDS):
                    pass
            except (OSError, ValueError) as error:  # URLError, a refusal and a timeout are OSErrors
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            why = getattr(error, "reason", None) or error
            self._note(
                f"The webhook did not take an alert ({why}). Training goes on; alerts.jsonl has "
                "them all."
            )
