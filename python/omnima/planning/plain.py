"""The memory of what the CPU computes on plain ATen: fp16, and attention to both sides; and holes.

Its operators keep more than the core's kernels do, and their float32 copies leave holes in the heap
between what is kept. What is told here comes on top of what those kernels would hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnima.config.activations import is_gated

if TYPE_CHECKING:
    from omnima.config import ModelConfig
    from omnima.planning.core_facts import Slices
    from omnima.planning.job import Job

# float32 copies of queries and keys that are freed while the next block's tensors already lie
# behind them (measured: 2.5 to 3.5, at 1 to 12 blocks of 256 to 2,048 tokens).
_HOLES = 3
# Rows as wide as the stream that lie free between what a block of the core's own kernels keeps
# (measured: 2.5 to 4, at 1M to 40M parameters and 128 to 2,048 tokens).
_CORE_HOLES = 3
# Logits of the loss at once, in bytes each: half, float32, their log-softmax, and both gradients.
_LOGIT_BYTES = 2 + 4 + 4 + 4 + 2
# The head's weight and its gradient, in bytes a number: half, half again, float32.
_HEAD_BYTES = 2 + 2 + 4
# What oneDNN writes for products in half precision.
_CODE_BYTES = 10 << 20


def plain_attention(job: Job) -> bool:
    """Whether a job's attention runs on plain ATen on the CPU."""
    return job.precision == "fp16" or not job.model.causal


def block_bytes(job: Job) -> float:
    """Return what a block takes for each token beyond what the core's kernels keep."""
    if not plain_attention(job):
        return float(_CORE_HOLES * job.element * job.model.hidden_size)
    model, element = job.model, job.element
    queries, keys = widths(model)
    turned = queries + keys
    if queries != keys:  # keys and values are repeated for the heads that share them
        turned = 3 * queries
    more = element * (turned + queries) + 4.0 * _HOLES * (queries + keys)
    if job.precision != "fp16":
        return more
    hidden, inner = model.hidden_size, model.intermediate_size
    # A norm keeps its input and, of RMSNorm, its result in float32, and its product in half; the
    # core keeps the sums before both norms. The activation keeps its input, parts and result.
    norms = 2.0 * (6 if model.norm == "layer_norm" else 10) * hidden - 4.0 * hidden
    return float(more + norms + 2.0 * (2 if is_gated(model.activation) else 1) * inner)


def score_bytes(job: Job, device: str) -> tuple[float, float]:
    """Bytes a token of the scores that a layer keeps on average, and that its backward pass holds.

    Nothing where attention has kernels: on the CPU, and elsewhere without options. Else plain ATen
    keeps the weights of all pairs in float32, what a cap and dropout made of them, and the mask.
    """
    model, layers = job.model, job.model.num_hidden_layers
    if device == "cpu" and not plain_attention(job):
        return 0, 0
    all_layers = model.positions in ("alibi", "relative")
    all_layers = all_layers or model.attention_softcap > 0 or model.attention_dropout > 0
    plain_every = model.sliding_window_pattern or model.dense_attention_every_n_layers
    share = 1.0 - (layers // plain_every if plain_every else 0) / layers
    if not (model.sliding_window or model.blocksparse_block_size):
        share = 0.0
    share = 1.0 if all_layers else share
    pairs = model.num_attention_heads * job.context
    by_head = model.blocksparse_block_size > 0 and not model.blocksparse_homo_head_pattern
    mask = pairs if by_head else job.context
    numbers = 1 + (model.attention_softcap > 0) + 2 * (model.attention_dropout > 0)
    if device == "cpu":  # float32 queries, keys and values; and scores in holes of the heap
        numbers += 1
        mask += 4 * 3 * widths(model)[0]
    return share * (4 * numbers * pairs + mask), (share > 0) * 3 * 4 * pairs


def head_bytes(job: Job, slices: Slices) -> int:
    """Return what the head of an fp16 pass holds beside its logits."""
    if job.precision != "fp16":
        return 0
    numbers = job.model.vocab_size * job.model.hidden_size
    return int(_CODE_BYTES + slices.workers * _HEAD_BYTES * numbers)


def fp16_logits_bytes(job: Job, slices: Slices) -> int:
    """Return the bytes of the logits of a slice, which fp16 computes whole."""
    return int(_LOGIT_BYTES * slices.tokens * job.model.vocab_size)


def widths(model: ModelConfig) -> tuple[int, int]:
    """Return the width of all queries of a token, and that of its keys."""
    heads = model.num_attention_heads, model.num_key_value_heads
    return heads[0] * model.head_dim, heads[1] * model.head_dim
