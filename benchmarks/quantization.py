"""What quantization costs: size, perplexity, seconds and memory of every format and method.

    python benchmarks/quantization.py MODEL --data DIRECTORY [--reads N] [--rows N] [--time N]
                                      [--only NAME …] [--peers PYTHON [--peers-path FOLDERS]]

Calibration text is English prose and documentation; the perplexity is that of another book and
other pages, which no method has read. Each row is made in a process of its own. With --peers, an
interpreter that has llama.cpp's package (its PYTHONPATH is --peers-path), llama.cpp's own quantizer
makes files of the same float32 numbers, and we evaluate them with the same code on the same
text: only the weights differ. Prints a JSON line a row, then the table in Markdown.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import omnima
from omnima.benchmarking.formats import bytes_of
from omnima.quantization.text import perplexity

READ = 512  # tokens of a row to calibrate on
# Name: what model.quantize is told.
CASES: dict[str, dict[str, Any]] = {
    "float32": {},
    "bf16": {},
    "int8 row": {"to": "int8", "group_size": 0},
    "int8 g64": {"to": "int8", "group_size": 64},
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
# llama.cpp's types of files, by their numbers in llama.h (llama_ftype).
PEERS = {"Q8_0": 7, "Q4_0": 2, "Q4_1": 3, "Q4_K_S": 14, "Q4_K_M": 15}
QUANTIZE = """
import ctypes, sys, llama_cpp
silent = llama_cpp.llama_log_callback(lambda *told: None)
llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()
options = llama_cpp.llama_model_quantize_default_params()
options.ftype = int(sys.argv[3])
made = llama_cpp.llama_model_quantize(
    sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(options))
sys.exit(made)
"""


def prose(path: Path, tokenizer: Any, skip: float = 0.1, most: int = 400_000) -> list[int]:
    """Ids of a book from behind its title pages."""
    text = path.read_text(encoding="utf-8")
    begin = int(len(text) * skip)
    return list(tokenizer.encode(text[begin : begin + most]))


def pages(path: Path, tokenizer: Any, which: int, most: int = 100_000) -> list[int]:
    """Ids of an eighth of the pages of a file of documentation, taken from all of it."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file][which::8]
    ids: list[int] = []
    for text in texts:
        ids += tokenizer.encode(text[1000:5000])
        if len(ids) > most:
            break
    return ids


def spread(ids: list[int], rows: int, time: int) -> torch.Tensor:
    """`rows` stretches of `time` ids, evenly from all."""
    gap = (len(ids) - time) / max(1, rows - 1)
    return torch.tensor([ids[int(i * gap) : int(i * gap) + time] for i in range(rows)])


def texts_of(given: argparse.Namespace, tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows to calibrate on, and rows of another book and other pages to measure on."""
    technical = given.data / "text" / "en_technical.jsonl.gz"
    read = [
        prose(given.data / "stories" / "red_fairy_book.txt", tokenizer),
        pages(technical, tokenizer, 0),
    ]
    measured = [prose(given.data / given.book, tokenizer)]
    if not given.prose:
        measured.append(pages(technical, tokenizer, 3))
    return (
        torch.cat([spread(ids, given.reads // 2, READ) for ids in read]),
        torch.cat([spread(ids, given.rows // len(measured), given.time) for ids in measured]),
    )


def row(name: str, size: int, model: Any, measured: torch.Tensor) -> dict[str, Any]:
    """What there is to say of any model."""
    return {
        "name": name,
        "bits_per_weight": 8 * size / model.num_parameters,
        "bytes": size,
        "perplexity": perplexity(model, measured),
    }


def ours(given: argparse.Namespace, name: str) -> dict[str, Any]:
    """A row of our own, in this process."""
    model = omnima.Model.from_pretrained(given.model)
    read, measured = texts_of(given, model.tokenizer)
    told = CASES[name]
    if not told:
        with torch.no_grad():
            for _, each in model.named_parameters():
                each.copy_(each.bfloat16() if name == "bf16" else each)
        return row(name, model.num_parameters * (2 if name == "bf16" else 4), model, measured)
    began = time.perf_counter()
    report = model.quantize(calibration=read, **told)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    made = row(name, report.bytes, model, measured)
    return made | {"seconds": seconds, "peak_bytes": peak}


def theirs(given: argparse.Namespace, name: str) -> dict[str, Any]:
    """A row of llama.cpp: its own file of our float32 numbers, read and evaluated by us."""
    model = omnima.Model.from_pretrained(given.model)
    _, measured = texts_of(given, model.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        whole, small = (str(Path(folder) / f"{each}.gguf") for each in ("whole", "small"))
        model.save_gguf(whole, dtype="f32")
        model.close()
        began = time.perf_counter()
        subprocess.run(
            [given.peers, "-c", QUANTIZE, whole, small, str(PEERS[name])],
            env={**os.environ, "PYTHONPATH": given.peers_path}, check=True,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        made = row(
            f"llama.cpp {name}", bytes_of(small), omnima.Model.from_pretrained(small), measured
        )
    return made | {"seconds": seconds}


def in_its_own_process(name: str) -> dict[str, Any]:
    """The row `name` by this script with the same arguments."""
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--one", name], stdout=subprocess.PIPE, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"{name} failed")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def cell(value: float | None, scale: float, digits: int) -> str:
    return "" if value is None else f"{value / scale:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="the directory with texts")
    parser.add_argument("--book", default="text/en_moby_dick.txt", help="the one that measures")
    parser.add_argument("--prose", action="store_true", help="measure on the book alone")
    parser.add_argument("--reads", type=int, default=48, help="rows of 512 tokens to calibrate on")
    parser.add_argument("--rows", type=int, default=16, help="rows that measure")
    parser.add_argument("--time", type=int, default=1024, help="tokens of a row that measures")
    parser.add_argument("--only", nargs="+", choices=[*CASES, *PEERS], default=[*CASES, *PEERS])
    parser.add_argument("--peers", help="the interpreter that has llama.cpp's package")
    parser.add_argument("--peers-path", default="", help="its PYTHONPATH")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps((theirs if given.one in PEERS else ours)(given, given.one)))
        return
    rows = []
    for name in dict.fromkeys(["bf16", *given.only]):
        if name in PEERS and not given.peers:
            print(f"llama.cpp {name}: not measured, there is no --peers", flush=True)
            continue
        rows.append(in_its_own_process(name))
        print(json.dumps(rows[-1]), flush=True)
    base = rows[0]["perplexity"]
    print("\n| format, method | bits a weight | MB | perplexity | over bf16 | seconds | peak MB |")
    print("|---|---|---|---|---|---|---|")
    for each in rows:
        print(
            f"| {each['name']} | {each['bits_per_weight']:.2f} | {each['bytes'] / 1e6:.1f} | "
            f"{each['perplexity']:.3f} | {100 * (each['perplexity'] / base - 1):+.2f}% | "
            f"{cell(each.get('seconds'), 1, 0)} | {cell(each.get('peak_bytes'), 1e6, 0)} |"
        )


if __name__ == "__main__":
    main()
