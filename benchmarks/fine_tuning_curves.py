"""Fine-tuning by the clock and by steps, beside PEFT and TRL: a line of JSON a point of a curve.

python benchmarks/fine_tuning_curves.py sft MODEL --data FILE... --system omnima|peft --minutes 30
python benchmarks/fine_tuning_curves.py dpo MODEL --data FILE... --system omnima|trl --steps 60

Each system in a process of its own, with the same samples (ours to read and to split), LoRA of rank
16 on every linear layer, rows of 512 tokens, AdamW and clipping. sft: four rows a batch, which
Omnima packs, and the learning rate falls as the time goes; evaluations stop the clock. dpo: four
pairs a step, the same ones in the same order, from the same adapter; the reference is on the clock.
MODEL is a directory that transformers reads too.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTEXT, RANK, ROWS, WARMUP = 512, 16, 4, 20
_HELD_OUT = 120  # samples at most that an evaluation reads


def say(arguments: argparse.Namespace, **point: Any) -> None:
    print(json.dumps({"what": arguments.what, "system": arguments.system, **point}), flush=True)


def opened(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Our model and its samples, of which the held-out ones are cut to some."""
    import omnima

    model = omnima.Model.from_pretrained(arguments.model)
    data = omnima.data.open_conversations(
        arguments.data,
        model.tokenizer,
        CONTEXT,
        form="pairs" if arguments.what == "dpo" else "turns",
        on_error="skip",
        val_fraction=0.05,
        seed=arguments.seed,
    )
    data.samples["val"] = data.samples["val"][:_HELD_OUT]
    if arguments.what == "dpo":
        data.samples["train"] = data.samples["train"][: 2 * arguments.pairs]
    return model, data


def rate_at(arguments: argparse.Namespace, done: float, step: int) -> float:
    """A warmup, then a cosine to a tenth, by the share of the time that is gone."""
    floor = 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done)))
    return float(arguments.lr * min(1.0, (step + 1) / WARMUP) * floor)


def by_the_clock(
    arguments: argparse.Namespace,
    update: Callable[[float], int],
    held_out: Callable[[], float],
) -> None:
    """Update with a learning rate until the time is gone; `update` tells the tokens it learned."""
    budget, spent, step, learned = 60 * arguments.minutes, 0.0, 0, 0
    say(arguments, minutes=0.0, steps=0, supervised_tokens=0, held_out=held_out())
    for point in range(1, arguments.points + 1):
        while spent < budget * point / arguments.points:
            began = time.perf_counter()
            learned += update(rate_at(arguments, spent / budget, step))
            spent += time.perf_counter() - began
            step += 1
        now = {"minutes": round(spent / 60, 3), "steps": step, "supervised_tokens": learned}
        say(arguments, **now, held_out=held_out())


def step_of(model: Any, **options: Any) -> Any:
    from omnima import _core

    chosen = _core.StepOptions()
    plain = {"precision": "bf16", "schedule": "constant", "weight_decay": 0.01, "beta2": 0.999}
    for name, value in {**plain, **options}.items():
        setattr(chosen, name, value)
    return _core.TrainStep(model.core, chosen)


def sft_omnima(arguments: argparse.Namespace) -> None:
    model, data = opened(arguments)
    model.add_adapter("lora", rank=RANK, alpha=2 * RANK, seed=arguments.seed)
    step = step_of(model, lr=arguments.lr)
    loader = data.loader("train", ROWS, CONTEXT, seed=arguments.seed)

    def update(rate: float) -> int:
        step.set_lr(rate)
        return int(step.run(loader).tokens)

    def held_out() -> float:
        rows = data.loader("val", ROWS, CONTEXT, sequential=True)
        total, tokens = step.evaluate(rows, rows.batches_per_epoch)
        return float(total / tokens)

    by_the_clock(arguments, update, held_out)


def padded(samples: Any) -> dict[str, Any]:
    """A batch as transformers wants it: labels at the places of their ids."""
    import torch

    longest = max(len(each.ids) for each in samples)
    batch = {"input_ids": [], "labels": [], "attention_mask": []}
    for each in samples:
        left = longest - len(each.ids)
        labels = [i if mark else -100 for i, mark in zip(each.ids, each.supervised)]
        batch["input_ids"].append(each.ids + [0] * left)
        batch["labels"].append(labels + [-100] * left)
        batch["attention_mask"].append([1] * len(each.ids) + [0] * left)
    return {name: torch.tensor(rows) for name, rows in batch.items()}


def transformers_model(arguments: argparse.Namespace) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    model.config.use_cache = False
    return model


def sft_peft(arguments: argparse.Namespace) -> None:
    import peft
    import torch

    _, data = opened(arguments)
    torch.manual_seed(arguments.seed)
    config = peft.LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(transformers_model(arguments), config).train()
    learning = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=arguments.lr, weight_decay=0.01, fused=True)
    dice, left = random.Random(arguments.seed), list[Any]()

    def loss_of(batch: dict[str, Any]) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return model(**batch).loss

    def update(rate: float) -> int:
        nonlocal left
        if len(left) < ROWS:
            left = dice.sample(data.samples["train"], len(data.samples["train"]))
        samples, left = left[:ROWS], left[ROWS:]
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss_of(padded(samples)).backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return sum(each.supervised_tokens for each in samples)

    def held_out() -> float:
        model.eval()
        total, tokens, samples = 0.0, 0, sorted(data.samples["val"], key=lambda x: len(x.ids))
        with torch.no_grad():
            for first in range(0, len(samples), ROWS):
                part = samples[first : first + ROWS]
                count = sum(each.supervised_tokens for each in part)
                total += float(loss_of(padded(part))) * count
                tokens += count
        model.train()
        return total / tokens

    by_the_clock(arguments, update, held_out)


def dpo_omnima(arguments: argparse.Namespace) -> None:
    model, data = opened(arguments)
    began = time.perf_counter()
    model.add_adapter("lora", rank=RANK, alpha=2 * RANK, seed=arguments.seed)
    step = step_of(model, lr=arguments.lr, preference="dpo", precision=arguments.precision)
    known = data.loader("train", ROWS, CONTEXT, sequential=True)
    losses = step.row_losses(known, known.batches_per_epoch)
    data.references = {"train": losses[: len(data.samples["train"])]}
    loader = data.loader("train", ROWS, CONTEXT, seed=arguments.seed)
    for number in range(arguments.steps):
        step.set_lr(rate_at(arguments, number / arguments.steps, number))
        found = step.run(loader)
        say(
            arguments, step=number + 1, seconds=round(time.perf_counter() - began, 2),
            loss=found.loss, accuracy=found.reward_accuracy, margin=found.reward_margin,
        )  # fmt: skip


def pairs_in_order(data: Any, arguments: argparse.Namespace) -> list[list[dict[str, Any]]]:
    """The pairs of each step, as our loader draws them, in TRL's fields."""
    by_ids = {}
    for good, bad in zip(data.samples["train"][::2], data.samples["train"][1::2]):
        asked = good.asked
        fields = {"prompt_ids": asked, "chosen_ids": good.ids[len(asked) :]}
        by_ids[tuple(good.ids[:-1]), tuple(bad.ids[:-1])] = {
            **fields,
            "rejected_ids": bad.ids[len(asked) :],
        }
    loader = data.loader("train", ROWS, CONTEXT, seed=arguments.seed)
    steps = []
    longest = {key: (len(key[0]), len(key[1])) for key in by_ids}
    for _ in range(arguments.steps):
        ids = loader.next()[0].tolist()
        found = []
        for good, bad in zip(ids[::2], ids[1::2]):
            key = next(
                each
                for each, (a, b) in longest.items()
                if tuple(good[:a]) == each[0] and tuple(bad[:b]) == each[1]
            )
            found.append(by_ids[key])
        steps.append(found)
    return steps


def dpo_trl(arguments: argparse.Namespace) -> None:
    import peft
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    ours, data = opened(arguments)
    steps = pairs_in_order(data, arguments)
    with tempfile.TemporaryDirectory() as place:
        ours.add_adapter("lora", rank=RANK, alpha=2 * RANK, seed=arguments.seed)
        ours.save_adapter(Path(place) / "adapter")
        del ours
        base = transformers_model(arguments)
        model = peft.PeftModel.from_pretrained(base, f"{place}/adapter", is_trainable=True)
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        config = DPOConfig(
            output_dir=place, per_device_train_batch_size=ROWS, use_cpu=True, report_to=[],
            bf16=False, gradient_checkpointing=False, max_length=None, beta=0.1,
        )  # fmt: skip
        words = {"prompt": "a", "chosen": " b", "rejected": " c"}
        trainer = DPOTrainer(
            model=model, args=config, train_dataset=Dataset.from_list([words] * ROWS),
            processing_class=tokenizer,
        )  # fmt: skip
    trainer.model.train()
    learning = [each for each in trainer.model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=arguments.lr, weight_decay=0.01, fused=True)
    began = time.perf_counter()
    for number, records in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(arguments, number / arguments.steps, number)
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.precision == "bf16"):
            loss = trainer.compute_loss(trainer.model, trainer.data_collator(records))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        told = {name: values[-1] for name, values in trainer._metrics["train"].items()}
        say(
            arguments, step=number + 1, seconds=round(time.perf_counter() - began, 2),
            loss=float(loss), accuracy=told["rewards/accuracies"], margin=told["rewards/margins"],
        )  # fmt: skip


_RUNS = {
    ("sft", "omnima"): sft_omnima,
    ("sft", "peft"): sft_peft,
    ("dpo", "omnima"): dpo_omnima,
    ("dpo", "trl"): dpo_trl,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["sft", "dpo"])
    parser.add_argument("model")
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--system", choices=["omnima", "peft", "trl"], default="omnima")
    parser.add_argument("--minutes", type=float, default=30, help="sft: of training")
    parser.add_argument("--points", type=int, default=5, help="sft: evaluations")
    parser.add_argument("--steps", type=int, default=60, help="dpo: updates")
    parser.add_argument("--pairs", type=int, default=1 << 20, help="dpo: the first ones alone")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16", help="dpo")
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if (arguments.what, arguments.system) not in _RUNS:
        parser.error(f"{arguments.system} is no system of {arguments.what}")
    _RUNS[arguments.what, arguments.system](arguments)


if __name__ == "__main__":
    main()
