"""``python -m omnima.server.probe [URL]``: ends with 0 when a server answers that it is well.

It shows the key of ``OMNIMA_API_KEY``, or that in the file ``OMNIMA_API_KEY_FILE``. Without a key a
server that wants one is well when it says so: of its engine nothing is known then.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

_SECONDS = 8.0
# Straight to the server: a proxy that the environment names would be shown the key.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def is_well(url: str, key: str = "") -> bool:
    """Whether the server at an address answers that its engine works; without a key, that it
    answers.
    """
    request = urllib.request.Request(url.rstrip("/") + "/health")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with _OPENER.open(request, timeout=_SECONDS) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 401 and not key
    except (OSError, ValueError):
        return False


def main() -> None:
    """Look, and end with 0 or 1."""
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    key = os.environ.get("OMNIMA_API_KEY", "")
    if not key and (file := os.environ.get("OMNIMA_API_KEY_FILE")):
        key = Path(file).read_text(encoding="utf-8").strip()
    sys.exit(0 if is_well(url, key) else 1)


if __name__ == "__main__":
    main()
