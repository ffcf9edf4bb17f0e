"""Runs the steps of a Dockerfile of deploy/ without a container engine.

A clean checkout is built by the RUN lines in an empty environment below a temporary directory (what
belongs to the system, apt-get and useradd, is left out), a small model is served by the image's own
command as the image's user with a file system that is only read, the image's probe asks it, a
request is answered, and SIGTERM must end it with 0. Each line says what was done; what this machine
cannot do is said, too.

    python tools/deploy_check.py
    python tools/deploy_check.py --wheel dist/omnima-0.1.0-cp312-cp312-linux_x86_64.whl
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from read_dockerfile import Stage, read_dockerfile

ROOT = Path(__file__).resolve().parents[1]
# What a build may learn from outside: how packages are fetched.
PASSED = ("PIP_", "SSL_", "HTTP_", "HTTPS_", "NO_PROXY", "http_", "https_", "no_proxy", "CCACHE_")
OF_THE_SYSTEM = ("apt-get", "useradd")
MODEL = """
import sys, omnima
model = omnima.Model.from_preset("nima", vocab_size=259, max_position_embeddings=128)
model.tokenizer = omnima.Tokenizer.train(["to be or not to be"], "byte")
model.save_pretrained(sys.argv[1])
"""
STOP_SECONDS = 50  # as stop_grace_period of compose.yaml


def said(what: str) -> None:
    print(f"deploy-check: {what}", flush=True)


def interpreter(given: str) -> str:
    """The Python to build with: one that the image's user may run, too.

    One below a home directory is often closed to others; the system's own of the same version is
    then taken instead.
    """
    real = Path(given).resolve()
    system = Path("/usr/bin") / f"python{sys.version_info.major}.{sys.version_info.minor}"
    if all(each.stat().st_mode & 0o001 for each in (real, *real.parents)):
        return given
    if not system.exists():
        sys.exit(
            f"deploy-check: other users may not run {real}, and the server runs as one. Name a "
            "Python that all may run: --python /usr/bin/python3"
        )
    said(f"{system} instead of {given}, which other users may not run")
    return str(system)


class Machine:
    """A directory that stands for the image's file system."""

    def __init__(self, place: Path, python: str) -> None:
        self.place, self.python = place, python
        self.folders = {name: place / name.strip("/") for name in ("/opt/omnima", "/source")}
        self.folders |= {"/model": place / "model", "/run/secrets": place / "secrets"}

    def there(self, text: str) -> str:
        """A text of the Dockerfile whose paths are ours."""
        for name, folder in self.folders.items():
            text = text.replace(name, str(folder))
        return text

    def environment(self, stage: Stage) -> dict[str, str]:
        """Nothing of this process's but how packages are fetched."""
        passed = {name: each for name, each in os.environ.items() if name.startswith(PASSED)}
        usual = f"{Path(self.python).parent}:/usr/local/bin:/usr/bin:/bin"
        own = {"PATH": usual, "HOME": str(self.place / "home"), "LANG": "C.UTF-8"}
        own |= dict(rest.partition("=")[::2] for rest in stage.all("ARG"))
        return {name: self.there(each) for name, each in stage.environment(passed | own).items()}


def check_out(to: Path) -> None:
    """The committed files without those that .dockerignore keeps out of the image."""
    to.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", str(to)], input=archive.stdout, check=True)
    for pattern in (to / ".dockerignore").read_text(encoding="utf-8").split():
        for each in list(to.glob(pattern)):
            if each.is_dir():
                shutil.rmtree(each)
            else:
                each.unlink()


def build(machine: Machine, stage: Stage, wheel: Path | None, any_torch: bool) -> None:
    """Run what the first stage runs."""
    environment = machine.environment(stage)
    for name, rest in stage.steps:
        if name == "COPY":
            check_out(machine.folders["/source"])
            said("a clean checkout, without what .dockerignore names")
        if name != "RUN":
            continue
        if rest.startswith(OF_THE_SYSTEM):
            said(f"left out: {rest}")
            continue
        if wheel is not None:
            rest = rest.replace("/source[", f"{wheel}[")
        if any_torch:
            words = rest.split()
            for at in reversed([i for i, word in enumerate(words) if word == "--index-url"]):
                del words[at : at + 2]
            rest = " ".join(words)
        rest = with_python(machine.there(rest), machine.python)
        said(f"RUN {rest}")
        subprocess.run(["sh", "-c", rest], env=environment, check=True, cwd=machine.place)


def with_python(command: str, python: str) -> str:
    """A command that makes an environment with this Python, whatever the image calls its own.

    >>> with_python("python3 -m venv a && python -m venv b", "/opt/python")
    '/opt/python -m venv a && /opt/python -m venv b'
    """
    return re.sub(r"(?<!\S)python3? -m venv", lambda _: f"{python} -m venv", command)


def as_in_the_image(stage: Stage) -> list[str]:
    """Words before a command that give it the image's user and a file system to read alone."""
    user, _, group = stage.all("USER")[-1].partition(":")
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        said("NOT CHECKED: another user and a read-only file system (this needs root and setpriv)")
        return []
    change = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
    change += ["--inh-caps=-all", "--bounding-set=-all"]
    mounts = 'mount -t tmpfs tmpfs /tmp && mount -o remount,bind,ro / && exec "$@"'
    apart = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounts, "sh"]
    write = 'touch /tmp/x && ! touch "$0/x" && ! touch /x'
    tried = subprocess.run(
        [*apart, *change, "sh", "-c", write, str(ROOT)], capture_output=True, text=True
    )
    if tried.returncode != 0:
        said(f"NOT CHECKED: a read-only file system (mounts are forbidden); as user {user}")
        return change
    said(f"as user {user} without capabilities, the file system read-only, /tmp empty")
    return [*apart, *change]


def make_what_is_mounted(machine: Machine, environment: dict[str, str]) -> str:
    """The model and the keys; returns the key."""
    python = str(machine.folders["/opt/omnima"] / "bin" / "python")
    secrets = machine.folders["/run/secrets"]
    secrets.mkdir()
    subprocess.run(
        [python, "-c", MODEL, str(machine.folders["/model"])], env=environment, check=True, cwd="/"
    )
    made = subprocess.run(
        [python, "-m", "omnima", "api-key", str(secrets / "api_keys")],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        cwd="/",
    )
    key = made.stdout.strip()
    (secrets / "prometheus_key").write_text(key + "\n")
    for each in secrets.iterdir():  # as the mount's owner, who runs the image, may read them
        each.chmod(0o644)
    return key


def serve(machine: Machine, stage: Stage, device: str | None) -> None:
    """Serve, ask and end."""
    environment = machine.environment(stage)
    key = make_what_is_mounted(machine, environment)
    before = as_in_the_image(stage)
    words = [machine.there(each) for each in [*stage.list("ENTRYPOINT"), *stage.list("CMD")]]
    # This machine alone is to be answered, on a port that is free.
    words = ["127.0.0.1" if each == "0.0.0.0" else each for each in words] + ["--port", "0"]
    if device is not None and "--device" in words:
        words[words.index("--device") + 1] = device
        said(f"with --device {device}")
    said(" ".join(words))
    environment["HOME"] = "/nonexistent"
    with subprocess.Popen(
        [*before, *words], env=environment, cwd="/", stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            said(f"it says: {ready.strip() or 'nothing'}")
            url = ready.partition(" is served at ")[2].split(" ")[0]
            probe(machine, stage, environment, before, url)
            said(f"it answers: {ask(url, key)!r}")
            process.send_signal(signal.SIGTERM)
            code = process.wait(STOP_SECONDS)
        finally:
            process.kill()
    said(f"SIGTERM ends it with {code}")
    if code != 0:
        sys.exit("deploy-check: it must end with 0")


def probe(
    machine: Machine, stage: Stage, environment: dict[str, str], before: list[str], url: str
) -> None:
    """The image's health check with the right key, with a wrong one, and where nobody listens."""
    right, wrong = machine.folders["/run/secrets"] / "prometheus_key", machine.place / "wrong"
    wrong.write_text("om-wrong\n")
    wrong.chmod(0o644)
    for at, key, code in ((url, right, 0), (url, wrong, 1), ("http://127.0.0.1:9", right, 1)):
        about = {**environment, "OMNIMA_API_KEY_FILE": str(key)}
        found = subprocess.run([*before, *stage.probe(), at], env=about, cwd="/").returncode
        said(f"{' '.join(stage.probe())} ends with {found} at {at} with {key.name}")
        if found != code:
            sys.exit(f"deploy-check: it must end with {code}")


def ask(url: str, key: str) -> str:
    """What a short request is answered."""
    body = json.dumps({"prompt": "to be", "max_tokens": 8, "temperature": 0}).encode()
    request = urllib.request.Request(url + "/v1/completions", body)
    request.add_header("Authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["choices"][0]["text"])


def main() -> None:
    """Build, serve, ask, end."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--dockerfile", type=Path, default=ROOT / "deploy" / "Dockerfile")
    parser.add_argument("--python", default=sys.executable, help="that every user can run")
    parser.add_argument("--wheel", type=Path, help="instead of compiling the checkout")
    parser.add_argument("--any-torch", action="store_true", help="not from the index that is named")
    parser.add_argument("--device", help="instead of the one that the image serves on")
    parser.add_argument("--keep", action="store_true", help="the directory, for a look")
    given = parser.parse_args()
    python = interpreter(given.python)
    stages = read_dockerfile(given.dockerfile)
    # Not in /tmp, which the server finds empty.
    place = Path(tempfile.mkdtemp(prefix="deploy-check-", dir="/var/tmp"))
    place.chmod(0o755)
    try:
        (place / "home").mkdir()
        machine = Machine(place, python)
        wheel = given.wheel.resolve() if given.wheel else None
        build(machine, stages[0], wheel, given.any_torch)
        serve(machine, stages[-1], given.device)
    finally:
        if given.keep:
            said(f"kept: {place}")
        else:
            shutil.rmtree(place)
    said("well")


if __name__ == "__main__":
    main()
