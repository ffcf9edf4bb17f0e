"""How a run trains: one frozen dataclass whose fields are flags, recipe keys and `--set` keys at
once.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from omnima._sizes import read_size
from omnima.training.callbacks.trackers import TRACKERS
from omnima.training.config_checks import check_together
from omnima.training.schema import check_bounds, fields_of, option, split_names, unknown_key

_MANY = 1 << 40

# The core's registries by name; a test holds them together.
OPTIMIZERS = (
    "adamw",
    "adamw_8bit",
    "schedule_free_adamw",
    "lion",
    "muon",
    "adafactor",
    "sgd",
)
SCHEDULES = (
    "constant",
    "linear",
    "cosine",
    "cosine_restarts",
    "step",
    "inverse_sqrt",
    "warmup_stable_decay",
    "one_cycle",
)
OBJECTIVES = ("next_token", "masked", "span")


def _share(
    default: float, meaning: str, minimum: float = 0.0, maximum: float = 1.0, group: str = ""
) -> Any:
    """A part of a whole."""
    return option(default, meaning, minimum=minimum, maximum=maximum, group=group)


def _decay(default: float, meaning: str) -> Any:
    """What a running mean keeps at each step."""
    return option(default, meaning, minimum=0.0, maximum=0.999999)


def _limit(default: float, meaning: str, group: str = "") -> Any:
    """A bound of a gradient; 0: none."""
    return option(default, meaning, minimum=0.0, maximum=1e9, group=group)


def _steps(meaning: str, group: str = "") -> Any:
    """A number of steps or evaluations that does not shape the weights; 0 by default."""
    return option(0, meaning, minimum=0, maximum=_MANY, identity=False, group=group)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Budget, batches, optimizer, schedule, precision, and what is written where.

    Exactly one of `steps`, `minutes` and `epochs` is the budget. Unknown fields, values out of
    bounds and values that contradict each other raise `ConfigError`.

    >>> TrainConfig(steps=100).lr
    0.001
    """

    steps: int | None = option(
        None, "budget: optimizer steps", minimum=1, maximum=_MANY, group="Budget"
    )
    minutes: float | None = option(
        None,
        "budget: minutes on the clock, without preparation of the data",
        minimum=0.001,
        maximum=1e7,
    )
    epochs: float | None = option(
        None, "budget: passes over the training text", minimum=1e-6, maximum=1e6
    )
    context: int | None = option(
        None,
        "tokens in a training row; default: the model's context",
        minimum=2,
        maximum=1 << 24,
        group="Batches and memory",
    )
    batch_size: int = option(16, "rows in a micro-batch", minimum=1, maximum=1 << 20)
    accumulate: int = option(1, "micro-batches in a step", minimum=1, maximum=1 << 20)
    target_batch_tokens: int | None = option(
        None,
        "tokens of a step: batch_size and accumulate are chosen, the largest micro-batch that fits",
        minimum=1,
        maximum=_MANY,
    )
    memory_budget: str | None = option(
        None,
        "memory the run may take, such as 2GB: as few checkpoint_layers as fit it are chosen",
    )
    checkpoint_layers: int = option(
        0,
        "blocks that keep only their input and compute twice, to save memory; 0: none",
        minimum=0,
        maximum=1_000_000,
        identity=False,
    )
    offload_optimizer: str | None = option(
        None,
        "where the optimizer's state lies: cpu (out of a GPU's memory), or a directory of a fast "
        "disk; none: beside the weights",
        identity=False,
    )
    ramp_steps: int = option(
        0,
        "steps in which the micro-batches of a step rise from 1 to accumulate; 0: no ramp",
        minimum=0,
        maximum=_MANY,
    )
    packing: str = option(
        "windows",
        "windows of the whole text, or packed documents that cannot see each other",
        choices=("windows", "documents"),
    )
    objective: str = option(
        "next_token",
        "what is learned: the next token, masked tokens (BERT), or spans cut out (T5)",
        choices=OBJECTIVES,
        group="What is learned",
    )
    corruption_rate: float = option(
        0.15,
        "objectives masked and span: share of the tokens masked or cut out",
        minimum=0.001,
        maximum=0.9,
    )
    span_length: float = option(
        3.0, "objective span: mean tokens of a span", minimum=1.0, maximum=1e6
    )
    bpe_dropout: float = option(
        0.0,
        "share of merges left out by chance, anew in every epoch, such as 0.1; 0: none",
        minimum=0.0,
        maximum=1.0,
    )
    subword_sampling: float | None = option(
        None,
        "unigram: cuts drawn anew in every epoch by this power of their probability, such as 0.2; "
        "default: the best cut",
        minimum=0.001,
        maximum=1e6,
    )
    curriculum: str | None = option(
        None,
        "easy text first: length, a file with a score a line, or a model (a directory, a GGUF file "
        "or owner/name on the hub), by its loss",
        group="Curriculum",
    )
    curriculum_pacing: str = option(
        "linear", "how fast hard rows come in", choices=("linear", "sqrt", "step", "exponential")
    )
    curriculum_start: float = _share(0.1, "share of rows (the easiest) used at the start", 0.001)
    curriculum_steps: int | None = option(
        None,
        "steps until all rows are in; default: half of a budget in steps or epochs",
        minimum=1,
        maximum=_MANY,
    )
    lr: float = option(1e-3, "highest learning rate", minimum=0.0, maximum=10.0, group="Schedule")
    schedule: str = option("cosine", "how the learning rate falls", choices=SCHEDULES)
    warmup: int | None = option(
        None,
        "steps in which the learning rate rises; default: 5% of the run, at most 200",
        minimum=0,
        maximum=_MANY,
    )
    min_lr_ratio: float = _share(0.02, "last learning rate as a share of the highest")
    cycles: int = option(4, "schedule cosine_restarts: falls in the run", minimum=1, maximum=1000)
    cycle_growth: float = option(
        1.0,
        "schedule cosine_restarts: length of a fall by that of the one before",
        minimum=1.0,
        maximum=10.0,
    )
    stages: int = option(3, "schedule step: stages of equal length", minimum=1, maximum=1000)
    stage_factor: float = _share(
        0.1, "schedule step: learning rate of a stage by that of the one before"
    )
    decay_share: float = _share(
        0.2,
        "schedule warmup_stable_decay: last share of the run, in which the learning rate falls",
        0.001,
        1.0,
    )
    rise_share: float = _share(
        0.3,
        "schedule one_cycle: first share of the run, in which the learning rate rises",
        0.001,
        0.999,
    )
    optimizer: str = option(
        "adamw", "how gradients move weights", choices=OPTIMIZERS, group="Optimizer"
    )
    beta1: float = _decay(0.9, "AdamW and Lion: decay of the mean gradient")
    beta2: float = _decay(0.98, "AdamW: decay of the squared gradient; Lion: of the mean gradient")
    eps: float = option(1e-8, "AdamW: added to the denominator", minimum=1e-16, maximum=1.0)
    momentum: float = _decay(0.95, "SGD and Muon: decay of the mean gradient")
    nesterov: bool = option(True, "SGD and Muon: look one step ahead along the mean gradient")
    weight_decay: float = option(
        0.1, "decay of matrices; norms and biases have none", minimum=0.0, maximum=10.0
    )
    groups: tuple[str, ...] = option(
        (), "other rates by parameter name: PATTERN:lr=FACTOR,weight_decay=DECAY"
    )
    freeze: tuple[str, ...] = option(
        (),
        "parameters that stay as they are: PATTERN, PATTERN@FIRST-LAST for these steps, or "
        "PATTERN[:ROWS] for the first rows",
    )
    train_rows_from: int | None = option(
        None,
        "train the rows of embedding and head from this token id on and nothing else, such as "
        "those of tokens that were added",
        minimum=1,
        maximum=_MANY,
    )
    clip_norm: float = _limit(1.0, "largest norm of the gradient; 0: no clipping")
    label_smoothing: float = _share(
        0.0, "share of the target spread over the vocabulary", 0.0, 0.999, group="What is learned"
    )
    z_loss: float = option(
        0.0,
        "weight of the squared log of the softmax's sum: keeps logits small",
        minimum=0.0,
        maximum=10.0,
    )
    prediction_weight: float = option(
        0.3,
        "weight of the mean loss of the model's prediction_heads, where it has any",
        minimum=0.0,
        maximum=1000.0,
    )
    clip_value: float = _limit(
        0.0,
        "largest element of the gradient, cut before clip_norm; 0: no clipping",
        group="Optimizer",
    )
    clip_adaptive: float = _limit(
        0.0,
        "largest gradient of a matrix's row by the norm of its weights, such as 0.1; 0: no "
        "clipping",
    )
    ema_decay: float = _decay(
        0.0, "running mean of the weights: what it keeps at each step, such as 0.999; 0: no mean"
    )
    ema_eval: bool = option(True, "evaluate and save the running mean, where there is one")
    patience: int = _steps(
        "stop early after so many evaluations without a better held-out loss; 0: never",
        group="Evaluation and checkpoints",
    )
    restore_best: bool = option(
        False,
        "end with the weights of the best checkpoint, by held-out loss, instead of the last",
        identity=False,
    )
    precision: str = option(
        "auto",
        "number format of the products",
        choices=("auto", "fp32", "bf16", "fp16"),
        group="Precision",
    )
    loss_scale: float = option(
        65536.0,
        "precision fp16: first factor of the loss; an overflow halves it",
        minimum=2.0**-14,
        maximum=1e30,
    )
    loss_scale_growth: int = option(
        2000,
        "precision fp16: steps without overflow after which the factor doubles",
        minimum=1,
        maximum=_MANY,
    )
    seed: int = option(
        0, "seed of weights, order and dropout", minimum=0, maximum=(1 << 62), group="Run"
    )
    eval_every: int = _steps(
        "steps between evaluations; 0: ten in the run", group="Evaluation and checkpoints"
    )
    eval_batches: int = option(
        20,
        "batches in an evaluation on the way; the last one reads up to ten times as many",
        minimum=1,
        maximum=_MANY,
        identity=False,
    )
    save_every: int = _steps(
        "steps between checkpoints; 0: when evaluating, twice a minute at most"
    )
    keep_last: int = option(2, "newest checkpoints kept", minimum=1, maximum=1000, identity=False)
    keep_best: int = option(
        1, "best checkpoints kept, by validation loss", minimum=0, maximum=1000, identity=False
    )
    samples: int = option(
        3, "texts written at the end", minimum=0, maximum=1000, identity=False, group="Records"
    )
    sample_tokens: int = option(
        120, "tokens in a sample at most", minimum=1, maximum=1 << 24, identity=False
    )
    sample_prompt: str = option("", "what each sample begins with", identity=False)
    log_every: int = option(
        1, "steps between lines in metrics.jsonl", minimum=1, maximum=_MANY, identity=False
    )
    track: tuple[str, ...] = option(
        (),
        "where the records go besides metrics.jsonl, separated by commas",
        choices=tuple(TRACKERS),
        identity=False,
    )
    track_project: str = option("omnima", "project at wandb, experiment at mlflow", identity=False)
    monitor_every: float = option(
        1.0,
        "seconds between readings of processor, memory and GPU into the records; 0: none",
        minimum=0.0,
        maximum=1e6,
        identity=False,
    )
    norms_every: int = _steps(
        "steps between norms of gradient, weights and update by layer in the records; 0: none"
    )
    samples_every: int = _steps("steps between samples into samples/; 0: none")
    alerts: tuple[str, ...] = option(
        ("spike", "divergence", "plateau", "stall"),
        "which alerts to raise, separated by commas",
        choices=("spike", "divergence", "plateau", "stall", "off"),
        identity=False,
    )
    alert_webhook: str | None = option(
        None, "web address that gets each alert as JSON", identity=False
    )
    stall_after: float = option(
        120.0,
        "seconds without a finished step that are a stall; ten usual steps where that is more",
        minimum=0.1,
        maximum=1e7,
        identity=False,
    )
    license: str | None = option(
        None, "license of the model, for its card: apache-2.0, cc-by-4.0, …", identity=False
    )
    out: str | None = option(
        None,
        "directory of the run; default: runs/ and the time of day",
        identity=False,
        group="Run",
    )

    def __post_init__(self) -> None:
        for name in ("track", "alerts"):
            object.__setattr__(self, name, split_names(getattr(self, name)))
        if self.offload_optimizer == "none":  # as a flag and YAML say it
            object.__setattr__(self, "offload_optimizer", None)
        check_bounds(self)
        check_together(self)
        if self.license is not None:
            from omnima.hub.card import check_license

            check_license(self.license)

    @property
    def memory_bytes(self) -> int | None:
        """The memory budget in bytes; None without one."""
        return None if self.memory_budget is None else read_size(self.memory_budget)

    @property
    def averages(self) -> bool:
        """Whether an average of the weights is evaluated and saved in their place."""
        return self.optimizer == "schedule_free_adamw" or (self.ema_decay > 0 and self.ema_eval)

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> TrainConfig:
        """Build from named values; an unknown name is an error that names the nearest field."""
        known = fields_of(cls)
        for key in values:
            if key not in known:
                raise unknown_key(key, known, "the training config")
        return cls(**values)

    def values(self) -> dict[str, Any]:
        """Return all fields by name."""
        return {
            name: list(value) if isinstance(value := getattr(self, name), tuple) else value
            for name in fields_of(type(self))
        }

    def identity(self) -> dict[str, Any]:
        """Return the fields that a resumed run must keep, because the weights depend on them."""
        return {
            name: getattr(self, name)
            for name, field in fields_of(type(self)).items()
            if field.identity
        }
