"""llama.cpp through its C functions, from a GGUF file: between the tokens only the choice of the
likeliest is Python's.
"""

from __future__ import annotations

import ctypes
from typing import Any

from omnima.benchmarking.systems import Writer
from omnima.errors import OmnimaError

_STEP = 2048  # tokens of one call at most


def build(job: dict[str, Any]) -> tuple[Writer, dict[str, Any]]:
    """Return what writes, and what is known of the model."""
    import llama_cpp

    silent = llama_cpp.llama_log_callback(lambda *told: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    sequences, longest = len(job["prompts"]), len(job["prompts"][0]) + job["new_tokens"]
    model = llama_cpp.llama_model_load_from_file(
        job["copy"].encode(), llama_cpp.llama_model_default_params()
    )
    if not model:
        raise OmnimaError(f"llama.cpp cannot load {job['copy']}")
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = sequences * -(-longest // 256) * 256  # it wants whole blocks a sequence
    options.n_batch, options.n_seq_max = _STEP, sequences
    options.n_threads = options.n_threads_batch = job["threads"]
    context = llama_cpp.llama_init_from_model(model, options)
    if not context:
        raise OmnimaError(f"llama.cpp gives no context of {options.n_ctx} tokens")
    size = llama_cpp.llama_model_size(model)
    writer = _Writer(context, model, silent)
    return writer.write, {"weight_bytes": size, "format": job["copy_kind"]}


class _Writer:
    def __init__(self, context: Any, model: Any, *kept: Any) -> None:
        import llama_cpp

        self._api, self._context, self._kept = llama_cpp, context, kept
        vocabulary = llama_cpp.llama_model_get_vocab(model)
        self._rows = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self._batch = llama_cpp.llama_batch_init(_STEP, 0, 1)

    def write(self, prompts: list[list[int]], new_tokens: int) -> list[int]:
        memory = self._api.llama_get_memory(self._context)
        self._api.llama_memory_clear(memory, True)
        place, last = len(prompts[0]), self._read(prompts)
        first = [last[0]]
        for step in range(new_tokens - 1):
            last = self._decode(
                [(token, place + step, row, True) for row, token in enumerate(last)]
            )
            first.append(last[0])
        return first

    def _read(self, prompts: list[list[int]]) -> list[int]:
        """The likeliest ids after the prompts, which go in as many calls as they need."""
        tokens = [
            (token, place, row, place == len(prompt) - 1)
            for row, prompt in enumerate(prompts)
            for place, token in enumerate(prompt)
        ]
        found = []
        for start in range(0, len(tokens), _STEP):
            found += self._decode(tokens[start : start + _STEP])
        return found

    def _decode(self, tokens: list[tuple[int, int, int, bool]]) -> list[int]:
        """Read (id, place, sequence, whether its logits are wanted); the likeliest ids after
        those.
        """
        import numpy as np

        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, (token, place, row, wanted) in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, place
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, row
            batch.logits[i] = wanted
        if self._api.llama_decode(self._context, batch) != 0:
            raise OmnimaError("llama.cpp could not decode")
        found = []
        for i, (_, _, _, wanted) in enumerate(tokens):
            if wanted:
                logits = self._api.llama_get_logits_ith(self._context, i)
                found.append(int(np.ctypeslib.as_array(logits, (self._rows,)).argmax()))
        return found
