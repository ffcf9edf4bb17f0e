"""Templates run in a process of their own: what it bounds, and how it comes and goes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from omnima.errors import DataError
from omnima.templates import process
from omnima.templates.template import ChatTemplate, RenderedChat

GREETING = ChatTemplate("{% generation %}{{ a }}{% endgeneration %}, {{ a[0] }}!", "greeting")
# Near the bound of its work: seconds.
SLOW = ChatTemplate(
    "{% for i in range(99999) %}{% for j in range(2) %}{{ i * j }}{% endfor %}{% endfor %}"
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes that can be waited for")


def greet() -> None:
    assert process.render(GREETING, {"a": "Hello"}) == RenderedChat("Hello, H!", ((0, 5),))


def run(script: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


RENDER = (
    "import sys; from omnima.templates import process; "
    "from omnima.templates.template import ChatTemplate; "
    "greet = lambda: process.render(ChatTemplate('{{ a }}'), {'a': 1}).text; "
)


def test_jinja_runs_in_the_other_process_alone() -> None:
    assert run(RENDER + "print(greet(), 'jinja2' in sys.modules)") == "1 False\n"


def test_what_takes_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    greet()
    monkeypatch.setattr(process, "LONGEST", 0.05)
    with pytest.raises(DataError, match=r"^the chat template: it takes longer than 0\.05 seconds"):
        process.render(SLOW, {})
    monkeypatch.undo()
    greet()


def test_a_process_that_is_killed_is_told_and_replaced() -> None:
    greet()
    assert process._worker is not None
    process._worker.process.kill()
    with pytest.raises(DataError, match="greeting: the process that rendered it ended"):
        process.render(GREETING, {"a": "Hello"})
    greet()


def test_memory_is_bounded() -> None:
    script = (
        "import sys\nfrom omnima.templates import process\nprocess._MEMORY = 1 << 20\n"
        "process.answer(sys.stdin.buffer, sys.stdout.buffer)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == b"ready\n"

        request = pickle.dumps(("render", ChatTemplate("{{ 'a' * 8000000 }}"), {}))
        child.stdin.write(len(request).to_bytes(8, "little") + request)
        child.stdin.flush()
        said = child.stdout.readline()
        child.stdin.close()
    assert b"the chat template" in said and b"emory" in said


def test_an_interrupt_leaves_no_answer_to_the_next_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    greet()
    monkeypatch.setattr(process.select, "select", interrupt)
    with pytest.raises(KeyboardInterrupt):
        process.render(ChatTemplate("other"), {})
    monkeypatch.undo()
    greet()


def test_threads_get_their_own_answers() -> None:
    template = ChatTemplate("{{ a }}")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda i: process.render(template, {"a": i}).text, range(200)))
    assert made == [str(i) for i in range(200)]


def test_after_a_fork_each_has_a_process_of_its_own() -> None:
    script = (
        "import os\nassert greet() == '1'\nchild = os.fork()\nassert greet() == '1'\n"
        "if child == 0:\n    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\nprint(greet())"
    )
    assert run(RENDER + "\n" + script) == "1\n"


@pytest.mark.parametrize("executable", ["", "/usr/bin/blender", "/nowhere/python3"])
def test_without_a_process_the_count_alone_bounds_the_work(
    monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    monkeypatch.setattr(process, "_worker", None)
    monkeypatch.setattr(process, "_cannot", False)
    monkeypatch.setattr(sys, "executable", executable)
    greet()
    assert process._worker is None
    with pytest.raises(DataError, match="does too much work"):
        process.render(ChatTemplate("{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3), {})


@pytest.mark.parametrize("says", ["print('hello')", "pass", "import nothing_of_this_name"])
def test_a_program_that_is_no_such_process_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    monkeypatch.setattr(process, "_CHILD", says)
    with pytest.raises(OSError, match="another program answered|ended while it started"):
        process.Worker()


def test_files_where_a_user_stands_are_not_imported(tmp_path: Path) -> None:
    (tmp_path / "jinja2.py").write_text("raise SystemExit('imported')")
    assert run(RENDER + "print(greet(), process._worker is not None)", tmp_path) == "1 True\n"


def test_it_ends_with_the_one_that_asks_it() -> None:
    pid = int(run(RENDER + "greet(); print(process._worker.process.pid)"))
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.1)
