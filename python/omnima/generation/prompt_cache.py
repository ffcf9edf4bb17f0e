"""What a model remembers of texts, kept between calls."""

from __future__ import annotations

from omnima import _core


class PromptCache:
    """Keys and values of the texts that were read and written last, for prompts that begin alike.

    Given to :func:`omnima.generation.generate`, the tokens that a prompt shares with a kept text
    are not read again. Texts are found by their ids; those of other weights, adapters or number
    formats are never taken, also where a model was trained on meanwhile. May be used by several
    threads. On a GPU nothing is kept.

    A prompt that is read in two pieces has the same numbers but for rounding, in the order of 1e-6
    with ``prompt_precision="fp32"``: without a cache, or with one that knows the same texts, a call
    gives the same text to the bit.

    Parameters
    ----------
    max_bytes
        Memory for kept texts. Those that were not used for longest go first.

    Examples
    --------
    >>> import omnima
    >>> model = omnima.Model.from_preset("nima", vocab_size=512, max_position_embeddings=128)
    >>> cache = omnima.PromptCache()
    >>> first = model.generate([1, 2, 3, 4], max_new_tokens=2, prompt_cache=cache)
    >>> model.generate([1, 2, 3, 4, 5], max_new_tokens=2, prompt_cache=cache).cached_tokens
    4
    """

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.core = _core.PromptCache(max_bytes)

    @property
    def bytes(self) -> int:
        """Memory in use."""
        return self.core.bytes

    def __len__(self) -> int:
        """How many texts are kept."""
        return len(self.core)

    def clear(self) -> None:
        """Forget all texts."""
        self.core.clear()
