"""llama.cpp's own way to make a GGUF file small: its rounding, without text."""

from __future__ import annotations

import ctypes
import time
from typing import Any

from omnima.errors import OmnimaError

#: The numbers of its file types (llama_ftype in llama.h).
_TYPES = {"q8_0": 7, "q4_0": 2, "q4_1": 3, "q4_k_m": 15}


def quantize(job: dict[str, Any]) -> dict[str, Any]:
    """Write the job's file as another one of a type; return its bytes and the seconds it took."""
    import llama_cpp

    from omnima.benchmarking.formats import bytes_of

    silent = llama_cpp.llama_log_callback(lambda *told: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype, options.nthread = _TYPES[job["kind"]], job["threads"]
    start = time.perf_counter()
    code = llama_cpp.llama_model_quantize(
        job["copy"].encode(), job["to"].encode(), ctypes.byref(options)
    )
    seconds = time.perf_counter() - start
    if code != 0:
        raise OmnimaError(f"llama.cpp cannot make {job['kind']} of this model (code {code})")
    return {"seconds": seconds, "bytes": bytes_of(job["to"])}
