"""Text as it is written, for a loop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

from omnima.generation.generate import generate
from omnima.generation.prompts import Prompt
from omnima.generation.protocols import LanguageModel, TextCodec


def stream(
    model: LanguageModel, tokenizer: TextCodec, prompt: Prompt, **options: Any
) -> Iterator[str]:
    """Yield the pieces of text written after one prompt; leaving the loop ends the writing.

    Parameters
    ----------
    model, tokenizer, prompt, options
        As for :func:`generate`; the prompt is a text or a list of token ids.

    Yields
    ------
    str
        Text that is never empty and never ends within a character.

    Examples
    --------
    >>> from omnima.generation import stream
    >>> for piece in stream(model, tokenizer, "Once upon"): ...  # doctest: +SKIP
    """
    pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
    left = threading.Event()

    def tell(piece: str) -> bool:
        pieces.put(piece)
        return not left.is_set()

    def work() -> None:
        try:
            generate(model, tokenizer, [prompt], stream=tell, **options)
            pieces.put(None)
        except BaseException as error:  # noqa: BLE001 - handed to the loop, which raises it
            pieces.put(error)

    writer = threading.Thread(target=work, name="omnima-stream", daemon=True)
    writer.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        left.set()
        writer.join()
