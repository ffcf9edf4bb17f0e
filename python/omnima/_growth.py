"""A vocabulary that grows: new rows for embedding and head, all that was there bit for bit."""

from __future__ import annotations

import torch

from omnima import _core
from omnima.config import ModelConfig
from omnima.errors import ConfigError

#: The parameters with a row for every token.
VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")
INITS = ("mean", "random")


def rows_of(size: int, multiple_of: int) -> int:
    """Return a number of rows rounded up to a multiple."""
    if multiple_of < 1:
        raise ConfigError(f"multiple_of is {multiple_of}; expected 1 or more, such as 64.")
    return -(-size // multiple_of) * multiple_of


def grown(
    decoder: _core.Decoder, config: ModelConfig, vocab_size: int, init: str, seed: int, device: str
) -> tuple[_core.Decoder, ModelConfig]:
    """Return a decoder with more rows; the old ones and everything else are copies.

    With as many rows as there are it is the one that was given.

    Raises
    ------
    ConfigError
        An unknown init, or fewer rows than there are.
    """
    if init not in INITS:
        raise ConfigError(f'init is "{init}"; the choices are {", ".join(INITS)}.')
    if vocab_size < config.vocab_size:
        raise ConfigError(
            f"The model has {config.vocab_size} rows for tokens and cannot shrink to {vocab_size}: "
            "ids in use would lose theirs."
        )
    if vocab_size == config.vocab_size:
        return decoder, config
    wider = ModelConfig.from_dict({**config.to_dict(), "vocab_size": vocab_size})
    # Nothing is drawn where all is filled.
    made = _core.Decoder(wider.core(), seed if init == "random" else None, device)
    old = dict(decoder.named_parameters())
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            before = old[name]
            parameter[: len(before)] = before
            if init == "mean" and len(parameter) > len(before):
                parameter[len(before) :] = before.mean(0, dtype=torch.float64)
    return made, wider
