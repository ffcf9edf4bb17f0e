"""The certificate of an export: the file as its own tool reads it, beside what we read from it."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omnima._durable import write_durably
from omnima.errors import OmnimaError
from omnima.exporting.peers import Answers, Questions

if TYPE_CHECKING:
    from omnima.model import Model

#: What both tools read, the same in every release: prose, code, numbers, other scripts.
PROMPTS = (
    "The old clock on the wall struck nine, and nobody in the room",
    "def mean(values):\n    total = 0.0\n    for value in values:\n",
    "In 1969, three people travelled 384,400 km to",
    "Der Regen fiel seit Tagen, und der Fluss",
    "La bibliothèque était fermée, mais la lumière",
    "日本の首都は",
    "Вчера вечером мы",
    "🙂 Dear diary,\n\ttoday I learnt that 3 × 7 = 21 and",
)
_CONVERSATION = (
    {"role": "user", "content": "Who wrote it?"},
    {"role": "assistant", "content": "I do not know.\nPerhaps nobody."},
    {"role": "user", "content": "Guess!"},
)
_WRITTEN = 32  # tokens that follow each prompt
#: How far logits may be apart: root mean square, as a share of their spread. transformers works in
#: float32 as we do; llama.cpp rounds what it multiplies to the matrix's numbers (16 or 8 bits).
#: Fewer bits come later.
TOLERANCES = {
    "transformers": dict.fromkeys(("f32", "f16", "bf16"), 5e-4),
    "llama.cpp": {"f32": 5e-4, "f16": 0.01, "bf16": 0.06, "q8_0": 0.12}
    | dict.fromkeys(("q6_k", "q5_1", "q5_k", "q5_0", "q4_1", "q4_k", "q4_0", "q3_k", "q2_k"), 0.4),
}
Logits = NDArray[np.float32]  # [time, vocab]


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What another tool found in a model, beside what we read there."""

    path: str  # of an export the name alone: where it lies is nobody else's concern
    format: str  # hf or gguf
    architecture: str
    dtype: str
    against: str | None  # the tool; None: it is not installed
    version: str | None
    prompts: int
    tokens: int  # of the prompts
    perplexity: float  # of the prompts, as we read the model
    perplexity_there: float | None  # in the tool
    perplexity_given: float | None  # before it was written; None where nothing was
    difference: float | None  # of the logits: root mean square, as a share of their spread
    tolerance: float | None
    largest_difference: float | None  # of two logits, as the same share
    same_choice: float | None  # share of places with the same likeliest token
    greedy_equal: int | None  # prompts with the same continuation of 32 tokens
    greedy_tied: int | None  # those that part where two tokens are that near
    encoded_equal: int | None  # prompts cut into the same tokens; None without a tokenizer
    template_equal: bool | None  # a conversation becomes the same text; None without a template
    reasons: tuple[str, ...] = ()  # why it fails

    @property
    def passed(self) -> bool | None:
        """Whether the tool finds the same model; None where it is not installed."""
        return None if self.against is None else not self.reasons

    def as_dict(self) -> dict[str, Any]:
        """As the JSON beside the model has it; numbers that are none (infinite, NaN) are null."""
        found = {**dataclasses.asdict(self), "reasons": list(self.reasons), "passed": self.passed}
        lost = [k for k, v in found.items() if isinstance(v, float) and not math.isfinite(v)]
        return found | dict.fromkeys(lost)

    def write(self, path: Path) -> None:
        """Write the JSON."""
        text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        write_durably(path, (text + "\n").encode())


def questions_of(model: Model) -> Questions:
    """What a tool is asked of a model: the prompts as ids (without a tokenizer as many drawn ones,
    always the same), within the model's context.
    """
    context = model.context
    count = min(_WRITTEN, context // 2)
    if model.tokenizer is None:
        size = (len(PROMPTS), min(16, context - count))
        drawn = np.random.default_rng(0).integers(0, model.config.vocab_size, size)
        return Questions(drawn.tolist(), count, [])
    rows = [model.tokenizer.encode(text)[: context - count] for text in PROMPTS]
    messages = [] if _written(model) is None else list(_CONVERSATION)
    return Questions(rows, count, list(PROMPTS), messages)


def _written(model: Model) -> str | None:
    """The conversation by the model's template; None where there is none, or it refuses it."""
    if model.tokenizer is None or model.tokenizer.chat_template is None:
        return None
    try:
        found = model.tokenizer.apply_chat_template(
            list(_CONVERSATION), add_generation_prompt=True, tokenize=False
        )
    except OmnimaError as error:
        warnings.warn(f"The chat template is not compared: {error}", stacklevel=2)
        return None
    return str(found)


def certify(
    facts: dict[str, Any],
    model: Model,
    asked: Questions,
    answers: Answers | None,
    perplexity_given: float | None = None,
) -> Certificate:
    """Compare a model, as we read it, with what a tool answers.

    Parameters
    ----------
    facts
        path, format, architecture, dtype, and against: the tool's name.
    model
        The model that Omnima reads from there.
    asked, answers
        The questions, and the tool's answers; None where it is not installed.
    perplexity_given
        That of the model that was written there.
    """
    ours = [logits_of(model, row) for row in asked.rows]
    common: dict[str, Any] = {
        **facts,
        "prompts": len(asked.rows),
        "tokens": sum(len(row) for row in asked.rows),
        "perplexity": perplexity_of(ours, asked.rows),
        "perplexity_given": perplexity_given,
    }
    if answers is None:
        open_fields = {field.name for field in dataclasses.fields(Certificate)} - {"reasons"}
        nothing = dict.fromkeys(open_fields - common.keys())
        return Certificate(**{**common, **nothing, "against": None})
    spread = float(np.concatenate(ours).std()) or 1.0
    pairs = list(zip(ours, answers.logits, strict=True))
    apart = np.concatenate([a - b for a, b in pairs]).astype(np.float64)
    largest = float(np.abs(apart).max())
    greedy = [
        _continues_as(model, row, theirs, 2 * largest)
        for row, theirs in zip(asked.rows, answers.greedy, strict=True)
    ]
    encoded = None
    if model.tokenizer is not None:
        cut = zip(asked.texts, answers.encoded, strict=True)
        encoded = sum(model.tokenizer.encode(text) == theirs for text, theirs in cut)
    found = Certificate(
        **common,
        version=answers.version,
        perplexity_there=perplexity_of(answers.logits, asked.rows),
        difference=float(np.sqrt(np.square(apart).mean())) / spread,
        tolerance=TOLERANCES[facts["against"]][facts["dtype"]],
        largest_difference=largest / spread,
        same_choice=sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in pairs)
        / common["tokens"],
        greedy_equal=greedy.count("equal"),
        greedy_tied=greedy.count("tied"),
        encoded_equal=encoded,
        template_equal=answers.written == _written(model) if asked.messages else None,
    )
    return dataclasses.replace(found, reasons=_reasons(found))


def _reasons(found: Certificate) -> tuple[str, ...]:
    assert found.difference is not None and found.tolerance is not None
    assert found.greedy_equal is not None and found.greedy_tied is not None
    reasons = []
    if not found.difference <= found.tolerance:  # NaN, too
        reasons.append(
            f"the logits differ by {found.difference:.2g} of their spread, more than "
            f"{found.tolerance:g}"
        )
    if found.greedy_equal + found.greedy_tied < found.prompts:
        reasons.append(f"{found.greedy_equal} of {found.prompts} greedy texts are the same")
    if found.encoded_equal not in (None, found.prompts):
        reasons.append(f"{found.encoded_equal} of {found.prompts} prompts give the same tokens")
    if found.template_equal is False:
        reasons.append("the chat template makes another text of a conversation")
    return tuple(reasons)


def _continues_as(model: Model, row: list[int], theirs: list[int], room: float) -> str:
    """Whether the likeliest continuation of a row is another one's: "equal", "tied" or "other".

    Where two tokens are nearly as likely, the last bits decide, and all that follows differs.
    """
    made = model.generate(row, max_new_tokens=len(theirs), temperature=0, ignore_eos=True)
    ours = list(made.ids)
    if ours == theirs:
        return "equal"
    i = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    last = logits_of(model, [*row, *ours[:i]])[-1]
    return "tied" if last[ours[i]] - last[theirs[i]] <= room else "other"


def logits_of(model: Model, row: list[int]) -> Logits:
    """The logits after each token of a row."""
    import torch

    with torch.no_grad():
        found: Logits = model(torch.tensor([row]))[0].numpy()
    return found


def perplexity_of(logits: list[Logits], rows: list[list[int]]) -> float:
    """The perplexity of rows by the logits after each of their tokens."""
    import torch

    losses = [
        torch.nn.functional.cross_entropy(
            torch.from_numpy(each[:-1]), torch.tensor(row[1:]), reduction="sum"
        )
        for each, row in zip(logits, rows, strict=True)
    ]
    return float(torch.exp(torch.stack(losses).sum() / sum(len(row) - 1 for row in rows)))
