"""A server for many users at once: OpenAI's interface over one engine.

It needs the extra ``serve``: ``pip install 'omnima[serve]'``.
"""

from omnima.server.jobs import EngineOptions
from omnima.server.keys import ApiKeys, new_key
from omnima.server.limits import Limits
from omnima.server.running import Server, serve

__all__ = ["ApiKeys", "EngineOptions", "Limits", "Server", "new_key", "serve"]
