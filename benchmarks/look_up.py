"""Guesses from the text itself (`speculation="lookup"`) beside plain decoding, on texts that repeat
themselves more and less.

`python benchmarks/look_up.py MODEL` writes greedily after each prompt, both ways in turns, and
prints a JSON object for each: milliseconds without those of the prompt, their ratio, and how many
tokens were guessed and kept. The texts are the same to the token, which it checks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import omnima

TEXTS = {
    "steps": "".join(
        f"Step {i}: take the box number {i} from the shelf and put it on the table.\n"
        for i in range(1, 9)
    ),
    "sentence": "The quick brown fox jumps over the lazy dog near the river bank. " * 4,
    "getters": "class Person:\n"
    + "".join(
        f"    def get_{name}(self):\n        return self._{name}\n\n"
        f"    def set_{name}(self, {name}):\n        self._{name} = {name}\n\n"
        for name in ("name", "age")
    )
    + "    def get_address(self):\n",
    "json": "[\n"
    + "".join(
        f'  {{"id": {i}, "name": "{name}", "email": "{name.lower()}@example.com"}},\n'
        for i, name in enumerate(("Alice", "Bob", "Carol"), 1)
    ),
    "table": "| country | capital | population |\n| --- | --- | --- |\n"
    "| France | Paris | 67 million |\n| Germany | Berlin | 83 million |\n"
    "| Italy | Rome | 60 million |\n",
    "correction": "<|im_start|>user\nRewrite this text and correct the spelling, change nothing "
    "else:\n\nThe comittee has decided to postpone the meeting until the end of next month. The "
    "members of the comittee were informed by letter. The chairman of the comittee said that the "
    "meeting would take place in the town hall, and that everybody would be welcome to attend the "
    "meeting.<|im_end|>\n<|im_start|>assistant\nThe committee has decided",
    "tests": "import unittest\n\nclass TestMath(unittest.TestCase):\n    def test_add(self):\n"
    "        self.assertEqual(add(1, 2), 3)\n        self.assertEqual(add(0, 0), 0)\n"
    "        self.assertEqual(add(-1, 1), 0)\n\n    def test_sub(self):\n"
    "        self.assertEqual(sub(3, 2), 1)\n        self.assertEqual(sub(0, 0), 0)\n",
    "log": "".join(
        f"2024-03-0{i} 12:0{i}:17 INFO server.worker[{i}]: request GET /api/v1/items/{100 + i} "
        f"finished with status 200 in {10 + i} ms\n"
        for i in range(1, 6)
    ),
    "prose": "Once upon a time there was a little girl who lived in a village near the forest. "
    "Whenever she went out, the little girl wore a red riding cloak, so everyone in the village "
    "called her Little Red Riding Hood.",
}


def measured(model: omnima.Model, text: str, tokens: int, rounds: int) -> dict[str, Any]:
    """Medians over the rounds."""
    assert model.tokenizer is not None
    prompt = list(model.tokenizer.encode(text))

    def timed(count: int, **options: Any) -> tuple[float, Any]:
        began = time.perf_counter()
        # Without the tokenizer no id ends a text.
        written = omnima.generation.generate(
            model, None, [prompt], max_new_tokens=count, temperature=0.0, **options
        )[0]
        return 1e3 * (time.perf_counter() - began), written

    first, plain, guessed = [], [], []
    for _ in range(1 + rounds):
        first.append(timed(1)[0])
        milliseconds, wanted = timed(tokens)
        plain.append(milliseconds)
        milliseconds, found = timed(tokens, speculation="lookup")
        guessed.append(milliseconds)
        assert found.ids == wanted.ids
    read = statistics.median(first[1:])
    both = [statistics.median(each[1:]) - read for each in (plain, guessed)]
    return {
        "plain_ms": round(both[0]),
        "lookup_ms": round(both[1]),
        "ratio": round(both[0] / both[1], 2),
        "proposed": found.proposed_tokens,
        "accepted": found.accepted_tokens,
    }


def main() -> None:
    """Measure, and print one JSON object a text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--format", default="auto", help="as `dtype` of Model.from_pretrained")
    parser.add_argument("--activations", default="float32")
    given = parser.parse_args()
    model = omnima.Model.from_pretrained(
        given.model, dtype=given.format, activations=given.activations
    )
    for name, text in TEXTS.items():
        row = measured(model, text, given.new_tokens, given.rounds)
        print(json.dumps({"text": name, **vars(given), **row}), flush=True)


if __name__ == "__main__":
    main()
