"""The page as a program: from a script, from the command line, without its extra."""

from __future__ import annotations

import importlib.util
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import omnima
from omnima.demo.models import load_adapters
from omnima.errors import ConfigError, DataError, OmnimaError

from .conftest import made

READY = re.compile(r"^The demo is at (http://127\.0\.0\.1:\d+) for this machine\.$")


def fetched(url: str, **headers: str) -> tuple[int, str]:
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The directories of a model and of its adapter."""
    folder = tmp_path_factory.mktemp("demo")
    model = made("bard")
    model.save_adapter(folder / "poet", "bard")
    model.save_pretrained(folder / "small")
    return folder / "small", folder / "poet"


def test_a_page_from_a_script(model: omnima.Model, tmp_path: Path) -> None:
    with omnima.demo.demo({"tiny": model}, runs=tmp_path / "runs") as page:
        status, text = fetched(page.url)
        assert status == 200 and re.search(r'<html\s+lang="en"', text) and "Omnima demo" in text
        loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="([^"]*)"', text)
        assert loaded and not [each for each in loaded if "//" in each]
        assert '"analytics_enabled":false' in text
        assert fetched(page.url + "/gradio_api/file=/etc/hostname")[0] == 404
        assert fetched(page.url, Host="evil.example")[0] == 403
        assert page.url in page._repr_html_()
        with pytest.raises(ConfigError, match="cannot listen"):
            omnima.demo.demo({}, port=page.port)
    with pytest.raises(urllib.error.URLError):
        fetched(page.url)
    assert not (tmp_path / "runs").exists()  # nothing is written until something is trained


def test_a_script_that_ends_closes_the_page(tmp_path: Path, unmeasured: dict[str, str]) -> None:
    script = """
import omnima.demo
from omnima.demo.models import Models
from omnima.demo.training import Training

def closed(self):
    print("no training", flush=True)
    raise OSError("which keeps nothing from its end")

async def ended(self):
    print("no models", flush=True)

Training.close, Models.close = closed, ended
omnima.demo.demo()
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=unmeasured,
        timeout=120,
    )
    assert done.stdout.split("\n")[:2] == ["no training", "no models"], done.stderr


def test_the_model_is_left_as_it_was(model: omnima.Model) -> None:
    model.set_adapters({"bard": 1.0})
    try:
        with omnima.demo.demo({"tiny": model}):
            assert model.adapters_in_use == {}
        assert model.adapters_in_use == {"bard": 1.0}
        bare = made()
        bare.tokenizer = None
        with pytest.raises(ConfigError, match="no tokenizer"):
            omnima.demo.demo({"tiny": model, "bare": bare})
        assert model.adapters_in_use == {"bard": 1.0}
    finally:
        model.set_adapters({})


def test_an_adapter_goes_to_all_models_it_fits(places: tuple[Path, Path], tmp_path: Path) -> None:
    models = {"a": made(), "b": made(seed=7), "wide": made(hidden_size=128)}
    load_adapters(models, {"poet": str(places[1])})
    assert [list(each.adapters) for each in models.values()] == [["poet"], ["poet"], []]
    with pytest.raises(DataError):
        load_adapters({"wide": models["wide"]}, {"poet": str(places[1])})
    with pytest.raises(ConfigError, match="goes with a model"):
        load_adapters({}, {"poet": str(places[1])})


def test_without_the_extra_the_command_says_which(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from omnima.cli import main

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "gradio" else found(name)
    )
    with pytest.raises(SystemExit) as left:
        main(["demo"])
    assert left.value.code == 1
    assert "pip install 'omnima[demo]'" in capsys.readouterr().err
    with pytest.raises(OmnimaError, match=r"omnima\[demo\]"):
        omnima.demo.demo()


@pytest.mark.parametrize(
    "options,said",
    [
        (["nowhere"], "nowhere"),
        (["{model}", "--adapter", "x"], "NAME=DIR"),
        (["{model}", "--adapter", "x=nowhere"], "nowhere"),
        (["--adapter", "x={adapter}"], "goes with a model"),
        (["{model}", "--port", "{taken}"], "cannot listen"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    places: tuple[Path, Path], options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from omnima.cli import main

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        known = {"model": places[0], "adapter": places[1], "taken": held.getsockname()[1]}
        with pytest.raises(SystemExit) as left:
            main(["demo", *[each.format(**known) for each in options]])
    assert left.value.code == 1
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ") and said in line and "\n" not in line


def test_a_signal_while_a_model_is_opened_ends_the_command(unmeasured: dict[str, str]) -> None:
    program = (
        "import sys, time\n"
        "from omnima.evaluation import directory\n"
        "def opens(*_, **__):\n"
        "    print('opens', flush=True)\n"
        "    time.sleep(600)\n"
        "directory.open_model = opens\n"
        "from omnima.cli import main\n"
        "main(['demo', 'x', '--port', '0'])\n"
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        process: Any = subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=unmeasured,
        )
        with process:
            try:
                line = process.stdout.readline()
                process.send_signal(number)
                out, errors = process.communicate(timeout=60)
            finally:
                process.kill()
        assert (line, out, errors, process.returncode) == ("opens\n", "", "", 0)


def test_the_life_of_the_command(
    places: tuple[Path, Path], tmp_path: Path, unmeasured: dict[str, str]
) -> None:
    model, adapter = places
    words = [str(model), str(model), "--adapter", f"poet={adapter}", "--port", "0"]
    started: list[Any] = [
        subprocess.Popen(
            [sys.executable, "-W", "always::ResourceWarning", "-m", "omnima", "demo", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=unmeasured,
        )
        for _ in range(2)
    ]
    try:
        for process, number in zip(started, (signal.SIGTERM, signal.SIGINT)):
            late = threading.Timer(60, process.kill)  # a line that never comes ends, too
            late.start()
            line = process.stdout.readline()
            late.cancel()
            found = READY.match(line)
            assert found is not None, line + process.stderr.read()
            status, text = fetched(found[1])
            assert status == 200 and '"small-2"' in text and '"poet"' in text
            process.send_signal(number)
            out, errors = process.communicate(timeout=60)
            assert (process.returncode, out) == (0, "")
            assert "ResourceWarning" not in errors and "Traceback" not in errors
    finally:
        for process in started:
            process.kill()
            process.communicate()
