"""Texts that the model writes, at the end of a run and on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnima._durable import write_durably
from omnima.training.config import TrainConfig

_RULE = "\n" + "-" * 40 + "\n"


def write_samples(
    model: Any, tokenizer: Any, config: TrainConfig, count: int, path: Path
) -> tuple[str, ...]:
    """Let the model write `count` texts into a file; the same weights write the same texts."""
    from omnima.generation import generate
    from omnima.generation.prompts import encode

    prompt = config.sample_prompt
    room = model.context - len(encode(prompt, tokenizer))
    written = generate(
        model,
        tokenizer,
        [prompt] * count,
        max_new_tokens=min(config.sample_tokens, room),
        temperature=0.8,
        top_p=0.95,
        seed=config.seed,
    )
    texts = tuple(prompt + each.text for each in written)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, (_RULE.join(texts) + "\n").encode("utf-8"))
    return texts
