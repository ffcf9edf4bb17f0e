"""Writing with a model: prompts in, texts out, streamed if you like."""

from __future__ import annotations

from omnima.generation.chat import ChatSession
from omnima.generation.generate import Generation, generate
from omnima.generation.prompt_cache import PromptCache
from omnima.generation.streaming import stream

__all__ = ["ChatSession", "Generation", "PromptCache", "generate", "stream"]
