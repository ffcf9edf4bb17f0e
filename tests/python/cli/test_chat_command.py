"""`omnima chat` in a pipe and at a terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from omnima import Model, Tokenizer
from omnima.tokenizers.chat_default import ensure_template


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("chat")
    tokenizer = Tokenizer.train(["Hi? Ho."], "byte")
    ensure_template(tokenizer)
    model = Model.from_preset("nima", vocab_size=tokenizer.vocab_size, max_position_embeddings=256)
    model.tokenizer = tokenizer
    model.save_pretrained(where / "model")
    return where


def command(place: Path, *more: object) -> list[str]:
    words = ("chat", place / "model", "--max-new-tokens", 8, "--seed", 3, *more)
    return [sys.executable, "-m", "omnima", *map(str, words)]


def test_each_line_of_a_pipe_is_answered(place: Path) -> None:
    once = subprocess.run(
        command(place, "--system", "Be brief."),
        input="Hi?\n\n/why?\n",
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    model = Model.from_pretrained(place / "model")
    from omnima import ChatSession

    options = {"max_new_tokens": 8, "seed": 3}
    chat = ChatSession(model, "Be brief.", options)
    expected = "".join(chat.say(text).text + "\n" for text in ("Hi?", "/why?"))
    assert once.stdout == expected.encode("utf-8", "surrogatepass").decode("utf-8")
    assert once.stderr == ""


def test_what_is_refused_in_a_pipe(place: Path) -> None:
    done = subprocess.run(
        command(place), input="a" * 300 + "\n", capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 1 and "error: the last message needs" in done.stderr
    done = subprocess.run(
        command(place, "--session", place / "none.json"),
        input="a\n", capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "none.json cannot be read" in done.stderr


def test_an_adapter_talks_in_the_form_that_it_learned(tmp_path: Path) -> None:
    """The model has no template; that of the adapter is taken."""
    tokenizer = Tokenizer.train(["Hi? Ho."], "byte")
    model = Model.from_preset("nima", vocab_size=tokenizer.vocab_size, max_position_embeddings=256)
    model.tokenizer = tokenizer
    model.save_pretrained(tmp_path / "model")
    model.add_adapter("lora", rank=2)
    model.save_adapter(tmp_path / "adapter")
    tokenizer.chat_template = "{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "adapter")
    done = subprocess.run(
        command(tmp_path, "--adapter", tmp_path / "adapter"),
        input="Hi?\n", capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    assert "no chat template" not in done.stderr and done.stdout.endswith("\n")


class Terminal:
    """A program at a terminal: what is typed, and what it shows until it waits again."""

    def __init__(self, words: list[str]) -> None:
        self.end, inside = pty.openpty()
        self.process = subprocess.Popen(
            words, stdin=inside, stdout=inside, stderr=inside, close_fds=True
        )
        os.close(inside)
        self.seen = ""

    def until(self, wanted: str, seconds: float = 60) -> str:
        began, start = time.monotonic(), len(self.seen)
        while wanted not in self.seen[start:]:
            assert time.monotonic() - began < seconds, self.seen
            if select.select([self.end], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.end, 4096).decode("utf-8", "replace")
                except OSError:  # the program has left
                    break
        return self.seen[start:]

    def type(self, line: str) -> str:
        os.write(self.end, line.encode() + b"\n")
        return self.until("\n> ")


def test_a_conversation_at_a_terminal(place: Path) -> None:
    terminal = Terminal(command(place))
    terminal.until("> ")
    terminal.type("Hi?")
    terminal.type("/again")
    terminal.type("Why?")
    history = terminal.type("/history")
    assert "1> Hi?" in history and "2> Why?" in history and history.count("assistant:") == 2
    terminal.type("/edit 1 Ho?")
    assert "Say which message" in terminal.type("/edit Ho?")
    assert "message 7 asked for" in terminal.type("/edit 7 Ho?")
    history = terminal.type("/history")
    assert "1> Ho?" in history and "Why?" not in history.split("/history")[-1]
    assert "Saved in" in terminal.type(f"/save {place / 'session.json'}")
    terminal.type("/system Be brief.")
    terminal.type("/new")
    assert "Nothing has been said" in terminal.type("/undo")
    assert "1> Ho?" in terminal.type(f"/load {place / 'session.json'}")
    terminal.type("/undo")
    assert "another answer" in terminal.type("/help")
    assert "the last message needs" in terminal.type("a" * 300)
    os.write(terminal.end, b"/quit\n")
    terminal.until("never shown", 20)
    assert terminal.process.wait(20) == 0
    os.close(terminal.end)
