"""Train a small model on text: python train_a_model.py OUT [TEXT …] [--minutes 4]"""

from __future__ import annotations

import argparse

import omnima

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("out")
parser.add_argument("text", nargs="*", default=["tinyworld"], help="files; left out: stories")
parser.add_argument("--minutes", type=float, default=4.0)
parser.add_argument("--preset", default="1m")
asked = parser.parse_args()

text = omnima.data.open_source(asked.text)
tokenizer = omnima.Tokenizer.train(text, "bpe", vocab_size=1024)
model = omnima.Model.from_preset(asked.preset, vocab_size=tokenizer.vocab_size)
config = {"minutes": asked.minutes, "batch_size": 4, "packing": "documents", "lr": 3e-3}
run = omnima.Trainer(model, tokenizer, text, {**config, "seed": 1, "out": asked.out}).fit()
print(f"held-out perplexity {run.summary['val_perplexity']:.2f}")
print(model.generate("", max_new_tokens=60, temperature=0.8, seed=1).text)
