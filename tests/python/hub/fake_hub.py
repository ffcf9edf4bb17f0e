"""A Hugging Face hub on this machine: what huggingface_hub asks of it over HTTP, and no more.

Downloads: model info, trees of files, HEAD and GET of files. Uploads: making a repository, the
question how each file is to be sent, Git LFS batches and their objects, commits.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_secretsecretsecretsecretsecret"
_LFS = (".safetensors", ".gguf", ".bin")


@dataclasses.dataclass
class Repository:
    """Its commits, each all files of then; the revisions are names of commits."""

    commits: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    revisions: dict[str, str] = dataclasses.field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(
        self, files: dict[str, bytes], revision: str = "main", removed: frozenset[str] = frozenset()
    ) -> str:
        """Add files on top of a revision, without those that are removed."""
        before = self.commits.get(self.revisions.get(revision, ""), {})
        assert removed <= before.keys()
        before = {name: content for name, content in before.items() if name not in removed}
        number = f"{len(self.commits)}{sorted(files)}".encode()
        name = hashlib.sha1(number).hexdigest()
        self.commits[name] = {**before, **files}
        self.revisions[revision] = name
        return name

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """A commit and its files."""
        name = self.revisions.get(revision, revision)
        return (name, self.commits[name]) if name in self.commits else None


class Hub(ThreadingHTTPServer):
    """The server: its repositories, and the requests that it has had."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.failing = 0  # a status to answer everything with

    def add(self, name: str, files: dict[str, bytes], **kinds: bool) -> Repository:
        """Make a repository with one commit."""
        self.repositories[name] = Repository(**kinds)
        self.repositories[name].commit(files)
        return self.repositories[name]

    def fetched(self) -> list[str]:
        """The files whose contents were asked for."""
        return [
            path.split("/", 5)[5]
            for kind, path in self.asked
            if kind == "GET" and "/resolve/" in path
        ]


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that answers until the end of the block."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


class _Answer(Exception):
    """The way out of a request that ends early."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path = urllib.parse.unquote(self.path.partition("?")[0])
        self.server.asked.append((self.command, path))
        self.body = self._read_body()
        try:
            if self.server.failing:
                raise _Answer(self.server.failing, f"out of order, {TOKEN}")
            for method, pattern, action in _ROUTES:
                found = re.fullmatch(pattern, path)
                if found and self.command in method:
                    action(self, *found.groups())
                    return
            raise _Answer(404, "no such page")
        except _Answer as answer:
            headers = {"X-Error-Code": answer.code} if answer.code else {}
            self._send(
                answer.status, {"error": str(answer)}, {**headers, "X-Error-Message": str(answer)}
            )

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, name: str) -> Repository:
        found = self.server.repositories.get(name)
        if found is None or (found.private and not self._known()):
            raise _Answer(404 if self._known() else 401, "Repository not found", "RepoNotFound")
        return found

    def _commit(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        found = self._repository(name).at(revision)
        if found is None:
            raise _Answer(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def _open_files(self, name: str) -> None:
        if self._repository(name).gated and not self._known():
            raise _Answer(401, f"Access to model {name} is restricted.", "GatedRepo")

    def info(self, name: str, revision: str | None = None) -> None:
        commit, files = self._commit(name, revision or "main")
        siblings = [{"rfilename": each} for each in files]
        private = self._repository(name).private
        facts = {"id": name, "modelId": name, "sha": commit, "private": private}
        self._send(200, {**facts, "siblings": siblings})

    def tree(self, name: str, revision: str) -> None:
        self._open_files(name)
        _, files = self._commit(name, revision)
        entries = []
        for path, content in files.items():
            entry = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
            if path.endswith(_LFS):
                oid = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 100}
            entries.append(entry)
        self._send(200, entries)

    def file(self, name: str, revision: str, path: str) -> None:
        self._open_files(name)
        commit, files = self._commit(name, revision)
        if path not in files:
            raise _Answer(404, "Entry not found", "EntryNotFound")
        content = files[path]
        lfs = path.endswith(_LFS)
        etag = hashlib.sha256(content).hexdigest() if lfs else blob_id(content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit}
        if lfs:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        self._send(200, content, headers)

    def create(self) -> None:
        if not self._known():
            raise _Answer(401, "Invalid username or password.")
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] == "others":
            raise _Answer(403, "You don't have the rights to create a model under this namespace")
        if name in self.server.repositories:
            there = {"error": "You already created this model repo"}
            self._send(409, {**there, "url": f"{self.server.url}/{name}"})
            return
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.server.add(name, {".gitattributes": b"*.safetensors filter=lfs"}, private=private)
        self._send(200, {"url": f"{self.server.url}/{name}"})

    def preupload(self, name: str, revision: str) -> None:
        self._repository(name)
        found = self._repository(name).at(revision)
        files = found[1] if found else {}
        answer = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if each["path"].endswith(_LFS) else "regular",
                "shouldIgnore": False,
                "oid": _oid(each["path"], files),
            }
            for each in json.loads(self.body)["files"]
        ]
        self._send(200, {"files": answer})

    def batch(self, name: str) -> None:
        self._repository(name)
        objects = [
            {
                **each,
                "actions": {"upload": {"href": f"{self.server.url}/store/{each['oid']}"}},
            }
            for each in json.loads(self.body)["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.server.objects[oid] = self.body
        self._send(200, {})

    def commit(self, name: str, revision: str) -> None:
        lines = [json.loads(line) for line in self.body.splitlines()]
        files, removed = {}, set()
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                removed.add(value["path"])
        oid = self._repository(name).commit(files, revision, frozenset(removed))
        self._send(200, {"commitUrl": f"{self.server.url}/{name}/commit/{oid}", "commitOid": oid})

    def validate(self) -> None:
        self._send(200, {"errors": [], "warnings": []})


def blob_id(content: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _oid(path: str, files: dict[str, bytes]) -> str | None:
    if path not in files:
        return None
    content = files[path]
    return hashlib.sha256(content).hexdigest() if path.endswith(_LFS) else blob_id(content)


_N = r"([^/]+/[^/]+)"
_ROUTES: list[tuple[str, str, Any]] = [
    ("GET", rf"/api/models/{_N}", _Handler.info),
    ("GET", rf"/api/models/{_N}/revision/(.+)", _Handler.info),
    ("GET", rf"/api/models/{_N}/tree/(.+?)/?", _Handler.tree),
    ("GET HEAD", rf"/{_N}/resolve/([^/]+|refs/pr/\d+)/(.+)", _Handler.file),
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate),
    ("POST", rf"/api/models/{_N}/preupload/(.+)", _Handler.preupload),
    ("POST", rf"/{_N}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/store/(\w+)", _Handler.store),
    ("POST", rf"/api/models/{_N}/commit/(.+)", _Handler.commit),
]
