"""What a measured generation reads and writes, and the arithmetic and the bytes that it takes."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

from omnima.config import ModelConfig
from omnima.errors import ConfigError

#: Sequences, tokens of a prompt and tokens to write, where they are not given.
DEFAULTS = {"prefill": (1, 512, 1), "decode": (1, 64, 128), "batch": (16, 64, 64)}


@dataclasses.dataclass(frozen=True)
class Work:
    """What is read and written, and what that takes."""

    task: str
    name: str
    parameters: int
    vocab_size: int
    sequences: int
    prompt_tokens: int
    new_tokens: int
    layer_weights: int  # of all layers, that a token meets
    head_weights: int
    pairs: tuple[float, float]  # of queries and keys, in all layers: of the prompt, of what follows
    width: int  # of a head of attention

    @property
    def tokens(self) -> int:
        """Tokens of a step: those that are read, or those that are written after the first."""
        return self.sequences * (
            self.prompt_tokens if self.task == "prefill" else self.new_tokens - 1
        )

    @property
    def flops(self) -> float:
        """Operations of the products of a step."""
        reading = self.task == "prefill"
        heads = self.sequences if reading else self.tokens
        pairs = self.sequences * self.pairs[0 if reading else 1]
        weights = self.tokens * self.layer_weights + heads * self.head_weights
        return 2.0 * weights + 4.0 * pairs * self.width

    @property
    def passes(self) -> int:
        """How often a step reads the weights."""
        return 1 if self.task == "prefill" else self.new_tokens - 1

    def touched(self, weight_bytes: int) -> int:
        """Bytes of the weights that one token meets."""
        share = (self.layer_weights + self.head_weights) / self.parameters
        return round(weight_bytes * min(1.0, share))

    def prompts(self) -> list[list[int]]:
        """Random ids, for each sequence others."""
        dice = random.Random(0)
        return [
            [dice.randrange(self.vocab_size) for _ in range(self.prompt_tokens)]
            for _ in range(self.sequences)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        names = ("name", "parameters", "sequences", "prompt_tokens", "new_tokens")
        return {name: getattr(self, name) for name in names}


def work_of(
    task: str,
    name: str,
    config: ModelConfig,
    sequences: int | None,
    prompt_tokens: int | None,
    new_tokens: int | None,
) -> Work:
    """Return what a task reads and writes; what is not given is the task's own.

    Raises
    ------
    ConfigError
        Sizes that are not positive, or do not fit the model's context.
    """
    given = {"sequences": sequences, "prompt_tokens": prompt_tokens, "new_tokens": new_tokens}
    for key, value in given.items():
        if value is not None and value < 1:
            raise ConfigError(f"{key} is {value}, but must be at least 1.")
    if task == "prefill" and new_tokens not in (None, 1):
        raise ConfigError("prefill measures up to the first new token: drop new_tokens.")
    if task != "prefill" and new_tokens == 1:
        raise ConfigError(
            f"{task} measures the tokens after the first: new_tokens must be 2 or more."
        )
    context = config.max_position_embeddings
    rows, prompt, new = DEFAULTS[task]
    new = new_tokens or min(new, max(2 if new > 1 else 1, context // 2))
    prompt = prompt_tokens or max(1, min(prompt, context - new))
    if prompt + new > context:
        raise ConfigError(
            f"{prompt} tokens of the prompt and {new} new ones are {prompt + new}, but the model's "
            f"context holds {context}."
        )
    from omnima import _core

    core = _core.DecoderConfig(config.to_dict())
    head = config.vocab_size * config.hidden_size
    tables = head * (1 if config.tie_word_embeddings else 2)
    before = core.seen_pairs(prompt)
    return Work(
        task=task,
        name=name,
        parameters=config.num_parameters,
        vocab_size=config.vocab_size,
        sequences=sequences or rows,
        prompt_tokens=prompt,
        new_tokens=new,
        layer_weights=config.num_active_parameters - tables,
        head_weights=head,
        pairs=(before, core.seen_pairs(prompt + new - 1) - before),
        width=config.head_dim,
    )
