"""`python -m omnima` is the command `omnima`."""

from __future__ import annotations

from omnima.cli import main

if __name__ == "__main__":
    main()
