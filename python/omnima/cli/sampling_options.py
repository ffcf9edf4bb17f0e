"""What commands that write share: how a token is drawn."""

from __future__ import annotations

from typing import Any

import typer


def temperature_option() -> Any:
    """What logits are divided by."""
    return typer.Option(0.8, min=0.0, help="0: always the likeliest token")


def top_k_option() -> Any:
    """How many tokens are in the draw."""
    return typer.Option(0, min=0, help="only the K likeliest tokens; 0: all")


def top_p_option() -> Any:
    """The share of the probability that is in the draw."""
    return typer.Option(0.95, min=0.0, max=1.0, help="only the likeliest share P")


def min_p_option() -> Any:
    """The least probability in the draw, by the likeliest token's."""
    return typer.Option(0.0, min=0.0, max=1.0, help="only tokens above P of the likeliest")


def repetition_penalty_option() -> Any:
    """What tokens that stand in the text already are made rarer by."""
    return typer.Option(1.0, min=0.01, help="above 1: repeats less")


def frequency_penalty_option() -> Any:
    """What is taken from a token's logit for each time that it was written."""
    return typer.Option(0.0, help="above 0: a token is rarer for each time that it was written")


def presence_penalty_option() -> Any:
    """What is taken from the logits of tokens that were written."""
    return typer.Option(0.0, help="above 0: tokens that were written are rarer")
