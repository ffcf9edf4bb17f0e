"""`plan`: what a job needs and how long it takes, on this machine or on another."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from omnima.errors import ConfigError
from omnima.planning.calibration import Calibration, calibrate, saved_bytes
from omnima.planning.job import stand_in
from omnima.planning.machine import Machine, this_machine
from omnima.planning.memory import memory_by_part, offloaded_bytes

if TYPE_CHECKING:
    from omnima.planning.job import Job

_MOST_ROWS = 1 << 16
_REST_BETWEEN_SAVES = 30.0  # seconds; as the loop of a run


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a job needs.

    Parameters
    ----------
    parameters, active_parameters, parameters_by_part
        Their number, that of those which a token meets, and by part of the model.
    memory_bytes, memory_by_part
        The peak while training, and what it is made of.
    offloaded_bytes, offloaded_to
        The part of the optimizer's state that lies elsewhere, and where; None: nothing does.
    flops_per_token
        Operations of the products of forward and backward.
    step_seconds, tokens_per_s
        Of one step; the rate is that of the whole run with its evaluations and checkpoints.
    steps, tokens, seconds
        Of the whole run; None without a budget.
    cost
        In the currency of the machine's price; None without a price or a budget.
    fits
        Whether the memory suffices.
    machine
        Where.
    """

    parameters: int
    active_parameters: int
    parameters_by_part: dict[str, int]
    memory_bytes: int
    memory_by_part: dict[str, int]
    offloaded_bytes: int
    offloaded_to: str | None
    flops_per_token: float
    step_seconds: float
    tokens_per_s: float
    steps: int | None
    tokens: int | None
    seconds: float | None
    cost: float | None
    fits: bool
    machine: Machine

    def as_dict(self) -> dict[str, Any]:
        """Return what `omnima plan --json` prints."""
        offloaded = {"offloaded_bytes": self.offloaded_bytes} if self.offloaded_to else {}
        return {
            "parameters": self.parameters,
            "memory_bytes": self.memory_bytes,
            "memory_by_part": self.memory_by_part,
            "flops_per_token": self.flops_per_token,
            "tokens_per_s": self.tokens_per_s,
            "seconds": self.seconds,
            "cost": self.cost,
            "fits": self.fits,
            **offloaded,
        }


def plan(
    job: Job,
    machine: Machine | None = None,
    *,
    here: Machine | None = None,
    calibration: Calibration | None = None,
) -> Plan:
    """Predict a job's memory, speed, duration and cost.

    Parameters
    ----------
    job
        What is to be trained.
    machine
        Another machine, see :func:`read_machine`; None: this one.
    here
        This machine, where it was described before.
    calibration
        What was measured for this job, else it is measured now.

    Examples
    --------
    >>> from omnima.config import model_preset
    >>> from omnima.planning import Job
    >>> found = plan(Job(model_preset("nima", vocab_size=256), rows=2, context=64, steps=10))
    >>> found.fits, found.parameters == sum(found.parameters_by_part.values())
    (True, True)
    """
    here = here if here is not None else this_machine()
    target = machine if machine is not None else here
    if calibration is None:
        # The disk of another machine is unknown: its updates are planned as if in memory.
        alike = job if machine is None else dataclasses.replace(job, offload=None)
        calibration = calibrate(alike, here)
    if machine is not None:
        calibration = carried_over(calibration, job, here, machine)
    memory = memory_by_part(job, target)
    needed = sum(memory.values())
    step = calibration.step_seconds(job)
    stepping, seconds = _duration(job, calibration)
    steps = job.steps
    if steps is None and stepping is not None:
        steps = max(1, int(stepping / step))
    tokens = None if steps is None else steps * job.step_tokens
    # Not of whole steps: a short budget would round the rate as well.
    share = 1.0 if not seconds or stepping is None else stepping / seconds
    price = target.price_per_hour
    return Plan(
        parameters=job.model.num_parameters,
        active_parameters=job.model.num_active_parameters,
        parameters_by_part=job.model.parameter_parts,
        memory_bytes=needed,
        memory_by_part=memory,
        offloaded_bytes=offloaded_bytes(job, target.device),
        offloaded_to=job.offload,
        flops_per_token=job.flops_per_token(),
        step_seconds=step,
        tokens_per_s=share * job.step_tokens / step,
        steps=steps,
        tokens=tokens,
        seconds=seconds,
        cost=None if price is None or seconds is None else price * seconds / 3600,
        fits=needed <= target.memory_bytes,
        machine=target,
    )


def _duration(job: Job, calibration: Calibration) -> tuple[float | None, float | None]:
    """Seconds of the steps, and of the whole run with its evaluations and checkpoints."""
    step = calibration.step_seconds(job)
    one = job.eval_batches * calibration.evaluate_seconds
    evaluating = job.evaluations * one
    save = _save_seconds(job, calibration)
    if job.seconds is not None:
        planned = max(0, int(job.seconds / step) - job.unplanned_steps)
        evaluating = min(job.evaluations, planned) * one
        saving = min(job.evaluations, job.seconds // _REST_BETWEEN_SAVES) * save
        return max(step, job.seconds - evaluating - saving), max(step, job.seconds)
    if job.steps is None:
        return None, None
    stepping = job.steps * step
    seconds = stepping + evaluating
    if job.save_every:
        saves = float(job.steps // job.save_every)
    else:
        saves = min(job.evaluations, seconds // _REST_BETWEEN_SAVES)
    return stepping, seconds + saves * save


def _save_seconds(job: Job, calibration: Calibration) -> float:
    return saved_bytes(job) / calibration.save_bytes_per_s


def carried_over(calibration: Calibration, job: Job, here: Machine, there: Machine) -> Calibration:
    """Carry what was measured here to another machine.

    The part of a pass that the products would take at this machine's rate goes by the rates of
    products, and the rest, which moves memory, by the bandwidths.
    """
    if not here.rates or not here.bandwidth:
        raise ConfigError(
            "To carry a calibration to another machine this one's rates are needed: describe it "
            "with with_rates(this_machine())."
        )
    flops = job.flops_per_token() * job.rows * job.context
    kind = "fp32" if job.precision == "fp32" else "bf16"  # 16 bits are 16 bits
    products = flops / (1e9 * here.rates[kind])
    faster = here.rates[kind] / there.rates[kind]
    wider = here.bandwidth / there.bandwidth

    def carried(seconds: float, computing: float) -> float:
        computing = min(computing, seconds)
        return computing * faster + (seconds - computing) * wider

    return dataclasses.replace(
        calibration,
        pass_seconds=carried(calibration.pass_seconds, products),
        fixed_seconds=calibration.fixed_seconds * wider,
        evaluate_seconds=carried(calibration.evaluate_seconds, products / 3),
    )


def with_rates(machine: Machine, seconds: float = 0.15) -> Machine:
    """Return this machine with its measured rates of products and of reading memory."""
    from omnima.benchmarking.limits import measure_limits

    limits = measure_limits(machine.threads, seconds)
    rates = {name: limits[f"{name}_gflops"] for name in ("fp32", "bf16")}
    return dataclasses.replace(machine, rates=rates, bandwidth=limits["read_gb_per_s"])


def needed_bytes(job: Job, machine: Machine) -> int:
    """Return the peak of memory of a job."""
    return sum(memory_by_part(job, machine).values())


def largest_rows(job: Job, machine: Machine, step_rows: int | None = None) -> int:
    """Return the most rows of a micro-batch that fit, up to 65,536; 0 where not even one does.

    Where the rows of a whole step are given, there are as many micro-batches as they need.
    """

    def fits(rows: int) -> bool:
        batches = job.accumulate if step_rows is None else -(-step_rows // rows)
        wanted = dataclasses.replace(job, rows=rows, accumulate=batches)
        return needed_bytes(wanted, machine) <= machine.memory_bytes

    return _largest(fits, _MOST_ROWS)


def largest_context(job: Job, machine: Machine) -> int:
    """Return the longest row that fits, in tokens, up to 1,048,576, with one row a micro-batch."""

    def fits(context: int) -> bool:
        model = stand_in(job.model, max_position_embeddings=context)
        wanted = dataclasses.replace(job, model=model, rows=1, context=context)
        return needed_bytes(wanted, machine) <= machine.memory_bytes

    return _largest(fits, 1 << 20)


def _largest(fits: Any, most: int) -> int:
    low, high = 0, 1  # low fits, or is nothing
    while high <= most and fits(high):
        low, high = high, 2 * high
    if high > most:
        return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def what_fits(job: Job, machine: Machine) -> list[dict[str, Any]]:
    """Return, for each preset and precision, what it needs at the job's vocabulary, and whether.

    Each row holds the preset, its parameters, the precision, the memory with the preset's own
    context and the job's rows, whether that fits, the longest row and the most rows that do.
    """
    from omnima.config import PRESETS, model_preset

    rows = []
    for name in PRESETS:
        fixed = "vocab_size" in PRESETS[name]
        model = model_preset(name, None if fixed else job.model.vocab_size)
        for precision in ("fp32", "bf16", "fp16"):
            context = model.max_position_embeddings
            wanted = dataclasses.replace(job, model=model, context=context, precision=precision)
            needed = needed_bytes(wanted, machine)
            rows.append(
                {
                    "preset": name,
                    "parameters": model.num_parameters,
                    "precision": precision,
                    "context": context,
                    "memory_bytes": needed,
                    "fits": needed <= machine.memory_bytes,
                    "largest_context": largest_context(wanted, machine),
                    "largest_batch": largest_rows(wanted, machine),
                }
            )
    return rows


def advice(job: Job, machine: Machine) -> str:
    """Say what would fit in the place of a job that does not."""
    ways = []
    rows = largest_rows(job, machine)
    if rows:
        ways.append(f"--batch-size {min(rows, job.rows)}")
    context = largest_context(job, machine)
    if 16 <= context < job.context:
        ways.append(f"--context {context // 16 * 16} with --batch-size 1")
    if job.offload is None and job.optimizer != "adafactor":
        place = "DIRECTORY (of a fast disk)" if machine.device == "cpu" else "cpu"
        elsewhere = dataclasses.replace(job, offload=place)
        if needed_bytes(elsewhere, machine) <= machine.memory_bytes:
            ways.append(f"--offload-optimizer {place}")
    # fp16 needs no less than bf16.
    rows_there = what_fits(job, machine)
    fitting = [each for each in rows_there if each["fits"] and each["precision"] != "fp16"]
    if fitting:
        best = max(fitting, key=lambda row: row["parameters"])
        ways.append(f"--preset {best['preset']} --precision {best['precision']}")
    return " or ".join(ways) if ways else "a machine with more memory"
