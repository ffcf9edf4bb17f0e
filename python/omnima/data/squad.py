"""SQuAD's JSON as documents: every different context passage once, in order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnima.data.base import OnError, Piece, Source
from omnima.data.text import lone_surrogate, open_binary
from omnima.errors import DataError


class SquadSource(Source):
    """Passages of a SQuAD 1.1 or 2.0 file (``.json`` or ``.json.gz``).

    The format is one JSON object, so the file (tens of megabytes) is held while it is read.
    """

    def __init__(self, path: Path, on_error: OnError = "raise") -> None:
        super().__init__(on_error)
        self.path = path

    def identity(self) -> str:
        return f"squad {self.on_error}\n{self.path}"

    def files(self) -> list[Path]:
        return [self.path]

    def pieces(self) -> Iterator[Piece]:
        self.skipped = 0
        seen: set[str] = set()
        for where, paragraph in self._paragraphs():
            context = paragraph.get("context") if isinstance(paragraph, dict) else None
            if not isinstance(context, str) or not context or context.isspace():
                self._reject(f"{self.path}, {where}: no text under 'context'. Mend the record.")
            elif fault := lone_surrogate(context):
                self._reject(f"{self.path}, {where}: {fault}. Mend the record.")
            elif context not in seen:
                seen.add(context)
                yield Piece(context)
        if not seen and not self.skipped:
            self._reject(f"{self.path}: there is no passage in the file. Take it off the list.")

    def _paragraphs(self) -> Iterator[tuple[str, Any]]:
        for index, article in enumerate(self._articles()):
            paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
            if not isinstance(paragraphs, list):
                self._reject(f"{self.path}, data[{index}]: no list 'paragraphs'. Mend the record.")
                continue
            for number, paragraph in enumerate(paragraphs):
                yield f"data[{index}].paragraphs[{number}]", paragraph

    def _articles(self) -> list[Any]:
        try:
            with open_binary(self.path) as file:
                content = json.loads(file.read().decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path}: byte {error.start} is not UTF-8. Convert the file first."
            ) from error
        except json.JSONDecodeError as error:
            raise DataError(
                f"{self.path}, line {error.lineno}: not JSON ({error.msg}). "
                "A .json file is read as SQuAD; one object a line belongs in a .jsonl file."
            ) from error
        except (OSError, EOFError, ValueError, RecursionError) as error:
            raise DataError(f"{self.path}: cannot be read ({error}). Fetch it again.") from error
        articles = content.get("data") if isinstance(content, dict) else None
        if not isinstance(articles, list):
            raise DataError(
                f"{self.path}: not in SQuAD's layout (an object with a list 'data' is expected). "
                "For other JSON write one object a line into a .jsonl file and name its field."
            )
        return articles
