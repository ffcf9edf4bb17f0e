"""Loads the extension that `make cuda-check` built against a CUDA torch and trains a few steps
with it: on the CPU, and on the GPU where there is one, with the same losses.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
STEPS = 4
VALUES = {
    "vocab_size": 64,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}


def stage(build: Path) -> Path:
    """Put the package beside the new extension, away from the one that is installed."""
    place = build / "package"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(
        ROOT / "python" / "omnima",
        place / "omnima",
        ignore=shutil.ignore_patterns("_core*.so", "_torch_version.txt", "__pycache__"),
    )
    bindings = build / "cpp" / "omnima" / "bindings"
    for built in (*bindings.glob("_core*.so"), bindings / "_torch_version.txt"):
        shutil.copy2(built, place / "omnima")
    return place


def losses(device: str, precision: str = "fp32") -> list[float]:
    """Losses of a few steps from one seed on one batch."""
    core = importlib.import_module("omnima._core")
    decoder = core.Decoder(core.DecoderConfig(VALUES), 0, device)
    options = core.StepOptions()
    options.precision = precision
    options.total_steps = STEPS
    step = core.TrainStep(decoder, options)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(
        VALUES["vocab_size"], (4, VALUES["max_position_embeddings"] + 1), generator=generator
    )
    batch = [(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())]
    found = [float(step.run_batches(batch).loss) for _ in range(STEPS)]
    if device == "cuda" and step.graph != "captured":
        raise SystemExit(f"the step on the GPU was not captured as a graph: {step.graph}")
    return found


def main() -> None:
    sys.path.insert(0, str(stage(Path(sys.argv[1]).resolve())))
    on_cpu = losses("cpu")
    if not on_cpu[0] > on_cpu[-1]:
        raise SystemExit(f"the loss does not fall: {on_cpu}")
    print(f"torch {torch.__version__}: loads, and trains on the CPU ({on_cpu[-1]:.4f})")
    if torch.cuda.is_available():
        torch.testing.assert_close(losses("cuda"), on_cpu, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(losses("cuda", "bf16"), on_cpu, rtol=3e-2, atol=3e-2)
        print(f"{torch.cuda.get_device_name()}: trains to the same losses")
    else:
        print("no GPU here: compiled and linked, device code not run")


if __name__ == "__main__":
    main()
