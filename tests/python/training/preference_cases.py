"""Pairs of answers, a small model and a step that shows its gradient; shared by the tests of
preferences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from omnima import Model, Tokenizer, _core
from omnima.data import open_conversations
from omnima.data.conversations import ConversationData
from omnima.tokenizers.chat_default import ensure_template

CONTEXT = 96
BETA, MARGIN = 0.3, 0.5
WEIGHTS = {"desirable_weight": 1.25, "undesirable_weight": 0.75}


def pairs(path: Path, count: int = 30) -> Path:
    records = [
        {
            "instruction": f"Say {n}.",
            "chosen": "Of course: " + "ok " * (n % 4 + 1) + str(n),
            "rejected": "No" + "!" * (n % 5 + 1),
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def answers(path: Path, count: int) -> Path:
    """Prompts with completions, for what needs no preference."""
    records = [{"prompt": f"Say {n}.", "completion": " ok" * (n % 4 + 1)} for n in range(count)]
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def fresh(seed: int = 0) -> Any:
    tokenizer = Tokenizer.train(["Say 1. Of course"], "byte")
    ensure_template(tokenizer)
    made = Model.from_preset(
        "nima", vocab_size=tokenizer.vocab_size, max_position_embeddings=128, seed=seed
    )
    made.tokenizer = tokenizer
    return made


def opened(path: Path, model: Any, **changes: Any) -> ConversationData:
    return open_conversations(path, model.tokenizer, CONTEXT, **{"form": "pairs", **changes})


def stepper(model: Any, name: str, **more: Any) -> Any:
    """A step whose update is the gradient itself: plain descent with a rate of one."""
    options = _core.StepOptions()
    plain = {"optimizer": "sgd", "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    plain |= {"lr": 1.0, "clip_norm": 0.0, "schedule": "constant", "total_steps": 10}
    plain |= {"preference": name, "preference_beta": BETA, "preference_margin": MARGIN}
    for key, value in {**plain, **WEIGHTS, **more}.items():
        setattr(options, key, value)
    return _core.TrainStep(model.core, options)


def flat(model: Any) -> torch.Tensor:
    return torch.cat([each.detach().flatten() for _, each in model.named_parameters()])
