"""How near a model is to what another tool makes of the same files, on real text.

    python benchmarks/fidelity.py DIRECTORY|FILE.gguf --data FOLDER [--lines 10000]

transformers reads a directory, llama.cpp a GGUF file; both are asked for logits, perplexity, greedy
texts and the ids of lines of several languages, code and emoji. Prints one JSON object a figure.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

import numpy as np

import omnima
from omnima.exporting.asking import ask
from omnima.exporting.certificate import logits_of, perplexity_of
from omnima.exporting.peers import Questions

TEXTS = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
NAMES = ("en_*.txt", "es_*.txt", "fr_*.txt", "*.txt")
_EMOJI = "😀🙂🎉👩‍🚀🇫🇷❤️🧑🏽‍💻✨"


def documents(folder: Path) -> list[str]:
    """The texts of a folder, code of the standard library, and lines full of emoji."""
    found = sorted({path for name in NAMES for path in folder.rglob(name)})
    if not found:
        raise SystemExit(f"There is no text below {folder}: give --data.")
    texts = [path.read_text(encoding="utf-8") for path in found]
    code = sorted(Path(json.__file__).parent.rglob("*.py"))
    texts.append("\n".join(path.read_text(encoding="utf-8") for path in code))
    draw = random.Random(0)
    lines = ("".join(draw.choices(_EMOJI + "  ab.,\t", k=30)) for _ in range(500))
    return [*texts, "\n".join(lines)]


def lines_of(texts: list[str], count: int) -> list[str]:
    """As many lines, evenly from all texts."""
    each = [[line for line in text.splitlines() if line] for text in texts]
    share = -(-count // len(each))
    picked = [lines[:: max(1, len(lines) // share)][:share] for lines in each]
    draw = random.Random(1)
    rest = [line for lines in each for line in lines]
    found = [line for lines in picked for line in lines]
    return (found + draw.sample(rest, max(0, min(len(rest), count - len(found)))))[:count]


def say(name: str, value: float, unit: str, beside: float | None = None) -> None:
    """Print one figure."""
    print(json.dumps({"name": name, "value": value, "unit": unit, "beside": beside}), flush=True)


def main() -> int:
    """Compare a model with the tool that opens it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, default=TEXTS)
    parser.add_argument("--windows", type=int, default=8, help="of 256 tokens, for the logits")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--new-tokens", type=int, default=200)
    parser.add_argument("--lines", type=int, default=10_000)
    given = parser.parse_args()
    tool = "transformers" if given.model.is_dir() else "llama.cpp"
    model = omnima.Model.from_pretrained(given.model)
    tokenizer = model.tokenizer
    assert tokenizer is not None, "this benchmark needs a model with a tokenizer"
    texts = documents(given.data)
    draw = random.Random(2)
    starts = [(text, draw.randrange(len(text) // 2)) for text in texts]

    rows = [tokenizer.encode(text[at : at + 2000])[:256] for text, at in starts]
    rows = (rows * given.windows)[: given.windows]
    lines = lines_of(texts, given.lines)
    answers = ask(tool, given.model, Questions(rows, 0, lines))
    if answers is None:
        raise SystemExit(f"{tool} is not installed.")
    ours = [logits_of(model, row) for row in rows]
    apart = [np.abs(a - b).max() for a, b in zip(ours, answers.logits)]
    say(f"logits beside {tool}, {sum(map(len, rows))} tokens", float(max(apart)), "largest")
    spread = float(np.concatenate(ours).std())
    say("the same as a share of their spread", float(max(apart)) / spread, "share")
    beside = perplexity_of(answers.logits, rows)
    say("perplexity", perplexity_of(ours, rows), "perplexity", beside)
    same = sum(tokenizer.encode(a) == b for a, b in zip(lines, answers.encoded))
    say(f"lines with the same ids of {len(lines)}", same, "lines")

    prompts = [tokenizer.encode(line)[:32] for line in lines if len(line) > 30]
    prompts = draw.sample(prompts, given.prompts)
    answers = ask(tool, given.model, Questions(prompts, given.new_tokens, []))
    assert answers is not None
    made = [
        list(
            model.generate(row, max_new_tokens=given.new_tokens, temperature=0, ignore_eos=True).ids
        )
        for row in prompts
    ]
    same = sum(a == b for a, b in zip(made, answers.greedy))
    say(f"greedy texts of {given.new_tokens} tokens the same, of {given.prompts}", same, "texts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
