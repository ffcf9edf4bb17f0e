"""`omnima data clean|stats|diff` at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "röw data.csv"
    rows = [f"Document number {n} tells of the sea and of {n * n} ships." for n in range(30)]
    rows += [rows[0], "Write to someone@example.org about the sea and the ships.", "short"]
    path.write_text("body\n" + "".join(f'"{row}"\n' for row in rows), encoding="utf-8")
    return path


def test_help(leave):
    code, out, _ = leave(["data", "--help"])
    assert code == 0 and all(name in out for name in ("clean", "stats", "diff"))
    for name in ("clean", "stats", "diff"):
        code, out, _ = leave(["data", name, "--help"])
        assert code == 0 and "--json" in out


def test_clean_then_stats_then_diff(raw, tmp_path, leave):
    recipe = tmp_path / "clean.yaml"
    recipe.write_text("steps: [control, {length: {min_characters: 20}}, exact, personal]\n")
    out = tmp_path / "clean.jsonl"
    command = ["data", "clean", raw, "--field", "body", "--out", out, "--recipe", recipe]
    code, text, _ = leave([*command, "--json"])
    result = json.loads(text)
    assert code == 0 and result["out"] == str(out)
    assert (result["documents_in"], result["documents_out"]) == (33, 31)
    assert result["steps"][3]["found"] == {"email": 1}
    code, _, err = leave(command)
    assert code == 1 and "--overwrite" in err
    code, text, _ = leave([*command, "--overwrite"])
    assert code == 0 and "31 of 33 documents" in text and "came before: 1" in text
    code, text, _ = leave(["data", "stats", out, "--json"])
    assert code == 0 and json.loads(text)["documents"] == 31
    code, text, _ = leave(["data", "stats", out])
    assert code == 0 and "exact_duplicates" in text
    other = tmp_path / "other.jsonl"
    other.write_text(out.read_text().splitlines(keepends=True)[0])
    code, text, _ = leave(["data", "diff", out, other, "--json"])
    told = json.loads(text)
    assert code == 0 and (told["removed"]["documents"], told["kept"]["documents"]) == (30, 1)
    code, text, _ = leave(["data", "diff", out, other])
    assert code == 0 and "removed" in text


def test_errors_are_one_line(raw, tmp_path, leave):
    for arguments, message in (
        (["clean", raw, "--out", tmp_path / "x.jsonl", "--recipe", "proze"], "no recipe"),
        (["clean", raw, "--out", tmp_path / "x.csv"], "ends in .jsonl"),
        (["stats", tmp_path / "nothing.txt"], "there is no file"),
        (["stats", raw], "no column 'text'"),
        (["diff", raw, tmp_path / "nothing.txt", "--field", "body"], "there is no file"),
    ):
        code, out, err = leave(["data", *arguments])
        assert code == 1 and not out and len(err.splitlines()) == 1, err
        assert message in err
