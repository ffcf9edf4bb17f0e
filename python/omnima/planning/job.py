"""What is to be predicted: a model, its batches and how long they go on."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError

if TYPE_CHECKING:
    from omnima import _core
    from omnima.config import ModelConfig


def stand_in(model: ModelConfig, **changes: Any) -> ModelConfig:
    """Return a model that costs as much, but for the fields that change.

    What is bound to a depth that changes is left out, and what does not go with a context that
    changes, such as a window that is as wide.

    >>> from omnima.config import model_preset
    >>> narrow = model_preset("nima", vocab_size=256, sliding_window=64)
    >>> stand_in(narrow, max_position_embeddings=32).max_position_embeddings
    32
    """
    if changes.get("num_hidden_layers", model.num_hidden_layers) != model.num_hidden_layers:
        changes = {"layer_drop": 0.0, **changes}
    if "max_position_embeddings" not in changes:
        return model.replace(**changes)
    try:
        return model.replace(**changes)
    except ConfigError:  # what else is wrong is said again below
        bound = ("rope_", "sliding_", "blocksparse_", "dense_attention_")
        plain = {
            field.name: field.default
            for field in dataclasses.fields(model)
            if field.name.startswith(bound) and field.name != "rope_theta"
        }
        return model.replace(**plain, **changes)


@dataclasses.dataclass(frozen=True)
class Held:
    """The matrices of a model that are held in blocks.

    Attributes
    ----------
    numbers
        How many numbers they stand for.
    bytes
        What they take.
    at_once
        The most numbers that are made of them for one product.
    """

    numbers: int
    bytes: int
    at_once: int

    @classmethod
    def of(cls, decoder: _core.Decoder) -> Held | None:
        """What a decoder holds so; None: nothing."""
        from omnima import _core

        held = decoder.held
        if not held:
            return None
        numbers = 0
        for _, format, blocks in held:
            of_block, size = _core.block_of(format)
            numbers += blocks.numel() // size * of_block
        values = decoder.config.values()
        # Queries, keys and values are one product, gate and up are another.
        inner = max(int(values["intermediate_size"]), int(values["hidden_size"]))
        at_once = 2 * inner * int(values["hidden_size"])
        return cls(numbers, sum(blocks.numel() for _, _, blocks in held), at_once)


@dataclasses.dataclass(frozen=True)
class Job:
    """One training run, as far as its cost depends on it.

    Parameters
    ----------
    model
        The shape of the model.
    rows, context, accumulate
        Rows of a micro-batch, tokens of a row, micro-batches of a step.
    checkpoint_layers
        Blocks that keep only their input and compute twice.
    precision
        "fp32", "bf16" or "fp16".
    optimizer
        Its name; the bytes it keeps follow from that.
    offload
        Where the optimizer's state lies: None (beside the weights), "cpu" or a directory.
    ema
        Whether a running mean of the weights is kept.
    shows_average
        Whether other weights are evaluated and saved than are trained.
    steps, seconds
        The budget: one of them, or neither when only memory and speed are asked for.
    evaluations, eval_batches
        Evaluations on the way and micro-batches in each.
    unplanned_steps
        First steps of a budget in seconds, on which nothing is planned yet nor evaluated.
    save_every
        Steps between checkpoints; 0: when evaluating, twice a minute at most.
    samples, sample_tokens
        Texts written at the end, which need a cache of keys and values.
    text_bytes
        Bytes of the token shards that lie in memory while they are read.
    trained
        Parameters of the adapter that learns beside the model; None: the model's own learn.
    held
        What of the model is held in blocks (QLoRA); None: nothing.
    """

    model: ModelConfig
    rows: int
    context: int
    accumulate: int = 1
    checkpoint_layers: int = 0
    precision: str = "fp32"
    optimizer: str = "adamw"
    offload: str | None = None
    ema: bool = False
    shows_average: bool = False
    steps: int | None = None
    seconds: float | None = None
    evaluations: int = 0
    eval_batches: int = 0
    unplanned_steps: int = 0
    save_every: int = 0
    samples: int = 0
    sample_tokens: int = 0
    text_bytes: int = 0
    trained: int | None = None
    held: Held | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise ConfigError(
                f"A plan is of one precision, fp32, bf16 or fp16, not {self.precision!r}."
            )
        for name in ("rows", "context", "accumulate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, but must be at least 1.")
        if self.seconds is not None and not (self.seconds > 0 and math.isfinite(self.seconds)):
            raise ConfigError(f"seconds is {self.seconds}, but must be more than 0.")

    @property
    def learning(self) -> int:
        """Parameters that learn: they have gradients and the optimizer's state."""
        return int(self.model.num_parameters) if self.trained is None else self.trained

    @property
    def step_tokens(self) -> int:
        """Tokens of one optimizer step."""
        return self.rows * self.context * self.accumulate

    @property
    def element(self) -> int:
        """Bytes of a number that passes through the layers."""
        return 4 if self.precision == "fp32" else 2

    def flops_per_token(self) -> float:
        """Return the floating-point operations of the products of forward and backward."""
        from omnima.benchmarking.shapes import Shape

        model = {**self.model.to_dict(), "max_position_embeddings": self.context}
        shape = Shape("plan", model, 1)
        return shape.flops("train") / shape.tokens
