"""Exercises: what is right, what is wrong and what is not answered."""

from __future__ import annotations

import subprocess
import sys

import pytest

from omnima.notebook import WrongAnswer, check


def test_answers(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(answer: int) -> str | None:
        return None if answer + 1 == 3 else f"{answer} + 1 is not 3"

    check("One", 2, wrong)
    check("One", ..., wrong)
    assert capsys.readouterr().out.splitlines()[0] == "One: right."
    with pytest.raises(WrongAnswer, match=r"One: 5 \+ 1 is not 3"):
        check("One", 5, wrong)
    with pytest.raises(WrongAnswer, match="One: the answer 'two' could not be looked at: "):
        check("One", "two", wrong)


def test_looking_is_loaded_when_it_is_asked_for() -> None:
    code = (
        "import sys, omnima, omnima.model, omnima.training.run, omnima.notebook; "
        "print(sorted({'matplotlib', 'IPython'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
