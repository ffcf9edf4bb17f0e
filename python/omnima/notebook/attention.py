"""Maps of attention: which token takes how much from which, in every layer and head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from omnima.errors import ConfigError, DataError
from omnima.notebook.figure import new_figure
from omnima.notebook.tokens import read_tokens
from omnima.tokenizers.shown import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from omnima.model import Model

_MOST_BYTES = 1 << 30
_MOST_WITH_WORDS = 6  # maps that have room for the tokens beside them
_MOST_WORDS = 48


class AttentionMaps(NamedTuple):
    """What tokens take from which, and their texts."""

    #: float32 ``[layers, heads, time, time]``: row *i* of a map says what token *i* takes from each
    #: token; it sums to 1.
    weights: NDArray[np.float32]
    #: The text of each token.
    tokens: tuple[str, ...]


def attention(model: Model, text: str | Sequence[int]) -> AttentionMaps:
    """Return the maps of attention of a text; see :meth:`omnima.Model.attention`."""
    ids, tokens = read_tokens(model, text)
    config, time = model.config, len(ids) + model.virtual_tokens
    size = 4 * config.num_hidden_layers * config.num_attention_heads * time * time
    if size > _MOST_BYTES:
        raise DataError(
            f"The maps of {time} tokens in {config.num_hidden_layers} layers of "
            f"{config.num_attention_heads} heads would take {size / 1e9:.1f} GB: give a shorter "
            "text."
        )
    made = model.core.attention(torch.tensor([ids]))[:, 0]
    virtual = [f"virtual {i + 1}" for i in range(made.shape[-1] - len(ids))]
    return AttentionMaps(made.cpu().numpy(), (*virtual, *tokens))


def plot_attention(
    maps: AttentionMaps,
    layers: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
    path: str | Path | None = None,
) -> Figure:
    """Draw maps of attention: a row of pictures a layer, a column a head. Up to six of them have
    the tokens beside them. See :meth:`omnima.Model.plot_attention`.
    """
    weights = maps.weights
    chosen_layers = _chosen("layer", layers, weights.shape[0])
    chosen_heads = _chosen("head", heads, weights.shape[1])
    picked = weights[np.ix_(chosen_layers, chosen_heads)]
    few = len(chosen_layers) * len(chosen_heads) <= _MOST_WITH_WORDS
    draw = _draw_each if few and len(maps.tokens) <= _MOST_WORDS else _draw_mosaic
    figure = draw(picked, chosen_layers, chosen_heads, maps.tokens)
    if path is not None:
        figure.savefig(str(path), dpi=120)
    return figure


def _chosen(what: str, asked: int | Sequence[int] | None, count: int) -> list[int]:
    if asked is None:
        return list(range(count))
    numbers = [asked] if isinstance(asked, int) else list(asked)
    wrong = [each for each in numbers if not 0 <= each < count]
    if wrong or not numbers:
        said = f"{what} {wrong[0]} is asked for" if wrong else f"no {what} is asked for"
        raise ConfigError(f"{said}; there are {count}, from 0 to {count - 1}.")
    return numbers


def _draw_each(
    maps: NDArray[np.float32], layers: list[int], heads: list[int], tokens: Sequence[str]
) -> Figure:
    """Every map with its tokens: what is read below, who reads on the left."""
    side = max(2.6, 0.24 * len(tokens) + 1.2)
    figure = new_figure(side * len(heads) + 0.8, side * len(layers))
    words = [visible(each).replace("\n", "").replace(" ", "␣") or "·" for each in tokens]
    places = range(len(words))
    grid = figure.subplots(len(layers), len(heads), squeeze=False)
    for i, layer in enumerate(layers):
        for j, head in enumerate(heads):
            axes = grid[i][j]
            drawn = axes.imshow(maps[i, j], cmap="Blues", vmin=0, vmax=1)
            axes.set_title(f"layer {layer}, head {head}", fontsize=9)
            # Tokens are no formulas, whatever dollars they hold.
            for set_ticks in (axes.set_xticks, axes.set_yticks):
                set_ticks(places, words, fontsize=7, parse_math=False)
            axes.tick_params(axis="x", rotation=90)
            axes.set(xlabel="is read", ylabel="reads")
    figure.colorbar(drawn, ax=grid, shrink=0.8, label="weight")
    return figure


def _draw_mosaic(
    maps: NDArray[np.float32], layers: list[int], heads: list[int], tokens: Sequence[str]
) -> Figure:
    """All maps as one picture, which is quick for any number of them."""
    time = len(tokens)
    gap = max(1, time // 16)
    step = time + gap
    canvas = np.full((len(layers) * step - gap, len(heads) * step - gap), np.nan, np.float32)
    for i in range(len(layers)):
        for j in range(len(heads)):
            canvas[i * step : i * step + time, j * step : j * step + time] = maps[i, j]
    figure = new_figure(1.1 * len(heads) + 1.6, 1.1 * len(layers) + 0.8)
    axes: Any = figure.subplots()
    axes.set_facecolor("0.6")
    drawn = axes.imshow(canvas, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([j * step + time / 2 for j in range(len(heads))], heads)
    axes.set_yticks([i * step + time / 2 for i in range(len(layers))], layers)
    axes.set(xlabel="head", ylabel="layer", title=f"who reads whom, {time} tokens")
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="weight")
    return figure
