"""The architectures that Omnima reads and writes. A new one is a file here and a line below."""

from __future__ import annotations

from omnima.hub.architectures.arcee import ARCEE
from omnima.hub.architectures.base import Architecture
from omnima.hub.architectures.gemma import GEMMA
from omnima.hub.architectures.gemma2 import GEMMA2
from omnima.hub.architectures.gemma3 import GEMMA3
from omnima.hub.architectures.gpt2 import GPT2
from omnima.hub.architectures.gpt_neox import GPT_NEOX
from omnima.hub.architectures.llama import LLAMA
from omnima.hub.architectures.mistral import MISTRAL
from omnima.hub.architectures.mixtral import MIXTRAL
from omnima.hub.architectures.nemotron import NEMOTRON
from omnima.hub.architectures.olmo2 import OLMO2
from omnima.hub.architectures.olmo3 import OLMO3
from omnima.hub.architectures.own import OWN
from omnima.hub.architectures.phi3 import PHI3
from omnima.hub.architectures.qwen2 import QWEN2
from omnima.hub.architectures.qwen3 import QWEN3
from omnima.hub.architectures.qwen3_moe import QWEN3_MOE
from omnima.hub.architectures.smollm3 import SMOLLM3
from omnima.hub.architectures.stablelm import STABLELM
from omnima.hub.architectures.starcoder2 import STARCODER2

#: A model is written as the first that it is exactly.
REGISTRY: tuple[Architecture, ...] = (
    LLAMA,
    MISTRAL,
    MIXTRAL,
    QWEN2,
    QWEN3,
    QWEN3_MOE,
    GPT2,
    GPT_NEOX,
    GEMMA,
    GEMMA2,
    GEMMA3,
    SMOLLM3,
    OLMO2,
    OLMO3,
    PHI3,
    STABLELM,
    STARCODER2,
    ARCEE,
    NEMOTRON,
    OWN,
)
BY_NAME = {each.name: each for each in REGISTRY}

__all__ = ["BY_NAME", "REGISTRY", "Architecture"]
