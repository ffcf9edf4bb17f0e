"""`omnima tokenizer train|import|encode|decode|info|compare`: make, look at and compare
tokenizers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from omnima.cli.model_options import TOKENIZER, tokenizer_argument
from omnima.cli.output import Json, print_json, print_result

if TYPE_CHECKING:
    from omnima import Tokenizer

app = typer.Typer(
    name="tokenizer",
    help="Train, import, look at and compare tokenizers; turn text into ids and back.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_INPUTS = "files, globs, directories, tables, mixtures, hf:OWNER/NAME, tinyworld[:SIZE] or pystdlib"


def _out() -> Any:
    return typer.Option(..., "--out", help="the directory of the new tokenizer")


def _overwrite() -> Any:
    return typer.Option(False, "--overwrite", help="replace a tokenizer that is there")


def _special(meaning: str) -> Any:
    return typer.Option(None, "--special", help=f"{meaning}; may be given more than once")


def _field() -> Any:
    return typer.Option(None, "--field", help="the field of JSON records or tables with the text")


@app.command("train")
def train(
    inputs: list[str] = typer.Argument(..., metavar="SOURCE...", help=_INPUTS),  # noqa: B008
    out: str = _out(),
    kind: str = typer.Option("bpe", "--kind", help="bpe, unigram, char, byte or word"),
    vocab_size: int | None = typer.Option(
        None, "--vocab-size", help="token ids; default: chosen from the text"
    ),
    special: list[str] | None = _special("a control token of your own"),  # noqa: B008
    code: bool = typer.Option(
        False, "--code", help="bpe learns runs of line ends and spaces as pieces"
    ),
    field: str | None = _field(),
    on_error: str = typer.Option(
        "raise", "--on-error", help="what to do with a bad record: raise or skip"
    ),
    document_break: str | None = typer.Option(
        None, "--document-break", help="in text files a line that matches begins a new document"
    ),
    overwrite: bool = _overwrite(),
    json: Json = False,
) -> None:
    """Learn a tokenizer from text."""
    _claim(out, overwrite)
    from omnima import Tokenizer
    from omnima.data import open_source

    source = open_source(inputs, field, on_error, document_break)  # type: ignore[arg-type]
    tokenizer = Tokenizer.train(
        source.documents(),
        kind,
        vocab_size,
        (*source.special_tokens(), *(special or ())),
        code=code,
    )
    _save(tokenizer, out, json)


@app.command("import")
def import_(
    file: str = typer.Argument(
        ...,
        metavar="FILE",
        help="tokenizer.json or its directory, a rank file of tiktoken, a .model of SentencePiece",
    ),
    out: str = _out(),
    pattern: str | None = typer.Option(
        None, "--pattern", help="rank file: gpt2, gpt2-digits, cl100k, o200k, llama3 or qwen2"
    ),
    special: list[str] | None = _special(  # noqa: B008
        "rank file: a control token that follows the ranks"
    ),
    bos: str | None = typer.Option(None, "--bos", help="the token that begins a document"),
    eos: str | None = typer.Option(None, "--eos", help="the token that ends a document"),
    overwrite: bool = _overwrite(),
    json: Json = False,
) -> None:
    """Turn another library's tokenizer into a directory that Omnima and transformers read."""
    _claim(out, overwrite)
    from omnima import Tokenizer

    tokenizer = Tokenizer.from_file(
        file, pattern=pattern, special_tokens=special or None, bos_token=bos, eos_token=eos
    )
    _save(tokenizer, out, json)


@app.command("encode")
def encode(
    directory: str = tokenizer_argument(),
    text: str | None = typer.Argument(None, help="the text; left out: standard input"),
    pieces: bool = typer.Option(False, "--pieces", help="one token a line, with its piece"),
    add_bos: bool = typer.Option(False, "--add-bos", help="begin with the begin token"),
    add_eos: bool = typer.Option(False, "--add-eos", help="end with the end token"),
    parse_special: bool = typer.Option(
        False, "--parse-special", help="read special tokens that the text spells out"
    ),
    json: Json = False,
) -> None:
    """Write the ids of a text on one line."""
    write_ids(directory, text, pieces, json, (add_bos, add_eos, parse_special))


@app.command("decode")
def decode(
    directory: str = tokenizer_argument(),
    ids: list[str] | None = typer.Argument(  # noqa: B008
        None, help="the ids, or what encode wrote; left out: standard input"
    ),
    keep_special: bool = typer.Option(False, "--keep-special", help="write special tokens, too"),
    json: Json = False,
) -> None:
    """Write the text of ids, exactly: no line end is added."""
    tokenizer = _open(directory)
    text = tokenizer.decode(_read_ids(" ".join(ids) if ids else _read_input()), not keep_special)
    print_json({"text": text}) if json else typer.echo(text, nl=False)


@app.command("info")
def info(
    directory: str = tokenizer_argument(),
    on: str | None = typer.Option(None, "--on", help="measure on this text: " + _INPUTS),
    field: str | None = _field(),
    json: Json = False,
) -> None:
    """Say what a tokenizer is and, with --on, how it does on a text."""
    from omnima.tokenizers.measure import describe

    tokenizer = _open(directory)
    facts = describe(tokenizer)
    if on is not None:
        facts["on"] = {"text": on, **_measured([tokenizer], on, field)[0]}
    print_result(facts, json)


@app.command("compare")
def compare(
    one: str = typer.Argument(..., metavar="A", help=TOKENIZER),
    other: str = typer.Argument(..., metavar="B", help="another one"),
    on: str = typer.Option(..., "--on", help="the text to measure both on: " + _INPUTS),
    field: str | None = _field(),
    json: Json = False,
) -> None:
    """Measure two tokenizers on the same text: length, fertility, bytes, unknowns, speed."""
    tokenizers = [_open(one), _open(other)]
    figures = [
        {"kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size, **measured}
        for tokenizer, measured in zip(tokenizers, _measured(tokenizers, on, field), strict=True)
    ]
    result = {"a": {"directory": one, **figures[0]}, "b": {"directory": other, **figures[1]}}
    if json:
        ratio = figures[1]["tokens"] / figures[0]["tokens"]
        print_json({"on": on, **result, "tokens_of_b_by_a": ratio})
        return
    _print_side_by_side(result)


def _print_side_by_side(result: dict[str, dict[str, Any]]) -> None:
    from rich.table import Table

    from omnima.cli.output import print_table, said

    table = Table("", "A", "B", box=None)
    for name in result["a"]:
        table.add_row(name, said(result["a"][name]), said(result["b"][name]))
    print_table(table)
    few, many = sorted((result["a"]["tokens"], result["b"]["tokens"]))
    fewer = "A" if result["a"]["tokens"] == few else "B"
    print(
        f"{fewer} needs {1 - few / many:.1%} fewer tokens."
        if few < many
        else "Both need the same number of tokens."
    )


def write_ids(
    directory: str,
    text: str | None,
    pieces: bool,
    as_json: bool,
    how: tuple[bool, bool, bool] = (False, False, False),
) -> None:
    """Encode a text, or standard input, and write its ids; how: add_bos, add_eos, parse_special."""
    tokenizer = _open(directory)
    ids = tokenizer.encode(_read_input() if text is None else text, *how)
    if as_json:
        print_json({"ids": ids, "pieces": tokenizer.pieces(ids)})
    elif pieces:
        for number, piece in zip(ids, tokenizer.pieces(ids), strict=True):
            typer.echo(f"{number}\t{piece}")
    else:
        typer.echo(" ".join(map(str, ids)))


def _open(directory: str) -> Tokenizer:
    from omnima.hub import open_tokenizer

    return open_tokenizer(directory)


def _measured(tokenizers: list[Tokenizer], on: str, field: str | None) -> list[dict[str, Any]]:
    from omnima.data import open_source
    from omnima.tokenizers.measure import measure

    source = open_source([on], field)
    return [measure(tokenizer, source.documents()) for tokenizer in tokenizers]


def _claim(out: str, overwrite: bool) -> None:
    """Refuse, before anything is learnt, a place that cannot take the tokenizer or has one."""
    from pathlib import Path

    from omnima._outputs import check_writable
    from omnima.errors import ConfigError
    from omnima.tokenizers.files import MERGES_FILE, TOKENIZER_FILE, VOCABULARY_FILE

    directory = Path(out)
    check_writable(directory)

    def holds(*names: str) -> str | None:
        return next((name for name in names if (directory / name).exists()), None)

    if not holds(TOKENIZER_FILE, VOCABULARY_FILE, MERGES_FILE):
        return
    owner = holds("run.json", "config.json")
    if owner:
        raise ConfigError(
            f"{out} is the directory of a model ({owner}), and its tokenizer is the one that the"
            " model was trained with; name another directory."
        )
    if not overwrite:
        raise ConfigError(
            f"{out} holds a tokenizer already; replace it with --overwrite, or name another."
        )


def _save(tokenizer: Tokenizer, out: str, as_json: bool) -> None:
    from omnima.tokenizers.measure import describe

    tokenizer.save_pretrained(out)
    facts = {"out": out, **describe(tokenizer)}
    print_result(facts, as_json)


def _read_input() -> str:
    import sys

    from omnima.errors import DataError

    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"standard input: byte {error.start} ({error.object[error.start]:#04x}) is not UTF-8;"
            " convert the text first, for example with iconv"
        ) from None


def _read_ids(text: str) -> list[int]:
    """Read numbers between spaces or commas, a JSON list, or what `encode --json` wrote."""
    import json

    from omnima.errors import DataError

    try:
        if text.lstrip()[:1] not in ("{", "["):
            return [int(word) for word in text.replace(",", " ").split()]
        content = json.loads(text)
        ids = content["ids"] if isinstance(content, dict) else content
        if not all(type(each) is int for each in ids):
            raise ValueError("not whole numbers")
        return list(ids)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError(
            f"{' '.join(text.split())[:60]!r} is not a list of token ids: expected whole numbers,"
            " such as 259 301, or what omnima tokenizer encode wrote"
        ) from None
