"""Looking at runs and models, in a notebook and elsewhere: curves, a display that lives while a
model trains, maps of attention, the probability of every token. All of it is there as arrays, too.
"""

from __future__ import annotations

from omnima.notebook.attention import AttentionMaps, plot_attention
from omnima.notebook.exercises import WrongAnswer, check
from omnima.notebook.live import LivePlot
from omnima.notebook.probabilities import TokenProbabilities

__all__ = [
    "AttentionMaps",
    "LivePlot",
    "TokenProbabilities",
    "WrongAnswer",
    "check",
    "plot_attention",
]
