"""Command lines run inside the test: the way out, and what was written."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from omnima.cli.app import main

Leave = Callable[[Iterable[object]], tuple[int, str, str]]
Says = Callable[..., str]


@pytest.fixture
def leave(capsys: pytest.CaptureFixture[str]) -> Leave:
    """Run a command line: its exit status, and what it wrote to standard output and error."""

    def run(arguments: Iterable[object]) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([str(each) for each in arguments])
        out, err = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, out, err

    return run


@pytest.fixture
def shown(leave: Leave) -> Says:
    """What a command that succeeds writes to standard output."""

    def run(*arguments: object) -> str:
        code, out, err = leave(arguments)
        assert code == 0, err
        return out

    return run


@pytest.fixture
def refused(leave: Leave) -> Says:
    """The one line on standard error of a command that must fail."""

    def run(*arguments: object) -> str:
        code, out, err = leave(arguments)
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert code == 1 and out == "" and len(lines) == 1 and "Traceback" not in err, err
        return lines[0]

    return run
