"""Near-duplicate removal: seconds for a gigabyte, and recall on planted duplicates.

    python benchmarks/near_duplicates.py [--megabytes 100]

Documents are sentences of TinyWorld in random order, so that they share runs of words as real pages
do. Every twentieth is a copy of another one with one word in a hundred changed.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from omnima.data import TinyWorld, open_source
from omnima.data.cleaning import Cleaning, clean

DOCUMENT_BYTES = 2500
MARK = "serial number"  # each document's own, in its last line


def sentences() -> list[str]:
    """Different sentences of TinyWorld."""
    found: dict[str, None] = {}
    for text, _ in TinyWorld(0).documents(size=4_000_000):
        found.update(dict.fromkeys(part.strip() + "." for part in text.split(".") if part.strip()))
    return list(found)


def documents(size: int, chance: random.Random) -> Iterator[tuple[int, str, bool]]:
    """Yield number, text and whether it is a planted copy, until there are `size` bytes."""
    pool = sentences()
    kept: list[str] = []
    number = total = 0
    while total < size:
        planted = number % 20 == 19
        if planted:
            words = chance.choice(kept).split(" ")
            for _ in range(max(1, len(words) // 100)):
                words[chance.randrange(len(words))] = "altered"
            text = " ".join(words)
        else:
            parts = chance.choices(pool, k=DOCUMENT_BYTES // 45)
            text = " ".join(parts)
            if len(kept) < 20_000:
                kept.append(text)
            else:
                kept[chance.randrange(len(kept))] = text
        yield number, f"{text}\n{MARK} {number}", planted
        total += len(text)
        number += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    size = parser.parse_args().megabytes * 1_000_000
    with tempfile.TemporaryDirectory() as place:
        raw, out = Path(place) / "raw.jsonl", Path(place) / "clean.jsonl"
        copies = set()
        with raw.open("w", encoding="utf-8") as file:
            for number, text, planted in documents(size, random.Random(0)):
                file.write(json.dumps({"text": text}) + "\n")
                if planted:
                    copies.add(number)
        started = time.perf_counter()
        done = clean(open_source(raw), Cleaning(["near"]), out)
        seconds = time.perf_counter() - started
        left = {int(text.rsplit(" ", 1)[1]) for text in open_source(out).documents()}
    many, read = done.record["documents_in"], done.record["bytes_in"]
    missed = len(copies & left)
    wrong = many - len(copies) - len(left - copies)
    print(
        json.dumps(
            {
                "documents": many,
                "megabytes": read / 1e6,
                "seconds": round(seconds, 1),
                "megabytes_per_s": round(read / seconds / 1e6, 2),
                "minutes_for_a_gigabyte": round(seconds / read * 1e9 / 60, 2),
                "recall_on_planted": round(1 - missed / len(copies), 4),
                "others_dropped": wrong,
                "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
