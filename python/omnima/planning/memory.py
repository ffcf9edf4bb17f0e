"""The memory of a training step by part, from the shapes alone (docs/explanation/memory.md)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from omnima.config.activations import is_gated
from omnima.planning import plain
from omnima.planning.core_facts import (
    BATCHES_AHEAD,
    DEPTH_BYTES,
    OFFLOAD_SLICE,
    PANEL_COLS,
    RIGHT_BYTES,
    Slices,
    chunk_rows,
    packed_number_bytes,
    packs,
    slices_of,
)
from omnima.planning.job import Held, stand_in

if TYPE_CHECKING:
    from omnima.config import ModelConfig
    from omnima.planning.job import Job
    from omnima.planning.machine import Machine

PARTS = (
    "weights",
    "gradients",
    "optimizer",
    "averages",
    "bf16_shadow",
    "packed_weights",
    "activations",
    "logits",
    "workspace",
    "data",
    "cache",
    "runtime",
)

# Bytes that an optimizer keeps for each parameter; others are measured on stand-ins.
OPTIMIZER_BYTES = {"adamw": 8}
# A batch holds int64 ids and labels and int32 segments.
_BATCH_BYTES = 20


def memory_by_part(job: Job, machine: Machine) -> dict[str, int]:
    """Return the bytes of each part while a step runs; their sum is the peak.

    Parameters
    ----------
    job
        The model and its batches.
    machine
        Its threads, level and device decide how the core cuts a batch; its `runtime_bytes` is what
        a process holds before there is a model.
    """
    model = job.model
    count, slices = model.num_parameters, slices_of(job, machine.threads, machine.device)
    buffers = slices.workers
    activations = buffers * activation_bytes(job, slices, machine.device)
    held = job.held or Held(0, 0, 0)
    return {
        "weights": 4 * (count - held.numbers + (job.trained or 0)) + held.bytes,
        "gradients": 4 * job.learning * buffers,
        "optimizer": state_bytes(job) - offloaded_bytes(job, machine.device),
        "averages": _average_bytes(job, activations),
        "bf16_shadow": 0 if job.precision == "fp32" else 2 * (count - held.numbers),
        "packed_weights": packed_bytes(job, machine),
        "activations": activations,
        "logits": buffers * logits_bytes(job, slices, machine.device),
        "workspace": workspace_bytes(job, slices, machine) + held.at_once * job.element,
        "data": _data_bytes(job),
        "cache": _cache_bytes(job),
        "runtime": machine.runtime_bytes,
    }


def _average_bytes(job: Job, activations: int) -> int:
    """The running mean; and the trained weights, put aside while an average is evaluated.

    That is between steps, where no activations are held.
    """
    one = 4 * job.learning
    return one * job.ema + max(0, one - activations) * job.shows_average


def optimizer_bytes(model: ModelConfig, name: str) -> int:
    """Return the bytes of an optimizer's state for a model."""
    if name in OPTIMIZER_BYTES:
        return OPTIMIZER_BYTES[name] * model.num_parameters
    return measured_optimizer_bytes(model, name)


def state_bytes(job: Job) -> int:
    """Return the bytes of the optimizer's state: of what learns."""
    whole = optimizer_bytes(job.model, job.optimizer)
    return whole if job.trained is None else whole * job.trained // int(job.model.num_parameters)


def offloaded_bytes(job: Job, device: str = "cpu") -> int:
    """Return the bytes of an optimizer's state that are not in the memory that is planned.

    What is updated is there, slice by slice: one at a time on the CPU, two on another device, which
    come and go.
    """
    if job.offload is None:
        return 0
    model, slots = job.model, 1 if device == "cpu" else 2
    state = state_bytes(job)
    slices = OFFLOAD_SLICE
    if job.optimizer == "adamw_8bit":  # the scales of its blocks stay
        state = 2 * job.learning
    if job.optimizer == "muon":  # a matrix is one slice
        slices = max(slices, *(outputs * inputs for outputs, inputs, _ in factors(model)[:-1]))
    return max(0, state - slots * slices * -(-state // max(1, job.learning)))


def measured_optimizer_bytes(model: ModelConfig, name: str) -> int:
    """Return the bytes of an optimizer's state, drawn from the states of three small stand-ins.

    The state of every optimizer grows with the layers and with the vocabulary along straight lines.
    """
    vocab, layers = min(model.vocab_size, 64), 1
    base = _state_bytes(stand_in(model, vocab_size=vocab, num_hidden_layers=layers), name)
    deeper = _state_bytes(stand_in(model, vocab_size=vocab, num_hidden_layers=layers + 1), name)
    wider = _state_bytes(stand_in(model, vocab_size=2 * vocab, num_hidden_layers=layers), name)
    by_layer, by_token = deeper - base, (wider - base) / vocab
    return int(
        base + by_layer * (model.num_hidden_layers - layers) + by_token * (model.vocab_size - vocab)
    )


@lru_cache(maxsize=32)
def _state_bytes(model: ModelConfig, name: str) -> int:
    from omnima import _core

    options = _core.StepOptions()
    options.optimizer, options.schedule = name, "constant"
    state = _core.TrainStep(_core.Decoder(model.core(), 0), options).state()
    return sum(
        each.numel() * each.element_size() for key, each in state.items() if key != "weights"
    )


def packed_bytes(job: Job, machine: Machine) -> int:
    """Return the bytes of the weights as products read them, for forward and for backward."""
    number = packed_number_bytes(job.precision, machine.level)
    if job.held is not None or not packs(job.model.num_parameters, machine.device):
        return 0

    def panels(columns: int) -> int:
        return -(-columns // PANEL_COLS) * PANEL_COLS

    numbers = sum(
        times * (rows * panels(columns) + columns * panels(rows))
        for rows, columns, times in factors(job.model)
    )
    return number * numbers


def factors(model: ModelConfig) -> list[tuple[int, int, int]]:
    """Return the matrices that products multiply by: outputs, inputs, how many."""
    hidden, layers = model.hidden_size, model.num_hidden_layers
    queries, keys = plain.widths(model)
    sparse = model.expert_layers
    mlps = {  # inner widths, and how many there are; a router's matrix is never packed
        "plain": (model.intermediate_size, layers - sparse),
        "expert": (model.moe_intermediate_size, sparse * model.num_experts),
        "shared": (model.shared_expert_intermediate_size, sparse),
        "heads": (model.intermediate_size, model.prediction_heads),
    }
    return [
        (queries + 2 * keys, hidden, layers),
        (hidden, queries, layers),
        *(
            factor
            for inner, times in mlps.values()
            if inner and times
            for factor in ((_gate(model) * inner, hidden, times), (hidden, inner, times))
        ),
        (model.vocab_size, hidden, 1),
    ]


def activation_bytes(job: Job, slices: Slices, device: str = "cpu") -> int:
    """Return what one slice's layers keep for the backward pass, and what that needs beside it."""
    model, element = job.model, job.element
    hidden, inner = model.hidden_size, model.intermediate_size
    queries, keys = plain.widths(model)
    sparse = model.expert_layers / model.num_hidden_layers
    chosen = model.num_experts_per_tok
    mixed = chosen * model.moe_intermediate_size + model.shared_expert_intermediate_size
    inner = (1 - sparse) * inner + sparse * mixed
    # A block keeps the residual sum twice (before each norm), queries, keys and values, what
    # attention gave and what the activation read; the rest is made again. With experts also what
    # the router reads.
    kept = (2 + sparse) * hidden + 2 * queries + 2 * keys + _gate(model) * inner
    if device != "cpu":  # there nothing is made again: the norms' and the activation's results stay
        kept += 2 * hidden + inner
    statistics = 4 * (model.num_attention_heads + 2 * (2 if model.norm == "layer_norm" else 1))
    statistics += sparse * (4 * model.num_experts + 12 * chosen)  # probabilities and choices
    scores, passing_scores = plain.score_bytes(job, device)
    by_layer = element * kept + statistics + scores
    if device == "cpu":
        by_layer += plain.block_bytes(job)
    # The last sum and its norm, the hidden states and their gradient; prediction heads have ends of
    # their own, and keep what their mlp reads.
    heads = model.prediction_heads
    ends = (4 * hidden * (1 + heads) + heads * (hidden + _gate(model) * inner)) * element
    # One block's backward pass: gradients of the stream, of the activation and of its input.
    # Experts go back one by one; their gradients of the input wait for the last.
    at_once = inner * ((1 - sparse) + 2 * sparse / max(1, model.num_experts))
    passing = element * ((2 + sparse * chosen) * hidden + (1 + _gate(model)) * at_once)
    passing += passing_scores
    layers = model.num_hidden_layers
    if model.dropout and device != "cpu":  # on the CPU masks are drawn again
        by_layer += 2 * hidden * element
    again = min(layers, job.checkpoint_layers)
    whole = layers - again + (again > 0)  # one of those that compute twice is there at a time
    blocks = whole * by_layer + again * 2 * hidden * element
    return int(slices.tokens * (blocks + ends + passing))


def logits_bytes(job: Job, slices: Slices, device: str = "cpu") -> int:
    """Return the bytes of the logits of one chunk of the loss."""
    if job.precision == "fp16" and device == "cpu":
        return plain.fp16_logits_bytes(job, slices)
    vocab = job.model.vocab_size
    return int(min(slices.tokens, chunk_rows(vocab, slices.side_by_side)) * vocab * job.element)


def workspace_bytes(job: Job, slices: Slices, machine: Machine) -> int:
    """Return what the threads of products keep between calls."""
    if machine.device != "cpu":
        return 0
    model, number = job.model, packed_number_bytes(job.precision, machine.level) or job.element
    block = DEPTH_BYTES // number
    chunk = min(slices.tokens, chunk_rows(model.vocab_size, slices.side_by_side))
    sums = 0  # a product deeper than a block sums in float32 first
    for outputs, inputs, _ in factors(model):
        rows = chunk if outputs == model.vocab_size else slices.tokens
        if inputs > block:
            sums = max(sums, 4 * rows * outputs)
        if outputs > block:
            sums = max(sums, 4 * rows * inputs)
    right = min(RIGHT_BYTES, number * slices.tokens * max(f[1] for f in factors(model)))
    return slices.workers * (sums + right) + plain.head_bytes(job, slices)


def _data_bytes(job: Job) -> int:
    batches = BATCHES_AHEAD + 1 + job.accumulate
    return batches * _BATCH_BYTES * job.rows * job.context + job.text_bytes


def _cache_bytes(job: Job) -> int:
    tokens = job.samples * min(job.sample_tokens, job.model.max_position_embeddings)
    return cache_bytes(job.model, tokens)


def cache_bytes(model: ModelConfig, tokens: int) -> int:
    """Return the bytes of the keys and values of so many tokens, in float32."""
    _, keys = plain.widths(model)
    return int(2 * 4 * model.num_hidden_layers * keys * tokens)


def generation_bytes(model: ModelConfig) -> int:
    """Return what writing one text as long as the context takes: weights, keys and values."""
    return int(4 * model.num_parameters) + cache_bytes(model, model.max_position_embeddings)


def _gate(model: ModelConfig) -> int:
    return 2 if is_gated(model.activation) else 1
