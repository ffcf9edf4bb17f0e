"""A recipe is all that a run needs: text, tokenizer, size and training; read from flags, `--set`
and YAML.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnima.errors import ConfigError
from omnima.training.config import TrainConfig
from omnima.training.schema import Field, check_bounds, fields_of, option, read_value, unknown_key

# A layer that names one of a group silences the others of that group in the layers below it.
_ALTERNATIVES = (("steps", "minutes", "epochs"), ("preset", "params"))
_COUNT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmb]?)\s*", re.IGNORECASE)
# The kinds that can be trained; else `tokenizer` names a directory.
TOKENIZERS = ("bpe", "unigram", "char", "byte", "word")
_CUT_BY_CHANCE = {"bpe_dropout": "bpe", "subword_sampling": "unigram"}
_SCALE = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


def parse_count(text: str | int) -> int:
    """Read a parameter count such as `20M`, `1.5m`, `500k` or `1b`.

    >>> parse_count("1.5m")
    1500000
    """
    match = _COUNT.fullmatch(str(text))
    count = round(float(match[1]) * _SCALE[match[2].lower()]) if match else 0
    if count < 1:
        raise ConfigError(
            f"params is {str(text)!r}, but a count is expected: digits and k, m or b, "
            "such as 500k, 20M or 1.5b."
        )
    return count


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything `omnima train` knows: the text, the tokenizer, the model's size and the training.

    >>> Recipe.from_layers({"data": ["tinyworld"], "preset": "1m", "steps": 10}).train.steps
    10
    """

    train: TrainConfig
    data: tuple[str, ...] = option(
        (),
        "files, globs, directories, mixtures (.yaml), hf:OWNER/NAME, tinyworld[:SIZE], pystdlib",
        group="Data",
    )
    field: str | None = option(None, "the field of JSON records or tables that holds the text")
    on_error: str = option("raise", "what to do with a bad record", choices=("raise", "skip"))
    document_break: str | None = option(
        None, "in text files a line that matches begins a new document, such as ^CHAPTER"
    )
    clean: str | None = option(
        None, "clean the text first: a recipe of cleaning (.yaml), or prose, code or duplicates"
    )
    preset: str | None = option(
        None, "size by name: nima, 1m, 5m, 10m, 35m, 125m, 355m, 1b, gpt2", group="Model"
    )
    params: str | None = option(None, "size by parameter count, such as 20M")
    model: dict[str, Any] = option({}, "changes of single model fields")
    tokenizer: str = option(
        "bpe",
        "bpe, unigram, char, byte or word to train one; else that of a directory, a GGUF file or "
        "owner/name on the hub",
        group="Tokenizer",
    )
    tokenizer_code: bool = option(
        False, "bpe learns runs of line ends and spaces as pieces: indentation is one token"
    )
    vocab_size: int | None = option(
        None, "token ids; default: chosen from the text", minimum=1, maximum=1 << 24
    )
    val_fraction: float = option(
        0.05, "share of documents held out for validation", minimum=0.0, maximum=0.9, group="Data"
    )
    device: str = option(
        "cpu", "where to train: cpu, cuda or one GPU: cuda:1", identity=False, group="Run"
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        if not self.data:
            raise ConfigError("No text: say what to train on, for example --data tinyworld.")
        if self.preset and self.params:
            raise ConfigError(
                f"preset={self.preset} and params={self.params} are both given: they both set the "
                "size, drop one."
            )
        if not (self.preset or self.params or self.model):
            raise ConfigError("No size: give --preset 1m (a name) or --params 20M (a count).")
        if self.params:
            parse_count(self.params)
        if self.tokenizer in TOKENIZERS:
            self.check_cuts(self.tokenizer)

    def check_cuts(self, found: str) -> None:
        """Refuse to cut by chance what a tokenizer of this kind cuts in one way only."""
        for name, kind in _CUT_BY_CHANCE.items():
            if getattr(self.train, name) and found != kind:
                raise ConfigError(
                    f"{name} needs a tokenizer of kind {kind}, but this one is of kind {found}: "
                    f"give another tokenizer, or leave {name} out."
                )

    @staticmethod
    def schema() -> dict[str, Field]:
        """Return every key of a recipe, the training's keys included."""
        return {**fields_of(Recipe), **fields_of(TrainConfig)}

    @classmethod
    def from_layers(
        cls,
        flags: Mapping[str, Any],
        sets: Sequence[str] = (),
        config: str | Path | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> Recipe:
        """Merge flags over `--set` pairs over a YAML file over the defaults.

        Parameters
        ----------
        flags
            Values by key; None means not given.
        sets
            Texts `key=value`; a key may be a recipe key, a model field or `model.FIELD`.
        config
            A YAML file with the same keys, or a run's directory, which holds one.
        defaults
            Values below all others, in the place of the fields' own.

        Raises
        ------
        ConfigError
            Unknown key (names the nearest), unreadable value, or values that contradict each other.
        """
        given = {key: value for key, value in flags.items() if value is not None}
        layers = [_read_mapping(defaults or {}, "the defaults")]
        layers += [_read_yaml(Path(config))] if config is not None else []
        layers += [_read_sets(sets), _read_mapping(given, "the flags")]
        merged: dict[str, Any] = {}
        for layer in layers:
            for group in _ALTERNATIVES:
                if any(layer.get(key) is not None for key in group):
                    for key in group:
                        merged.pop(key, None)
            model = {**merged.get("model", {}), **layer.get("model", {})}
            merged.update(layer)
            if model:
                merged["model"] = model
        training = {key: merged.pop(key) for key in fields_of(TrainConfig) if key in merged}
        return cls(train=TrainConfig(**training), **merged)

    def values(self) -> dict[str, Any]:
        """Return every key with its value, ready for YAML."""
        own = {name: getattr(self, name) for name in fields_of(Recipe)}
        own["data"] = list(self.data)
        return {**own, **self.train.values()}

    def identity(self) -> dict[str, Any]:
        """Return the keys a resumed run must keep."""
        own = {name: getattr(self, name) for name, key in fields_of(Recipe).items() if key.identity}
        return {**own, "data": list(self.data), **self.train.identity()}


def _read_yaml(path: Path) -> dict[str, Any]:
    from omnima.data.described import read_description

    path = path / "config.yaml" if path.is_dir() else path
    return _read_mapping(read_description(path, "recipe"), f"the recipe {path}")


def _read_sets(sets: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in sets:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {pair!r} is not key=value, such as --set lr=0.002.")
        values[key.strip()] = text.strip()
    return _read_mapping(values, "--set")


def _read_mapping(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = Recipe.schema()
    read: dict[str, Any] = {}
    model: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name in known:
            read[name] = read_value(known[name], value, where)
        else:
            model.update(_model_field(key, value, known, where))
    for key, value in read.get("model", {}).items():
        model.update(_model_field(f"model.{key}", value, known, where))
    return {**read, "model": model} if model else read


def _model_field(key: str, value: Any, known: Mapping[str, Field], where: str) -> dict[str, Any]:
    from omnima.config import ModelConfig

    kinds = {each.name: each.type for each in dataclasses.fields(ModelConfig)}
    kinds.pop("vocab_size", None)  # the tokenizer's, not the model's, to say
    name = key.removeprefix("model.")
    if name not in kinds:
        raise unknown_key(key, [*known, *kinds], where)
    return {name: _guess(value, str(kinds[name])) if isinstance(value, str) else value}


def _guess(text: str, kind: str) -> Any:
    import yaml

    if "str" in kind:
        return text
    value = yaml.safe_load(text)
    if isinstance(value, str) and "float" in kind:
        try:
            return float(value)  # YAML 1.1 takes 1e-5 for text
        except ValueError as error:
            raise ConfigError(f"--set: {text!r} is not a number.") from error
    return value
