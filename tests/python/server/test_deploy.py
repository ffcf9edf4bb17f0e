"""The files under deploy/: they parse, keep what the page promises, and name figures that are."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import omnima
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
    assert "--api-keys" in served["command"]
    assert (DEPLOY / served["build"]["dockerfile"].removeprefix("deploy/")).is_file()
    assert read("prometheus/prometheus.yml")["rule_files"] == ["alerts.yml"]
    for secret in served["secrets"]:
        assert secret in compose["secrets"]


def test_the_image_is_run_by_nobody_in_particular() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    last = text.split("FROM ")[-1]
    assert re.search(r"^USER 10001", last, re.M) and "HEALTHCHECK" in last
    assert re.search(r'^ENTRYPOINT \["omnima", "serve"\]', last, re.M)
    # What it runs are commands and modules that are there.
    words = re.findall(r"python -m ([\w.]+)|\"-m\", \"([\w.]+)\"", last)
    assert ("", "omnima.server.probe") in words


def test_what_is_made_here_stays_out_of_the_image() -> None:
    root = DEPLOY.parent
    ignored = (root / ".gitignore").read_text(encoding="utf-8").splitlines()
    left_out = set((DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines())
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


def test_the_probe_tells_well_from_ill(server: Server) -> None:
    assert is_well(server.url) and not is_well("http://127.0.0.1:9")
    words = [sys.executable, "-m", "omnima.server.probe", server.url]
    assert subprocess.run(words).returncode == 0
