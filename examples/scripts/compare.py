"""Which model foretells a text best? python compare.py TEXT MODEL MODEL …

Bits a byte compare models with different tokenizers; losses a token do not."""

from __future__ import annotations

import argparse

from omnima.evaluation.directory import evaluate_directory

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("text")
parser.add_argument("models", nargs="+")
asked = parser.parse_args()

scores = {model: evaluate_directory(model, [asked.text]) for model in asked.models}
for model, score in sorted(scores.items(), key=lambda each: each[1].bits_per_byte):
    print(f"{score.bits_per_byte:7.4f} bits a byte  {score.perplexity:9.2f} perplexity  {model}")
