"""Says what a model directory holds: parameters by part, config, tokenizer, files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omnima._places import find_model
from omnima.errors import DataError

# The part of the house that a parameter's name belongs to.
_PARTS = (
    ("embed", "embeddings"),
    ("self_attn", "attention"),
    (".mlp.", "mlp"),
    ("norm", "norms"),
    ("lm_head", "output"),
)


def part_of(name: str) -> str:
    """Return which part of a decoder a parameter belongs to.

    >>> part_of("model.layers.0.self_attn.q_proj.weight")
    'attention'
    """
    return next((part for key, part in _PARTS if key in name), "other")


def count_parts(parameters: Iterable[tuple[str, Any]]) -> dict[str, int]:
    """Count parameters by part."""
    counts: dict[str, int] = {}
    for name, tensor in parameters:
        part = part_of(name)
        counts[part] = counts.get(part, 0) + int(tensor.numel())
    return counts


def describe_directory(directory: str | Path, strict: bool = False) -> dict[str, Any]:
    """Return parameters (by part), config, tokenizer, training, foresight, provenance and
    files with sizes, of a directory, a GGUF file or a name on the hub.

    `strict` refuses weights that hold NaN or infinity instead of warning.
    """
    from omnima import Model

    path = find_model(directory)
    model = Model.from_pretrained(path, strict=strict)
    files = [path] if path.is_file() else sorted(path.iterdir())
    parts = count_parts(model.core.named_parameters())
    count, active = int(model.core.num_parameters()), model.num_active_parameters
    return {
        "parameters": count,
        **({"active_parameters": active} if active < count else {}),
        "parts": parts,
        "config": dataclasses.asdict(model.config),
        "tokenizer": _tokenizer_facts(model.tokenizer),
        "training": (_read(path / "summary.json") | _read(path / "precision.json")) or None,
        "foresight": _read(path / "foresight.json") or None,
        "provenance": _read(path / "provenance.json") or None,
        "files": {each.name: each.stat().st_size for each in files if each.is_file()},
    }


def _read(record: Path) -> dict[str, Any]:
    """Return what a run of ours wrote beside its model; nothing for another's directory."""
    if not record.exists():
        return {}
    try:
        return dict(json.loads(record.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(f"{record} is damaged ({error}): restore or remove it.") from error


def _tokenizer_facts(tokenizer: Any) -> dict[str, Any] | None:
    if tokenizer is None:
        return None
    return {
        name: getattr(tokenizer, name)
        for name in ("kind", "vocab_size", "bos_id", "eos_id", "pad_id", "fingerprint")
    }
