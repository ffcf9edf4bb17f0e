"""Chat templates are untrusted: whatever one tries ends soon, in one error that names it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from omnima.errors import DataError
from omnima.templates import process
from omnima.tokenizers import Tokenizer

HELLO = [{"role": "user", "content": "Hello"}]
WORK = "does too much work"
WIDTH = "formats to a width of its own"
DEEP = "nested too deeply"
NESTED = "{% set ns = namespace(x=[], y=[]) %}{% for i in range(60) %}"


@pytest.fixture(autouse=True)
def counted_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the process of templates: the sandbox and the count must do."""
    monkeypatch.setattr(process, "_cannot", True)
    monkeypatch.setattr(process, "_worker", None)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["to be or not to be"], "byte")


def ways_out() -> dict[str, tuple[str, str]]:
    """Ways to what a template must not reach, and what is said of each."""
    return {
        "class": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "'__class__' of 'str'.*unsafe"),
        "item": ("{{ messages['__class__']['x'] }}", "'__class__' of 'list'.*unsafe"),
        "filter": ("{{ (''|attr('__class__')).x }}", "'__class__' of 'str'.*unsafe"),
        "globals": ("{{ cycler.__init__.__globals__ }}", "'__init__' of 'type'.*unsafe"),
        "function": ("{{ raise_exception.__globals__.x }}", "'__globals__' of 'function'.*unsafe"),
        "format": ("{{ '{0.__class__.__mro__}'.format('') }}", "'__class__' of 'str'.*unsafe"),
        "map": (
            "{{ messages | map(attribute='__class__') | map(attribute='x') | list }}",
            "unsafe",
        ),
        "append": ("{{ messages.append(1) }}", "'append' of 'list'.*unsafe"),
        "update": ("{{ messages[0].update(role='system') }}", "'update' of 'dict'.*unsafe"),
        "namespace": ("{{ namespace(__class__=1) }}", "underscore in front"),
        "set": ("{% set ns = namespace() %}{% set ns._x = 1 %}", "underscore in front"),
        "self": ("{{ self.__init__.__globals__ }}", "unsafe|undefined"),
        "include": ("{% include '/etc/passwd' %}", "reads no other files"),
        "import": ("{% import 'x.jinja' as x %}", "reads no other files"),
        "extends": ("{% extends 'x.jinja' %}", "reads no other files"),
    }


def bombs() -> dict[str, tuple[str, str]]:
    """Ways to run for hours or to fill the memory."""
    loop, end = "{% for i in range(100000) %}", "{% endfor %}"
    grown = "{% set ns = namespace(x='a', y=3, z=[]) %}" + loop + "{% set ns."
    twice = NESTED + "{% set ns.x = [ns.x, ns.x] %}"
    return {
        "range": ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
        "loops": (loop * 3 + "{% endfor %}" * 3, WORK),
        "loops for nothing": ((loop.replace(" %}", " if false %}") + "{% endfor %}") * 9, WORK),
        "attributes": (loop + "{{ i.real.real.real }}" * 999 + "{% endfor %}", WORK),
        "long body": (loop + "a" * 9999 + "{% endfor %}", WORK),
        "macro": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
        "doubled": (grown + "x = ns.x ~ ns.x %}" + end, WORK),
        "sum": (grown + "x = ns.x + ns.x %}" + end, WORK),
        "squares": (grown + "y = ns.y * ns.y %}" + end, WORK),
        "product": ("{{ 'a' * 10 ** 12 }}", WORK),
        "product of lists": ("{{ 10 ** 12 * [1] }}", WORK),
        "power": ("{{ 10 ** (10 ** 10) }}", WORK),
        "printed": (twice + end + "{{ ns.x }}", WORK),
        "compared": (twice + "{% set ns.y = [ns.y, ns.y] %}" + end + "{{ ns.x == ns.y }}", WORK),
        "json": ("{% set x = {'a': x, 'b': x} %}" * 60 + "{{ x | tojson }}", WORK),
        "deep": (grown + "z = [ns.z] %}" + end, "nests values deeper"),
        "width": ("{{ '%999999999d' % 1 }}", WIDTH),
        "star": ("{{ '%*d' | format(999999999, 1) }}", WIDTH),
        "format": ("{{ '{:999999999}'.format(1) }}", WIDTH),
        "nested width": ("{{ '{:{}}'.format(1, 999999999) }}", WIDTH),
        "named often": ("{{ ('{0}' * 9999).format('a' * 99999) }}", WORK),
        "bytes": ("{{ '%9999d'.encode() % 1 }}", WIDTH),
        "center": ("{{ 'a' | center(10 ** 12) }}", WORK),
        "ljust": ("{{ 'a'.ljust(10 ** 12) }}", WORK),
        "to_bytes": ("{{ (1).to_bytes(10 ** 12, 'big') }}", WORK),
        "lipsum": ("{{ lipsum(n=10 ** 9) }}", WORK),
        "indent": ("{{ messages | tojson(indent=10 ** 9) }}", WORK),
        "round": ("{{ 3 | round(10 ** 9, 'ceil') }}", WORK),
        "sums of lists": ("{{ ([[1]] * 100000) | sum(start=[]) | length }}", WORK),
        "slices": ("{{ [] | slice(10 ** 9) | list }}", WORK),
        "replace": ("{% set x = 'a' * 9999 %}{{ x.replace('a', x) }}", WORK),
        "replace filter": ("{% set x = 'a' * 9999 %}{{ x | replace('a', x) }}", WORK),
        "join": ("{% set x = 'a' * 9999 %}{{ x | join(x) }}", WORK),
        "translate": ("{% set x = 'a' * 9999 %}{{ x.translate({97: x}) }}", WORK),
        "search": ("{% set x = 'a' * 9999999 %}" + loop + "{{ 'b' in x }}{% endfor %}", WORK),
        "cuts": ("{% set x = 'a' * 9999999 %}" + loop + "{% set y = x[1:] %}{% endfor %}", WORK),
        "lazy": (loop + "{{ range(99999) | map('string') | list | length }}{% endfor %}", WORK),
    }  # fmt: skip


@pytest.mark.parametrize(("template", "message"), ways_out().values(), ids=list(ways_out()))
def test_there_is_no_way_out_of_the_sandbox(
    tokenizer: Tokenizer, template: str, message: str
) -> None:
    if "format(" in template:  # what is forbidden prints as nothing, and has no parts
        template = "{{ '{0.__class__.x}'.format('') }}"
    with pytest.raises(DataError, match=rf"(?s)that was given, line 1: .*({message})"):
        tokenizer.apply_chat_template(HELLO, template=template)
    assert HELLO == [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(("template", "message"), bombs().values(), ids=list(bombs()))
def test_work_is_bounded(tokenizer: Tokenizer, template: str, message: str) -> None:
    begun = time.process_time()
    with pytest.raises(DataError, match=rf"that was given, line 1: .*{message}"):
        tokenizer.apply_chat_template(HELLO, template=template)
    assert time.process_time() - begun < 20


def test_long_conversations_have_work_enough(tokenizer: Tokenizer) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'user' and '<tool>' not in m.content %}"
        "{{ m.role ~ ': ' ~ m.content.split('</think>')[-1].strip() | replace('x', 'yy') }}"
        "{% endif %}{% if loop.index == messages | length %}.{% endif %}{% endfor %}"
    )
    for messages in (HELLO * 3000, [{"role": "user", "content": "word " * 400_000}]):
        text = tokenizer.apply_chat_template(messages, template=template, tokenize=False)
        assert isinstance(text, str) and text.endswith(".")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("\n\n{% for m in messages %}", "line 3: not valid Jinja: Unexpected end of template"),
        ("{{ 1 | nothing }}", "line 1: not valid Jinja: No filter named 'nothing'"),
        ("\n{{ messages[0].role.x.y }}", "line 2: .*has no attribute 'x'"),
        ("a\n{{ 1 / 0 }}", "line 2: ZeroDivisionError: division by zero"),
        ("a\n\n{{ raise_exception('Only\nusers!') }}", "line 3: Only\nusers!"),
        ("{{ " + "(" * 300 + "1" + ")" * 300 + " }}", DEEP),
        ("{% for a in b %}" * 25 + "{% endfor %}" * 25, DEEP),
        ("{% if a %}{% elif b %}" + "{% elif c %}" * 9999 + "{% endif %}", DEEP),
        ("{# " + "a" * (10 << 20) + " #}{{ 1 }}", "longer than 131072 bytes"),
        ("{{ '\ud800' }}", "half of a surrogate pair"),
    ],
)
def test_broken_templates_name_their_line(
    tokenizer: Tokenizer, template: str, message: str
) -> None:
    with pytest.raises(DataError, match=rf"^the chat template that was given.*{message}"):
        tokenizer.apply_chat_template(HELLO, template=template)


def test_the_file_of_a_template_is_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.chat_template = {"default": "a\n{{ 1 / 0 }}", "rag": "{{ b.c }}"}
    tokenizer.save_pretrained(tmp_path)
    tokenizer.chat_template = None
    read = Tokenizer.from_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"chat_template\.jinja, line 2: ZeroDivisionError"):
        read.apply_chat_template(HELLO)
    with pytest.raises(DataError, match=r"additional_chat_templates/rag\.jinja, line 1: 'b' is un"):
        read.apply_chat_template(HELLO, template="rag")


def write_config(directory: Path, template: Any) -> None:
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template}))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (3, "expected a text, or a list"),
        (["a"], "expected a text, or a list"),
        ([{"name": "../x", "template": "a"}], r"'\.\./x' cannot name a chat template"),
        ([{"template": "a"}], "None cannot name a chat template"),
        ([{"name": "x"}], "'x': a chat template is text, not NoneType"),
        ([{"name": "x", "template": "a"}] * 2, "two chat templates are named 'x'"),
        ("\ud800", "half of a surrogate pair"),
    ],
)
def test_a_config_with_broken_templates_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, template: Any, message: str
) -> None:
    tokenizer.save_pretrained(tmp_path)
    write_config(tmp_path, template)
    with pytest.raises(DataError, match=rf"tokenizer_config\.json, chat_template.*{message}"):
        Tokenizer.from_pretrained(tmp_path)


def test_files_that_are_no_templates_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "chat_template.jinja"
    path.write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"chat_template\.jinja: byte 2 is not valid UTF-8"):
        Tokenizer.from_pretrained(tmp_path)
    path.write_bytes(b"\xc3\xa4" * 99_999)
    with pytest.raises(DataError, match=r"chat_template\.jinja: longer than 131072 bytes"):
        Tokenizer.from_pretrained(tmp_path)
    path.unlink()
    folder = tmp_path / "additional_chat_templates"
    (folder / "x.jinja").mkdir(parents=True)
    with pytest.raises(DataError, match=r"x\.jinja: the chat template cannot be read"):
        Tokenizer.from_pretrained(tmp_path)
