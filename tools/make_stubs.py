"""Writes python/omnima/_core.pyi from the built extension (`make stubs`)."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path(__file__).resolve().parent.parent / "python" / "omnima" / "_core.pyi"
HEADER = "# Generated from the extension by tools/make_stubs.py (make stubs); do not edit.\n"


def generate() -> str:
    """Return the text of the stub as the extension that imports here would have it."""
    with tempfile.TemporaryDirectory() as folder:
        code = (
            "import sys, torch; from pybind11_stubgen import main; "
            f"main(['omnima._core', '-o', {folder!r}, '--numpy-array-use-type-var',"
            " '--ignore-all-errors'])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"pybind11-stubgen failed:\n{done.stderr}")
        return HEADER + settle((Path(folder) / "omnima" / "_core.pyi").read_text(encoding="utf-8"))


def settle(text: str) -> str:
    """Take out what differs between machines: versions of torch, addresses, trailing blanks."""
    text = re.sub(r"(built_with_torch: str = ).*", r"\1...", text)
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def main() -> int:
    text = generate()
    if "--check" in sys.argv[1:]:
        if STUB.read_text(encoding="utf-8") == text:
            return 0
        print(f"{STUB} does not match the extension: run `make stubs`", file=sys.stderr)
        return 1
    STUB.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
