"""The files under deploy/: they parse, keep what the page promises, and name figures that are."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import omnima
from omnima.cli.serve import serve as cli_serve
from omnima.server import Server, new_key
from omnima.server.probe import is_well

from .http import ask

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
NAME = re.compile(r"\bomnima:[a-z0-9_]+")


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def figures(server: Server) -> set[str]:
    """The names of all figures, once some requests have been answered and some refused."""
    ask(server, "/v1/completions", {"prompt": "a", "max_tokens": 3})
    ask(server, "/v1/completions", {"prompt": 1})
    return set(NAME.findall(ask(server, "/metrics")[1]))


@pytest.mark.parametrize("name", ["prometheus/alerts.yml", "grafana/dashboards/omnima.json"])
def test_figures_that_are_asked_for_exist(figures: set[str], name: str) -> None:
    asked = set(NAME.findall((DEPLOY / name).read_text(encoding="utf-8")))
    assert len(asked) > 4 and asked <= figures


def test_alerts_and_panels_are_whole() -> None:
    rules = [rule for group in read("prometheus/alerts.yml")["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 5
    for rule in rules:
        assert rule["expr"].count("(") == rule["expr"].count(")")
        assert rule["labels"]["severity"] and rule["annotations"]["summary"]
    board = json.loads((DEPLOY / "grafana/dashboards/omnima.json").read_text(encoding="utf-8"))
    source = read("grafana/provisioning/datasources/prometheus.yml")["datasources"][0]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in board["panels"]:
        assert panel["datasource"]["uid"] == source["uid"] and panel["targets"]


def test_containers_may_do_little() -> None:
    compose = read("compose.yaml")
    for service in compose["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    served = compose["services"]["omnima"]
    assert served["read_only"] and served["volumes"][0].endswith(":ro")
    assert "--api-keys" in served["command"] and served["init"] is True
    for each in (served, read("compose.cuda.yaml")["services"]["omnima"]):
        assert (DEPLOY / each["build"]["dockerfile"].removeprefix("deploy/")).is_file()
    assert read("prometheus/prometheus.yml")["rule_files"] == ["alerts.yml"]
    for secret in served["secrets"]:
        assert secret in compose["secrets"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool on the PATH")
@pytest.mark.parametrize(
    "words", [["rules", "alerts.yml"], ["config", "--syntax-only", "prometheus.yml"]]
)
def test_prometheus_takes_its_files(words: list[str]) -> None:
    found = subprocess.run(
        ["promtool", "check", *words], cwd=DEPLOY / "prometheus", capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr


def tool(name: str) -> Any:
    """A module of tools/, which is part of no package."""
    spec = importlib.util.spec_from_file_location(name, DEPLOY.parent / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reader() -> Any:
    return tool("read_dockerfile")


@pytest.mark.parametrize("python", ["/opt/python", "/usr/bin/python3", r"/a\1/python3.12"])
def test_an_environment_is_made_with_the_python_that_is_named(reader: Any, python: str) -> None:
    """Whatever its own path ends in."""
    check = tool("deploy_check")
    for name in ("Dockerfile", "Dockerfile.cuda"):
        build = reader.read_dockerfile(DEPLOY / name)[0]
        [made] = [rest for rest in build.all("RUN") if "-m venv" in rest]
        assert check.with_python(made, python) == f"{python} -m venv /opt/omnima"


@pytest.mark.parametrize("name,device", [("Dockerfile", "cpu"), ("Dockerfile.cuda", "cuda")])
def test_the_image_is_run_by_nobody_in_particular(reader: Any, name: str, device: str) -> None:
    build, last = reader.read_dockerfile(DEPLOY / name)
    assert last.all("USER") == ["10001:10001"] and last.all("STOPSIGNAL") == ["SIGTERM"]
    assert last.all("COPY") == [f"--from={build.name} /opt/omnima /opt/omnima"]
    assert last.probe() == ["python", "-m", "omnima.server.probe"]
    assert importlib.util.find_spec(last.probe()[-1])
    environment = last.environment({"PATH": "/bin"})
    assert environment["PATH"] == "/opt/omnima/bin:/bin"
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    # Its own command is one that `omnima serve` takes.
    words = last.list("ENTRYPOINT") + last.list("CMD")
    assert words[:2] == ["omnima", "serve"] and "--api-keys" in words
    taken: dict[str, Any] = {}
    serve = typer.Typer()
    serve.command()(functools.wraps(cli_serve)(lambda **given: taken.update(given)))
    serve(words[2:], standalone_mode=False)
    assert (taken["directory"], taken["host"], taken["device"]) == ("/model", "0.0.0.0", device)


def test_the_images_take_the_torch_that_the_package_wants(reader: Any) -> None:
    wanted = re.findall(r'"torch==([\d.]+)\*"', (DEPLOY.parent / "pyproject.toml").read_text())
    assert len(wanted) == 2
    for name in ("Dockerfile", "Dockerfile.cuda"):
        text = "\n".join(reader.read_dockerfile(DEPLOY / name)[0].all("RUN"))
        assert re.findall(r'"torch==([\d.]+)\*"', text) == wanted[:1]


def test_a_dockerfile_is_read_as_it_is_meant(reader: Any, tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(
        "# syntax=x\nARG TAG=3\nFROM a:${TAG} AS b\nRUN one \\\n# between\n && two\n"
        'FROM c\nENV A=1 B=$A/${C}\nHEALTHCHECK --retries=3 \\\n  CMD ["x", "y"]\n'
    )
    first, last = reader.read_dockerfile(path)
    assert (first.base, first.name, first.steps) == ("a:3", "b", [("RUN", "one && two")])
    assert first.list("CMD") == first.probe() == []
    assert last.environment({"C": "c"}) == {"A": "1", "B": "1/c", "C": "c"}
    assert last.probe() == ["x", "y"]
    for text, said in (("RUN x\nFROM a\n", "before the first FROM"), ("FROM a\nENV A 1\n", "ENV")):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            for stage in reader.read_dockerfile(path):
                stage.environment({})


def test_what_is_made_here_stays_out_of_the_image() -> None:
    root = DEPLOY.parent
    ignored = (root / ".gitignore").read_text(encoding="utf-8").splitlines()
    left_out = set((root / ".dockerignore").read_text(encoding="utf-8").splitlines())
    folders = {each.strip("/") for each in ignored if each.startswith("/") and each.endswith("/")}
    assert "deploy/secrets" in folders and folders <= left_out


def test_nobody_gets_in_with_a_password_that_all_know() -> None:
    about = read("compose.yaml")["services"]["grafana"]["environment"]
    assert about["GF_SECURITY_ADMIN_PASSWORD"].startswith("${OMNIMA_GRAFANA_PASSWORD:?")


def test_a_probe_without_a_key_sees_a_server_that_wants_one(
    model: omnima.Model, tmp_path: Path
) -> None:
    key = new_key(tmp_path / "keys", "anna")
    with omnima.serve(model, api_keys=tmp_path / "keys") as server:
        assert is_well(server.url) and is_well(server.url, key)
        assert not is_well(server.url, "om-wrong")
        words = [sys.executable, "-m", "omnima.server.probe", server.url]
        for held, code in ((key, 0), ("om-wrong", 1)):
            (tmp_path / "key").write_text(held + "\n")
            about = {**os.environ, "OMNIMA_API_KEY_FILE": str(tmp_path / "key")}
            assert subprocess.run(words, env=about).returncode == code


def test_the_probe_shows_its_key_to_no_proxy(server: Server) -> None:
    """One that nobody answers: whoever asked it would hear nothing."""
    words = [sys.executable, "-m", "omnima.server.probe", server.url]
    proxies = {name: "http://127.0.0.1:9" for name in ("http_proxy", "HTTP_PROXY", "all_proxy")}
    about = {**os.environ, **proxies, "no_proxy": "", "NO_PROXY": "", "OMNIMA_API_KEY": "om-mine"}
    assert subprocess.run(words, env=about).returncode == 0


def test_the_probe_tells_well_from_ill(server: Server) -> None:
    assert is_well(server.url) and not is_well("http://127.0.0.1:9")
    words = [sys.executable, "-m", "omnima.server.probe", server.url]
    assert subprocess.run(words).returncode == 0
