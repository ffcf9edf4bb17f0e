"""The Typer application and the way out: exit status, one-line errors, results on standard
output.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

import typer

from omnima.cli import (
    bench,
    chat,
    data,
    demo,
    doctor,
    evaluate,
    export,
    finetune,
    generate,
    info,
    inspect,
    merge,
    plan,
    profile,
    push,
    quantize,
    reward,
    serve,
    tokenize,
    tokenizer,
    train,
)  # fmt: skip
from omnima.errors import OmnimaError

_INTERRUPTED = 130
# Options that take every value up to the next option: --data a.txt b.txt.
_GREEDY = {"train": ("--data",), "plan": ("--data", "--from-runs"), "eval": ("--data",)}
_GREEDY |= {"inspect": ("--data",), "finetune": ("--data",), "reward": ("--data",)}

app = typer.Typer(
    name="omnima",
    help="Small language models, from raw text to a model that writes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("finetune")(finetune.finetune)
app.command("plan")(plan.plan)
app.command("eval")(evaluate.evaluate)
app.command("reward")(reward.reward)
app.command("generate")(generate.generate)
app.command("chat")(chat.chat)
app.command("serve")(serve.serve)
app.command("api-key")(serve.api_key)
app.command("demo")(demo.demo)
app.command("inspect")(inspect.inspect)
app.command("export")(export.export)
app.command("import")(export.import_model)
app.command("verify")(export.verify)
app.command("merge")(merge.merge)
app.command("quantize")(quantize.quantize)
app.command("push")(push.push)
app.command("tokenize")(tokenize.tokenize)
app.command("info")(info.info)
app.command("doctor")(doctor.doctor)
app.command("bench")(bench.bench)
app.command("profile")(profile.profile)
app.add_typer(data.app)
app.add_typer(tokenizer.app)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Show the version and leave."),
) -> None:
    """Small language models, from raw text to a model that writes."""
    if version:
        from omnima import __version__

        typer.echo(__version__)
        raise typer.Exit()


def spread_values(arguments: Sequence[str]) -> list[str]:
    """Repeat a greedy flag before each of its values.

    >>> spread_values(["train", "--data", "a", "b", "--steps", "1"])
    ['train', '--data', 'a', '--data', 'b', '--steps', '1']
    """
    command = next((each for each in arguments if not each.startswith("-")), "")
    greedy = _GREEDY.get(command, ())
    spread: list[str] = []
    flag = ""
    fresh = False  # the flag has just been written and waits for its first value
    for position, each in enumerate(arguments):
        if each == "--":
            return spread + list(arguments[position:])
        if each.startswith("-") and each != "-":
            name, equals, _ = each.partition("=")
            flag = name if name in greedy else ""
            fresh = bool(flag) and not equals
            spread.append(each)
            continue
        if flag and not fresh:
            spread.append(flag)
        fresh = False
        spread.append(each)
    return spread


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit status.

    0 only when the work is done; 1 for an error said in one line on standard error; 2 for a wrong
    command line; 130 after Ctrl-C or SIGTERM. `OMNIMA_TRACEBACK=1` shows the whole traceback.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    _write_utf8()
    if not sys.stderr.isatty():  # downloads draw bars, which are noise in a file
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    standard, warnings.formatwarning = warnings.formatwarning, _plainly
    try:
        app(args=spread_values(given), prog_name="omnima", standalone_mode=True)
    except OmnimaError as error:
        _leave(str(error), error)
    except BrokenPipeError:
        # The reader of our output has gone; say nothing more and do not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (OSError, UnicodeError, MemoryError) as error:
        _leave(f"{type(error).__name__}: {error}", error)
    finally:
        warnings.formatwarning = standard


def _plainly(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning as one line, without the line of code that it comes from."""
    kind = "warning" if category is UserWarning else category.__name__
    return f"{kind}: {' '.join(str(message).split())}\n"


def _leave(message: str, error: BaseException) -> None:
    if os.environ.get("OMNIMA_TRACEBACK") == "1":
        raise error
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)


def _write_utf8() -> None:
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")
