"""The loop of a run: steps, records, evaluations and checkpoints, from any saved step on."""

from __future__ import annotations

import dataclasses
import json
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima.errors import CallbackError, CheckpointError, NonFiniteError
from omnima.evaluation import Score, score
from omnima.training.budget import Budget
from omnima.training.card import facts_of, results_of
from omnima.training.config import TrainConfig
from omnima.training.display import Display
from omnima.training.early_stop import EarlyStop
from omnima.training.nonfinite import explain, save_batches
from omnima.training.objective import objective_of, training_loader
from omnima.training.observers import Observers
from omnima.training.records import Records
from omnima.training.run import perplexity
from omnima.training.rundir import RunDirectory
from omnima.training.shortage import divided, is_shortage
from omnima.training.signals import Interrupts, RunInterrupted
from omnima.training.stepper import Stepper

if TYPE_CHECKING:
    from omnima.hub import Card

_EVALUATIONS = 10
_REST_BETWEEN_SAVES = 30.0  # seconds
_LAST_EVALUATION = 10  # times eval_batches


def peak_memory() -> int:
    """Return the most memory this process has held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def order_of_sums() -> dict[str, Any]:
    """Return what the last bits of a step depend on, beside the run itself."""
    import torch

    from omnima import _core

    return {"threads": torch.get_num_threads(), "kernels": str(_core.cpu_level())}


class Loop:
    """Trains until the budget is spent.

    Everything that decides the next weights is in a checkpoint: weights, moments, step, position of
    the loader, plan and time spent. A run stopped anywhere and resumed ends with the same bytes.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        data: Any,
        config: TrainConfig,
        precision: str,
        directory: RunDirectory,
        display: Display,
        observers: Observers,
        curriculum: Any = None,
        sources: Sequence[str] = (),
    ) -> None:
        from omnima.training.checkpoint import CheckpointStore

        self.model, self.tokenizer, self.data, self.config = model, tokenizer, data, config
        self.display, self.directory, self.precision = display, directory, precision
        self.observers, self.curriculum, self.sources = observers, curriculum, sources
        self.context = config.context or model.context
        self.objective = objective_of(config, tokenizer)
        self.loader = self._training_loader()
        per_epoch = self.loader.batches_per_epoch / config.accumulate
        self.budget = Budget.of(config, per_epoch)
        self.of_data: dict[str, Any] = getattr(data, "step_options", {})
        self.stepper = Stepper(model, config, precision, self.budget, self.of_data)
        self.store = CheckpointStore(
            directory.path, config.keep_last, config.keep_best, warn=display.note
        )
        self.early_stop = EarlyStop.of(config, data.val_tokens)
        self.records: Records | None = None
        self.elapsed = 0.0
        self.tokens = 0
        self.targets = 0  # tokens that were learned
        self.floor: float | None = data.entropy_floor if self.objective is None else None
        self.val_loss: float | None = None
        self.evaluated_at = -1
        self.saved_at = -1
        self.saved_time = time.monotonic()

    def _training_loader(self) -> Any:
        rows, time_steps = self.config.batch_size, self.context
        return training_loader(
            self.data, self.config, self.tokenizer, rows, time_steps, self.curriculum
        )

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.stepper.step.step)

    def restore(self) -> bool:
        """Continue from the newest valid checkpoint; False when there is none."""
        found = self.store.latest()
        if found is None:
            self.display.note("Nothing was saved yet: starting from the beginning.")
            return False
        state_path = Path(found.path) / "state.json"
        try:
            state = json.loads(state_path.read_text(encoding="utf-8"))
            number, position = int(state["step"]), int(state["position"])
            self.elapsed, self.tokens = float(state["elapsed"]), int(state["tokens"])
            self.budget = Budget(**state["budget"])
            self.targets = int(state.get("targets", 0))
            rows = int(state.get("batch_size", self.config.batch_size))
            accumulate = int(state.get("accumulate", self.config.accumulate))
            self.early_stop.load(state.get("early_stop"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{state_path} is not the state of a run ({error!r}). Remove that checkpoint to "
                "continue from the one before it."
            ) from error
        # Other micro-batches than the recipe's, where memory ran out before.
        self.config = dataclasses.replace(self.config, batch_size=rows, accumulate=accumulate)
        self.loader = self._training_loader()
        del self.stepper  # its state makes room for that of the new one
        self.stepper = Stepper(self.model, self.config, self.precision, self.budget, self.of_data)
        self.stepper.restore(Path(found.path), number)
        self.loader.seek(position)
        self.val_loss = state["val_loss"]
        self.saved_at = number
        self.observers.load_state_dict(state.get("observers", {}), number)
        before, now = state.get("machine"), order_of_sums()
        if before not in (None, now):
            self.display.note(
                f"Saved with {before}, continuing with {now}: sums are taken in another order, so "
                "the last bits may differ from those of a run that was never stopped."
            )
        self.display.note(f"Continuing from step {number}.")
        return True

    def run(self, interrupts: Interrupts, stop_after: int | None = None) -> None:
        """Train to the end of the budget, or to `stop_after` steps, and save there."""
        self.records = Records(self.directory.metrics, keep_until=self.step)
        self.observers.state.log_history = self.records.history
        control = self.observers.control
        try:
            self.observers.begin(self._planned())
            while not (
                self.budget.done(self.step, self.elapsed)
                or control.should_stop
                or self.early_stop.reached
            ):
                if stop_after is not None and self.step >= stop_after:
                    break
                self._one_step()
                if interrupts.asked:
                    self.save()
                    raise RunInterrupted(
                        f"Stopped at step {self.step} and saved. Continue with --resume."
                    )
            if self.early_stop.reached:
                self.display.note(self.early_stop.reason(self.step))
            if self.saved_at != self.step:
                self.save()
        except CallbackError as error:
            raise self._saved_after(error) from error.__cause__
        finally:
            self.observers.steps_over()
            self.records.close()
            self.store.close()

    def _saved_after(self, error: CallbackError) -> CallbackError:
        if self.step == 0:
            return CallbackError(f"{error} No step was done yet, so nothing is lost.")
        if self.saved_at != self.step:
            self._write_checkpoint(rescue=True)
        return CallbackError(
            f"{error} The run is saved at step {self.step}: mend the callback, or leave it out, "
            "and continue with --resume."
        )

    def _one_step(self) -> None:
        started = time.perf_counter()
        self.observers.step_begin(self._epoch())
        result, seconds = self._update()
        self.tokens += result.input_tokens
        self.targets += result.tokens
        self.observers.step_end(
            self.step, float(result.loss), self.tokens, self.elapsed, self._planned()
        )
        wanted = self.observers.control
        due = self._is_due(self.config.eval_every) or wanted.should_evaluate
        evaluated = due and self._evaluate()
        self.elapsed += time.perf_counter() - started
        self._report(result, seconds, evaluated)
        started = time.perf_counter()
        with self.observers.pause():
            self.observers.sample()
            if self._must_save() or wanted.should_save:
                self.save()
        self.observers.step_over(self._epoch())
        self.elapsed += time.perf_counter() - started
        if self.budget.replan(self.step, self.elapsed, seconds):
            self.stepper.replan(self.config, self.budget)

    def _update(self) -> tuple[Any, float]:
        """Do the core's step; return its result and its seconds."""
        position = self.loader.position
        self.observers.before_update(self.step + 1)
        started = time.perf_counter()
        try:
            result = self._run_step(position)
        except NonFiniteError as error:
            raise self._keep_evidence(error, position) from error
        seconds = time.perf_counter() - started
        self.observers.updated(self.step)
        return result, seconds

    def _epoch(self) -> float:
        return float(self.loader.position) / float(self.loader.batches_per_epoch)

    def _planned(self) -> int | None:
        """Return the steps of the whole run; None while a budget on the clock is not planned."""
        known = self.budget.planned_at or not self.budget.seconds
        return self.budget.total_steps if known else None

    def _run_step(self, position: int) -> Any:
        """Run one step; where memory runs out, with smaller micro-batches from then on."""
        while True:
            if self.budget.seconds is not None:
                self.stepper.step.set_progress(self.budget.fraction(self.step, self.elapsed))
            try:
                return self.stepper.step.run(self.loader)
            except (MemoryError, RuntimeError) as error:
                if not is_shortage(error):
                    raise
                smaller, times = divided(self.config)
                reason = " ".join(str(error).split())[:120] or type(error).__name__
            position *= times
            self._take_shape(smaller, position)
            self.display.note(
                f"Memory ran out at step {self.step + 1} ({reason}): micro-batches of "
                f"{smaller.batch_size} rows from now on, {smaller.accumulate} a step, so that the "
                f"step stays one of {smaller.batch_size * smaller.accumulate} rows."
            )

    def _take_shape(self, config: TrainConfig, position: int) -> None:
        """Go on with other micro-batches, at a position counted in them."""
        self.config = config
        self.loader = self._training_loader()
        self.loader.seek(position)
        self.stepper.replan(config, self.budget)

    def _is_due(self, every: int) -> bool:
        total = self.budget.total_steps
        interval = every or max(1, total // _EVALUATIONS)
        return self.step % interval == 0 or self.step >= total

    def _must_save(self) -> bool:
        best_now = self.evaluated_at == self.step and self.early_stop.at_best
        if self.config.restore_best and best_now:
            return True
        if self.config.save_every:
            return self.step % self.config.save_every == 0
        # When evaluating, but not at every breath of a short run: each save flushes the disk.
        rested = time.monotonic() - self.saved_time >= _REST_BETWEEN_SAVES
        return rested and self._is_due(self.config.eval_every)

    def _evaluate(self) -> bool:
        if self.data.val_tokens < 1:
            return False
        with self.observers.pause():
            self.val_loss = self.score(self.config.eval_batches).loss
        self.evaluated_at = self.step
        self.early_stop.take_in(self.val_loss)
        self.observers.evaluated(
            {"eval_loss": self.val_loss, "eval_perplexity": perplexity(self.val_loss)}
        )
        return True

    def take_best(self) -> int:
        """Go back to the best checkpoint where the config asks for it; return the step there."""
        found = self.store.best() if self.config.restore_best else None
        if found is None or found.step == self.step:
            return self.step
        self.stepper.restore(Path(found.path), found.step)
        self.display.note(
            f"The model is that of step {found.step}, with the best held-out loss, "
            f"{self.early_stop.best:.4f}."
        )
        return int(found.step)

    def score(self, batches: int) -> Score:
        """Measure the validation split on at most so many batches."""
        return score(
            self.stepper.step,
            self.data,
            "val",
            self.config.batch_size,
            self.context,
            batches,
            self.objective,
        )

    @property
    def last_batches(self) -> int:
        """Batches that the last evaluation reads at most."""
        return self.config.eval_batches * _LAST_EVALUATION

    def final_score(self) -> Score | None:
        """Measure the validation split at the end, on more of it; None without one."""
        return None if self.data.val_tokens < 1 else self.score(self.last_batches)

    def _report(self, result: Any, seconds: float, evaluated: bool) -> None:
        assert self.records is not None
        speed = result.input_tokens / max(seconds, 1e-9)
        fraction = self.budget.fraction(self.step, self.elapsed)
        asked = self.observers.want_record
        if self.step % self.config.log_every == 0 or evaluated or asked or fraction >= 1.0:
            record = {
                "step": self.step,
                "loss": float(result.loss),
                "val_loss": self.val_loss if evaluated else None,
                "lr": float(result.lr),
                "grad_norm": float(result.grad_norm),
                **self._special_figures(result),
                "tokens": self.tokens,
                "tokens_per_s": round(speed, 1),
                "seconds": round(self.elapsed, 3),
                **self.observers.measurements(),
            }
            self.records.add(record)
            self.observers.logged(record)
        state = {
            "step": self.step,
            "of": self._planned(),
            "loss": float(result.loss),
            "val_loss": self.val_loss,
            "floor": self.floor,
            "tokens_per_s": speed,
            "memory": peak_memory(),
        }
        self.display.show(state, fraction, self.budget.left(self.step, self.elapsed))

    def _special_figures(self, result: Any) -> dict[str, Any]:
        """With experts the losses of their routers, no part of the loss; in fp16 its factor; of
        pairs what they say of the rewards.
        """
        names: tuple[str, ...] = ()
        if self.model.config.num_experts:
            names += ("balance_loss", "router_z_loss")
        if self.precision == "fp16":
            names += ("loss_scale", "skipped")
        if "preference" in self.of_data:
            names += ("reward_accuracy", "reward_margin")
        return {name: getattr(result, name) for name in names}

    def _keep_evidence(self, error: NonFiniteError, position: int) -> NonFiniteError:
        number = self.step + 1
        folder = self.directory.path / f"nonfinite-step-{number}"
        batch: Path | OSError
        try:
            pulled = self.loader.position - position
            batch = save_batches(self.loader, position, pulled, folder)
        except OSError as failure:
            batch = failure
        return explain(error, number, batch, self.config.lr, self.precision)

    def save(self) -> None:
        """Write a checkpoint; a failing disk leaves the ones before as they were."""
        self.observers.saved(self._write_checkpoint())

    def _write_checkpoint(self, rescue: bool = False) -> Path:
        step, budget = self.step, self.budget
        state = {
            "step": step,
            "position": self.loader.position,
            "seed": self.config.seed,
            "batch_size": self.config.batch_size,
            "accumulate": self.config.accumulate,
            "tokens": self.tokens,
            "targets": self.targets,
            "elapsed": self.elapsed,
            "val_loss": self.val_loss,
            "precision": self.precision,
            "data_version": self.data.version,
            "machine": order_of_sums(),
            "observers": self.observers.state_dict(rescue=rescue),
            "early_stop": self.early_stop.values(),
            "budget": {
                "total_steps": budget.total_steps,
                "seconds": budget.seconds,
                "planned_at": budget.planned_at,
                "step_seconds": budget.step_seconds[-200:],
            },
        }

        from omnima import hub

        def write(directory: Path) -> None:
            self.stepper.save(directory, self.model_values(), self.tokenizer)
            if self.stepper.adapter is None:
                hub.write_card(directory / "model", self.card(self.val_loss))
            text = json.dumps(state, indent=2)
            (directory / "state.json").write_text(text + "\n", encoding="utf-8")

        # The best is chosen by figures of its own weights only, never by those of an earlier step.
        metric = self.val_loss if self.evaluated_at == step else None
        written = self.store.save(step, write, {"precision": self.precision}, metric)
        self.saved_at = step
        self.saved_time = time.monotonic()
        return Path(written.path)

    def card(self, val_loss: float | None) -> Card:
        """Return the card of the model as it is now."""
        from omnima import hub

        return hub.card_of(
            self.model_values(),
            int(self.model.core.num_parameters()),
            self.tokenizer,
            {
                "Results": results_of(self.step, self.tokens, self.train_loss(), val_loss),
                **facts_of(self.data, self.config, self.precision, self.sources),
            },
            active=self.model.num_active_parameters,
            license=self.config.license,
            origin=self.model.origin,
        )

    def model_values(self) -> dict[str, Any]:
        """Return the model's config by name."""
        return dataclasses.asdict(self.model.config)

    def train_loss(self) -> float:
        """Return the mean training loss of the last steps: a twentieth of the run, 50 at most."""
        assert self.records is not None
        losses = [each["loss"] for each in self.records.history if each.get("loss") is not None]
        count = max(1, min(50, len(losses) // 20))
        return statistics.fmean(losses[-count:]) if losses else float("nan")
