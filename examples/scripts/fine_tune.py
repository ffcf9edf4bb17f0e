"""Teach a model to answer, with an adapter: python fine_tune.py MODEL CONVERSATIONS.jsonl OUT"""

from __future__ import annotations

import argparse

import omnima

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model")
parser.add_argument("conversations", help="a record a line: messages, or prompt and completion")
parser.add_argument("out", help="the directory of the adapter")
parser.add_argument("--steps", type=int, default=200)
asked = parser.parse_args()

model = omnima.Model.from_pretrained(asked.model)
view = omnima.inspect(model, asked.conversations)
print(f"the first sample: {view.supervised_tokens} of {len(view.tokens)} tokens are learned")
run = omnima.finetune(
    model, asked.conversations, asked.out, method="lora", rank=16, batch_size=4, steps=asked.steps
)
print(f"held-out loss {run.summary['loss_before']:.3f} → {run.summary['loss_after']:.3f}")
print(f"before and after, answer by answer: {run.summary['report']}")
