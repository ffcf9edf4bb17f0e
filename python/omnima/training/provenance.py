"""What it takes to repeat a run: command, versions, machine, seed, text, tokenizer, git."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from omnima._durable import write_durably
from omnima.errors import CheckpointError
from omnima.training.callbacks.trackers import SECRET_FIELDS
from omnima.training.config import TrainConfig
from omnima.training.rundir import RunDirectory

_PACKAGES = ("torch", "numpy", "sentencepiece", "tokenizers", "transformers", "safetensors")
_VARIABLES = ("OMNIMA_", "OMP_", "MKL_", "CUDA_VISIBLE_DEVICES", "PYTHONHASHSEED")
_PATCH = 8 << 20  # bytes of uncommitted changes that are kept
_GIT_SECONDS = 20


def record_provenance(
    directory: RunDirectory,
    config: TrainConfig,
    model: Any,
    tokenizer: Any,
    data: Any,
    step: int,
) -> None:
    """Write provenance.json: what the run is made of, and one entry for each time it was started.

    Uncommitted changes of the git repository that one stands in go into uncommitted.patch.
    """
    path = directory.path / "provenance.json"
    sessions = [*_earlier(path), _session(directory.path, step)]
    facts = {
        "seed": config.seed,
        "model": {
            "parameters": int(model.core.num_parameters()),
            **{key: value for key, value in _shape(model).items() if value is not None},
        },
        "tokenizer": {
            "kind": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "fingerprint": tokenizer.fingerprint,
        },
        "data": _text(data),
        "config": {"path": directory.config.name, "sha256": _sha256(directory.config)},
        "sessions": sessions,
    }
    text = json.dumps(facts, indent=2, ensure_ascii=False, default=str)
    write_durably(path, (text + "\n").encode("utf-8", "backslashreplace"))


def _earlier(path: Path) -> list[Any]:
    if not path.exists():
        return []
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["sessions"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error!r}). Remove it to continue the run: only how the run was "
            "begun is lost with it."
        ) from error


def _shape(model: Any) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(model.config)


def _text(data: Any) -> dict[str, Any]:
    manifest = getattr(data, "manifest", {})
    return {
        "tokens_fingerprint": data.fingerprint,
        "train_tokens": data.train_tokens,
        "val_tokens": data.val_tokens,
        "source": manifest.get("source"),
        "files": [
            {"path": path, "bytes": size, "sha256": digest}
            for path, size, _, digest in manifest.get("files", ())
        ],
    }


def _session(run_dir: Path, step: int) -> dict[str, Any]:
    import torch

    from omnima import _core

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "from_step": step,
        "command": without_secrets(sys.orig_argv),
        "directory": os.getcwd(),
        "versions": versions(),
        "machine": {
            "system": platform.platform(),
            "processors": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "kernels": str(_core.cpu_level()),
            "gpu": gpu,
        },
        "environment": {
            key: value for key, value in sorted(os.environ.items()) if key.startswith(_VARIABLES)
        },
        "git": git_state(Path.cwd(), run_dir / "uncommitted.patch"),
    }


def versions() -> dict[str, str]:
    """Return the versions of Omnima, of Python and of the packages that take part."""
    from omnima import __version__

    found = {"omnima": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that is not installed took no part
    return found


def without_secrets(command: list[str]) -> list[str]:
    """Return a command with the values of secret flags hidden.

    >>> without_secrets(["omnima", "train", "--alert-webhook", "https://a/b", "--lr=1"])
    ['omnima', 'train', '--alert-webhook', '***', '--lr=1']
    """
    flags = {f"--{name.replace('_', '-')}" for name in SECRET_FIELDS}
    given = re.compile("(" + "|".join(name.replace("_", "[-_]") for name in SECRET_FIELDS) + ")=.*")
    shown = [given.sub(r"\1=***", word) for word in command]
    for place, word in enumerate(command[:-1]):
        if word in flags:
            shown[place + 1] = "***"
    return shown


def git_state(place: Path, patch: Path) -> dict[str, Any] | None:
    """Return commit, branch and changed files of the repository around a place; None without one.

    What differs from the commit is written to `patch`, which `git apply` takes back; a file of
    changes from an earlier start is removed where there are none now.
    """
    commit = _git(place, "rev-parse", "HEAD")
    top = _git(place, "rev-parse", "--show-toplevel")
    if commit is None or top is None:
        return None
    root = Path(top.decode("utf-8", "replace").strip())
    status = (_git(root, "status", "--porcelain") or b"").decode("utf-8", "replace")
    changes = _git(root, "diff", "HEAD", "--binary") or b""
    if 0 < len(changes) <= _PATCH:
        write_durably(patch, changes)
    elif patch.exists():
        patch.unlink()
    branch = (_git(root, "rev-parse", "--abbrev-ref", "HEAD") or b"").decode("utf-8", "replace")
    return {
        "commit": commit.decode("ascii", "replace").strip(),
        "branch": branch.strip(),
        "changed": [line[3:] for line in status.splitlines() if not line.startswith("??")],
        "untracked": [line[3:] for line in status.splitlines() if line.startswith("??")],
        "patch_sha256": hashlib.sha256(changes).hexdigest() if changes else None,
        "patch": patch.name if patch.exists() else None,
    }


def _git(place: Path, *words: str) -> bytes | None:
    """Return what git says, or None: no git, no repository, no commit yet, or no answer."""
    try:
        done = subprocess.run(
            ["git", *words], cwd=place, capture_output=True, check=False, timeout=_GIT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
