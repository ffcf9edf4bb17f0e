"""What values of a run's config do not go together, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnima.errors import ConfigError
from omnima.training.schema import fields_of

if TYPE_CHECKING:
    from omnima.training.config import TrainConfig


def check_together(config: TrainConfig) -> None:
    """Refuse values that contradict each other, each of which is fine by itself."""
    _check_budget(config)
    _check_records(config)
    _check_schedule(config)
    _check_memory(config)
    _check_curriculum(config)
    _check_cuts(config)
    if config.restore_best and config.keep_best == 0:
        raise ConfigError(
            "restore_best ends with the best checkpoint, but keep_best is 0: keep at least 1."
        )
    if config.objective == "span" and config.packing != "windows":
        raise ConfigError("objective span cuts windows of the text: set packing to windows.")
    if config.steps is not None and config.warmup is not None and config.warmup > config.steps:
        raise ConfigError(
            f"warmup is {config.warmup} but the run has {config.steps} steps: the "
            f"learning rate would "
            "never reach lr. Give a warmup below steps."
        )


def _check_memory(config: TrainConfig) -> None:
    if config.memory_budget is not None and config.memory_bytes is None:
        raise ConfigError(
            f"memory_budget is {config.memory_budget!r}, but a size is expected: digits and KB, "
            "MB, GB or GiB, such as 2GB or 1.5GiB."
        )
    if config.offload_optimizer is not None and config.optimizer == "adafactor":
        raise ConfigError(
            "adafactor keeps a number for each row and column of a matrix, which is too little "
            "to be offloaded: leave offload_optimizer out, or take another optimizer."
        )
    fields = fields_of(type(config))
    given = [
        f"{name}={getattr(config, name)}"
        for name in ("batch_size", "accumulate")
        if getattr(config, name) != fields[name].default
    ]
    if config.target_batch_tokens is not None and given:
        raise ConfigError(
            f"target_batch_tokens={config.target_batch_tokens} and {' and '.join(given)} are "
            "both given: the first chooses the others, drop one side."
        )


def _check_cuts(config: TrainConfig) -> None:
    asked = {
        name: value
        for name in ("bpe_dropout", "subword_sampling")
        if (value := getattr(config, name))
    }
    if len(asked) > 1:
        raise ConfigError(
            "bpe_dropout is for a bpe tokenizer and subword_sampling for a unigram one: leave "
            "out one of them."
        )
    for name, value in asked.items():
        if config.objective != "next_token":
            raise ConfigError(
                f"{name} {value:g} goes with objective next_token only, not "
                f"{config.objective}: leave out one of them."
            )


def _check_curriculum(config: TrainConfig) -> None:
    steps = config.curriculum_steps
    given = [
        f"{name}={getattr(config, name)}"
        for name, field in fields_of(type(config)).items()
        if name.startswith("curriculum_") and getattr(config, name) != field.default
    ]
    if config.curriculum is None and given:
        raise ConfigError(
            f"{', '.join(given)} without a curriculum: say what is easy with curriculum (length, a "
            "file of scores or a model's directory), or leave that out."
        )
    if config.curriculum is not None and config.minutes is not None and steps is None:
        raise ConfigError(
            "How many steps fit into a budget on the clock is not known beforehand: say with "
            "curriculum_steps when all rows are to be in."
        )
    if steps is not None and config.steps is not None and steps > config.steps:
        raise ConfigError(
            f"curriculum_steps is {steps} but the run has {config.steps} steps: the hardest rows "
            "would never come. Give at most steps."
        )


def _check_records(config: TrainConfig) -> None:
    if "off" in config.alerts and len(config.alerts) > 1:
        raise ConfigError(
            f"alerts is {','.join(config.alerts)}: off cannot stand beside others. Name those "
            "you want, or off alone."
        )
    where = config.alert_webhook
    if where is not None and not where.startswith(("http://", "https://")):
        raise ConfigError(
            "alert_webhook must be a web address that begins with http:// or https://."
        )


def _check_schedule(config: TrainConfig) -> None:
    averages = config.optimizer == "schedule_free_adamw"
    if averages and config.schedule != "constant":
        raise ConfigError(
            f"{config.optimizer} needs no schedule, but schedule is {config.schedule!r}: give "
            "schedule constant (a warmup is fine)."
        )
    if averages and config.ema_decay:
        raise ConfigError(f"{config.optimizer} averages the weights itself: leave ema_decay at 0.")
    alone = config.accumulate == 1 and config.target_batch_tokens is None
    if config.ramp_steps and (config.epochs is not None or alone):
        needs = "accumulate above 1" if alone else "a budget in steps or minutes"
        raise ConfigError(f"ramp_steps is {config.ramp_steps}, which needs {needs}.")
    if config.schedule == "one_cycle" and config.warmup:
        raise ConfigError(
            f"schedule one_cycle rises by itself, but warmup is {config.warmup}: leave warmup "
            "out, and set rise_share."
        )


def _check_budget(config: TrainConfig) -> None:
    given = [name for name in ("steps", "minutes", "epochs") if getattr(config, name) is not None]
    if not given:
        raise ConfigError(
            "No budget: say how long to train with exactly one of steps, minutes or "
            "epochs, for "
            "example --minutes 5."
        )
    if len(given) > 1:
        both = " and ".join(f"{name}={getattr(config, name)}" for name in given)
        raise ConfigError(f"{both} are both given: exactly one budget is allowed, drop the other.")
