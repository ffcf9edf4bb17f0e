"""The tools that open what Omnima writes, each behind the same few questions.

They run in a process of their own (`omnima.exporting.asking` starts it): what another tool prints,
keeps in memory or dies of is not ours.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Questions:
    """What a tool is asked of a model."""

    rows: list[list[int]]  # ids; the logits after each of them
    count: int  # tokens that greedily follow each row; 0: none
    texts: list[str]  # to be cut into ids, without anything added; empty: there is no tokenizer
    messages: list[dict[str, str]] = dataclasses.field(default_factory=list)  # for a chat template


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a tool finds in a model."""

    version: str
    logits: list[NDArray[np.float32]]  # [time, vocab], for each row
    greedy: list[list[int]]
    encoded: list[list[int]]
    written: str | None = None  # the messages, by the tool's template

    def write(self, directory: Path) -> None:
        """Write them into a directory."""
        np.savez(directory / "logits.npz", *self.logits)
        rest = {k: v for k, v in vars(self).items() if k != "logits"}
        (directory / "answers.json").write_text(json.dumps(rest), encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Answers:
        """Read what `write` has written."""
        with np.load(directory / "logits.npz") as file:
            logits = [file[f"arr_{i}"] for i in range(len(file.files))]
        rest = json.loads((directory / "answers.json").read_text(encoding="utf-8"))
        return cls(logits=logits, **rest)


def transformers(path: Path, asked: Questions) -> Answers:
    """A directory in transformers, in float32."""
    import torch
    import transformers

    quiet: Any = {"local_files_only": True, "trust_remote_code": False}
    kind: Any = transformers.AutoModelForCausalLM
    model = kind.from_pretrained(path, dtype=torch.float32, attn_implementation="eager", **quiet)
    model.eval()

    def greedy(row: list[int]) -> list[int]:
        given = torch.tensor([row])
        made = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=asked.count,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        found: list[int] = made[0, len(row) :].tolist()
        return found

    encoded, written = [], None
    if asked.texts:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(path, **quiet)
        encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in asked.texts]
    if asked.messages:
        way = {"add_generation_prompt": True, "tokenize": False}
        written = tokenizer.apply_chat_template(asked.messages, **way)
    with torch.no_grad():
        logits = [model(torch.tensor([row])).logits[0].numpy() for row in asked.rows]
    return Answers(
        transformers.__version__,
        logits,
        [greedy(row) for row in asked.rows if asked.count],
        encoded,
        written,
    )


def llama_cpp(path: Path, asked: Questions) -> Answers:
    """A GGUF file in llama.cpp, through llama-cpp-python; keys and values in float32."""
    import llama_cpp

    longest = max(len(row) for row in asked.rows) + asked.count
    # Its threads wait for each other by turning round: on all cores, anyone else at work makes a
    # small model a hundred times slower.
    threads = max(1, (os.cpu_count() or 1) // 2)
    model: Any = llama_cpp.Llama(
        str(path),
        n_ctx=longest,
        n_batch=longest,
        n_threads=threads,
        n_threads_batch=threads,
        logits_all=True,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
    )

    def logits(row: Sequence[int]) -> NDArray[np.float32]:
        model.reset()
        model.eval(row)
        found: NDArray[np.float32] = model.scores[: len(row)].copy()
        return found

    def greedy(row: list[int]) -> list[int]:
        made = [int(logits(row)[-1].argmax())]
        while len(made) < asked.count:
            model.eval(made[-1:])
            made.append(int(model.scores[model.n_tokens - 1].argmax()))
        return made

    return Answers(
        llama_cpp.__version__,
        [logits(row) for row in asked.rows],
        [greedy(row) for row in asked.rows if asked.count],
        [model.tokenize(text.encode(), add_bos=False, special=False) for text in asked.texts],
        _written_by_llama_cpp(model, asked.messages) if asked.messages else None,
    )


def _written_by_llama_cpp(model: Any, messages: list[dict[str, str]]) -> str | None:
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    template = model.metadata.get("tokenizer.chat_template")
    if template is None:
        return None
    begin, end = (model._model.token_get_text(i) for i in (model.token_bos(), model.token_eos()))
    formatter: Any = Jinja2ChatFormatter(template, end, begin)
    found: str = formatter(messages=messages).prompt
    return found


#: What asks a tool, by its name.
PEERS: dict[str, Callable[[Path, Questions], Answers]] = {
    "transformers": transformers,
    "llama.cpp": llama_cpp,
}
