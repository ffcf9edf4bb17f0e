"""A config field described once: flags, YAML recipes and `--set key=value` all read this
description.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from omnima.errors import ConfigError


def option(
    default: Any,
    meaning: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    identity: bool = True,
    group: str = "",
) -> Any:
    """Describe one dataclass field.

    Parameters
    ----------
    default
        The value when nobody gives one.
    meaning
        One line for the help text.
    minimum, maximum
        Inclusive bounds of a number.
    choices
        What a string, or each of a list of names, may be; empty when anything goes.
    identity
        Whether the field shapes the weights, so that a resumed run must keep it.
    group
        Under which heading help shows the field and those behind it, up to the next that says so.
    """
    metadata = {
        "meaning": meaning,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "identity": identity,
        "group": group,
    }
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Field:
    """One described field: its name, its Python type (without `None`), default, bounds and
    meaning.
    """

    name: str
    kind: type
    default: Any
    meaning: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    identity: bool
    group: str = ""

    @property
    def flag(self) -> str:
        """The command-line flag, such as `--batch-size`."""
        return "--" + self.name.replace("_", "-")


def _plain_type(hint: Any) -> type:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    origin = typing.get_origin(hint)
    return typing.cast(type, origin or hint)


def fields_of(config: type) -> dict[str, Field]:
    """Return the described fields of a config class, by name, in order.

    >>> from omnima.training.config import TrainConfig
    >>> fields_of(TrainConfig)["lr"].flag
    '--lr'
    """
    hints = typing.get_type_hints(config)
    described = {}
    group = ""
    for each in dataclasses.fields(config):
        if "meaning" not in each.metadata:
            continue
        default = each.default
        if default is dataclasses.MISSING and each.default_factory is not dataclasses.MISSING:
            default = each.default_factory()
        group = each.metadata["group"] or group
        facts = {**each.metadata, "group": group}
        described[each.name] = Field(each.name, _plain_type(hints[each.name]), default, **facts)
    return described


# What transformers, nanoGPT and litgpt call our keys.
_ELSEWHERE = {
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "adam_epsilon": "eps",
    "block_size": "context",
    "early_stopping_patience": "patience",
    "eval_interval": "eval_every",
    "eval_steps": "eval_every",
    "grad_clip": "clip_norm",
    "gradient_accumulation_steps": "accumulate",
    "gradient_checkpointing": "checkpoint_layers",
    "learning_rate": "lr",
    "log_interval": "log_every",
    "logging_steps": "log_every",
    "lr_scheduler_type": "schedule",
    "max_grad_norm": "clip_norm",
    "max_iters": "steps",
    "max_length": "context",
    "max_seq_length": "context",
    "max_steps": "steps",
    "micro_batch_size": "batch_size",
    "num_train_epochs": "epochs",
    "out_dir": "out",
    "output_dir": "out",
    "per_device_train_batch_size": "batch_size",
    "report_to": "track",
    "save_steps": "save_every",
    "save_total_limit": "keep_last",
    "warmup_iters": "warmup",
    "warmup_steps": "warmup",
}


def unknown_key(key: str, known: Iterable[str], where: str) -> ConfigError:
    """Return the error for a key that nobody knows; it names the nearest one that exists.

    >>> print(unknown_key("learning_rat", ["lr", "corruption_rate"], "run.yaml"))
    Unknown key "learning_rat" in run.yaml. The nearest is "lr".
    """
    ours = {name: name for name in known}
    named = {name: own for name, own in _ELSEWHERE.items() if own in ours} | ours
    near = difflib.get_close_matches(key, sorted(named), n=1, cutoff=0.0)
    hint = f' The nearest is "{named[near[0]]}".' if near else ""
    return ConfigError(f'Unknown key "{key}" in {where}.{hint}')


def read_value(field: Field, value: Any, where: str) -> Any:
    """Turn what a flag, YAML or `--set` gave into the field's type.

    Text is read as the field's type; a value of another type is refused, never guessed.

    Raises
    ------
    ConfigError
        When the value is not of the field's type; names the place, the field and what is expected.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in ("none", "null")):
        if field.default is None:
            return None
        raise ConfigError(f"{where}: {field.name} needs a value ({field.meaning}).")
    try:
        read = _READERS[field.kind](value)
        return split_names(read) if field.kind is tuple and field.choices else read
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ConfigError(
            f"{where}: {field.name} is {value!r}, but {_EXPECTED[field.kind]} is expected "
            f"({field.meaning})."
        ) from error


def split_names(value: Any) -> tuple[str, ...]:
    """Return names that were given as a list, or as one text with commas.

    >>> split_names("tensorboard, wandb")
    ('tensorboard', 'wandb')
    """
    names = [part.strip() for each in _read_texts(value) for part in each.split(",")]
    return tuple(dict.fromkeys(name for name in names if name))


def _read_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
        str(value).strip().lower()
    ]


def _read_int(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError("a truth value is not a number")
    if isinstance(value, int):
        return value
    number = float(value)  # accepts 1e6, as people write step counts
    if number != math.floor(number):
        raise ValueError("not whole")
    return int(value) if isinstance(value, str) and value.strip().isdigit() else int(number)


def _read_float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError("a truth value is not a number")
    return float(value)


def _read_text(value: Any) -> str:
    if isinstance(value, (dict, list, tuple, bool)):
        raise ValueError("not text")
    return str(value)


def _read_texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, Mapping):
        raise ValueError("not a list")
    if isinstance(value, (str, int, float)):
        return (_read_text(value),)
    return tuple(_read_text(each) for each in value)


def _read_mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("not a mapping")
    return {str(key): each for key, each in value.items()}


_READERS: dict[type, Any] = {
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    str: _read_text,
    tuple: _read_texts,
    dict: _read_mapping,
}
_EXPECTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "text or a list of texts",
    dict: "a mapping of names to values",
}


def check_bounds(config: Any) -> None:
    """Check every described field of a config object against its type, bounds and choices."""
    for name, field in fields_of(type(config)).items():
        value = getattr(config, name)
        if value is None and field.default is None:
            continue
        _check_type(field, value)
        for each in value if field.kind is tuple else (value,):
            if field.choices and each not in field.choices:
                raise ConfigError(
                    f"{name} is {each!r}, but must be one of {', '.join(field.choices)} "
                    f"({field.meaning})."
                )
        if field.kind not in (int, float):
            continue
        low, high = field.minimum, field.maximum
        too_low = low is not None and value < low
        too_high = high is not None and value > high
        if too_low or too_high or not math.isfinite(value):
            at_least = f"at least {low:g}" if low is not None else ""
            at_most = f"at most {high:g}" if high is not None else ""
            bounds = " and ".join(part for part in (at_least, at_most) if part) or "finite"
            raise ConfigError(f"{name} is {value}, but must be {bounds} ({field.meaning}).")


def _check_type(field: Field, value: Any) -> None:
    accepted: Any = {float: (int, float), tuple: (tuple, list)}.get(field.kind, field.kind)
    wrong_bool = isinstance(value, bool) and field.kind is not bool
    if wrong_bool or not isinstance(value, accepted):
        raise ConfigError(
            f"{field.name} is {value!r}, but {_EXPECTED[field.kind]} is expected ({field.meaning})."
        )
