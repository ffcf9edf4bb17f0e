"""`omnima chat`: a conversation at the terminal, or an answer to each line of a pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from omnima.cli.model_options import (
    activations_option,
    cache_option,
    device_option,
    model_argument,
    strict_option,
)
from omnima.cli.sampling_options import (
    frequency_penalty_option,
    min_p_option,
    presence_penalty_option,
    repetition_penalty_option,
    temperature_option,
    top_k_option,
    top_p_option,
)
from omnima.errors import OmnimaError

if TYPE_CHECKING:
    from omnima.generation import ChatSession

HELP = """\
Write a message and press Enter; Ctrl-C stops an answer, Ctrl-D leaves.
/again            another answer          /edit N TEXT   change your message N (-1: the last)
/undo             take the last turn back /new           forget the history
/system TEXT      tell the model before   /history       show all messages
/save FILE        keep the session        /load FILE     go on with a kept one
/help             this                    /quit          leave"""


def chat(
    directory: str = model_argument(),
    adapter: str | None = typer.Option(
        None, help="talk with this adapter, a directory of PEFT, beside the weights"
    ),
    system: str | None = typer.Option(None, help="what the model is told before all messages"),
    session: str | None = typer.Option(None, help="a saved session to go on with"),
    max_new_tokens: int = typer.Option(512, min=1, help="tokens of an answer at most"),
    temperature: float = temperature_option(),
    top_k: int = top_k_option(),
    top_p: float = top_p_option(),
    min_p: float = min_p_option(),
    repetition_penalty: float = repetition_penalty_option(),
    frequency_penalty: float = frequency_penalty_option(),
    presence_penalty: float = presence_penalty_option(),
    seed: int = typer.Option(0, min=0, help="same seed, same answers"),
    activations: str = activations_option(),
    cache_precision: str = cache_option(),
    device: str = device_option(),
    strict: bool = strict_option(),
) -> None:
    """Talk with a model. Where standard input is no terminal, each line is answered."""
    from omnima.cli.writing import open_model
    from omnima.generation import ChatSession

    model, _ = open_model(directory, strict, activations, device, adapter)
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "frequency_penalty": frequency_penalty,
        "presence_penalty": presence_penalty,
        "seed": seed,
        "cache_precision": cache_precision,
    }
    talk = ChatSession(model, system, options, note=_say)
    if session is not None:
        talk = _loaded(talk, session)
        talk.system = system or talk.system
    if sys.stdin.isatty():
        _at_terminal(talk)
    else:
        _of_pipe(talk)


def _loaded(talk: ChatSession, path: str) -> ChatSession:
    """A saved session's history with the options of this one."""
    from omnima.generation import ChatSession

    found = ChatSession.load(path, talk.model, note=_say)
    found.options = talk.options
    return found


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def _echo(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


def _of_pipe(talk: ChatSession) -> None:
    for line in sys.stdin:
        if text := line.rstrip("\r\n"):
            if text.strip():
                talk.say(text, _echo)
                _echo("\n")


def _at_terminal(talk: ChatSession) -> None:
    _say(HELP)
    while True:
        try:
            line = input("> ")
        except (EOFError, KeyboardInterrupt):
            _say("")
            return
        if not line.strip():
            continue
        try:
            if line.strip() == "/quit":
                return
            talk = _command(talk, line.strip()) if line.startswith("/") else _answered(talk, line)
        except KeyboardInterrupt:
            _say("\n(stopped: the answer is not kept)")
        except OmnimaError as error:  # a message that is too long, a file that is not there
            _say(str(error))


def _answered(talk: ChatSession, text: str) -> ChatSession:
    talk.say(text, _echo)
    _echo("\n")
    return talk


def _command(talk: ChatSession, line: str) -> ChatSession:
    """Do what a line that begins with / says; return the session to go on with."""
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if name == "/again":
        talk.regenerate(_echo)
        _echo("\n")
    elif name == "/edit":
        number, _, text = rest.partition(" ")
        if not number.lstrip("-").isdigit():
            _say("Say which message, and what it shall be: /edit 1 Hello!")
            return talk
        talk.edit(int(number), text, _echo)
        _echo("\n")
    elif name == "/undo":
        talk.undo()
    elif name == "/new":
        talk.clear()
    elif name == "/system":
        talk.system = rest or None
    elif name == "/history":
        _show(talk)
    elif name == "/save" and rest:
        talk.save(rest)
        _say(f"Saved in {Path(rest)}.")
    elif name == "/load" and rest:
        talk = _loaded(talk, rest)
        _show(talk)
    else:
        _say(HELP)
    return talk


def _show(talk: ChatSession) -> None:
    number = 0
    for each in talk.messages:
        number += each["role"] == "user"
        who = f"{number}>" if each["role"] == "user" else f"{each['role']}:"
        _say(f"{who} {each['content']}")
