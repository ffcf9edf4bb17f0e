"""A page in the browser: talk with models, compare them, look into their tokens, train one.

It needs the extra ``demo``: ``pip install 'omnima[demo]'``.
"""

from omnima.demo.running import Demo, demo

__all__ = ["Demo", "demo"]
