"""Write a model in 4 or 8 bits, and say what that cost: python make_small.py MODEL OUT TEXT"""

from __future__ import annotations

import argparse

import omnima

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model")
parser.add_argument("out")
parser.add_argument("text", help="like what the model will see")
parser.add_argument("--to", default="int4", choices=("int8", "int4", "nf4"))
asked = parser.parse_args()

model = omnima.Model.from_pretrained(asked.model)
report = model.quantize(asked.to, calibration=asked.text)
model.save_pretrained(asked.out)
print(f"{report.bits_per_weight:.2f} bits a weight, {report.bytes:,} bytes")
print(f"perplexity {report.perplexity_before:.3f} → {report.perplexity_after:.3f}")
