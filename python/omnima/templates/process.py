"""Chat templates rendered in a process of their own, which is ended when one takes too long.

A template's work is counted while it runs (:mod:`omnima.templates.meter`). The process bounds what
no count has foreseen, too: time and memory. It starts with the first template, costs some 50 MB
while it lives, and ends with this process. Where none can be started (Windows' pipes, an embedded
Python, a machine that allows no more processes) the count alone bounds the work, in this process.
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from omnima.errors import DataError
from omnima.templates.template import ChatTemplate, RenderedChat

#: Seconds that one rendering may take, and the process to start.
LONGEST = 60.0
_STARTING, _ENDING = 30.0, 5.0
#: Bytes of addresses that the process may have, beside those of what it is asked.
_MEMORY = 2 << 30
_READY = b"ready\n"
_CHILD = (
    "import sys; sys.path[:] = sys.argv[1:]; "
    "from omnima.templates.process import answer; answer(sys.stdin.buffer, sys.stdout.buffer)"
)


def render(template: ChatTemplate, variables: Mapping[str, Any]) -> RenderedChat:
    """Render a template with plain values.

    Raises
    ------
    DataError
        With the template's source, and its line where that is known: what is not valid Jinja, what
        the sandbox forbids, what takes too much work or time, and what the template itself raises.
    """
    made = _ask("render", template, dict(variables))
    return RenderedChat(made[0], tuple((begin, end) for begin, end in made[1]))


@lru_cache(maxsize=32)
def literals(template: ChatTemplate) -> str:
    """All that a template writes by itself: its text and its constants, with breaks between."""
    return str(_ask("literals", template))


class _Ended(Exception):
    """The process is no more, or said something else than an answer."""


class Worker:
    """The process, as the one that asks it sees it.

    Raises
    ------
    OSError
        It cannot be started here.
    """

    def __init__(self) -> None:
        executable = sys.executable or ""
        if os.name != "posix" or not Path(executable).name.startswith(("python", "pypy")):
            raise OSError("no process of Python's can be started and waited for")
        # -I: neither the folder where a user stands nor variables choose what it imports.
        paths = [os.path.abspath(path) for path in sys.path if path]
        self.process = subprocess.Popen(
            [executable, "-I", "-c", _CHILD, *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._into: Any = self.process.stdin
        self._out: Any = self.process.stdout
        try:
            self._said = bytearray()
            if self._line(_STARTING) != _READY:
                raise OSError("another program answered")
        except (_Ended, TimeoutError):
            self.end()
            raise OSError("the process ended while it started") from None
        except BaseException:
            self.end()
            raise

    def ask(self, *request: Any) -> Any:
        """Return the answer to a request; its error is raised here.

        Raises
        ------
        TimeoutError
            It took longer than LONGEST; the process was ended.
        _Ended
            The process ended by itself.
        DataError
            What the template did wrong.
        """
        whole = pickle.dumps(request)
        try:
            message = memoryview(len(whole).to_bytes(8, "little") + whole)
            while message:
                message = message[self._into.write(message) :]
            answer = json.loads(self._line(LONGEST))
        except OSError as error:
            self.end()
            if isinstance(error, TimeoutError):
                raise
            raise _Ended from None
        except BaseException:  # Ctrl-C between a question and its answer, too
            self.end()
            raise
        if "error" in answer:
            raise DataError(answer["error"])
        return answer["made"]

    def _line(self, seconds: float) -> bytes:
        end = time.monotonic() + seconds
        said = self._said
        while not said.endswith(b"\n"):
            ready, _, _ = select.select([self._out], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError
            part = self._out.read(1 << 20)
            if not part:
                raise _Ended
            said += part
        self._said = bytearray()
        return bytes(said)

    def end(self) -> None:
        """End the process; nothing that it was asked is answered any more."""
        self.process.kill()
        self.process.wait()
        self._into.close()
        self._out.close()

    def dismiss(self) -> None:
        """Let the process end by itself, as it does when no more requests can come."""
        self._into.close()
        try:
            self.process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._out.close()

    def forget(self) -> None:
        """Leave the process to the one from which this one was forked."""
        self.process.returncode = 0  # so that nobody here waits for it
        self._into.close()
        self._out.close()


_worker: Worker | None = None
_cannot = False
_one_at_a_time = threading.Lock()


def _ask(what: str, template: ChatTemplate, *values: Any) -> Any:
    """Ask the process, which is started where there is none; without one, answer here."""
    global _worker, _cannot
    with _one_at_a_time:
        if _worker is None and not _cannot:
            try:
                _worker = Worker()
            except OSError:
                _cannot = True
        if _worker is None:
            return _answer(what, template, *values)
        try:
            return _worker.ask(what, template, *values)
        except TimeoutError:
            _worker = None
            raise DataError(
                f"{template.source}: it takes longer than {LONGEST:g} seconds and was stopped; a"
                " template for chats needs far less"
            ) from None
        except _Ended:
            _worker = None
            raise DataError(
                f"{template.source}: the process that rendered it ended: it ran out of memory, or"
                " was killed. The next rendering starts another"
            ) from None
        except DataError:
            raise
        except BaseException:
            _worker = None
            raise


def _start_anew() -> None:
    global _worker, _one_at_a_time
    _one_at_a_time = threading.Lock()
    if _worker is not None:
        _worker.forget()
        _worker = None


def _end() -> None:
    if _worker is not None:
        _worker.dismiss()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


def _answer(what: str, template: ChatTemplate, *values: Any) -> Any:
    from omnima.templates import rendering

    if what == "literals":
        return rendering.literals(template)
    made = rendering.render(template, *values)
    return made.text, made.spans


def answer(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until there are no more: what the process does."""
    import signal

    import omnima.templates.rendering  # before the first request, as it takes a moment

    del omnima
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that asks
    answers.write(_READY)
    answers.flush()
    while head := requests.read(8):
        size = int.from_bytes(head, "little")
        _limit_memory(_MEMORY + 64 * size)
        request = pickle.loads(requests.read(size))
        try:
            answered = {"made": _answer(*request)}
        except DataError as error:
            answered = {"error": str(error)}
        except MemoryError:
            answered = {"error": f"{request[1].source}: it runs out of memory"}
        answers.write(json.dumps(answered).encode() + b"\n")
        answers.flush()


def _limit_memory(size: int) -> None:
    import resource  # of posix alone, as the process is

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY:
        size = min(size, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (size, hard))
    except (ValueError, OSError):
        # macOS takes no such limit. Templates are rendered all the same: the time that one may
        # take, and the count of its work, bound it there.
        pass
