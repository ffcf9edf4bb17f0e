"""What a reward model says of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError, DataError
from omnima.tokenizers.padding import end_of_reading

if TYPE_CHECKING:
    from omnima.model import Model
    from omnima.tokenizers import Tokenizer


def rewards(model: Model, texts: Sequence[Any]) -> list[float]:
    """Return how good a reward model finds texts.

    Parameters
    ----------
    model
        A model with a reward head, and a tokenizer where texts are no ids.
    texts
        Plain texts, which are read up to the end token; conversations, lists of messages, in the
        model's chat template; or lists of token ids.

    Raises
    ------
    ConfigError
        The model has no reward head, or no tokenizer.
    DataError
        A text is longer than the model's context, or no text.

    Examples
    --------
    >>> import omnima
    >>> model = omnima.Model.from_preset("nima", vocab_size=259).with_reward_head()
    >>> model.tokenizer = omnima.Tokenizer.train(["Yes, of course."], "byte")
    >>> len(rewards(model, ["Yes.", "No."]))
    2
    """
    if not model.config.reward_head:
        raise ConfigError(
            "This model has no reward head: train one with `omnima finetune --objective reward`."
        )
    return [_reward(model, _ids_of(model, text)) for text in texts]


def _reward(model: Model, ids: Sequence[int]) -> float:
    import torch

    context = model.context
    if len(ids) > context:
        raise DataError(f"a text has {len(ids)} tokens, but the model's context holds {context}.")
    end = end_of_reading(ids, None if model.tokenizer is None else model.tokenizer.pad_id)
    with torch.no_grad():
        return float(model.core.rewards(torch.tensor([list(ids[:end])]))[0, -1])


def _ids_of(model: Model, text: Any) -> list[int]:
    listed = isinstance(text, Sequence) and not isinstance(text, str) and len(text) > 0
    if listed and all(isinstance(each, int) for each in text):
        return list(text)
    if isinstance(text, str):
        tokenizer = _tokenizer_of(model)
        ids = list(tokenizer.encode(text, add_bos=tokenizer.bos_id is not None))
        return ids if tokenizer.eos_id is None else [*ids, tokenizer.eos_id]
    if not listed or not all(isinstance(each, Mapping) for each in text):
        raise DataError(
            f"a text to judge is a {type(text).__name__}: expected a text, a list of messages or "
            "a list of token ids."
        )
    from omnima.tokenizers.chat_default import ensure_template

    tokenizer = _tokenizer_of(model)
    ensure_template(tokenizer)
    return list(tokenizer.encode_chat(list(text)).ids)


def _tokenizer_of(model: Model) -> Tokenizer:
    if model.tokenizer is None:
        raise ConfigError("The model has no tokenizer: set model.tokenizer, or copy its files.")
    return model.tokenizer
