"""Many users at once: tokens a second and the time to the first, as clients of the server see it.

`python benchmarks/serving.py MODEL --users 16 --activations bf16 --prompt-precision bf16` starts
`omnima serve MODEL`, lets all users ask at the same moment and reads their streams. `--shared 1000`
measures what a prefix of so many tokens that is known saves the next request. With `--llama-server
BINARY --gguf FILE` llama.cpp's own server answers the same prompts, in turns with ours (its file:
`omnima export MODEL --to gguf`). Peers without a server write as many texts in one batch: `omnima
bench batch --model MODEL --sequences 16`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import shlex
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import omnima


@contextlib.contextmanager
def serving(model: str, options: list[str]) -> Iterator[int]:
    """Run the server's command; gives its port."""
    words = [sys.executable, "-c", "from omnima.cli import main; main()", "serve", model]
    words += ["--port", "0", *options]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        found = re.search(r"http://[\d.]+:(\d+)", line)
        if found is None:
            raise SystemExit(f"The server did not start: {line!r}")
        yield int(found.group(1))
    finally:
        server.terminate()
        server.wait()


@contextlib.contextmanager
def serving_by_llama_cpp(given: argparse.Namespace) -> Iterator[int]:
    """Run llama.cpp's server with a slot for each user; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    room = given.users * (given.shared + given.prompt_tokens + given.new_tokens + 64)
    words = [given.llama_server, "--model", str(given.gguf), "--port", str(port)]
    words += ["--parallel", str(given.users), "--ctx-size", str(room)]
    words += ["--threads", str(given.threads), *shlex.split(given.llama_options)]
    with open(given.llama_log, "w", encoding="utf-8") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        asyncio.run(until_ready(port, server))
        yield port
    finally:
        server.terminate()
        server.wait()


async def until_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    """Wait until /health answers with 200."""
    while server.poll() is None:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            line = await reader.readline()
            writer.close()
            if b" 200 " in line:
                return
        await asyncio.sleep(0.1)
    raise SystemExit(f"The server did not start; it ended with {server.returncode}.")


async def ask(port: int, prompt: list[int], tokens: int) -> tuple[int, float, float]:
    """Stream one text: its tokens, and the seconds to its first and to its last."""
    body = {
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(sent)}\r\n\r\n"
    )
    writer.write(head.encode() + sent)
    first, count = 0.0, 0
    async for line in reader:
        if not line.startswith(b"data: "):
            if line.startswith(b"HTTP/1.1 ") and b" 200 " not in line:
                raise SystemExit((line + await reader.read(1000)).decode())
            continue
        first = first or time.perf_counter() - began
        if b"[DONE]" in line:
            break
        if b'"completion_tokens"' in line:
            count = json.loads(line[6:])["usage"]["completion_tokens"]
    writer.close()
    return count, first, time.perf_counter() - began


async def together(port: int, prompts: list[list[int]], tokens: int) -> dict[str, float]:
    """All users at the same moment."""
    began = time.perf_counter()
    found = await asyncio.gather(*(ask(port, prompt, tokens) for prompt in prompts))
    seconds = time.perf_counter() - began
    firsts = sorted(first for _, first, _ in found)
    return {
        "tokens_per_s": sum(count for count, _, _ in found) / seconds,
        "first_token_ms": 1e3 * statistics.median(firsts),
        "first_token_p95_ms": 1e3 * firsts[min(len(firsts) - 1, int(0.95 * len(firsts)))],
    }


def drawn(count: int, vocab_size: int) -> list[int]:
    """A prompt of ordinary tokens."""
    return [random.randrange(vocab_size // 50, vocab_size * 4 // 5) for _ in range(count)]


async def many_users(port: int, given: argparse.Namespace, vocab_size: int) -> dict[str, float]:
    """One round."""
    prompts = [drawn(given.prompt_tokens, vocab_size) for _ in range(given.users)]
    return await together(port, prompts, given.new_tokens)


async def shared_prefix(port: int, given: argparse.Namespace, vocab_size: int) -> dict[str, float]:
    """The first token behind a prefix that is new, and behind the same one again."""
    prefix = drawn(given.shared, vocab_size)
    new = (await ask(port, prefix + drawn(10, vocab_size), 1))[1]
    known = (await ask(port, prefix + drawn(10, vocab_size), 1))[1]
    return {"new_prefix_ms": 1e3 * new, "known_prefix_ms": 1e3 * known, "times_sooner": new / known}


def main() -> None:
    """Measure, and print a JSON object for each server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=50)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--shared", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--format", default="auto")
    parser.add_argument("--activations", default="float32")
    parser.add_argument("--prompt-precision", default="fp32")
    parser.add_argument("--cache-precision", default="fp32")
    parser.add_argument("--llama-server", help="the binary of llama.cpp's server")
    parser.add_argument("--gguf", type=Path, help="the model for it")
    parser.add_argument("--llama-options", default="", help="more for it, as one text")
    parser.add_argument("--llama-log", default="/dev/null", help="a file for what it says")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    if (given.llama_server is None) != (given.gguf is None):
        parser.error("--llama-server and --gguf go together")
    from omnima.hub import open_tokenizer

    shown = {name: each for name, each in vars(given).items() if not isinstance(each, Path)}

    vocab_size = open_tokenizer(given.model).vocab_size
    options = ["--max-concurrency", str(given.users)]
    for name in ("format", "activations", "prompt_precision", "cache_precision"):
        options += ["--" + name.replace("_", "-"), getattr(given, name)]
    measure = shared_prefix if given.shared else many_users
    with contextlib.ExitStack() as stack:
        ports = {"omnima": stack.enter_context(serving(given.model, options))}
        if given.llama_server is not None:
            ports["llama-server"] = stack.enter_context(serving_by_llama_cpp(given))
        rounds: dict[str, list[dict[str, float]]] = {system: [] for system in ports}
        for at in range(1 + given.rounds):
            for system, port in ports.items():
                random.seed(at)  # the same prompts
                rounds[system].append(asyncio.run(measure(port, given, vocab_size)))
    for system, found in rounds.items():  # the first round is not counted
        medians = {name: statistics.median(each[name] for each in found[1:]) for name in found[0]}
        row = {key: round(value, 1) for key, value in medians.items()}
        print(json.dumps({"system": system, **shown, "version": omnima.__version__, **row}))


if __name__ == "__main__":
    main()
