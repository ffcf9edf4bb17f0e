"""Fine-tuning measured: packed conversations beside padded ones, and DPO beside TRL.

python benchmarks/fine_tuning.py packing MODEL --data FILE...
python benchmarks/fine_tuning.py dpo MODEL --data FILE [--trl]

MODEL is a directory (for --trl one that transformers reads too). Nothing is saved.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

CONTEXT, RANK = 512, 16


def step_of(model: Any, **options: Any) -> Any:
    from omnima import _core

    chosen = _core.StepOptions()
    for name, value in {"precision": "bf16", "lr": 1e-5, "total_steps": 1000, **options}.items():
        setattr(chosen, name, value)
    return _core.TrainStep(model.core, chosen)


def packing(arguments: argparse.Namespace) -> None:
    """Supervised tokens a second of rows that are packed, and of rows padded to the longest."""
    import omnima

    model = omnima.Model.from_pretrained(arguments.model)
    data = omnima.data.open_conversations(arguments.data, model.tokenizer, CONTEXT, on_error="skip")
    step = step_of(model)
    step.run(data.loader("train", 4, CONTEXT, seed=1))
    for packed, rows in ((True, 4), (False, 4), (False, 16)):
        data.packed = packed
        rates = [_rate(step, data.loader("train", rows, CONTEXT, seed=1)) for _ in range(2)]
        kind = "packed" if packed else "padded"
        print(f"{kind}, {rows} rows: {statistics.median(rates):.0f} supervised tokens/s")


def _rate(step: Any, loader: Any, seconds: float = 14) -> float:
    began, supervised = time.perf_counter(), 0
    while (taken := time.perf_counter() - began) < seconds:
        supervised += step.run(loader).tokens
    return supervised / taken


def dpo(arguments: argparse.Namespace) -> None:
    """Seconds of a DPO step of four pairs with LoRA, in bfloat16."""
    theirs = [_trl_seconds(arguments)] if arguments.trl else []
    import omnima

    model = omnima.Model.from_pretrained(arguments.model)
    model.add_adapter("lora", rank=RANK)
    data = omnima.data.open_conversations(
        arguments.data,
        model.tokenizer,
        CONTEXT,
        form="pairs",
        on_error="skip",
        val_fraction=0.85,  # a few pairs are enough to be timed
    )
    step = step_of(model, preference="dpo")
    known = data.loader("train", 4, CONTEXT, sequential=True)
    began = time.perf_counter()
    losses = step.row_losses(known, known.batches_per_epoch)
    reference = (time.perf_counter() - began) / known.batches_per_epoch
    data.references = {"train": losses[: data.train_samples]}
    loader = data.loader("train", 4, CONTEXT, seed=1)
    seconds = []
    for _ in range(15):
        began = time.perf_counter()
        step.run(loader)
        seconds.append(time.perf_counter() - began)
    print(
        f"omnima: {statistics.median(seconds):.2f} s a step; the reference, once: {reference:.2f}"
    )
    for each in theirs:
        print(f"trl: {each:.2f} s a step")


def _trl_seconds(arguments: argparse.Namespace) -> float:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from omnima.data import read_examples

    class Clock(TrainerCallback):  # type: ignore[misc]
        began = 0.0
        seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(time.perf_counter() - self.began)

    records = [
        {
            "prompt": list(pair.chosen.messages[:-1]),
            "chosen": [pair.chosen.messages[-1]],
            "rejected": [pair.rejected.messages[-1]],
        }
        for pair in read_examples(arguments.data, on_error="skip")
    ]
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    clock = Clock()
    with tempfile.TemporaryDirectory() as place:
        config = DPOConfig(
            output_dir=place,
            per_device_train_batch_size=4,
            max_steps=8,
            learning_rate=1e-5,
            max_length=CONTEXT,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=True,
            gradient_checkpointing=False,
        )
        adapter = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
        DPOTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(records),
            processing_class=tokenizer,
            peft_config=adapter,
            callbacks=[clock],
        ).train()
    return statistics.median(clock.seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["packing", "dpo"])
    parser.add_argument("model")
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--trl", action="store_true", help="beside TRL, which must be installed")
    arguments = parser.parse_args()
    packing(arguments) if arguments.what == "packing" else dpo(arguments)


if __name__ == "__main__":
    main()
