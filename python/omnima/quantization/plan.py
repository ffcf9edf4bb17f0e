"""Which parameter goes into which format, and which stay as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from omnima.errors import ConfigError
from omnima.hub.names import expected_shapes

#: What a model can be made of, and the numbers of a group where none is given; 0: a whole row.
TARGETS: Mapping[str, int] = {"int8": 64, "int4": 64, "nf4": 64}
METHODS = ("rtn", "gptq", "awq")
#: Numbers that share a scale, where they are of 4 bits: the sizes that there are.
GROUPS = (128, 64, 32)
#: Matrices with a row for every token.
_ENDS = ("model.embed_tokens.weight", "lm_head.weight")
# Keys, and what each head sums. Where several heads share one they err most of all and are
# smallest: in SmolLM2-135M 6% of the weights of a block, and nearly a fifth of what four bits cost.
_SHARED = ("*.self_attn.k_proj.weight", "*.self_attn.v_proj.weight")
# Tables that are looked up, and routers, which decide: as they are.
_NEVER = ("model.embed_positions.weight", "model.relative_bias.weight", "*.mlp.gate.weight")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to become of a model's parameters."""

    to: str
    method: str
    group_size: int
    zero_point: bool
    #: The format of each parameter that is quantized, by name.
    formats: Mapping[str, str]
    #: The parameters that stay as they are.
    kept: Sequence[str]


def plan(
    config: Mapping[str, Any],
    to: str,
    method: str | None = None,
    group_size: int | None = None,
    zero_point: bool | None = None,
    ends: str = "int8",
    keep: Iterable[str] = (),
) -> Plan:
    """Choose a format for every parameter of a model.

    Parameters
    ----------
    config
        All fields of its configuration.
    to, method, group_size, zero_point, ends, keep
        As in :meth:`omnima.Model.quantize`.

    Raises
    ------
    ConfigError
        Something unknown, a group that there is not, or nothing left to quantize.

    Examples
    --------
    >>> from omnima import ModelConfig
    >>> shape = ModelConfig(vocab_size=512, hidden_size=64, num_hidden_layers=1,
    ...                     num_attention_heads=4, num_key_value_heads=2, intermediate_size=128,
    ...                     max_position_embeddings=64)
    >>> plan(shape.to_dict(), "int4").formats["model.layers.0.self_attn.q_proj.weight"]
    'int4z_g64'
    """
    if to not in TARGETS:
        raise ConfigError(f'to is "{to}"; the choices are {", ".join(TARGETS)}.')
    method = method or ("rtn" if to == "int8" else "gptq")
    if method not in METHODS:
        raise ConfigError(f'method is "{method}"; the choices are {", ".join(METHODS)}.')
    if zero_point and to != "int4":
        raise ConfigError(f"Only int4 has a zero point; to is {to}.")
    if ends not in ("int8", "same", "none"):
        raise ConfigError(f'ends is "{ends}"; the choices are int8, same, none.')
    group = TARGETS[to] if group_size is None else group_size
    allowed = (0, *GROUPS) if to == "int8" else GROUPS
    if group not in allowed:
        raise ConfigError(
            f"group_size is {group}; for {to} it must be one of "
            f"{', '.join(map(str, sorted(allowed)))}"
            f"{' (0: a whole row)' if to == 'int8' else ''}."
        )
    with_zero = to == "int4" and zero_point is not False
    formats: dict[str, str] = {}
    kept: list[str] = []
    finer = (*_ENDS, *(_SHARED if _shares_heads(config) else ()))
    patterns = [*_NEVER, *keep, *(_ENDS if ends == "none" else ())]
    for name, shape in expected_shapes(config).items():
        stays = len(shape) != 2 or any(fnmatchcase(name, each) for each in patterns)
        whole = ends == "int8" and to != "int8" and any(fnmatchcase(name, each) for each in finer)
        found = None
        if not stays:
            found = f"int8_g{shape[1]}" if whole else _format(to, group, with_zero, shape[1])
        if found is None:
            kept.append(name)
        else:
            formats[name] = found
    if not formats:
        raise ConfigError("No parameter is left to quantize: all of them are kept.")
    return Plan(to, method, group, with_zero, formats, tuple(kept))


def _shares_heads(config: Mapping[str, Any]) -> bool:
    return bool(config["num_key_value_heads"] < config["num_attention_heads"])


def _format(to: str, group: int, zero_point: bool, inputs: int) -> str | None:
    """The format of a matrix with so many inputs: with the group halved until it divides them.

    Where no group does, int8 has a scale a row, and the others None.
    """
    size = next((each for each in GROUPS if each <= group and inputs % each == 0), None)
    if size is None:
        return f"int8_g{inputs}" if to == "int8" else None
    if to == "nf4":
        return f"nf4_g{size}x{inputs // size}"
    return f"{to}{'z' if zero_point else ''}_g{size}"
