"""From a text, or ids, to ids and the text of each token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from omnima.errors import DataError
from omnima.tokenizers.shown import token_texts

if TYPE_CHECKING:
    from omnima.model import Model


def read_tokens(model: Model, text: str | Sequence[int]) -> tuple[list[int], list[str]]:
    """Return the ids of a text as the model reads a prompt, and each token's text; tokens of a
    model without a tokenizer are called by their ids.
    """
    from omnima.generation.prompts import encode

    if isinstance(text, str) and model.tokenizer is None:
        raise DataError("This model has no tokenizer: give token ids, or set model.tokenizer.")
    ids = encode(text, model.tokenizer)
    if not ids:
        raise DataError("There is no token to look at: give at least one.")
    if len(ids) > model.context:
        raise DataError(
            f"The text has {len(ids)} tokens, but the model's context holds {model.context}: "
            "shorten it."
        )
    if model.tokenizer is None:
        return ids, [str(id) for id in ids]
    known = len(model.tokenizer.description.pieces)
    wrong = [id for id in ids if not 0 <= id < known]
    if wrong:
        raise DataError(f"Token id {wrong[0]} is none of the tokenizer's {known}.")
    return ids, token_texts(model.tokenizer, ids)
