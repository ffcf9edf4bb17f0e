"""Before a run: whether it fits and what it will take. After it: how far the prediction was off."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima._device import check_device
from omnima.errors import ConfigError
from omnima.planning import (
    Calibration,
    Job,
    Machine,
    Plan,
    advice,
    memory_by_part,
    plan,
    this_machine,
)
from omnima.planning.job import Held
from omnima.planning.machine import forget_peak, peak_memory
from omnima.training.budget import FIRST_LOOK
from omnima.training.config import TrainConfig
from omnima.training.display import format_bytes, format_seconds
from omnima.training.memory_choice import MemoryChoice, choose, kept_or_chosen
from omnima.training.precision import WORTH_IT
from omnima.training.rundir import RunDirectory, write_text

if TYPE_CHECKING:
    from omnima.config import ModelConfig
    from omnima.training.recipe import Recipe

FILE = "foresight.json"
_EVALUATIONS = 10
_PRECISIONS = ("fp32", "bf16")
# Stands for the text of a plan that has none.
_NO_TEXT = "(no text)"
_TOKENS_A_PARAMETER = 20
# What reading and tokenizing a text leaves in a process (measured: 20 to 35 MB).
_AFTER_TEXT = 25 << 20


def job_of(
    model: ModelConfig,
    config: TrainConfig,
    precision: str,
    *,
    train_tokens: int = 0,
    val_tokens: int = 0,
    rows_an_epoch: float | None = None,
) -> Job:
    """Return what a training config costs, for a model and a text of so many tokens.

    Parameters
    ----------
    model, config, precision
        What is trained and how.
    train_tokens, val_tokens
        Of both sides of the text; 0 where nobody knows.
    rows_an_epoch
        Rows of the training side; None: as many as its tokens fill.
    """
    context = config.context or model.max_position_embeddings
    step_rows = config.batch_size * config.accumulate
    steps = config.steps
    if config.epochs is not None:
        rows = rows_an_epoch if rows_an_epoch is not None else train_tokens / context
        steps = max(1, math.ceil(config.epochs * rows / step_rows))
    evaluations = 0
    if val_tokens > 0:
        evaluations = _EVALUATIONS
        if steps is not None:
            every = config.eval_every or max(1, steps // _EVALUATIONS)
            evaluations = steps // every + (steps % every > 0)
    width = 2 if model.vocab_size <= 1 << 16 else 4
    read = train_tokens if steps is None else min(train_tokens, steps * step_rows * context)
    return Job(
        model=model,
        rows=config.batch_size,
        context=context,
        accumulate=config.accumulate,
        checkpoint_layers=config.checkpoint_layers,
        precision=precision,
        optimizer=config.optimizer,
        offload=config.offload_optimizer,
        ema=config.ema_decay > 0,
        shows_average=config.averages,
        steps=steps,
        seconds=None if config.minutes is None else 60 * config.minutes,
        evaluations=evaluations,
        eval_batches=min(
            config.eval_batches, math.ceil(val_tokens / (config.batch_size * context))
        ),
        unplanned_steps=FIRST_LOOK,
        save_every=config.save_every,
        samples=config.samples,
        sample_tokens=config.sample_tokens,
        text_bytes=width * read,
    )


def job_of_recipe(
    recipe: Recipe, precision: str | None = None, machine: Machine | None = None
) -> Job:
    """Return what a recipe costs, without reading its text or training its tokenizer.

    The vocabulary and the tokens are taken from the recipe's numbers and the size of its files:
    about as many as there will be. "auto" is measured, unless a precision is given. What the recipe
    leaves to be chosen is chosen for the machine, where there is one.
    """
    from omnima.training.launch import size_of
    from omnima.training.precision import choose_precision

    if _has_text(recipe):
        text = _text_bytes(recipe)
        model = size_of(recipe, _vocabulary(recipe, text))
        tokens = text / _bytes_per_token(model.vocab_size)
    else:
        model = size_of(recipe, _given_vocabulary(recipe))
        tokens = float(_TOKENS_A_PARAMETER * model.num_parameters)
    held_out = int(tokens * recipe.val_fraction)
    chosen = precision or recipe.train.precision
    if chosen == "auto":
        context = recipe.train.context or model.max_position_embeddings
        chosen = choose_precision(model, context).precision

    def job_for(config: TrainConfig) -> Job:
        return job_of(
            model,
            config,
            chosen,
            train_tokens=int(tokens) - held_out,
            val_tokens=held_out,
        )

    choice = None if machine is None else choose(recipe.train, job_for, machine)
    return job_for(recipe.train if choice is None else choice.apply(recipe.train))


def _text_bytes(recipe: Recipe) -> int:
    from omnima import data

    source = data.open_source(list(recipe.data), field=recipe.field)
    size = source.size()
    if size is None:
        # Compressed text is about a third of its size; a source that is made up is counted.
        files = source.files()
        if not files:
            return sum(len(each.encode("utf-8")) for each in source.documents())
        size = sum((3 if f.suffix == ".gz" else 1) * f.stat().st_size for f in files)
    return int(size)


def _vocabulary(recipe: Recipe, text_bytes: int) -> int:
    from omnima import Tokenizer
    from omnima._places import hub_name
    from omnima.hub import open_tokenizer
    from omnima.tokenizers.training import choose_vocab_size

    if recipe.vocab_size is not None:
        return recipe.vocab_size
    if Path(recipe.tokenizer).exists() or hub_name(recipe.tokenizer):
        return int(open_tokenizer(recipe.tokenizer).vocab_size)
    if recipe.tokenizer in ("byte", "char"):  # a char vocabulary holds the bytes as well
        return int(Tokenizer.train(["a"], "byte").vocab_size)
    return choose_vocab_size(text_bytes)


def _bytes_per_token(vocab_size: int) -> float:
    """Bytes of English that a token stands for: 1 of bytes alone, 2.9 at 1k pieces, 4.4 at 32k."""
    return 1.0 if vocab_size < 512 else max(1.0, 0.3 * math.log2(vocab_size) - 0.1)


def require_memory(model: ModelConfig, config: TrainConfig, device: str = "cpu") -> None:
    """Refuse a run that cannot fit, before anything large is made.

    Parameters
    ----------
    model, config
        What is to be trained.
    device
        Where.

    Raises
    ------
    ConfigError
        It needs more memory than there is; says what would fit.
    """
    machine = this_machine(device=device)
    precisions = (config.precision,) if _named(config) else _PRECISIONS
    if config.memory_budget is not None or config.target_batch_tokens is not None:
        choose(config, lambda wanted: job_of(model, wanted, precisions[-1]), machine)
        return
    jobs = [job_of(model, config, precision) for precision in precisions]
    job = min(jobs, key=lambda each: sum(memory_by_part(each, machine).values()))
    _require(job, machine)


def _require(job: Job, machine: Machine) -> None:
    parts = memory_by_part(job, machine)
    needed = sum(parts.values())
    if needed <= machine.memory_bytes:
        return
    largest = sorted(parts, key=lambda part: -parts[part])[:3]
    named = ", ".join(f"{part.replace('_', ' ')} {format_bytes(parts[part])}" for part in largest)
    raise ConfigError(
        f"This run needs {format_bytes(needed)} of memory ({named}), but only "
        f"{format_bytes(machine.memory_bytes)} is available. "
        f"What would fit: {advice(job, machine)}."
    )


@dataclasses.dataclass
class Foresight:
    """The prediction of a run, made before its first step."""

    plan: Plan
    job: Job
    peak_before: int
    config: TrainConfig
    choice: MemoryChoice | None = None

    @classmethod
    def make(
        cls,
        model: Any,
        data: Any,
        config: TrainConfig,
        precision: str,
        directory: RunDirectory,
        resume: bool = False,
    ) -> Foresight:
        """Check the memory and measure the model's speed; its weights stay as they are.

        What the config leaves to be chosen is chosen here, or as it was before in a resumed run.

        Raises
        ------
        ConfigError
            The run does not fit.
        """
        device, held = model.device, Held.of(model.core)
        size = 4 * int(model.core.num_parameters())
        if held is not None:
            size += held.bytes - 4 * held.numbers
        machine = this_machine(size, device)

        each = getattr(data, "rows_each", 1)

        def job_for(wanted: TrainConfig) -> Job:
            job = job_of(
                model.config,
                # Virtual tokens take room in the model's context.
                dataclasses.replace(wanted, context=wanted.context or model.context),
                precision,
                train_tokens=data.train_tokens,
                val_tokens=data.val_tokens,
                rows_an_epoch=getattr(data, "rows_an_epoch", None),
            )
            rows, context = job.rows, job.context
            if hasattr(data, "shape"):
                rows, context = data.shape(rows, context)
            learning = model.num_trainable_parameters if model.adapters else None
            return dataclasses.replace(job, rows=rows, context=context, trained=learning, held=held)

        choice = kept_or_chosen(config, job_for, machine, directory, resume, each)
        config = config if choice is None else choice.apply(config)
        job = job_for(config)
        _require(job, machine)
        calibration = _calibration(job, machine, model, directory.path)
        found = plan(job, here=machine, calibration=calibration)
        made = cls(found, job, peak_memory(), config, choice)
        forget_peak(machine.device)
        return made

    def sentence(self) -> str:
        """Say the prediction in a line."""
        rate = f"{self.plan.tokens_per_s:,.0f} tokens/s"
        length = "" if self.plan.seconds is None else f", {format_seconds(self.plan.seconds)}"
        said = f"Foresight: {format_bytes(self.plan.memory_bytes)} of memory, {rate}{length}."
        return said if self.choice is None else f"{self.choice.sentence()} {said}"

    def compare(self, tokens: int, seconds: float, peak: int) -> dict[str, Any]:
        """Return prediction, what happened, and the errors as shares of what happened.

        A positive error means that more was predicted than needed. The time is that of the tokens
        that were trained, so that a budget in minutes is judged too.
        """
        predicted = tokens / self.plan.tokens_per_s
        return {
            "predicted": {
                "memory_bytes": self.plan.memory_bytes,
                "memory_by_part": self.plan.memory_by_part,
                "tokens_per_s": round(self.plan.tokens_per_s, 1),
                "seconds": None if self.plan.seconds is None else round(self.plan.seconds, 3),
            },
            "actual": {
                "memory_bytes": peak,
                "tokens_per_s": round(tokens / max(seconds, 1e-9), 1),
                "seconds": round(seconds, 3),
            },
            "errors": {
                "memory": round(self.plan.memory_bytes / max(peak, 1) - 1, 4),
                "time": round(predicted / max(seconds, 1e-9) - 1, 4),
            },
        }

    def keep(self, directory: Path, tokens: int, seconds: float) -> dict[str, Any]:
        """Write the comparison into the run's directory; the peak is that since the prediction."""
        result = self.compare(tokens, seconds, peak_memory(self.plan.machine.device))
        write_text(directory / FILE, json.dumps(result, indent=2) + "\n")
        return result


def _calibration(job: Job, machine: Machine, model: Any, directory: Path) -> Calibration:
    """A reward model is measured as the one for tokens that it is beside its head."""
    from omnima.planning import calibrate

    if not model.config.reward_head:
        return calibrate(job, machine, decoder=model.core, directory=directory)
    alike = dataclasses.replace(job, model=job.model.replace(reward_head=False))
    return calibrate(alike, machine, directory=directory)


def recipe_to_plan(
    flags: Mapping[str, Any], sets: Sequence[str] = (), config: str | Path | None = None
) -> Recipe:
    """Read a recipe as `omnima train` does; text and budget may be left out.

    Without a budget one epoch is planned. Without a text the vocabulary must be given, and an epoch
    has twenty tokens for each parameter.
    """
    from omnima.training.recipe import Recipe

    recipe = Recipe.from_layers(flags, sets, config, defaults={"data": [_NO_TEXT], "epochs": 1})
    if not _has_text(recipe):
        _given_vocabulary(recipe)
    return recipe


def _given_vocabulary(recipe: Recipe) -> int:
    """Return the vocabulary of a recipe without a text: its own, or that of a fixed preset."""
    from omnima.config import PRESETS

    known = recipe.vocab_size or PRESETS.get(recipe.preset or "", {}).get("vocab_size")
    if known is None:
        raise ConfigError(
            "No text and no vocabulary: give --data, from which it is chosen, or --vocab-size 8192."
        )
    return int(known)


def ask(recipe: Recipe, machine_file: str | None) -> tuple[Job, Machine, Machine | None]:
    """Return what a recipe asks to be planned: the job, this machine, and another where named.

    This machine's rates are measured where they are needed to carry its speed to another.
    """
    from omnima.planning import read_machine, with_rates

    check_device(recipe.device)
    _load_what_a_run_loads()
    here = this_machine(device=recipe.device)
    here = dataclasses.replace(here, runtime_bytes=here.runtime_bytes + _AFTER_TEXT)
    if machine_file is None:
        return job_of_recipe(recipe, machine=here), here, None
    there = read_machine(machine_file)
    precision = recipe.train.precision
    if precision == "auto":
        gain = there.rates["bf16"] / there.rates["fp32"]
        precision = "bf16" if gain >= WORTH_IT else "fp32"
    return job_of_recipe(recipe, precision, there), with_rates(here), there


def _load_what_a_run_loads() -> None:
    """Import the libraries of a run, which are part of what it holds before there is a model."""
    import sentencepiece  # noqa: F401

    import omnima.generation
    import omnima.hub
    import omnima.training.launch
    import omnima.training.loop  # noqa: F401


def forecast(
    runs: Sequence[str],
    flags: Mapping[str, Any],
    sets: Sequence[str] = (),
    config: str | Path | None = None,
) -> dict[str, Any]:
    """Predict the loss of a run from finished smaller ones.

    The run is the one that the flags describe, as for a plan; without a size among them it is ten
    times the largest of the finished runs, on ten times its tokens.
    """
    from omnima.planning.scaling import as_dict, fit_runs, read_run

    fit = fit_runs([read_run(each) for each in runs])
    largest = max(fit.points, key=lambda each: each.parameters * each.tokens)
    parameters, tokens = 10 * largest.parameters, 10 * largest.tokens
    if any(flags.get(key) is not None for key in ("preset", "params")) or config or sets:
        recipe = recipe_to_plan(flags, sets, config)
        job = job_of_recipe(recipe, recipe.train.precision if _named(recipe.train) else "fp32")
        parameters = job.model.num_parameters
        if job.steps is None:
            raise ConfigError(
                "A forecast needs the number of tokens: give --steps or --epochs, not --minutes."
            )
        tokens = job.steps * job.step_tokens
    return as_dict(fit, fit.predict(parameters, tokens))


def _named(config: TrainConfig) -> bool:
    return config.precision != "auto"


def _has_text(recipe: Recipe) -> bool:
    return recipe.data != (_NO_TEXT,)
