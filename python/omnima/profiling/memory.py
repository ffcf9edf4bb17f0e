"""The memory of a step by kind: what the core holds, and what is left of the process's peak."""

from __future__ import annotations

from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


def resident_memory(status: Path = STATUS) -> int:
    """Return the resident memory of this process in bytes; 0 where the system does not say."""
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def forget_peak(clear: Path = CLEAR) -> None:
    """Let the system count the peak of this process anew, where it lets us.

    What was freed before is given back: it is not of what comes.
    """
    from omnima import _core

    _core.give_memory_back()
    if clear.is_file():
        try:
            clear.write_text("5", encoding="utf-8")
        except PermissionError:  # then the peak is that of the whole process
            return


def memory_by_kind(
    parameters: int, buffers: int, precision: str, task: str, before: int, peak: int
) -> dict[str, int]:
    """Return bytes by kind.

    Parameters
    ----------
    parameters
        Of the model, float32.
    buffers
        Buffers of gradients: one for each thread that works on rows of its own.
    before, peak
        Resident memory before the model was made, and the peak since.
    """
    peak = max(peak, before)  # the system counts both with a little delay
    held = {
        "weights": 4 * parameters,
        "gradients": 4 * parameters * buffers if task == "train" else 0,
        "optimizer_state": 8 * parameters,
        "bf16_copy": 2 * parameters if precision == "bf16" else 0,
    }
    activations = max(0, peak - before - sum(held.values()))
    return {**held, "activations_peak": activations, "process": before, "peak": peak}
