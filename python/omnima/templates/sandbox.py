"""The sandbox of chat templates: Jinja as transformers sets it up, and bounded in work."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from omnima.templates.meter import EXPRESSION, PLAIN, STEP, Meter

# Filters that instructions of ours are written as; no template can spell these names.
_STEP, _TEXT, _SEEN, _MADE = ".step", ".text", ".seen", ".made"


@dataclass
class Rendering:
    """One rendering under way: its work, its length so far, and what the assistant wrote."""

    meter: Meter
    length: int = 0
    spans: list[tuple[int, int]] = field(default_factory=list)  # of characters


_current: ContextVar[Rendering] = ContextVar("rendering")


@contextmanager
def rendering(meter: Meter) -> Iterator[Rendering]:
    """Render inside of this: all templates of this thread count on the meter."""
    begun = Rendering(meter)
    token = _current.set(begun)
    try:
        yield begun
    finally:
        _current.reset(token)


def _meter() -> Meter:
    return _current.get().meter  # LookupError while compiling, so nothing is computed then


class _Generation(Extension):
    """The block {% generation %}: what the assistant wrote, by its place in the text."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller: Callable[[], str]) -> str:
        text = caller()
        now = _current.get()
        now.spans.append((now.length, now.length + len(text)))
        return text


class _Dict:
    """The global `dict`: makes dictionaries, and is no type with ways out of the sandbox."""

    def __call__(self, *args: Any, **entries: Any) -> dict[Any, Any]:
        return dict(*args, **entries)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """The global `namespace`; names with an underscore in front are refused."""

    def __init__(*args: Any, **entries: Any) -> None:
        entries = dict(*args[1:], **entries)
        for name in entries:
            _check_name(name)
        Namespace.__init__(args[0], entries)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"  # not what it holds, which may hold it


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace takes no name with an underscore in front ({name!r})")


def _raise_exception(message: Any) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


class _NoFiles(jinja2.BaseLoader):
    """What include, import and extends reach: nothing."""

    def get_source(self, environment: jinja2.Environment, template: str) -> Any:
        raise jinja2.TemplateError(f"a chat template reads no other files ({template!r})")


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox with what chat templates expect, every step of it counted."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            finalize=_made,
            loader=_NoFiles(),
            extensions=[_Generation, loopcontrols],
        )
        self.filters["tojson"] = _tojson
        for table in (self.filters, self.tests):
            functions: dict[str, Any] = dict(table)
            table.update({name: _metered(name, each) for name, each in functions.items()})
        self.filters |= {_STEP: _step, _TEXT: _text, _SEEN: _seen, _MADE: _made}
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        self.globals["dict"] = _Dict()
        self.globals["namespace"] = _Namespace

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _instrumented(super()._parse(source, name, filename), self)

    def call(self, context: Any, obj: Any, /, *args: Any, **options: Any) -> Any:
        """Call a method or a function for a template."""
        method = getattr(obj, "__wrapped__", obj)  # str.format comes wrapped
        owner = getattr(method, "__self__", None)
        name = getattr(method, "__name__", "")
        if isinstance(owner, PLAIN) or name == "generate_lorem_ipsum":
            _meter().before(name, owner, args, options)
        return _made(super().call(context, obj, *args, **options))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute left operator right for a template."""
        _meter().operation(operator, left, right)
        return _made(super().call_binop(context, operator, left, right))


def _metered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or a test that counts. Jinja may pass its context or itself in front."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def counted(*args: Any, **options: Any) -> Any:
        given = args[first:]
        _meter().before(name, given[0] if given else None, given[1:], options)
        return _made(function(*args, **options))

    return counted


def _step(cost: int) -> bool:
    _meter().charge(cost)
    return True


def _text(length: int) -> str:
    _meter().charge(length)
    return ""


def _seen(value: Any) -> Any:
    meter = _meter()
    meter.charge(1 + meter.weight(value) // 8)
    return value


def _made(value: Any) -> Any:
    return _meter().made(value)


def _instrumented(tree: nodes.Template, environment: jinja2.Environment) -> nodes.Template:
    """Put the counting into a template that was read: in loops, texts, lists and comparisons."""
    for output in list(tree.find_all(nodes.Output)):
        length = sum(len(n.data) for n in output.nodes if isinstance(n, nodes.TemplateData))
        if length:
            output.nodes.insert(0, _through(nodes.Const(length), _TEXT, output))
    loops: Any = (nodes.For, nodes.Macro, nodes.CallBlock)
    for loop in list(tree.find_all(loops)):
        cost = STEP + sum(EXPRESSION for _ in loop.find_all(nodes.Expr))
        step = _through(nodes.Const(cost), _STEP, loop)
        loop.body.insert(0, nodes.ExprStmt(step).set_lineno(loop.lineno))
        if isinstance(loop, nodes.For) and loop.test is not None:
            loop.test = nodes.And(step, loop.test).set_lineno(loop.lineno)
    _wrap(tree)
    tree.set_environment(environment)
    return tree


def _through(value: nodes.Expr, name: str, at: nodes.Node) -> nodes.Expr:
    through = nodes.Filter(value, name, [], [], None, None)
    through.set_lineno(at.lineno)
    return through


def _wrap(node: nodes.Node) -> None:
    """Count the values of lists, joined texts, comparisons and slices below a node."""
    for name, value in node.iter_fields():
        if isinstance(value, list):
            value[:] = [_wrapped(each, node, name) for each in value]
        elif isinstance(value, nodes.Node):
            setattr(node, name, _wrapped(value, node, name))


def _wrapped(value: Any, parent: nodes.Node, name: str) -> Any:
    if not isinstance(value, nodes.Node):
        return value
    _wrap(value)
    if isinstance(value, (nodes.List, nodes.Dict, nodes.Tuple)):
        stored = isinstance(value, nodes.Tuple) and value.ctx != "load"
        return value if stored else _through(value, _MADE, value)
    if isinstance(value, nodes.Const) or not isinstance(value, nodes.Expr):
        return value
    compared = isinstance(parent, nodes.Operand) or (
        isinstance(parent, nodes.Compare) and name == "expr"
    )
    sliced = isinstance(parent, nodes.Getitem) and isinstance(parent.arg, nodes.Slice)
    if compared or (sliced and name == "node"):
        return _through(value, _SEEN, value)
    if isinstance(parent, nodes.Concat):
        return _through(value, _MADE, value)
    return value
