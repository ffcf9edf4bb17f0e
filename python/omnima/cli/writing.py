"""What `omnima generate` shares between its ways of writing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omnima.errors import ConfigError, DataError, OmnimaError


def check_way(
    prompt: str | None,
    prompts_file: str | None,
    interactive: bool,
    json: bool,
    language: str | None = None,
    suffix: str | None = None,
) -> None:
    """Refuse flags that contradict each other."""
    if interactive and language is not None:
        raise ConfigError("--language goes with --prompt or --prompts-file, not --interactive.")
    if suffix is not None and prompt is None:
        raise ConfigError("--suffix goes with --prompt: the text before the gap, and that after.")
    if prompts_file is not None and (prompt is not None or interactive):
        raise ConfigError("--prompts-file stands alone: drop --prompt and --interactive.")
    if interactive and json:
        raise ConfigError("--interactive talks to a person: drop --json, or give --prompt instead.")
    if prompt is None and prompts_file is None and not interactive:
        raise ConfigError("No prompt: give --prompt TEXT, --prompts-file FILE or --interactive.")


def open_model(
    directory: str,
    strict: bool = False,
    activations: str = "float32",
    device: str = "cpu",
    adapter: str | None = None,
) -> tuple[Any, Any]:
    """Open a model together with its tokenizer; the weights stay as the files hold them, an adapter
    beside them (on a GPU it is merged into float32).
    """
    from omnima.evaluation.directory import open_model as opened

    dtype = "float32" if adapter is not None and device != "cpu" else "auto"
    model, tokenizer = opened(
        directory, device, strict=strict, dtype=dtype, activations=activations
    )
    if adapter is not None:
        model.load_adapter(adapter)
    return model, tokenizer


def speculation_of(name: str, strict: bool = False, device: str = "cpu") -> Any:
    """Return what generation calls it: "lookup", or the draft model of this name."""
    return name if name == "lookup" else open_model(name, strict, device=device)[0]


def read_prompts(path: str) -> list[str]:
    """Read a file with a prompt a line; empty lines are left out."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"The prompts {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"The prompts {path} are not UTF-8 text (byte {error.start}). Save the file as UTF-8."
        ) from error
    prompts = [line for line in text.split("\n") if line.strip()]
    if not prompts:
        raise DataError(f"The prompts {path} hold no line with text.")
    return prompts


def as_trained(
    tokenizer: Any, prompts: list[str], language: str | None, suffix: str | None = None
) -> list[str] | list[list[int]]:
    """Begin each prompt as documents in training do: with the token of a language, and with what
    comes after the gap.
    """
    if language is None and suffix is None:
        return prompts
    start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    if language is not None:
        start.append(_language_id(tokenizer, language))
    if suffix is None:
        return [[*start, *tokenizer.encode(prompt)] for prompt in prompts]
    from omnima.data.augment import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX

    special = tokenizer.special_tokens
    if FIM_MIDDLE not in special:
        raise ConfigError(
            "This model was not trained to fill gaps (fill_in_middle in its data): drop --suffix."
        )
    after = [special[FIM_SUFFIX], *tokenizer.encode(suffix), special[FIM_MIDDLE]]
    return [[*start, special[FIM_PREFIX], *tokenizer.encode(prompt), *after] for prompt in prompts]


def _language_id(tokenizer: Any, language: str) -> int:
    from omnima.data import language_token, languages_of

    token = language_token(language)
    if token not in tokenizer.special_tokens:
        known = languages_of(tokenizer.special_tokens)
        raise ConfigError(
            f"This model knows no language {language!r}; "
            + (f"it knows {', '.join(known)}." if known else "it has no language tokens.")
        )
    return int(tokenizer.special_tokens[token])


def write_all(
    model: Any,
    tokenizer: Any,
    prompts: list[str] | list[list[int]],
    sampling: dict[str, Any],
    show: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Write a continuation of each prompt, in the form that --json prints."""
    from omnima.generation import generate

    written = generate(model, tokenizer, prompts, stream=show, **sampling)
    return [
        {
            "text": each.text,
            "prompt_tokens": each.prompt_tokens,
            "new_tokens": each.new_tokens,
            "seconds": each.seconds,
            **_guesses(each, sampling),
        }
        for each in written
    ]


def _guesses(each: Any, sampling: dict[str, Any]) -> dict[str, int]:
    if "speculation" not in sampling:
        return {}
    return {"proposed_tokens": each.proposed_tokens, "accepted_tokens": each.accepted_tokens}


def echo(text: str) -> None:
    """Show a piece of text at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def converse(
    model: Any, tokenizer: Any, sampling: dict[str, Any], opening: str | None = None
) -> None:
    """Read lines and answer each; the history goes before the next prompt, as far as it fits."""
    print(
        "Write a prompt; an empty line or Ctrl-D leaves, /new forgets the history.", file=sys.stderr
    )
    history = ""
    context = model.context
    room = max(context - sampling["max_new_tokens"], context // 2)
    while True:
        line = opening if opening is not None else _ask()
        opening = None
        if not line:
            return
        if line.strip() == "/new":
            history = ""
            continue
        prompt = fit_history(tokenizer, history, line, room)
        try:
            result = write_all(model, tokenizer, [prompt], sampling, echo)[0]
        except OmnimaError as error:  # a line longer than the context: the session goes on
            print(error, file=sys.stderr)
            continue
        echo("\n")
        history = prompt + result["text"] + "\n"


def _ask() -> str:
    print("> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        print(file=sys.stderr)
    return line.rstrip("\n")


def fit_history(tokenizer: Any, history: str, line: str, room: int) -> str:
    """Return history and line, the oldest lines of the history dropped until the tokens fit."""
    kept = history.splitlines(keepends=True)
    while kept and _tokens(tokenizer, "".join(kept) + line) > room:
        kept.pop(0)
    return "".join(kept) + line


def _tokens(tokenizer: Any, text: str) -> int:
    from omnima.generation.prompts import encode

    return len(encode(text, tokenizer))
