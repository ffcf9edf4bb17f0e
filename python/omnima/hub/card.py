"""The model card: the README.md of a saved model, which model hubs show, and its header's facts."""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnima._durable import write_durably
from omnima.errors import ConfigError
from omnima.hub.certificates import certificate_lines
from omnima.hub.quantized import Quantization

FILE = "README.md"
#: What stands between these marks is ours and written anew; what is above or below is the user's.
BEGIN = "<!-- omnima: written anew with every save, up to the end mark; yours go above or below -->"
END = "<!-- omnima: end -->"
_HEADER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?\n?", re.M | re.S)
_SECTION = re.compile(r"^## ([^\n]+)\n\n(.*?)\n*(?=^## |\Z)", re.M | re.S)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_VERIFIED = "Verified"
# What is said of a model that was loaded goes over into the card of its copies.
_KEPT = ("Results", "Data", "Training")
_LARGEST = 4 << 20
_LONGEST_HEADER = 512 << 10  # characters: PyYAML takes some seconds for them
Rows = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Origin:
    """What is known of where a loaded model comes from.

    Attributes
    ----------
    base_model
        Its name on the hub.
    license
        As its card says it: a name of the hub's list, or several.
    more
        The fields that belong to the license, such as ``license_link``.
    sections
        Of a card of ours: its results, data and training, as text.
    """

    base_model: str | None = None
    license: str | list[str] | None = None
    more: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sections: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Card:
    """What a card says.

    Attributes
    ----------
    model_type
        As config.json has it; "omnima" where no architecture of transformers is the model,
        or the directory holds our blocks.
    sections
        Titles and their rows, or their text.
    causal, rewards, has_tokenizer
        Whether it writes text, and whether it can read some.
    license
        Given by who saves the model; None: what the model came with, or the card that is there.
    origin
        Where it comes from.
    """

    model_type: str
    sections: Mapping[str, Rows | str]
    causal: bool = True
    rewards: bool = False
    has_tokenizer: bool = True
    license: str | None = None
    origin: Origin = dataclasses.field(default_factory=Origin)


def card_of(
    config: Mapping[str, Any],
    parameters: int,
    tokenizer: Any,
    sections: Mapping[str, Rows | str] | None = None,
    *,
    active: int | None = None,
    license: str | None = None,
    origin: Origin | None = None,
    quantization: Quantization | None = None,
) -> Card:
    """Return the card of a model.

    Parameters
    ----------
    config
        All fields of its configuration.
    parameters, active
        How many it has, and how many a token meets, where that is fewer.
    tokenizer
        Its tokenizer, or None.
    sections
        Results, data and training; where left out, those of the model that was loaded.
    license
        Its name on model hubs.
    origin
        Where the model was loaded from.
    quantization
        Of a model that is saved in blocks.

    Raises
    ------
    ConfigError
        The license is no name that hubs take.
    """
    from omnima.hub.fields import architecture_of

    origin = origin or Origin()
    kind = f" ({tokenizer.kind})" if tokenizer is not None else ""
    shape = {
        "parameters": f"{parameters:,}",
        **({"of them met by a token": f"{active:,}"} if active not in (None, parameters) else {}),
        "layers, width, heads": f"{config['num_hidden_layers']}, {config['hidden_size']}, "
        f"{config['num_attention_heads']}",
        "context": f"{config['max_position_embeddings']:,} tokens",
        "vocabulary": f"{config['vocab_size']:,}{kind}",
        **({"weights": quantization.said()} if quantization else {}),
    }
    given = dict(origin.sections if sections is None else sections)
    results = {title: given.pop(title) for title in ("Results",) if title in given}
    return Card(
        model_type="omnima" if quantization else architecture_of(config).model_type,
        sections={**results, "Model": shape, **given},
        causal=bool(config.get("causal", True)),
        rewards=bool(config.get("reward_head", False)),
        has_tokenizer=tokenizer is not None,
        license=check_license(license),
        origin=origin,
    )


def check_license(name: str | None) -> str | None:
    """Return the name of a license, or raise ConfigError where it cannot be one of the hub's.

    >>> check_license("apache-2.0")
    'apache-2.0'
    """
    if name is not None and not _LICENSE.fullmatch(name):
        raise ConfigError(
            f"license is {name!r}: give its name as model hubs write it, such as apache-2.0, mit, "
            "cc-by-4.0 or other."
        )
    return name


def read_header(text: str) -> dict[str, Any] | None:
    """The fields above a card; empty where there are none, None where they are no YAML mapping."""
    import yaml

    found = _HEADER.match(text)
    if found is None:
        return {}
    if len(found[1]) > _LONGEST_HEADER:
        return None
    try:
        value = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None  # PyYAML leaves errors of its makers of values as they are: "!!bool x"
    value = {} if value is None else value
    return value if isinstance(value, dict) else None


def read_origin(folder: Path, base_model: str | None = None) -> Origin:
    """What the card in a model's directory says of its license and of what it was made from."""
    path = folder / FILE
    text = _read(path)
    header = None if text is None else read_header(text)
    if text is None or header is None:
        if path.exists():
            warnings.warn(
                f"{path} is no model card (its header is not valid YAML, or too long, or it is "
                f"larger than {_LARGEST >> 20} MB), so the license is not known.",
                stacklevel=3,
            )
        return Origin(base_model)
    named = header.get("license")
    several = isinstance(named, list) and all(isinstance(each, str) for each in named)
    if base_model is None and isinstance(header.get("base_model"), str):
        base_model = header["base_model"]
    return Origin(
        base_model,
        named if isinstance(named, str) or several else None,
        {
            name: header[name]
            for name in ("license_name", "license_link")
            if isinstance(header.get(name), str)
        },
        {title: body for title, body in _sections(_ours(text)).items() if title in _KEPT},
    )


def write_card(directory: str | Path, card: Card) -> bool:
    """Write or renew the card of a model's directory.

    Fields that its header has already and text outside of our marks stay as they are.

    Returns
    -------
    bool
        False where the README.md that is there is not ours, which then stays as it is.
    """
    path = Path(directory) / FILE
    before = _read(path)
    theirs: dict[str, Any] | None = {}
    above, below = "\n", "\n"
    if path.exists():
        theirs = None if before is None else read_header(before)
        if before is None or theirs is None or BEGIN not in before or END not in before:
            return False
        above, _, rest = _HEADER.sub("", before, count=1).partition(BEGIN)
        below = rest.partition(END)[2]
    header = _merged(theirs or {}, card)
    ours = _render(card, header, certificate_lines(Path(directory)))
    kept = _HEADER.match(before or "")
    head = kept[0] if kept and header == theirs else f"---\n{_yaml(header)}---\n"
    write_durably(path, f"{head}{above}{BEGIN}\n\n{ours}\n{END}{below}".encode())
    return True


def update_certificates(directory: str | Path) -> bool:
    """Renew what the card of a directory says of the certificates beside it.

    These are ``certificate.json`` and, of GGUF files, ``FILE.certificate.json``.

    Returns
    -------
    bool
        False where there is no card of ours.

    Raises
    ------
    DataError
        A certificate is damaged.
    """
    path = Path(directory) / FILE
    lines = certificate_lines(Path(directory))
    before = _read(path)
    if before is None or BEGIN not in before or END not in before:
        return False
    above, _, rest = before.partition(BEGIN)
    ours, _, below = rest.partition(END)
    first = ours.partition("\n## ")[0]
    sections = {**_sections(ours), _VERIFIED: _bullets(lines)}
    if not lines:
        del sections[_VERIFIED]
    parts = [first.strip(), *(f"## {title}\n\n{body}" for title, body in sections.items())]
    body = "\n\n".join(parts)
    write_durably(path, f"{above}{BEGIN}\n\n{body}\n\n{END}{below}".encode())
    return True


def _read(path: Path) -> str | None:
    """The text of a card; None where there is none, or a file that is far too large for one."""
    if not path.is_file() or path.stat().st_size > _LARGEST:
        return None
    return path.read_bytes().decode("utf-8", errors="replace")


def _ours(text: str) -> str:
    return text.partition(BEGIN)[2].partition(END)[0]


def _sections(text: str) -> dict[str, str]:
    return {title: body.strip() for title, body in _SECTION.findall(text)}


def _merged(theirs: Mapping[str, Any], card: Card) -> dict[str, Any]:
    """The header: what is there goes first but for facts, tags are joined."""
    origin = card.origin
    found = {
        "pipeline_tag": _task(card),
        **({"license": origin.license, **origin.more} if origin.license else {}),
        **({"base_model": origin.base_model} if origin.base_model else {}),
        **theirs,
        "library_name": "omnima" if card.model_type == "omnima" else "transformers",
    }
    if card.license is not None:
        found = {k: v for k, v in found.items() if k not in ("license_name", "license_link")}
        found["license"] = card.license
    tags = theirs.get("tags")
    known = [each for each in tags if isinstance(each, str)] if isinstance(tags, list) else []
    found["tags"] = [*known, *(each for each in ("omnima", card.model_type) if each not in known)]
    found["tags"] = list(dict.fromkeys(found["tags"]))
    return found


def _task(card: Card) -> str:
    if card.rewards:
        return "text-classification"
    return "text-generation" if card.causal else "fill-mask"


def _yaml(header: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True))


def license_of(header: Mapping[str, Any]) -> str | None:
    """The license that a card's header names; None where it names none, or says unknown."""
    named = header.get("license")
    if isinstance(named, list):
        named = ", ".join(each for each in named if isinstance(each, str))
    if not isinstance(named, str) or named in ("", "unknown"):
        return None
    own = header.get("license_name")
    return f"{own} ({named})" if isinstance(own, str) and own else named


def _render(card: Card, header: Mapping[str, Any], certificates: list[str]) -> str:
    base = header.get("base_model")
    made = f"Made with Omnima from {base}." if base else "Made with Omnima."
    terms = license_of(header)
    said = f"License: {terms}." if terms else "License: unknown; nobody has said one."
    parts = ["# A small language model", f"{made} {said}"]
    sections: dict[str, Rows | str] = dict(card.sections)
    sections["How to load it"] = _loading(card)
    if certificates:
        sections[_VERIFIED] = _bullets(certificates)
    for title, body in sections.items():
        parts.append(f"## {title}\n\n{body if isinstance(body, str) else _table(body)}")
    return "\n\n".join(parts) + "\n"


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(rows: Rows) -> str:
    lines = [f"| {name} | {_shown(value)} |" for name, value in rows.items()]
    lines.insert(1, "| --- | --- |")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return (value if isinstance(value, str) else json.dumps(value)).replace("|", "\\|")


def _loading(card: Card) -> str:
    use = [
        "`PATH` is this directory, or its name on a hub.",
        '```python\nimport omnima\n\nmodel = omnima.Model.from_pretrained("PATH")\n```',
    ]
    if card.model_type == "omnima":
        use.append(
            "It loads in Omnima only: it lies in blocks of Omnima, or no architecture of "
            "transformers is exactly this model."
        )
        return "\n\n".join(use)
    kind = "AutoModelForSequenceClassification" if card.rewards else "AutoModelForCausalLM"
    names = f"{kind}, AutoTokenizer" if card.has_tokenizer else kind
    lines = [f"from transformers import {names}", "", f'model = {kind}.from_pretrained("PATH")']
    if card.has_tokenizer:
        lines.append('tokenizer = AutoTokenizer.from_pretrained("PATH")')
    use.append("```python\n" + "\n".join(lines) + "\n```")
    return "\n\n".join(use)
