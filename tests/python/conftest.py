"""What holds for all tests: drawn examples may take as long as a busy machine makes them, and a
program that is to be interrupted is not measured."""

from __future__ import annotations

import os
import signal

import hypothesis
import pytest

hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")
# A shell starts what runs in its background with SIGINT ignored, and children take that over.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def unmeasured() -> dict[str, str]:
    """The environment of a program that gets SIGINT: measured by `coverage`, it may wait for ever
    for a lock that was held when KeyboardInterrupt came (coverage.collector.lock_data)."""
    return {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
