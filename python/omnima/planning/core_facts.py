"""How the core cuts a step into pieces, for predictions; a test compares these with its sources."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnima.planning.job import Job

# train/row_workers.cpp: up to so many parameters threads take rows of their own, side by side.
SIDE_BY_SIDE_PARAMETERS = 8 << 20
# nn/arena.cpp: up to so many parameters the weights are packed once a step.
PACKED_PARAMETERS = 32 << 20
# train/step.cpp: tokens of a slice where weights are packed already or held in blocks, and
# elsewhere.
SLICE_TOKENS_PACKED, SLICE_TOKENS = 512, 1024
# ops/linear_cross_entropy.cpp: logits of a chunk, and the bounds of its rows; side by side first.
CHUNK_NUMBERS = {True: 1 << 22, False: 1 << 23}
CHUNK_ROWS = {True: (512, 4096), False: (1024, 4096)}
# ops/product.cpp: depth of a block, and packed columns of the right factor at a time.
DEPTH_BYTES = 2048
RIGHT_BYTES = 4 << 20
# optim/state_store.h: elements of a slice of an offloaded state.
OFFLOAD_SLICE = 1 << 20
# data/loader.h: batches made ahead.
BATCHES_AHEAD = 4
# kernels/cpu/gemm: columns of a panel; narrower processors round up to fewer.
PANEL_COLS = 32


@dataclasses.dataclass(frozen=True)
class Slices:
    """How a micro-batch passes through the model: so many workers, each taking `rows` at a time."""

    workers: int
    rows: int
    tokens: int

    @property
    def side_by_side(self) -> bool:
        """Whether threads work on rows of their own."""
        return self.workers > 1


def packs(parameters: int, device: str = "cpu") -> bool:
    """Whether the weights of a model are packed once a step."""
    return device == "cpu" and parameters <= PACKED_PARAMETERS


def slices_of(job: Job, threads: int, device: str = "cpu") -> Slices:
    """Return how the core cuts the micro-batch of a job for so many threads."""
    if device != "cpu":
        return Slices(1, job.rows, job.rows * job.context)
    count = job.model.num_parameters
    workers = threads if job.rows >= threads and count <= SIDE_BY_SIDE_PARAMETERS else 1
    short = job.held is not None or packs(count)
    most = max(1, (SLICE_TOKENS_PACKED if short else SLICE_TOKENS) // job.context)
    rows = min(most, -(-job.rows // workers))
    return Slices(workers, rows, rows * job.context)


def chunk_rows(vocab: int, side_by_side: bool) -> int:
    """Return the rows of one chunk of the loss."""
    low, high = CHUNK_ROWS[side_by_side]
    return min(max(CHUNK_NUMBERS[side_by_side] // vocab, low), high)


def packed_number_bytes(precision: str, level: str) -> int:
    """Return the bytes of a packed weight; 0 where products go to PyTorch's own kernels."""
    if precision == "fp32":
        return 4
    if precision == "fp16":
        return 0
    return {"amx": 2, "avx512bf16": 2}.get(level, 4)
