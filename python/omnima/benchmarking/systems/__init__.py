"""The systems that can be measured; each file builds one. A new one is a file and a line here."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

#: A step: (input ids, labels), both int64 [rows, time], to the loss.
Step = Callable[[Any, Any], float]

#: Reads the prompts and writes so many ids after each, always the likeliest one and whatever ends a
#: text elsewhere; gives the ids after the first prompt.
Writer = Callable[[list[list[int]], int], list[int]]

#: System name to the module that builds its training and evaluation steps, and what must be
#: installed for it.
TRAINERS = {
    "omnima": ("omnima_core", "torch"),
    "torch-eager": ("torch_plain", "torch"),
    "torch-compile": ("torch_plain", "torch"),
    "transformers": ("transformers_llama", "transformers"),
    "litgpt": ("litgpt_model", "litgpt"),
}
#: The same for tokenization.
TOKENIZERS = {
    "omnima": ("omnima_tokenizer", "torch"),
    "sentencepiece": ("sentencepiece_model", "sentencepiece"),
    "tokenizers": ("huggingface_tokenizer", "tokenizers"),
}
#: The same for reading prompts and writing on.
WRITERS = {
    "omnima": ("omnima_writer", "torch"),
    "transformers": ("transformers_writer", "transformers"),
    "llama.cpp": ("llama_cpp_writer", "llama_cpp"),
    "ctranslate2": ("ctranslate2_writer", "ctranslate2"),
}
#: The same for making a model small.
QUANTIZERS = {
    "omnima": ("omnima_quantizer", "torch"),
    "llama.cpp": ("llama_cpp_quantizer", "llama_cpp"),
}
#: The same for training an adapter.
ADAPTERS = {
    "omnima": ("omnima_adapter", "torch"),
    "peft": ("peft_adapter", "peft"),
}
#: The same for learning answers, and which of two answers is preferred.
ANSWERS = {**ADAPTERS, "trl": ("trl_trainer", "trl")}
PREFERENCES = {"omnima": ANSWERS["omnima"], "trl": ANSWERS["trl"]}
#: What trains a model that is there already.
TUNING = {"lora": ADAPTERS, "sft": ANSWERS, "dpo": PREFERENCES}
WRITING = ("prefill", "decode", "batch")
_INSTALL = {"llama_cpp": "llama-cpp-python"}


def systems_of(task: str) -> dict[str, tuple[str, str]]:
    """Return the systems that know a task."""
    if task in WRITING:
        return WRITERS
    if task == "quantize":
        return QUANTIZERS
    if task in TUNING:
        return TUNING[task]
    return TOKENIZERS if task == "tokenize" else TRAINERS


def missing(task: str, system: str) -> str | None:
    """Return why a system cannot be measured here, or None when it is installed."""
    package = systems_of(task)[system][1]
    if importlib.util.find_spec(package) is not None:
        return None
    return f"{package} is not installed (pip install {_INSTALL.get(package, package)})"


def module_of(task: str, system: str) -> Any:
    """Import the module that builds a system's step."""
    return importlib.import_module(f"{__name__}.{systems_of(task)[system][0]}")
