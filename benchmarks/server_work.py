"""The server's own work for a token: processor time of its process, with an engine that only waits.

`python benchmarks/server_work.py --users 16` streams to users of another process; the engine tells
one token a user every step of 7 ms, as a model of 135M parameters does on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import omnima
from omnima.server.jobs import Job, Listener
from omnima.server.limits import Limits
from omnima.server.running import assembled, listen, run_loop, serve_here

CLIENT = """
import socket, sys, threading
port, users, tokens = map(int, sys.argv[1:])
body = b'{"messages": [{"role": "user", "content": "Hi"}], "stream": true, '
body += b'"max_tokens": %d}' % tokens
head = b"POST /v1/chat/completions HTTP/1.1\\r\\nHost: localhost\\r\\n"
head += b"Content-Length: %d\\r\\n\\r\\n" % len(body)
def one():
    with socket.create_connection(("127.0.0.1", port)) as channel:
        channel.sendall(head + body)
        end = b""
        while b"[DONE]" not in end:
            end = end[-16:] + channel.recv(1 << 16)
threads = [threading.Thread(target=one) for _ in range(users)]
[each.start() for each in threads]
[each.join() for each in threads]
"""


class Waiting:
    """An engine that writes the same token again and again, to all, once a step."""

    def __init__(self, step: float, token: int, vocab_size: int) -> None:
        self.context, self.vocab_size, self.adapters = 4096, vocab_size, ()
        self._step, self._token = step, token
        self._left: dict[int, int] = {}
        self._task: asyncio.Task[None] | None = None
        self.told = 0
        self.spent = 0.0

    async def begin(self, listener: Listener, died: Callable[[], object]) -> None:
        self._task = asyncio.create_task(self._write(listener))

    async def submit(self, tag: int, job: Job) -> None:
        self._left[tag] = int(job.options["max_new_tokens"])

    def cancel(self, tag: int) -> None:
        self._left.pop(tag, None)

    async def embed(self, ids: list[int], adapter: str | None) -> list[float]:
        return []

    async def stats(self) -> dict[str, float]:
        return {"running": len(self._left)}

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _write(self, listener: Listener) -> None:
        while True:
            await asyncio.sleep(self._step)
            events: list[Any] = []
            for tag in list(self._left):
                self._left[tag] -= 1
                reason = "" if self._left[tag] else "length"
                events.append((tag, [self._token], [], reason, 0, ""))
                if reason:
                    del self._left[tag]
            self.told += len(events)
            if events:
                # As it comes from the engine's process.
                listener(json.loads(json.dumps(events)))


def measured(users: int, tokens: int, step: float) -> dict[str, float]:
    """Serve some users, and return what that cost this process."""
    tokenizer = omnima.Tokenizer.train(["to be or not to be"] * 9, "bpe")
    engine = Waiting(step, tokenizer.encode(" be")[0], tokenizer.vocab_size)
    found: dict[str, float] = {}
    listening = listen("127.0.0.1", 0)
    limits = Limits()
    app, state = assembled(engine, tokenizer, "none", limits, None)

    async def main() -> None:
        ended = asyncio.Event()

        async def drive() -> None:
            await clients(listening, users, 20)  # warm
            before, told, began = time.process_time(), engine.told, time.perf_counter()
            await clients(listening, users, tokens)
            spent = time.process_time() - before
            found["microseconds_per_token"] = 1e6 * spent / (engine.told - told)
            found["seconds"] = time.perf_counter() - began
            found["tokens"] = engine.told - told
            ended.set()

        tasks: list[asyncio.Task[None]] = []
        serving = asyncio.create_task(
            serve_here(
                app, state, listening, limits, 1, lambda: tasks.append(asyncio.create_task(drive()))
            )
        )
        await ended.wait()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    run_loop(main())
    return found


async def clients(listening: socket.socket, users: int, tokens: int) -> None:
    """Users of another process, until the last one has read all."""
    port = str(listening.getsockname()[1])
    words = [sys.executable, "-c", CLIENT, port, str(users), str(tokens)]
    await asyncio.to_thread(subprocess.run, words, check=True)


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--step", type=float, default=0.007)
    given = parser.parse_args()
    print(json.dumps({"users": given.users, **measured(given.users, given.tokens, given.step)}))


if __name__ == "__main__":
    main()
