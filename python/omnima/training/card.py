"""The README.md of a saved model: what it was made from, with which hashes, and how good it is."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnima._durable import write_durably
from omnima.training.run import perplexity

FILE = "README.md"
# Tells a card of ours, which may be written anew, from a file of the user's.
_MARK = "<!-- written by omnima train; your own text belongs into another file -->"


def facts_of(model: Any, tokenizer: Any, data: Any, config: Any, precision: str) -> dict[str, Any]:
    """Return what a card says of a run, from before its first step on."""
    import torch

    from omnima import __version__

    shape = model.config
    version = data.version
    return {
        "Model": {
            "parameters": f"{int(model.core.num_parameters()):,}",
            "layers, width, heads": f"{shape.num_hidden_layers}, {shape.hidden_size}, "
            f"{shape.num_attention_heads}",
            "context": f"{shape.max_position_embeddings:,} tokens",
            "vocabulary": f"{shape.vocab_size:,} ({tokenizer.kind})",
        },
        "Data": {
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


def model_card(facts: Mapping[str, Mapping[str, Any]], results: Mapping[str, Any]) -> str:
    """Return a card as Markdown with the header that model hubs read.

    >>> text = model_card({"Data": {"data": "ab12", "cleaning": None}}, {"steps": "10"})
    >>> print(text.split("# A small", 1)[1].split("## Data")[1].strip())
    | data | ab12 |
    | --- | --- |
    | cleaning | none |
    """
    header = "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- omnima\n---"
    parts = [header, _MARK, "# A small language model", "Trained with Omnima."]
    for title, rows in {"Results": results, **facts}.items():
        lines = [f"| {name} | {_shown(value)} |" for name, value in rows.items()]
        lines.insert(1, "| --- | --- |")
        parts.append(f"## {title}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return (value if isinstance(value, str) else json.dumps(value)).replace("|", "\\|")


def write_card(directory: Path, text: str) -> bool:
    """Write a card into a model's directory; False where another's README.md stands there."""
    path = directory / FILE
    if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return False
    write_durably(path, text.encode("utf-8"))
    return True
