"""CTranslate2's generator, from a directory of its own kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omnima.benchmarking.systems import Writer


def build(job: dict[str, Any]) -> tuple[Writer, dict[str, Any]]:
    """Return what writes, and what is known of the model."""
    import ctranslate2

    directory = Path(job["copy"])
    generator: Any = ctranslate2.Generator(
        str(directory),
        device="cpu",
        intra_threads=job["threads"],
        inter_threads=1,
        compute_type={"f32": "float32", "bf16": "bfloat16", "int8": "int8"}[job["precision"]],
    )
    pieces = json.loads((directory / "vocabulary.json").read_text(encoding="utf-8"))

    def write(prompts: list[list[int]], new_tokens: int) -> list[int]:
        results = generator.generate_batch(
            [[pieces[each] for each in prompt] for prompt in prompts],
            max_length=new_tokens,
            min_length=new_tokens,
            max_batch_size=len(prompts),
            beam_size=1,
            sampling_topk=1,
            end_token=[],
            include_prompt_in_result=False,
        )
        found: list[int] = results[0].sequences_ids[0]
        return found

    size = (directory / "model.bin").stat().st_size
    return write, {"weight_bytes": size, "format": generator.compute_type}
