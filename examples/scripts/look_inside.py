"""Pictures of what a model does with a text: python look_inside.py MODEL TEXT OUT

OUT gets attention.png (all layers and heads) and expected.html (what it expected at each token)."""

from __future__ import annotations

import argparse
from pathlib import Path

import omnima

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model")
parser.add_argument("text")
parser.add_argument("out")
asked = parser.parse_args()

out = Path(asked.out)
out.mkdir(parents=True, exist_ok=True)
model = omnima.Model.from_pretrained(asked.model)
model.plot_attention(asked.text, path=out / "attention.png")
seen = model.token_probabilities(asked.text)
page = f'<!doctype html><meta charset="utf-8"><title>expected</title>{seen._repr_html_()}'
(out / "expected.html").write_text(page, encoding="utf-8")
surprise = seen.probabilities[1:].argmin() + 1
print(f"loss {seen.loss:.3f}; the least expected token is {seen.texts[surprise]!r}")
