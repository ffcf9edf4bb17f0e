"""Many questions about one long text, which is read once: python prompt_cache.py MODEL TEXT"""

from __future__ import annotations

import argparse
from pathlib import Path

import omnima

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model")
parser.add_argument("text")
parser.add_argument("questions", nargs="+")
asked = parser.parse_args()

model = omnima.Model.from_pretrained(asked.model, dtype="auto")
text = Path(asked.text).read_text(encoding="utf-8")
cache = omnima.PromptCache()
for question in asked.questions:
    prompt = f"{text}\nQuestion: {question}\nAnswer:"
    made = model.generate(prompt, max_new_tokens=12, temperature=0.0, prompt_cache=cache)
    known = f"{made.cached_tokens} of {made.prompt_tokens} tokens were known"
    print(f"{question} {made.text.strip()!r} ({known}, {made.seconds:.3f} s)")
