"""A recipe of fine-tuning: the model, the conversations, the method and the training; read from
flags and YAML.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnima.adapters import options as adapters
from omnima.errors import ConfigError
from omnima.training.config import TrainConfig
from omnima.training.schema import Field, check_bounds, fields_of, option, read_value, unknown_key

QLORA = "qlora"
BASES = ("int8", "int4", "nf4")  # formats of omnima.quantization, which takes a second to import
METHODS = ("full", *adapters.METHODS, QLORA)
PREFERENCES = ("dpo", "ipo", "simpo", "orpo", "kto")
OBJECTIVES = ("sft", "lm", *PREFERENCES, "reward", "distill")
DIVERGENCES = ("forward", "reverse", "middle")
LONGEST_CONTEXT = 1024  # unless another is asked for: conversations are short, memory is not

# Fields of the training that conversations have no use for, or that this recipe says otherwise.
_ELSEWHERE = {
    *("packing", "objective", "corruption_rate", "span_length", "train_rows_from"),
    *("bpe_dropout", "subword_sampling"),
    *("curriculum", "curriculum_pacing", "curriculum_start", "curriculum_steps"),
}
_BUDGETS = ("steps", "minutes", "epochs")
# Learning rates of the whole model and of adapters: for texts and answers, and for preferences,
# which are to move a model little.
_RATES = (5e-5, 5e-4)
_PREFERENCE_RATES = (1e-6, 1e-5)
# How many times a LoRA's rate a kind learns at: few numbers need more, parts of the weights less.
# docs/explanation/adapters.md has what these were chosen by.
_OF_KIND = {
    **{"prompt": 300, "vera": 100, "prefix": 50, "ia3": 25, "adalora": 20, "bitfit": 4},
    **{"qlora": 2, "pissa": 0.4, "olora": 0.4, "lora+": 0.15},
}
_OF_ADAPTERS = (
    *("rank", "alpha", "targets", "adapter_dropout"),
    *("virtual_tokens", "initial_rank"),
)
_DEFAULTS: dict[str, Any] = {"batch_size": 4, "lr": None, "weight_decay": 0.01, "samples": 0}


@dataclasses.dataclass(frozen=True)
class FineTuneRecipe:
    """Everything `omnima finetune` knows.

    >>> FineTuneRecipe.from_layers({"model": "base", "data": ["a.jsonl"], "steps": 10}).train.lr
    5e-05
    """

    train: TrainConfig
    model: str | None = option(None, "the model to start from", group="Model")
    data: tuple[str, ...] = option(
        (),
        "conversations, instructions or prompts with answers (.json, .jsonl, .gz), globs, folders; "
        "objective lm: any text",
        group="Data",
    )
    objective: str = option(
        "sft",
        "what is learned: the answers of conversations (sft), every token of a text (lm), which "
        "of two answers is preferred, which answers are liked (kto), to say how good an answer is "
        "(reward), or what a larger model says (distill)",
        choices=OBJECTIVES,
    )
    method: str = option(
        "full",
        "which parameters learn: all of the model (full), or an adapter's beside it; qlora: lora "
        "beside a model in blocks of 4 or 8 bits",
        choices=METHODS,
    )
    base: str | None = option(
        None,
        "qlora: what the model's matrices are held in; default: nf4, or as a quantized directory "
        "has them",
        choices=BASES,
    )
    rank: int | None = option(
        None,
        "adapters: rank of what is added; default: 16, vera 256, adalora 8, bottleneck 64",
        minimum=1,
        maximum=1 << 16,
    )
    alpha: float | None = option(
        None,
        "adapters: what is added counts alpha / rank times; default: twice the rank, or the rank",
        minimum=1e-6,
        maximum=1e6,
    )
    targets: tuple[str, ...] = option(
        (),
        "adapters: names and patterns of modules; default: all-linear; "
        "ia3: keys, values, down_proj; bottleneck: o_proj, down_proj",
    )
    adapter_dropout: float = option(
        0.0, "adapters: share of their inputs left out in training", minimum=0.0, maximum=0.99
    )
    freeze_layers: int = option(
        0,
        "method full: so many of the first blocks, and the embeddings, stay as they are",
        minimum=0,
        maximum=1 << 16,
    )
    virtual_tokens: int | None = option(
        None,
        "prompt, prefix: tokens in front of every text; default: 20",
        minimum=1,
        maximum=1 << 16,
    )
    initial_rank: int | None = option(
        None,
        "adalora: rank that each matrix begins with; default: one and a half times the rank",
        minimum=1,
        maximum=1 << 16,
    )
    beta: float | None = option(
        None,
        "preferences: how much a difference counts; default: 0.1, of simpo 2",
        minimum=1e-6,
        maximum=1e6,
    )
    desirable_weight: float = option(
        1.0, "kto: how much answers that people liked count", minimum=0.0, maximum=1e6
    )
    undesirable_weight: float = option(
        1.0, "kto: how much answers that they did not like count", minimum=0.0, maximum=1e6
    )
    center_rewards_coefficient: float = option(
        0.0, "reward: keeps rewards near zero; 0.01 is usual", minimum=0.0, maximum=1e6
    )
    teacher: str | None = option(
        None, "distill: the larger model to learn from, of the same vocabulary"
    )
    divergence: str = option(
        "forward",
        "distill: what is small in the end: the teacher's surprise at the model (forward), the "
        "model's at the teacher (reverse), or both against their mixture (middle)",
        choices=DIVERGENCES,
    )
    temperature: float = option(
        1.0, "distill: both models' logits are divided by it", minimum=0.001, maximum=1000.0
    )
    margin: float = option(0.5, "simpo: reward wanted in advance", minimum=0.0, maximum=1e6)
    packed: bool = option(True, "sft: several samples a row, which cannot see each other")
    too_long: str = option(
        "cut", "sft: what becomes of samples longer than the context", choices=("cut", "drop")
    )
    field: str | None = option(None, "lm: the field of JSON records that holds the text")
    on_error: str = option("raise", "what to do with a bad record", choices=("raise", "skip"))
    val_fraction: float = option(
        0.05, "share of the samples held out for evaluation", minimum=0.0, maximum=0.9
    )
    answers: int = option(
        3,
        "held-out samples that the report answers before and after; 0: none",
        minimum=0,
        maximum=1000,
        identity=False,
    )
    answer_tokens: int = option(
        64, "tokens in an answer of the report at most", minimum=1, maximum=1 << 24, identity=False
    )
    device: str = option(
        "cpu", "where to train: cpu, cuda or one GPU: cuda:1", identity=False, group="Run"
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        if not self.data:
            raise ConfigError("No data: say what to learn, for example --data conversations.jsonl.")
        if self.objective != "lm" and self.field is not None:
            raise ConfigError(
                f"field={self.field} names the text of objective lm; objective {self.objective} "
                "knows the fields of its formats: leave it out."
            )

        if (self.teacher is None) == (self.objective == "distill"):
            raise ConfigError(
                "objective distill learns from a larger model: give a teacher."
                if self.teacher is None
                else f"teacher={self.teacher} belongs to objective distill: leave it out."
            )
        if self.objective == "reward" and self.method in adapters.IN_FRONT:
            raise ConfigError(
                f"method {self.method} puts tokens in front of texts that are written, and a "
                "reward model reads their ends: give lora, another adapter at layers, or full."
            )
        if self.beta is not None and self.objective not in PREFERENCES:
            raise ConfigError(
                f"beta={self.beta:g} belongs to objectives {', '.join(PREFERENCES)}, not to "
                f"{self.objective}: leave it out."
            )
        if self.method != "full" and self.freeze_layers:
            raise ConfigError(
                f"freeze_layers={self.freeze_layers} is for method full: beside an adapter all "
                "blocks stay as they are."
            )
        if self.base is not None and self.method != QLORA:
            raise ConfigError(
                f"base={self.base} is what method qlora holds the model in, not {self.method}: "
                "leave it out."
            )
        if self.method == QLORA and self.device != "cpu":
            raise ConfigError(
                f"method qlora holds the model in blocks on the CPU, not on {self.device}: take "
                "lora there."
            )
        defaults = fields_of(FineTuneRecipe)
        given = [
            f"{name}={getattr(self, name)}"
            for name in _OF_ADAPTERS
            if getattr(self, name) != defaults[name].default
        ]
        if self.method == "full" and given:
            raise ConfigError(
                f"{', '.join(given)} shape an adapter, but method full trains the model itself: "
                "give a method such as lora, or leave that out."
            )

    @staticmethod
    def schema() -> dict[str, Field]:
        """Return every key of a recipe, the training's keys included."""
        training = {
            name: dataclasses.replace(field, default=_DEFAULTS.get(name, field.default))
            for name, field in fields_of(TrainConfig).items()
            if name not in _ELSEWHERE
        }
        training["lr"] = dataclasses.replace(
            training["lr"],
            meaning="highest learning rate; default: 5e-5, adapters 5e-4; preferences: 1e-6, "
            "adapters 1e-5; times 300 for prompt, 100 vera, 50 prefix, 25 ia3, 20 adalora, "
            "4 bitfit, 2 qlora, 0.4 pissa and olora, 0.15 lora+",
        )
        training["context"] = dataclasses.replace(
            training["context"],
            meaning=f"tokens in a row; default: the model's context, at most {LONGEST_CONTEXT}",
        )
        return {**fields_of(FineTuneRecipe), **training}

    @classmethod
    def from_layers(
        cls, flags: Mapping[str, Any], config: str | Path | None = None
    ) -> FineTuneRecipe:
        """Merge flags over a YAML file over the defaults.

        Parameters
        ----------
        flags
            Values by key; None means not given.
        config
            A YAML file with the same keys, or a run's directory, which holds one.

        Raises
        ------
        ConfigError
            Unknown key (names the nearest), unreadable value, or values that contradict each other.
        """
        from omnima.data.described import read_description

        layers = []
        if config is not None:
            path = Path(config) / "config.yaml" if Path(config).is_dir() else Path(config)
            layers.append(_read(read_description(path, "recipe"), f"the recipe {path}"))
        given = {key: value for key, value in flags.items() if value is not None}
        layers.append(_read(given, "the flags"))
        merged = dict(_DEFAULTS)
        for layer in layers:
            if any(layer.get(key) is not None for key in _BUDGETS):
                for key in _BUDGETS:
                    merged.pop(key, None)
            merged.update(layer)
        if merged["lr"] is None:
            rates = _PREFERENCE_RATES if merged.get("objective") in PREFERENCES else _RATES
            method = merged.get("method", "full")
            merged["lr"] = rates[method != "full"] * _OF_KIND.get(method, 1)
        known = fields_of(TrainConfig).keys() - _ELSEWHERE
        training = {key: merged.pop(key) for key in known & merged.keys()}
        return cls(train=TrainConfig(**training), **merged)

    def values(self) -> dict[str, Any]:
        """Return every key with its value, ready for YAML."""
        own = {name: getattr(self, name) for name in fields_of(FineTuneRecipe)}
        return {**own, "data": list(self.data), **_ours(self.train.values())}

    def identity(self) -> dict[str, Any]:
        """Return the keys a resumed run must keep."""
        own = {
            name: getattr(self, name)
            for name, field in fields_of(FineTuneRecipe).items()
            if field.identity
        }
        return {**own, "data": list(self.data), **_ours(self.train.identity())}


def _ours(training: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in training.items() if name not in _ELSEWHERE}


def _read(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = FineTuneRecipe.schema()
    read = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            raise unknown_key(key, known, where)
        read[name] = read_value(known[name], value, where)
    return read
