"""What must be installed beside omnima itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from omnima.errors import OmnimaError


def check_extra(what: str, modules: Sequence[str], extra: str) -> None:
    """Look whether what something needs is installed.

    Parameters
    ----------
    what
        What needs it, for the message.
    modules
        Names of them.
    extra
        Of omnima, with which pip installs them.

    Raises
    ------
    OmnimaError
        Naming the modules that are missing, and the command.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise OmnimaError(
            f"{what} needs {', '.join(missing)}: install omnima with its extra, "
            f"pip install 'omnima[{extra}]'."
        )
