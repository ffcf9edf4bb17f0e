"""The trackers that `track` names: what each needs, how it knows a run, and flat metrics."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omnima._durable import write_durably
from omnima.errors import ConfigError

# Name, the package it needs, the module and the class here.
TRACKERS = {
    "tensorboard": ("tensorboard", "tensorboard", "TensorBoardCallback"),
    "wandb": ("wandb", "wandb", "WandbCallback"),
    "mlflow": ("mlflow", "mlflow", "MlflowCallback"),
}
# What is no metric of a step: the step itself.
_NOT_METRICS = ("step",)
# Config fields that may hold a secret; they stay on this machine.
SECRET_FIELDS = ("alert_webhook",)


def make_trackers(names: Iterable[str]) -> list[Any]:
    """Return the callbacks of the named trackers.

    Raises
    ------
    ConfigError
        The package of one is not installed; the message holds the command that installs it.
    """
    made = []
    for name in names:
        package, module, kind = TRACKERS[name]
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"track names {name}, but {package} is not installed: "
                'pip install "omnima[track]". metrics.jsonl is written without it.'
            )
        home = importlib.import_module(f"omnima.training.callbacks.{module}")
        made.append(getattr(home, kind)())
    return made


def flat_metrics(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of a record by flat names; what is missing or not finite is left out.

    >>> flat_metrics({"step": 1, "loss": 2.0, "norms": {"layers.0": {"weight": 3}}})
    {'loss': 2.0, 'norms/layers.0/weight': 3.0}
    """
    flat: dict[str, float] = {}
    for key, value in record.items():
        if not prefix and key in _NOT_METRICS:
            continue
        if isinstance(value, Mapping):
            flat.update(flat_metrics(value, f"{prefix}{key}/"))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            if math.isfinite(value):
                flat[f"{prefix}{key}"] = float(value)
    return flat


def public_config(args: Any, model: Any) -> dict[str, Any]:
    """Return the training's and the model's config by name, without what may be a secret."""
    import dataclasses

    values = {key: value for key, value in args.values().items() if key not in SECRET_FIELDS}
    shape = {f"model.{key}": value for key, value in dataclasses.asdict(model.config).items()}
    return {**values, **shape}


def remembered(run_dir: Path, tracker: str) -> str | None:
    """Return the name under which a tracker knows this run, when it was begun before."""
    path = run_dir / "trackers.json"
    if not path.exists():
        return None
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        name = known.get(tracker)
    except (ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path} is damaged ({error}): remove it, and the trackers begin new runs."
        ) from error
    return None if name is None else str(name)


def remember(run_dir: Path, tracker: str, name: str) -> None:
    """Keep the name under which a tracker knows this run, for when it is resumed."""
    path = run_dir / "trackers.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known[tracker] = name
    write_durably(path, (json.dumps(known, indent=2) + "\n").encode("utf-8"))
