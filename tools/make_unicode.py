"""Writes cpp/omnima/text/unicode_data.cpp: letters, marks, numbers and canonical composition.

The version of Unicode is the one that tokenizers and tiktoken split by. Python's own unicodedata is
used where it has that version, else the package unicodedata2.
"""

from __future__ import annotations

import sys
import textwrap
import unicodedata
from itertools import groupby
from pathlib import Path
from typing import Any

VERSION = "16.0.0"
TARGET = Path(__file__).resolve().parents[1] / "cpp/omnima/text/unicode_data.cpp"
# The bits of CharClass in cpp/omnima/text/unicode.h.
CLASSES = {"Lu": 1, "Lt": 1, "Ll": 2, "Lm": 4, "Lo": 4, "Mn": 8, "Mc": 8, "Me": 8}
CLASSES |= {"Nd": 16, "Nl": 16, "No": 16}
# White_Space of PropList.txt, which unicodedata does not tell.
WHITE_SPACE = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)}
WHITE_SPACE |= {0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
SPACE = 32
HANGUL = range(0xAC00, 0xD7A4)  # composed by arithmetic
CODE_POINTS = range(0x110000)


def database() -> Any:
    """Return the module that knows the wanted version of Unicode."""
    if unicodedata.unidata_version == VERSION:
        return unicodedata
    try:
        import unicodedata2
    except ImportError:
        unicodedata2 = None
    if unicodedata2 is None or unicodedata2.unidata_version != VERSION:
        sys.exit(f"Unicode {VERSION} is wanted: pip install unicodedata2=={VERSION}")
    return unicodedata2


def class_runs(unicode: Any) -> list[int]:
    """Run-length code of the classes of all code points: length * 64 + class."""
    classes = (
        SPACE if code in WHITE_SPACE else CLASSES.get(unicode.category(chr(code)), 0)
        for code in CODE_POINTS
    )
    return [sum(1 for _ in run) * 64 + value for value, run in groupby(classes)]


def combining_runs(unicode: Any) -> list[int]:
    """First code point, length and combining class of each run with a class above 0."""
    numbers: list[int] = []
    code = 0
    for value, run in groupby(unicode.combining(chr(each)) for each in CODE_POINTS):
        length = sum(1 for _ in run)
        if value:
            numbers += [code, length, value]
        code += length
    return numbers


def decompositions(unicode: Any) -> list[int]:
    """Code point, first and second (or 0) of each canonical mapping, and whether it composes."""
    numbers: list[int] = []
    for code in CODE_POINTS:
        mapping = unicode.decomposition(chr(code))
        if code in HANGUL or not mapping or mapping.startswith("<"):
            continue
        parts = [int(part, 16) for part in mapping.split()]
        text = "".join(map(chr, parts))
        composes = len(parts) == 2 and unicode.normalize("NFC", text) == chr(code)
        numbers += [code, *(parts + [0])[:2], int(composes)]
    return numbers


def array(name: str, numbers: list[int]) -> str:
    """Return the C++ definition of a table."""
    body = textwrap.fill(", ".join(map(str, numbers)), 100)
    return (
        f"const std::uint32_t {name}[] = {{\n{body}}};\nconst std::size_t {name}Size ="
        f" {len(numbers)};\n"
    )


def main() -> None:
    """Write the file."""
    unicode = database()
    tables = {
        "kClassRuns": class_runs(unicode),
        "kCombiningRuns": combining_runs(unicode),
        "kDecompositions": decompositions(unicode),
    }
    head = (
        f"// Tables of Unicode {VERSION}, written by tools/make_unicode.py: do not edit.\n"
        '#include "omnima/text/unicode_data.h"\n\n'
        "// clang-format off\nnamespace omnima::text::unicode_data {\n\n"
    )
    text = "\n".join(array(name, numbers) for name, numbers in tables.items())
    TARGET.write_text(f"{head}{text}\n}}  // namespace omnima::text::unicode_data\n")


if __name__ == "__main__":
    main()
