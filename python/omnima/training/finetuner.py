"""A trainer that begins with a trained model, measures it before and after, and lets it answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from omnima.errors import OmnimaError
from omnima.training.curriculum import Scores
from omnima.training.finetune_report import PAGE, report_of, tables_of, write_report
from omnima.training.held_out_answers import answers_of, questions_of, texts_of
from omnima.training.loop import Loop
from omnima.training.preference_losses import WITH_REFERENCE, preference_quality, references_of
from omnima.training.run import perplexity
from omnima.training.rundir import RunDirectory
from omnima.training.trainer import Trainer

if TYPE_CHECKING:
    from omnima.model import Model

_REFERENCE = "reference.safetensors"  # what the model said of the answers before it was trained
_BEFORE = "before"  # what a run's directory remembers of the model it began with


class FineTuner(Trainer):
    """A trainer that begins with a trained model, and measures it before and after."""

    def _facts(self, data: Any, scores: Scores | None) -> dict[str, Any]:
        facts = {**super()._facts(data, scores), "base": fingerprint_of(self.model)}
        if self.teacher is not None:
            facts["teacher"] = fingerprint_of(self.teacher)
        return facts

    #: The larger model that a run learns from, once it is known how the run computes.
    teacher: Model | None = None
    #: Opens it for a precision.
    open_teacher: Callable[[str], Model] | None = None

    def _precision(self, directory: RunDirectory, resume: bool) -> str:
        precision = super()._precision(directory, resume)
        if self.open_teacher is not None:
            self.teacher = self.open_teacher(precision)
        return precision

    def _begin(self, loop: Loop, directory: RunDirectory) -> None:
        if self.teacher is not None:
            loop.stepper.step.set_teacher(self.teacher.core)
        if loop.of_data.get("preference") in WITH_REFERENCE:
            references_of(loop, directory.path / _REFERENCE)
        if directory.recall(_BEFORE) is None or loop.step == 0:
            score = loop.final_score()
            found = self._measured(loop, None if score is None else score.loss)
            directory.remember(_BEFORE, found)
        loss = (directory.recall(_BEFORE) or {})["loss"]
        if loss is not None:
            self.display.note(f"Held-out loss before: {loss:.4f}.")

    def _measured(self, loop: Loop, loss: float | None) -> dict[str, Any]:
        """What held-out samples say of the model as it is now, by the names of the report."""
        if loss is None:
            return {"loss": None}
        found: dict[str, Any] = {"loss": loss}
        if self._said("objective") in ("sft", "lm"):
            found["perplexity"] = perplexity(loss)
        if "preference" in loop.of_data:
            found |= preference_quality(loop)
        return {**found, "answers": self._answers(loop)}

    def _answers(self, loop: Loop) -> list[dict[str, str]]:
        """Let the model answer some held-out samples; none where it cannot write."""
        count, most = self._said("answers"), self._said("answer_tokens")
        if not count or self.model.config.reward_head:
            return []
        questions = questions_of(loop.data, count, self.model.context)
        try:
            written = answers_of(self.model, self.tokenizer, questions, most)
        except OmnimaError as error:  # an extra: the run goes on without it
            self.display.note(f"The report is without answers: {error}")
            return []
        texts = [texts_of(self.tokenizer, each, most) for each in questions]
        return [
            {"prompt": asked, "reference": reference, "answer": answer}
            for (asked, reference), answer in zip(texts, written)
        ]

    def _said(self, key: str) -> Any:
        """The value of a key of the recipe."""
        return (self.recipe or {})[key]

    def _conclude(self, loop: Loop, directory: RunDirectory, summary: dict[str, Any]) -> None:
        before = directory.recall(_BEFORE) or {}
        after = self._measured(loop, summary["loss_after"])
        texts = self._said("objective") == "lm"
        held_out = loop.data.val_documents if texts else loop.data.val_samples
        report = report_of(self.recipe or {}, summary, held_out, before, after)
        write_report(report, directory.path)
        self.display.tables(tables_of(report))
        summary["report"] = str(directory.path / PAGE)

    def _summary(self, loop: Loop, directory: RunDirectory) -> dict[str, Any]:
        summary = super()._summary(loop, directory)
        return {
            **summary,
            "trainable_parameters": self.model.num_trainable_parameters,
            "supervised_tokens": loop.targets,
            "loss_before": (directory.recall(_BEFORE) or {}).get("loss"),
            "loss_after": summary["val_loss"],
        }


def fingerprint_of(model: Any) -> str:
    """Return a hash of a model's weights, from two sums of each or from its blocks; to tell one
    model from another.
    """
    digest = hashlib.sha256()
    for name, each in model.named_parameters():
        values = each.detach().double()
        digest.update(f"{name} {values.sum().item()!r} {values.square().sum().item()!r}".encode())
    for name, format, blocks in model.core.held:
        digest.update(f"{name} {format}".encode())
        digest.update(memoryview(blocks.numpy()))
    return digest.hexdigest()
