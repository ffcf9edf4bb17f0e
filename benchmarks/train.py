"""Training tokens a second and peak memory beside plain PyTorch and transformers, in one run.

The shapes are those of a 1.9M, a 13.9M and a 124M model; every peer has the same vocabulary, depth,
width, context and batch. Each system has a process of its own, so that its peak memory is its own.

    python benchmarks/train.py --sizes 1m,10m --precisions bf16,fp32
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

SIZES: dict[str, dict[str, int]] = {
    "1m": {"vocab": 8192, "layers": 4, "width": 128, "heads": 4, "context": 128, "batch": 32},
    "10m": {"vocab": 8192, "layers": 6, "width": 384, "heads": 6, "context": 256, "batch": 16},
    "124m": {"vocab": 50304, "layers": 12, "width": 768, "heads": 12, "context": 512, "batch": 4},
}
SYSTEMS = ("omnima", "eager", "transformers")
STEPS = {"1m": 12, "10m": 6, "124m": 3}


def omnima_step(s: dict[str, int], precision: str) -> tuple[Any, int]:
    """One call of our step on a fixed batch."""
    import omnima
    from omnima import _core

    model = omnima.Model.from_config(
        {
            "vocab_size": s["vocab"],
            "hidden_size": s["width"],
            "num_hidden_layers": s["layers"],
            "num_attention_heads": s["heads"],
            "max_position_embeddings": s["context"],
        }
    )
    options = _core.StepOptions()
    options.precision = precision
    step = _core.TrainStep(model.core, options)
    return lambda ids, labels: step.run_batches([(ids, labels)]).loss, model.num_parameters


def eager_model(s: dict[str, int]) -> Any:
    """A plain PyTorch decoder as tutorials write it: LayerNorm, GELU, tied embeddings."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Layer(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first, self.second = (nn.LayerNorm(width, bias=False) for _ in range(2))
            self.qkv = nn.Linear(width, 3 * width, bias=False)
            self.out = nn.Linear(width, width, bias=False)
            self.up = nn.Linear(width, 4 * width, bias=False)
            self.down = nn.Linear(4 * width, width, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            heads = self.qkv(self.first(x)).unflatten(-1, (3, s["heads"], -1))
            q, k, v = (part.transpose(1, 2) for part in heads.unbind(2))
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).flatten(2))
            return x + self.down(functional.gelu(self.up(self.second(x))))

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = s["width"]
            self.tokens = nn.Embedding(s["vocab"], width)
            self.places = nn.Embedding(s["context"], width)
            self.layers = nn.Sequential(*(Layer(width) for _ in range(s["layers"])))
            self.norm = nn.LayerNorm(width, bias=False)
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=0.02)

        def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            x = self.layers(self.tokens(ids) + self.places.weight[: ids.shape[1]])
            logits = functional.linear(self.norm(x), self.tokens.weight)
            return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    return Plain()


def torch_step(s: dict[str, int], precision: str, system: str) -> tuple[Any, int]:
    """A step as one writes it by hand: autocast, backward, clipping, fused AdamW."""
    import torch

    if system == "eager":
        model = eager_model(s)
        loss_of = model
    else:
        import transformers

        config = transformers.LlamaConfig(
            vocab_size=s["vocab"],
            hidden_size=s["width"],
            intermediate_size=s["width"] * 8 // 3,
            num_hidden_layers=s["layers"],
            num_attention_heads=s["heads"],
            max_position_embeddings=s["context"],
            tie_word_embeddings=True,
            use_cache=False,
        )
        model = transformers.LlamaForCausalLM(config).train()

        def loss_of(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return model(input_ids=ids, labels=ids).loss

    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=3e-4, weight_decay=0.1, fused=True)

    def step(ids: torch.Tensor, labels: torch.Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = loss_of(ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step, sum(p.numel() for p in parameters)


def child(system: str, size: str, precision: str, threads: int) -> None:
    """Measure one system in this process and print a JSON line."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    s = SIZES[size]
    step, parameters = (
        omnima_step(s, precision) if system == "omnima" else torch_step(s, precision, system)
    )
    ids = torch.randint(s["vocab"], (s["batch"], s["context"] + 1))
    batch = (ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
    start = time.perf_counter()
    step(*batch)
    first = time.perf_counter() - start
    step(*batch)
    seconds = []
    for _ in range(STEPS[size]):
        start = time.perf_counter()
        step(*batch)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rate = s["batch"] * s["context"] / statistics.median(seconds)
    print(
        json.dumps({"rate": rate, "peak": peak, "first": round(first, 2), "parameters": parameters})
    )


def measure(system: str, size: str, precision: str, threads: int) -> dict[str, Any] | None:
    """Run one measurement in a fresh process; None when the system is not installed."""
    command = [sys.executable, __file__, "--child", system, "--sizes", size]
    command += ["--precisions", precision, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or [""]
        print(f"skipped: {system} {size} {precision}: {reason[0]}")
        return None
    report: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return report


def main() -> None:
    """Print a line a measurement, and for the table the rate beside the best peer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1m,10m,124m")
    parser.add_argument("--precisions", default="bf16,fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="medians are shown")
    parser.add_argument("--child", choices=SYSTEMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.sizes, options.precisions, options.threads)
        return
    for size in options.sizes.split(","):
        for precision in options.precisions.split(","):
            runs: dict[str, list[dict[str, Any]]] = {system: [] for system in SYSTEMS}
            for _ in range(options.rounds):
                for system in SYSTEMS:
                    report = measure(system, size, precision, options.threads)
                    if report is not None:
                        runs[system].append(report)
            shown = {
                system: {key: statistics.median(run[key] for run in reports) for key in reports[0]}
                for system, reports in runs.items()
                if reports
            }
            for system, report in shown.items():
                print(
                    f"{size:>5} {precision} {system:>12}: {report['rate']:>8.0f} tokens/s  "
                    f"{report['peak'] / 2**20:>6.0f} MiB  first step {report['first']} s"
                )
            peers = [report for system, report in shown.items() if system != "omnima"]
            ours = shown["omnima"]
            for key, unit, best in (("rate", "tokens/s", max), ("peak", "bytes", min)):
                row = {"name": f"train {size} {precision} {key}", "value": ours[key], "unit": unit}
                row["beside"] = best((peer[key] for peer in peers), default=None)
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
