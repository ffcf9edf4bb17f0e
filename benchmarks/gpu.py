"""Training on a GPU beside torch.compile on the same GPU, in bf16; with --decode, writing on it.

    python benchmarks/gpu.py [--preset NAME] [--params N] [--rows N] [--context N] [--rounds N]
    python benchmarks/gpu.py --decode [--preset NAME] [--params N] [--rounds N]

Without a shape it measures 13.9M (64 rows of 256 tokens), 124M (16 rows of 1,024) and 1B (4 rows of
2,048; ours alone, and only where the memory allows). Prints a Markdown table a shape: tokens per
second, the share of the bf16 matrix-product rate measured in the same run, peak memory and the time
of the first step. Systems take turns, and the medians of the rounds count.

--decode writes one sequence with drawn weights, at 124M and 1B unless a shape is given, in float32,
bf16, int8 and int4: tokens per second, and the bytes of the matrices that a token reads as a share
of the rate at which this GPU copies its memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import statistics
import time
from collections.abc import Callable

import torch

from omnima import _core
from omnima.benchmarking.shapes import Shape, shape_of
from omnima.benchmarking.systems.torch_plain import decoder as torch_decoder

#: (preset, parameters, rows, context, peers)
SHAPES: list[tuple[str | None, int | None, int, int, bool]] = [
    ("bench-13.9m", None, 64, 256, True),
    ("bench-124m", None, 16, 1024, True),
    (None, 1_000_000_000, 4, 2048, False),
]
#: (preset, parameters) of --decode.
DECODED: list[tuple[str | None, int | None]] = [("bench-124m", None), (None, 1_000_000_000)]
Step = Callable[[], float]


@dataclasses.dataclass
class Measured:
    """What one system showed: seconds of a step by round, its first step, its peak memory."""

    rounds: list[float]
    first: float
    memory: int
    note: str = ""


def ours(shape: Shape, ids: torch.Tensor, labels: torch.Tensor) -> tuple[Step, Callable[[], str]]:
    """Our whole step, with the batch coming from the host each time."""
    model = _core.Decoder(_core.DecoderConfig(shape.model), 0, "cuda")
    options = _core.StepOptions()
    options.precision, options.schedule, options.lr = "bf16", "constant", 3e-4
    step = _core.TrainStep(model, options)
    pairs = [(ids, labels)]
    return (lambda: float(step.run_batches(pairs).loss)), (lambda: f"step {step.graph}")


def compiled(shape: Shape, ids: torch.Tensor, labels: torch.Tensor) -> Step:
    """A decoder as PyTorch's tutorials write it, compiled, with the fused AdamW and clipping."""
    torch.set_float32_matmul_precision("high")
    model = torch_decoder(shape).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1, fused=True)
    loss_of = torch.compile(model)
    pinned = [x.pin_memory() for x in (ids, labels)]

    def step() -> float:
        on_gpu = [x.to("cuda", non_blocking=True) for x in pinned]
        with torch.autocast("cuda", torch.bfloat16):
            loss = loss_of(*on_gpu)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def product_rate(size: int = 8192) -> float:
    """Measured FLOP/s of a square bf16 product."""
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    out = torch.empty_like(a)
    best = float("inf")
    for _ in range(8):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(10):
            torch.mm(a, a, out=out)
        torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - start) / 10)
    return 2 * size**3 / best


def timed(step: Step, seconds: float) -> float:
    """Seconds of a step; each ends with its loss on the host."""
    torch.cuda.synchronize()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        count += 1
    return (time.perf_counter() - start) / count


def begin(step: Step) -> Measured:
    """The first steps: compiling, capturing, and the peak of the memory."""
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    step()
    first = time.perf_counter() - start
    for _ in range(5):
        step()
    return Measured([], first, torch.cuda.max_memory_allocated())


def measure(shape: Shape, rounds: int, seconds: float, peers: bool) -> dict[str, Measured]:
    """Measure the systems in turns."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(
        shape.model["vocab_size"], (shape.batch_size, shape.context + 1), generator=generator
    )
    pair = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    step, graph = ours(shape, *pair)
    steps: dict[str, Step] = {"omnima": step}
    found = {"omnima": begin(step)}
    found["omnima"].note = graph()
    if peers:
        held = torch.cuda.memory_allocated()
        steps["torch-compile"] = compiled(shape, *pair)
        found["torch-compile"] = begin(steps["torch-compile"])
        found["torch-compile"].memory -= held
    for _ in range(rounds):
        for name, each in steps.items():
            found[name].rounds.append(timed(each, seconds))
    return found


def report(shape: Shape, found: dict[str, Measured], rate: float) -> str:
    """A Markdown table."""
    lines = [
        f"{shape.name}, {shape.batch_size} rows of {shape.context} tokens, bf16, "
        f"{torch.cuda.get_device_name()} ({rate / 1e12:.0f} TFLOP/s in a product of 8192³)",
        "",
        "| system | tokens/s | ms a step | of the product rate | peak memory | first step | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, each in found.items():
        middle = statistics.median(each.rounds)
        share = shape.flops("train") / middle / rate
        lines.append(
            f"| {name} | {shape.tokens / middle:,.0f} | {middle * 1e3:.2f} | {share:.1%} "
            f"| {each.memory / 2**30:.2f} GiB | {each.first:.1f} s | {each.note} |"
        )
    if "torch-compile" in found:
        pairs = zip(found["torch-compile"].rounds, found["omnima"].rounds, strict=True)
        ratio = statistics.median(theirs / mine for theirs, mine in pairs)
        lines += ["", f"{ratio:.2f} times torch-compile (median of paired rounds)."]
    return "\n".join(lines) + "\n"


def copy_rate(size: int = 1 << 30) -> float:
    """Bytes per second, read and written, of a copy within the GPU's memory."""
    source = torch.ones(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * size / timed(lambda: float(target.copy_(source)[0]), 1.0)


def writer(shape: Shape, format: str) -> tuple[_core.Engine, int]:
    """What writes with drawn weights in a format, and the bytes of the matrices a token reads."""
    model = _core.Decoder(_core.DecoderConfig(shape.model), 0, "cpu")
    parameters, formats, size = {}, {}, 0
    for name, parameter in model.named_parameters():
        number = parameter.detach()
        if number.dim() == 2 and format == "bf16":
            number = number.to(torch.bfloat16)
        elif number.dim() == 2 and format != "f32":
            number, formats[name] = _core.quantized(format, number), format
        parameters[name] = number
        size += number.nbytes if number.dim() == 2 else 0
    values = model.config.values()
    if not values["tie_word_embeddings"]:
        size -= parameters["model.embed_tokens.weight"].nbytes
    return _core.Engine(values, parameters, formats, device="cuda"), size


def decode_report(shape: Shape, rounds: int, rate: float) -> str:
    """A Markdown table: one sequence, 64 tokens of prompt."""
    lines = [
        f"{shape.name}, one sequence, {torch.cuda.get_device_name()} "
        f"(copies {rate / 1e9:,.0f} GB/s)",
        "",
        "| weights | tokens/s | µs a token | of the memory's rate |",
        "| --- | ---: | ---: | ---: |",
    ]
    prompt = list(range(1, 65))
    for format in ("f32", "bf16", "int8_g64", "int4_g64"):
        engine, size = writer(shape, format)

        def seconds(tokens: int, engine: _core.Engine = engine) -> float:
            start = time.perf_counter()
            engine.generate([prompt], {"max_new_tokens": tokens}, [0])
            return time.perf_counter() - start

        seconds(8)
        # What a call costs once, its prompt and its capture among it, is in both.
        each = [(seconds(320) - seconds(64)) / 256 for _ in range(rounds)]
        middle = statistics.median(each)
        share = size / middle / rate
        lines.append(f"| {format} | {1 / middle:,.0f} | {middle * 1e6:.0f} | {share:.1%} |")
    return "\n".join(lines) + "\n"


def decode(arguments: argparse.Namespace) -> None:
    """Print the tables of --decode."""
    rate = copy_rate()
    named = arguments.preset or arguments.params
    shapes = [(arguments.preset, arguments.params)] if named else DECODED
    for preset, params in shapes:
        shape = shape_of(preset, params, batch_size=1, context=1024)
        print(decode_report(shape, arguments.rounds, rate))


def main() -> None:
    parser = argparse.ArgumentParser(description="Training on a GPU beside torch.compile.")
    parser.add_argument("--preset")
    parser.add_argument("--params", type=int)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--decode", action="store_true", help="write text instead of training")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("There is no GPU that torch can use: nothing to measure.")
    if not _core.has_gpu_kernels():
        raise SystemExit("This omnima was built without OMNIMA_CUDA: see docs/explanation/gpu.md.")
    if arguments.decode:
        decode(arguments)
        return
    shapes = SHAPES
    if arguments.preset or arguments.params:
        shapes = [(arguments.preset, arguments.params, arguments.rows, arguments.context, True)]
    rate = product_rate()
    for preset, params, rows, context, peers in shapes:
        shape = shape_of(preset, params, batch_size=rows, context=context)
        print(report(shape, measure(shape, arguments.rounds, arguments.seconds, peers), rate))
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
