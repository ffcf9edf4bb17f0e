"""What a model says of answers that people compared or judged: the losses by the model a run began
with, and how often held-out answers are ranked as people ranked them.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omnima.errors import CheckpointError

if TYPE_CHECKING:
    from omnima.data.conversations.encoding import Sample
    from omnima.training.loop import Loop

_PART = 16  # batches in one call of the core
WITH_REFERENCE = ("dpo", "ipo", "kto")

Quality = dict[str, "float | None"]


def references_of(loop: Loop, path: Path) -> None:
    """Give a run's pairs their losses by the model that it began with; measured once, and kept."""
    import torch

    from omnima import _core

    data = loop.data
    if loop.step == 0:
        found = {name: losses_of(loop, name) for name, side in data.samples.items() if side}
        tensors = {name: torch.tensor(each, dtype=torch.float64) for name, each in found.items()}
        _core.write_safetensors(str(path), tensors, {})
    elif not path.exists():
        raise CheckpointError(
            f"{path} is gone, which holds what the model said of the answers before it was trained:"
            " the run cannot go on. Start it over with --overwrite."
        )
    saved = _core.read_safetensors(str(path))
    data.references = {name: each.tolist() for name, each in saved.items()}
    loop.loader.set_reference(data.references["train"])


def losses_of(loop: Loop, side: str, batches: int | None = None) -> list[float]:
    """Return the summed loss of each sample of a side (of a reward model: its reward), or of those
    in the first batches.
    """
    loader = loop.data.loader(side, loop.config.batch_size, loop.context, sequential=True)
    losses: list[float] = []
    left = min(loader.batches_per_epoch, batches or loader.batches_per_epoch)
    while left > 0:  # in parts, so that Ctrl-C is heard between them
        losses += loop.stepper.step.row_losses(loader, min(left, _PART))
        left -= _PART
    return losses[: len(loop.data.samples[side])]


def preference_quality(loop: Loop) -> Quality:
    """Return what the model as it is now makes of the held-out answers, by the names of a report.

    ``reward_accuracy`` and ``reward_margin`` are those of the records. As long as the model is the
    one that rewards are counted from, all of them are zero, and nothing is ranked: the accuracy is
    None. Of pairs, where the model writes, ``ranking_accuracy`` is the share whose better answer
    has the higher mean log probability, and ``log_probability_margin`` by how much, in nats a
    token.
    """
    name, data, batches = loop.of_data["preference"], loop.data, loop.last_batches
    begins = name in WITH_REFERENCE and loop.step == 0
    most = batches * loop.config.batch_size * data.rows_each
    losses = data.references["val"][:most] if begins else losses_of(loop, "val", batches)
    samples = data.samples["val"][: len(losses)]
    found: Quality
    if begins:
        found = {"reward_accuracy": None, "reward_margin": 0.0}
    elif name == "kto":
        found = _judged(loop, losses, samples)
    else:
        margins = _reward_margins(loop, losses, samples)
        found = {
            "reward_accuracy": _share_above_zero(margins),
            "reward_margin": statistics.fmean(margins),
        }
    if name in ("kto", "reward"):
        return found
    means = [each / sample.supervised_tokens for each, sample in zip(losses, samples)]
    margins = [other - mine for mine, other in zip(means[::2], means[1::2])]
    return {
        **found,
        "ranking_accuracy": _share_above_zero(margins),
        "log_probability_margin": statistics.fmean(margins),
    }


def _share_above_zero(margins: Sequence[float]) -> float:
    return sum(each > 0 for each in margins) / len(margins)


def _reward_margins(loop: Loop, losses: list[float], samples: Sequence[Sample]) -> list[float]:
    """By how much each better answer has the higher reward, as the core counts it in training."""
    name = loop.of_data["preference"]
    if name == "reward":  # what the core sums there are rewards
        rewards = losses
    elif name in WITH_REFERENCE:
        beta, known = loop.of_data["preference_beta"], loop.data.references["val"]
        rewards = [beta * (before - loss) for before, loss in zip(known, losses)]
    else:
        beta = loop.of_data["preference_beta"]
        rewards = [-beta * loss / each.supervised_tokens for loss, each in zip(losses, samples)]
    return [good - bad for good, bad in zip(rewards[::2], rewards[1::2])]


def _judged(loop: Loop, losses: list[float], samples: Sequence[Sample]) -> Quality:
    """Of answers that stand alone: on which side of the drift each is, over all of them."""
    known, beta = loop.data.references["val"], loop.of_data["preference_beta"]
    ratios = [before - loss for before, loss in zip(known, losses)]
    drift = max(0.0, statistics.fmean(ratios[1::2]))
    signs = [1 if each.good else -1 for each in samples[::2]]
    right = [sign * (ratio - drift) > 0 for sign, ratio in zip(signs, ratios[::2])]
    return {
        "reward_accuracy": sum(right) / len(right),
        "reward_margin": beta * statistics.fmean(s * r for s, r in zip(signs, ratios[::2])),
    }
