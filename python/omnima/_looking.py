"""The part of a model that is looked at: its attention, and what it thinks of a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from omnima.model import Model
    from omnima.notebook import AttentionMaps, TokenProbabilities


class Visible:
    """Shows what happens inside a model, as arrays and as pictures."""

    def attention(self, text: str | Sequence[int]) -> AttentionMaps:
        """Return what the tokens of a text take from which, in every layer and head.

        Computed step by step from the queries and keys of the forward pass (Vaswani et al. 2017),
        with the model's own windows, caps, grouped heads and adapters.

        Parameters
        ----------
        text
            Read like a prompt of :meth:`generate`; or token ids.

        Returns
        -------
        AttentionMaps
            ``weights``, float32 ``[layers, heads, time, time]``, and ``tokens``, the text of each.
            Virtual tokens of an adapter stand in front.

        Raises
        ------
        DataError
            Nothing to read, more than the context holds, or more maps than fit 1 GiB.

        Examples
        --------
        >>> import omnima
        >>> model = omnima.Model.from_preset("nima", vocab_size=512)
        >>> weights, tokens = model.attention([5, 6, 7])
        >>> weights.shape[-2:], tokens
        ((3, 3), ('5', '6', '7'))
        """
        from omnima.notebook.attention import attention

        return attention(cast("Model", self), text)

    def plot_attention(
        self,
        text: str | Sequence[int],
        layers: int | Sequence[int] | None = None,
        heads: int | Sequence[int] | None = None,
        path: str | Path | None = None,
    ) -> Figure:
        """Draw the maps of :meth:`attention`; needs matplotlib.

        Parameters
        ----------
        text
            As there.
        layers, heads
            Which, counted from 0; all when left out. Up to six maps have their tokens beside them.
        path
            Where to save the picture, too.

        Examples
        --------
        >>> import omnima
        >>> model = omnima.Model.from_preset("nima", vocab_size=512)
        >>> figure = model.plot_attention([5, 6, 7], layers=0, heads=[0, 1])
        """
        from omnima.notebook.attention import plot_attention

        return plot_attention(self.attention(text), layers, heads, path)

    def token_probabilities(
        self, text: str | Sequence[int], alternatives: int = 5
    ) -> TokenProbabilities:
        """Return the probability of each token of a text, and the likeliest ones at its place.

        Parameters
        ----------
        text
            Read like a prompt of :meth:`generate`; or token ids.
        alternatives
            How many of the likeliest tokens to return.

        Returns
        -------
        TokenProbabilities
            Arrays; a notebook shows the text with its probabilities, coloured.

        Raises
        ------
        DataError
            Nothing to read, or more than the context holds.

        Examples
        --------
        >>> import omnima
        >>> model = omnima.Model.from_preset("nima", vocab_size=512)
        >>> seen = model.token_probabilities([5, 6, 7], alternatives=2)
        >>> seen.probabilities.shape, seen.alternative_ids.shape
        ((3,), (3, 2))
        """
        from omnima.notebook.probabilities import token_probabilities

        return token_probabilities(cast("Model", self), text, alternatives)
