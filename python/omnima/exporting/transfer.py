"""Export, import and verification of whole models."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnima._outputs import new_directory, new_file
from omnima._places import find_model
from omnima.errors import ConfigError
from omnima.exporting.asking import INSTALL, ExportError, ask
from omnima.exporting.certificate import (
    TOLERANCES,
    Certificate,
    certify,
    logits_of,
    perplexity_of,
    questions_of,
)
from omnima.exporting.merging import merge_into

if TYPE_CHECKING:
    from omnima.model import Model

#: The types of numbers, by the format.
DTYPES = {"hf": ("f32", "f16", "bf16"), "gguf": ("f32", "f16", "bf16", "q8_0", "q4_0")}
#: The tool that opens a format, and the format that a tool opens.
TOOLS = {"hf": "transformers", "gguf": "llama.cpp"}
FORMATS = {tool: format for format, tool in TOOLS.items()}
_TORCH = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def export(
    model: str | Path | Model,
    to: str,
    out: str | Path,
    dtype: str = "f32",
    strict: bool = False,
    adapter: str | Path | None = None,
) -> Certificate:
    """Write a model for other tools, read it back with its own tool and compare.

    Parameters
    ----------
    model
        A model, or what `Model.from_pretrained` takes.
    to
        "hf" for a Hugging Face directory, "gguf" for a file of llama.cpp.
    out
        The directory (absent or empty) or the file, which is replaced. Nothing is there before it
        has been verified.
    dtype
        f32, f16 or bf16, for GGUF also q8_0 and q4_0.
    strict
        Refuse weights that hold NaN or infinity.
    adapter
        A directory of PEFT, to be merged into the weights first; see :func:`merge`. A model that
        is given as an object is changed then.

    Returns
    -------
    Certificate
        Written beside the model, too. Without the tool nothing is compared, and it says so.

    Raises
    ------
    ConfigError
        An unknown format, a dtype that it does not have, a model that it cannot say, a directory
        with files in it, or a place that cannot be written.
    ExportError
        The tool finds another model: the reasons. What was at `out` is still there.
    """
    from omnima.hub import update_certificates
    from omnima.hub.certificates import certificate_path
    from omnima.model import Model

    if to not in DTYPES:
        raise ConfigError(f'to is "{to}"; the choices are {", ".join(DTYPES)}.')
    if dtype not in DTYPES[to]:
        raise ConfigError(f'dtype is "{dtype}"; for {to} the choices are {", ".join(DTYPES[to])}.')
    path = Path(os.path.abspath(out))  # "." has a name, too
    new_directory(path) if to == "hf" else new_file(path)
    given = model if isinstance(model, Model) else Model.from_pretrained(model, strict=strict)
    if adapter is not None:
        merge_into(given, adapter)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as aside:
        written = Path(aside) / path.name
        _write(given, to, written, dtype)
        rows = questions_of(given).rows
        before = perplexity_of([logits_of(given, row) for row in rows], rows)
        again = Model.from_pretrained(written)
        found = _compare(again, written, dtype, TOOLS[to], path.name, before)
        if found.passed is False:
            raise ExportError(
                f"{found.against} {found.version} finds another model in what was written for "
                f"{out}: {'; '.join(found.reasons)}. Nothing was put there."
            )
        found.write(certificate_path(written))
        if to == "hf":
            update_certificates(written)
        _move(written, path)
    if to == "gguf" and (path.parent / "config.json").is_file():
        update_certificates(path.parent)
    if found.passed is None:
        tool = TOOLS[to]
        warnings.warn(
            f"{tool} is not installed, so {out} is not verified by it: {INSTALL[tool]}",
            stacklevel=2,
        )
    return found


def _write(model: Model, to: str, path: Path, dtype: str) -> None:
    if to == "gguf":
        return model.save_gguf(path, dtype=dtype)
    if _architecture_of(model) == "OmnimaForCausalLM":
        raise ConfigError(
            "No architecture of transformers is exactly this model, so transformers could not load "
            "it. Model.save_pretrained writes it for Omnima."
        )
    return model.save_pretrained(path, dtype=_TORCH[dtype], blocks=False)


def _architecture_of(model: Model) -> str:
    from omnima.hub.fields import architecture_of

    return architecture_of(model.config.to_dict()).name


def _compare(
    model: Model, place: Path, dtype: str, tool: str, path: str, before: float | None = None
) -> Certificate:
    asked = questions_of(model)
    facts: dict[str, Any] = {
        "path": path,
        "format": FORMATS[tool],
        "architecture": _architecture_of(model),
        "dtype": dtype,
        "against": tool,
    }
    return certify(facts, model, asked, ask(tool, place, asked), before)


def _move(written: Path, path: Path) -> None:
    """Put what was verified in its place; a file is never beside the certificate of another."""
    from omnima.hub.certificates import certificate_path

    if written.is_dir():
        os.replace(written, path)  # also where an empty directory is
        return
    beside, target = certificate_path(written), certificate_path(path)
    target.unlink(missing_ok=True)
    os.replace(written, path)
    os.replace(beside, target)


def import_model(path: str | Path, out: str | Path, strict: bool = False) -> Path:
    """Read what `Model.from_pretrained` takes and write it as a directory of Omnima, in float32.

    Raises
    ------
    ConfigError
        A directory that has files in it or cannot be written.
    DataError
        What cannot be read: see `omnima.hub`.
    """
    from omnima.model import Model

    folder = new_directory(out)
    Model.from_pretrained(path, strict=strict).save_pretrained(folder, blocks=False)
    return folder


def verify(path: str | Path, against: str) -> Certificate:
    """Compare a model with what another tool makes of it.

    transformers opens directories and llama.cpp opens GGUF files; where a model is the other one,
    it is first written as the tool needs it, in float32 and aside.

    Parameters
    ----------
    path
        What `Model.from_pretrained` takes.
    against
        "transformers" or "llama.cpp".

    Returns
    -------
    Certificate
        Also where they differ: `passed` and `reasons`.

    Raises
    ------
    ConfigError
        An unknown tool, or one that is not installed.
    ExportError
        The tool cannot read the model.
    """
    from omnima.model import Model

    if against not in FORMATS:
        raise ConfigError(f'against is "{against}"; the choices are {", ".join(FORMATS)}.')
    place = find_model(path)
    model = Model.from_pretrained(place)
    with tempfile.TemporaryDirectory(prefix="omnima-verify-") as aside:
        given, dtype = place, _dtype_of(place)
        if place.is_dir() != (against == "transformers"):
            given, dtype = Path(aside) / "model", "f32"
            _write(model, FORMATS[against], given, dtype)
        found = _compare(model, given, dtype, against, str(path))
    if found.passed is None:
        raise ConfigError(f"{against} is not installed: {INSTALL[against]}")
    return found


def _dtype_of(path: Path) -> str:
    """What the matrices of a model lie in: of several formats the one of fewest bits."""
    from omnima import _core

    if path.is_dir():
        return "f32"  # transformers computes in it, whatever the file has
    kinds = {kind.lower() for _, kind, shape in _core.GgufFile(path).tensors() if len(shape) > 1}
    return max(kinds, key=list(TOLERANCES["llama.cpp"]).index)
