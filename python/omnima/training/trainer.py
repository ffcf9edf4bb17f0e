"""`Trainer(model, tokenizer, data, config).fit()`: from a fresh model and text to a finished run
on disk.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnima._device import check_offload
from omnima.errors import ConfigError, OmnimaError
from omnima.training.callbacks.handler import named
from omnima.training.callbacks.samples import write_samples
from omnima.training.callbacks.trackers import make_trackers
from omnima.training.config import TrainConfig
from omnima.training.curriculum import Scores, curriculum_of, document_scores, fingerprint
from omnima.training.display import Display
from omnima.training.foresight import Foresight
from omnima.training.loop import Loop, peak_memory
from omnima.training.objective import check_attention
from omnima.training.observers import Observers
from omnima.training.precision import PrecisionChoice, choose_precision
from omnima.training.provenance import record_provenance
from omnima.training.run import Run, perplexity
from omnima.training.rundir import RunDirectory, write_text
from omnima.training.signals import Interrupts, RunInterrupted


class Trainer:
    """Trains a model on prepared text.

    Parameters
    ----------
    model
        An `omnima.Model`; its weights are changed in place.
    tokenizer
        The `omnima.Tokenizer` of the text; saved with the model.
    data
        What `omnima.data.prepare` returns, or a source that `omnima.data.open_source` takes (it is
        then prepared into the run's directory).
    config
        A `TrainConfig`, or a dict of its fields.
    recipe
        What to write as config.yaml; the training config when None.
    directory
        A run directory that is already claimed; else `config.out` is claimed by `fit`.
    display
        Where progress goes; standard error when None.
    callbacks
        Objects with methods named after events, see `omnima.training.callbacks.Callback`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        data: Any,
        config: TrainConfig | Mapping[str, Any],
        *,
        recipe: Mapping[str, Any] | None = None,
        directory: RunDirectory | None = None,
        display: Display | None = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self.model, self.tokenizer, self.data = model, tokenizer, data
        self.config = (
            config if isinstance(config, TrainConfig) else TrainConfig.from_values(dict(config))
        )
        self.recipe = recipe
        self.display = display if display is not None else Display()
        self.callbacks = (*make_trackers(self.config.track), *named(callbacks).values())
        self._directory = directory
        self._check_sizes()
        self._check_budget()
        if model.tokenizer is None:
            model.tokenizer = tokenizer  # so that model.generate("text") works after fit()

    def _check_budget(self) -> None:
        learning = self.model.core.learning_adapter
        shrinks = learning is not None and self.model.adapters[learning].kind == "adalora"
        if shrinks and self.config.minutes is not None:
            raise ConfigError(
                f"minutes={self.config.minutes:g} leaves open how many steps there will be, but "
                "adalora moves its budget of ranks by them: say steps or epochs."
            )

    def _check_sizes(self) -> None:
        limit = self.model.context
        context = self.config.context
        if context is not None and context > limit:
            raise ConfigError(
                f"context is {context}, but the model's context is {limit} "
                "(max_position_embeddings). Train on shorter rows or make the model's "
                "context longer."
            )
        ids, known = self.tokenizer.vocab_size, self.model.config.vocab_size
        if ids > known:
            raise ConfigError(
                f"The tokenizer has {ids} ids, but the model's vocab_size is {known}. "
                f"Build the model "
                "with vocab_size=tokenizer.vocab_size."
            )
        first = self.config.train_rows_from
        if first is not None and first >= known:
            raise ConfigError(
                f"train_rows_from is {first}, but the model's last token id is {known - 1}: "
                "nothing would be trained. Give the first id that model.add_tokens returned."
            )
        check_attention(self.config, self.model.config.causal)
        if self.config.samples_every and not self.model.config.causal:
            raise ConfigError(
                "samples_every asks for texts, but a model with causal false cannot write: set "
                "samples_every=0."
            )
        if (self.config.samples or self.config.samples_every) and self._prompt_tokens() >= limit:
            raise ConfigError(
                f"sample_prompt has {self._prompt_tokens()} tokens, but the model's context is "
                f"{limit}: no sample could be written. Shorten it, or set samples=0 and "
                "samples_every=0."
            )

    def _prompt_tokens(self) -> int:
        from omnima.generation.prompts import encode

        return len(encode(self.config.sample_prompt, self.tokenizer))

    def fit(
        self,
        *,
        resume: bool = False,
        overwrite: bool = False,
        stop_after: int | None = None,
        like: tuple[RunDirectory, str] | None = None,
    ) -> Run:
        """Train to the end of the budget and write the model, its scores, samples and loss curve.

        Parameters
        ----------
        resume
            Continue the run in the directory from its newest valid checkpoint.
        overwrite
            Replace a run that is already there.
        stop_after
            Stop and save after this many steps, as if interrupted there; the run stays unfinished.
        like
            A run whose model, tokenizer and tokens these must be, and the names of its files.

        Raises
        ------
        ConfigError
            The directory holds another run, or the resumed run was started differently.
        NonFiniteError
            A loss or gradient is not finite; the weights are as before the step.
        CallbackError
            A callback raised; the message names it, and the run is saved.
        RunInterrupted
            Ctrl-C or SIGTERM; the state was saved first.
        """
        directory = self._directory or self._claim(resume, overwrite)
        try:
            if resume and directory.summary.exists():
                self.display.note(f"The run in {directory.path} is already finished.")
                return Run.load(directory.path)
            return self._fit(directory, resume, stop_after, like)
        finally:
            directory.release()

    def _claim(self, resume: bool, overwrite: bool) -> RunDirectory:
        out = self.config.out or time.strftime("runs/%Y-%m-%d-%H%M%S")
        directory = RunDirectory(out)
        values = self.recipe if self.recipe is not None else self.config.values()
        directory.claim(values, self.config.identity(), resume=resume, overwrite=overwrite)
        return directory

    def _fit(
        self,
        directory: RunDirectory,
        resume: bool,
        stop_after: int | None,
        like: tuple[RunDirectory, str] | None,
    ) -> Run:
        # A recipe's was checked before its text was read, a script's was not.
        check_offload(self.config.offload_optimizer, str(self.model.device))
        data = self._prepared(directory)
        scores = self._scores(data)
        precision = self._precision(directory, resume)
        facts = self._facts(data, scores)
        if resume:
            directory.check_identity("facts", facts)
        if like is not None:
            self._check_repeated(*like, facts)
        directory.remember("facts", facts)
        directory.remember("data_version", data.version)
        foresight = Foresight.make(self.model, data, self.config, precision, directory, resume)
        config = foresight.config  # with what was left to be chosen
        self.display.note(foresight.sentence())
        with self.display, Interrupts() as interrupts:
            observers = Observers(
                self.callbacks, config, directory, self.model, self.tokenizer, self.display
            )
            loop = Loop(
                self.model,
                self.tokenizer,
                data,
                config,
                precision,
                directory,
                self.display,
                observers,
                curriculum_of(config, scores),
                (self.recipe or {}).get("data", ()),
            )
            if scores is not None:
                self.display.note(_order(config, loop))
            if resume:
                loop.restore()
            self._begin(loop, directory)
            record_provenance(directory, config, self.model, self.tokenizer, data, loop.step)
            try:
                loop.run(interrupts, stop_after)
                if stop_after is not None and loop.step < loop.budget.total_steps:
                    observers.failed(RunInterrupted(f"Stopped after {loop.step} steps."))
                    return Run(directory.path, _history(loop), self._summary(loop, directory))
                run = self._finish(loop, directory, foresight)
                observers.finished(run.summary)
                return run
            except BaseException as error:
                observers.failed(error)
                raise
            finally:
                observers.close()

    def _begin(self, loop: Loop, directory: RunDirectory) -> None:
        """What is to be done before the first step of this session, the run being restored."""

    def _conclude(self, loop: Loop, directory: RunDirectory, summary: dict[str, Any]) -> None:
        """What is to be done with the model in its last weights, before the run counts as done."""

    def _facts(self, data: Any, scores: Scores | None) -> dict[str, Any]:
        """What must be the same when a run goes on, or is repeated."""
        shape = dataclasses.asdict(self.model.config)
        facts = {
            **{f"model.{key}": value for key, value in shape.items()},
            "tokenizer": self.tokenizer.fingerprint,
            "training tokens": data.train_tokens,
            "validation tokens": data.val_tokens,
            "tokens": data.fingerprint,
        }
        learning = self.model.core.learning_adapter
        if learning is not None:
            values = dataclasses.asdict(self.model.adapters[learning])
            facts |= {f"adapter.{key}": value for key, value in values.items()}
            parameters = self.model.adapter_parameters(learning)
            facts["adapter.parameters"] = [[key, *each.shape] for key, each in parameters]
        return facts if scores is None else {**facts, "curriculum": fingerprint(scores)}

    def _check_repeated(self, run: RunDirectory, text: str, facts: dict[str, Any]) -> None:
        """Refuse to repeat a run from another model or text; `text` names that run's files."""
        changed = run.differences("facts", facts)
        if not changed:
            return
        reason = f"Its text was {text or 'made up'}; provenance.json holds the hashes of its files."
        if all(each.startswith("curriculum: ") for each in changed):
            reason = (
                f"The text is the same, but {self.config.curriculum} gives its documents other "
                "scores than it did there."
            )
        raise ConfigError(
            f"The run in {run.path} cannot be repeated: {'; '.join(changed)}. {reason}"
        )

    def _prepared(self, directory: RunDirectory) -> Any:
        if hasattr(self.data, "loader"):
            return self.data
        from omnima import data

        source = self.data
        if not hasattr(source, "documents"):
            source = data.open_source(source)
        with self.display:
            return data.prepare(
                source,
                self.tokenizer,
                directory.data,
                seed=self.config.seed,
                progress=self.display.preparing,
            )

    def _scores(self, data: Any) -> Scores | None:
        """Return how hard each training document is; None without a curriculum."""
        if self.config.curriculum is None:
            return None
        device, show = str(self.model.device), self.display.scoring
        with self.display:
            return document_scores(self.config.curriculum, data, self.tokenizer, device, show)

    def _precision(self, directory: RunDirectory, resume: bool) -> str:
        path = directory.precision
        if self.config.precision != "auto":
            choice = PrecisionChoice.asked(self.config.precision)
        elif resume and path.exists():
            choice = PrecisionChoice.read(path)
        else:
            context = self.config.context or self.model.context
            choice = choose_precision(self.model.config, context, self.model.device)
        write_text(path, json.dumps(dataclasses.asdict(choice), indent=2) + "\n")
        self.display.note(choice.reason)
        return choice.precision

    def _finish(self, loop: Loop, directory: RunDirectory, foresight: Foresight) -> Run:
        from omnima import hub

        steps = loop.step
        best = loop.take_best()
        summary = {**self._summary(loop, directory), "steps": steps}
        if self.config.restore_best:
            summary["best_step"] = best
        foresight.keep(directory.path, loop.tokens, loop.elapsed)
        summary["peak_memory_bytes"] = max(foresight.peak_before, summary["peak_memory_bytes"])
        loop.stepper.step.show_averaged_weights(True)  # training is over
        if loop.stepper.adapter is not None:
            self.model.save_adapter(directory.path, loop.stepper.adapter)
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(directory.path)
        else:
            hub.save_pretrained(
                loop.model_values(),
                self.model.core.named_parameters(),
                directory.path,
                tokenizer=self.tokenizer,
            )
        adapted = loop.stepper.adapter is not None  # its card would be that of the whole model
        if not adapted and not hub.write_card(directory.path, loop.card(summary["val_loss"])):
            self.display.note(f"{directory.path / 'README.md'} is another's and stays as it is.")
        samples = self._write_samples(directory)
        self._conclude(loop, directory, summary)
        run = Run(directory.path, _history(loop), summary, samples)
        self._draw(run)
        write_text(directory.summary, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        return run

    def _summary(self, loop: Loop, directory: RunDirectory) -> dict[str, Any]:
        final = loop.final_score()
        return {
            "steps": loop.step,
            "tokens": loop.tokens,
            "seconds": round(loop.elapsed, 3),
            "tokens_per_s": round(loop.tokens / max(loop.elapsed, 1e-9), 1),
            "train_loss": loop.train_loss(),
            "val_loss": final.loss if final else None,
            "val_perplexity": perplexity(final.loss) if final else None,
            "val_bits_per_byte": final.bits_per_byte if final and final.bytes else None,
            "entropy_floor": loop.floor,
            "parameters": int(self.model.core.num_parameters()),
            "peak_memory_bytes": peak_memory(),
            "checkpoint": str(directory.path),
        }

    def _write_samples(self, directory: RunDirectory) -> tuple[str, ...]:
        if not self.config.samples:
            return ()
        if not self.model.config.causal:
            self.display.note("No samples: a model with causal false fills masks and cannot write.")
            return ()
        path = directory.path / "samples.txt"
        return write_samples(self.model, self.tokenizer, self.config, self.config.samples, path)

    def _draw(self, run: Run) -> None:
        try:
            run.plot(run.path / "loss.png")
        except OmnimaError as error:  # drawing is an extra: the run is whole without it
            self.display.note(f"No loss curve: {error}")


def _order(config: TrainConfig, loop: Loop) -> str:
    steps = config.curriculum_steps or max(1, loop.budget.total_steps // 2)
    return (
        f"Curriculum by {config.curriculum}: {config.curriculum_start:.0%} of "
        f"{loop.loader.rows_per_epoch:,} rows at first ({config.curriculum_pacing}), all of them "
        f"after {steps:,} steps."
    )


def _history(loop: Loop) -> list[dict[str, Any]]:
    return list(loop.records.history) if loop.records is not None else []


def out_of(config: TrainConfig) -> Path:
    """Return the directory of a config, which must name one."""
    if config.out is None:
        raise ConfigError(
            "No output directory: say where the model goes, for example --out my-model."
        )
    return Path(config.out)
