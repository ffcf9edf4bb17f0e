"""TRL's trainers with PEFT's adapter on every linear layer (or the whole model): their losses, and
the step that one writes by hand around them.
"""

from __future__ import annotations

import tempfile
from typing import Any

from omnima.benchmarking.systems import Step
from omnima.benchmarking.systems.peft_adapter import adapter_config, opened, unshifted
from omnima.benchmarking.systems.torch_loop import step_of


def build(job: dict[str, Any]) -> tuple[Step, int]:
    """Return the step of a job and the number of parameters that learn."""
    import torch

    trainer = _trainer(job)

    def supervised(ids: Any, labels: Any) -> Any:
        inputs = {"input_ids": ids, "labels": unshifted(labels)}
        inputs["attention_mask"] = torch.ones_like(ids)
        return trainer.compute_loss(trainer.model, inputs)

    def preferred(ids: Any, labels: Any) -> Any:
        # The better answers first, then the others; the reference is asked at every step.
        order = torch.cat([torch.arange(0, len(ids), 2), torch.arange(1, len(ids), 2)])
        inputs = {"input_ids": ids[order], "attention_mask": torch.ones_like(ids)}
        inputs["completion_mask"] = (unshifted(labels)[order] != -100).long()
        return trainer.compute_loss(trainer.model, inputs)

    return step_of(job, trainer.model, preferred if job["task"] == "dpo" else supervised)


def _trainer(job: dict[str, Any]) -> Any:
    import trl
    from datasets import Dataset

    kinds: dict[str, Any] = {
        "sft": (trl.SFTTrainer, trl.SFTConfig),
        "dpo": (trl.DPOTrainer, trl.DPOConfig),
    }
    trainer, config = kinds[job["task"]]
    text = {"prompt": "a", "chosen": " a", "rejected": " a"}
    if job["task"] == "sft":
        text = {"prompt": "a", "completion": " a"}
    with tempfile.TemporaryDirectory() as place:
        return trainer(
            model=opened(job),
            args=config(
                output_dir=place,
                use_cpu=True,
                bf16=False,  # the step around it has autocast
                gradient_checkpointing=False,
                report_to=[],
                max_length=None,
                per_device_train_batch_size=job["shape"]["batch_size"],
            ),
            train_dataset=Dataset.from_list([text] * job["shape"]["batch_size"]),
            processing_class=_tokenizer(),
            peft_config=None if job["method"] == "full" else adapter_config(job),
        )


def _tokenizer() -> Any:
    """What a trainer asks for; batches of random ids need none."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    kind: Any = PreTrainedTokenizerFast
    return kind(tokenizer_object=words, eos_token="</s>", pad_token="</s>", unk_token="a")
