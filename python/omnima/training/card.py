"""What the model card of a run says: the data with its hashes, the training and the results."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

from omnima.training.run import perplexity

# Sources whose names say nothing of a user's machine.
_PUBLIC = ("tinyworld", "pystdlib", "hf:")


def facts_of(data: Any, config: Any, precision: str, sources: Sequence[str]) -> dict[str, Any]:
    """Return what a card says of a run, from before its first step on."""
    import torch

    from omnima import __version__

    version = data.version
    return {
        "Data": {
            "sources": said_of(sources),
            "training tokens": f"{data.train_tokens:,}",
            "held-out tokens": f"{data.val_tokens:,}",
            "data": version.get("data"),
            "cleaning": version.get("cleaning"),
            "tokenizer": version.get("tokenizer"),
            "tokens": version.get("tokens"),
        },
        "Training": {
            "optimizer": f"{config.optimizer}, learning rate {config.lr:g}, {config.schedule}",
            "rows of a step": f"{config.batch_size} x {config.accumulate}",
            "precision": precision,
            "seed": config.seed,
            "omnima": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def results_of(
    step: int, tokens: int, train_loss: float | None, val_loss: float | None
) -> dict[str, Any]:
    """Return what a card says of the weights as they are now; losses in nats a token."""
    return {
        "steps": f"{step:,}",
        "tokens seen": f"{tokens:,}",
        "training loss": None if train_loss is None else f"{train_loss:.4f}",
        "held-out loss": None if val_loss is None else f"{val_loss:.4f}",
        "held-out perplexity": None if val_loss is None else f"{perplexity(val_loss):.2f}",
    }


def said_of(sources: Sequence[str]) -> str | None:
    """Name the sources that are public; the paths of others are nobody else's concern.

    >>> said_of(["tinyworld:4MB", "diary.txt", "notes/*.md"])
    'tinyworld:4MB, own files (2)'
    """
    public = [each for each in sources if each.startswith(_PUBLIC)]
    own = len(sources) - len(public)
    return ", ".join([*public, *([f"own files ({own})"] if own else [])]) or None
