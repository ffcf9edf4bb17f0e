"""What quantization costs: size, perplexity and seconds of every format and method on one model.

    python benchmarks/quantization.py MODEL --data DIRECTORY [--reads N] [--rows N] [--only NAME …]

Calibration text is English prose and documentation; the perplexity is that of other books and other
pages, which no method has read. Beside our formats stand llama.cpp's own q4_0, q4_1 and q8_0 by its
rule for rounding. Prints a JSON line a row, then the table in Markdown.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch

import omnima
from omnima import _core
from omnima.quantization.text import perplexity

TIME = 512
# Name: what model.quantize is told; "gguf" names a format that every matrix is rounded to.
CASES: dict[str, dict[str, Any]] = {
    "int8 row": {"to": "int8"},
    "int8 g64": {"to": "int8", "group_size": 64},
    "q8_0": {"gguf": "q8_0"},
    "q4_0": {"gguf": "q4_0"},
    "q4_1": {"gguf": "q4_1"},
    **{
        f"{name} {method}": {"method": method, **told}
        for name, told in {
            "int4 g128": {"to": "int4", "group_size": 128},
            "int4 g64": {"to": "int4", "group_size": 64},
            "int4 g32": {"to": "int4", "group_size": 32},
            "int4 g64 symmetric": {"to": "int4", "group_size": 64, "zero_point": False},
            "int4 g32 symmetric": {"to": "int4", "group_size": 32, "zero_point": False},
            "int4 g64 ends too": {"to": "int4", "group_size": 64, "ends": "same"},
            "nf4 g64": {"to": "nf4", "group_size": 64},
        }.items()
        for method in ("rtn", "awq", "gptq")
    },
}


def prose(path: Path, tokenizer: Any, skip: float = 0.1, most: int = 400_000) -> list[int]:
    """Ids of a book from behind its title pages."""
    text = path.read_text(encoding="utf-8")
    begin = int(len(text) * skip)
    return list(tokenizer.encode(text[begin : begin + most]))


def pages(path: Path, tokenizer: Any, odd: bool, most: int = 400_000) -> list[int]:
    """Ids of every other page of a file of documentation, taken from all of it."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file][int(odd) :: 8]
    ids: list[int] = []
    for text in texts:
        ids += tokenizer.encode(text[1000:5000])
        if len(ids) > most // 4:
            break
    return ids


def spread(ids: list[int], rows: int) -> torch.Tensor:
    """`rows` stretches of TIME ids, evenly from all."""
    gap = (len(ids) - TIME) / max(1, rows - 1)
    return torch.tensor([ids[int(i * gap) : int(i * gap) + TIME] for i in range(rows)])


def texts_of(
    data: Path, tokenizer: Any, reads: int, rows: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows to calibrate on, and rows of other books and pages to measure on."""
    technical = data / "text" / "en_technical.jsonl.gz"
    read = [
        prose(data / "stories" / "red_fairy_book.txt", tokenizer),
        pages(technical, tokenizer, odd=False),
    ]
    measured = [
        prose(data / "stories" / "blue_fairy_book.txt", tokenizer),
        pages(technical, tokenizer, odd=True),
    ]
    return (
        torch.cat([spread(ids, reads // 2) for ids in read]),
        torch.cat([spread(ids, rows // 2) for ids in measured]),
    )


def rounded_as(model: Any, name: str) -> tuple[float, int]:
    """Round every matrix by llama.cpp's plain rule, embedding and head as q8_0, which is what its
    files have where rows are no multiple of 256; bits a weight, and bytes.
    """
    size = 0
    with torch.no_grad():
        for parameter, each in model.named_parameters():
            if each.dim() == 2:
                ends = "embed" in parameter or "lm_head" in parameter
                chosen = "q8_0" if ends else name
                blocks = q4_1(each) if chosen == "q4_1" else _core.quantized(chosen, each)
                each.copy_(_core.dequantized(chosen, blocks, list(each.shape)))
                size += blocks.numel()
            else:
                size += each.numel() * 4
    return 8 * size / model.num_parameters, size


def q4_1(numbers: torch.Tensor) -> torch.Tensor:
    """Its blocks hold the same numbers as ours with groups of 32."""
    return _core.quantized("int4z_g32", numbers)


def measured(path: str, name: str, texts: tuple[torch.Tensor, torch.Tensor]) -> dict[str, Any]:
    """One row."""
    model = omnima.Model.from_pretrained(path)
    told = dict(CASES[name])
    began = time.perf_counter()
    if "gguf" in told:
        bits, size = rounded_as(model, told["gguf"])
    else:
        report = model.quantize(calibration=texts[0], **told)
        bits, size = report.bits_per_weight, report.bytes
    seconds = time.perf_counter() - began
    after = perplexity(model, texts[1])
    model.close()
    return {
        "name": name,
        "bits_per_weight": bits,
        "bytes": size,
        "perplexity": after,
        "seconds": seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="the directory with texts")
    parser.add_argument("--reads", type=int, default=64, help="rows of 512 tokens to calibrate on")
    parser.add_argument("--rows", type=int, default=32, help="rows of 512 tokens that measure")
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    given = parser.parse_args()
    model = omnima.Model.from_pretrained(given.model)
    texts = texts_of(given.data, model.tokenizer, given.reads, given.rows)
    texts = tuple(each[:, : model.config.max_position_embeddings] for each in texts)
    before = perplexity(model, texts[1])
    rows = [{"name": "float32", "bits_per_weight": 32.0, "perplexity": before, "seconds": 0.0}]
    with torch.no_grad():
        for _, each in model.named_parameters():
            each.copy_(each.bfloat16())
    after = perplexity(model, texts[1])
    rows.append({"name": "bf16", "bits_per_weight": 16.0, "perplexity": after})
    model.close()
    for row in rows:
        print(json.dumps(row), flush=True)
    for name in given.only:
        rows.append(measured(given.model, name, texts))
        print(json.dumps(rows[-1]), flush=True)
    base = rows[1]["perplexity"]
    print("\n| format, method | bits a weight | MB | perplexity | over bf16 | seconds |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        size = f"{row['bytes'] / 1e6:.1f}" if "bytes" in row else "-"
        print(
            f"| {row['name']} | {row['bits_per_weight']:.2f} | {size} | {row['perplexity']:.3f} | "
            f"{100 * (row['perplexity'] / base - 1):+.2f}% | {row.get('seconds', 0):.0f} |"
        )


if __name__ == "__main__":
    main()
