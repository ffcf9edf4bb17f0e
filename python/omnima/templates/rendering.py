"""A chat template rendered in this process: values in, text out, errors that name its line."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes

from omnima.errors import DataError
from omnima.templates.meter import Meter
from omnima.templates.sandbox import ChatEnvironment, rendering
from omnima.templates.template import ChatTemplate, RenderedChat


def render(template: ChatTemplate, variables: Mapping[str, Any]) -> RenderedChat:
    """Render a template with plain values.

    Raises
    ------
    DataError
        With the template's source, and its line where that is known: what is not valid Jinja, what
        the sandbox forbids, what takes too much work, and what the template itself raises.
    """
    compiled = _compiled(template)
    with rendering(Meter(variables)) as now:
        parts = []
        try:
            for part in compiled.generate(variables):
                now.length += len(part)
                parts.append(part)
        except jinja2.TemplateError as error:
            raise _said(template, error, error.message or type(error).__name__) from None
        except DataError as error:
            raise _said(template, error, str(error)) from None
        except RecursionError as error:
            raise _said(template, error, "it calls itself without end") from None
        except Exception as error:  # whatever its code runs into: a division by zero, a wrong type
            raise _said(template, error, f"{type(error).__name__}: {error}") from None
    return RenderedChat("".join(parts), tuple(now.spans))


@lru_cache(maxsize=32)
def literals(template: ChatTemplate) -> str:
    """All that a template writes by itself: its text and its constants, with breaks between."""
    tree = _compiled(template).environment.parse(template.text)
    texts = [node.data for node in tree.find_all(nodes.TemplateData)]
    values = [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    return "\0".join([*texts, *values])


@lru_cache(maxsize=32)
def _compiled(template: ChatTemplate) -> jinja2.Template:
    """The code of a template; compiled once."""
    environment = ChatEnvironment()
    try:
        code = environment.compile(template.text, filename=template.source)
        return jinja2.Template.from_code(environment, code, environment.make_globals(None))
    except jinja2.TemplateSyntaxError as error:
        raise DataError(
            f"{template.source}, line {error.lineno}: not valid Jinja: {error.message}"
        ) from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        # Python's own limits: blocks in blocks beyond twenty, brackets beyond two hundred.
        detail = str(error) or type(error).__name__
        raise DataError(
            f"{template.source}: nested too deeply to be a chat template ({detail})"
        ) from None


def _said(template: ChatTemplate, error: BaseException, what: str) -> DataError:
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == template.source:
            line = trace.tb_lineno
        trace = trace.tb_next
    where = template.source if line is None else f"{template.source}, line {line}"
    return DataError(f"{where}: {what}")
