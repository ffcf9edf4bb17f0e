"""Rotary scaling and sliding windows in config.json, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnima.hub.config_reader import ConfigReader

# Our field and the one of `rope_parameters`, by the kinds of scaling that have it.
_YARN = {
    "rope_beta_fast": "beta_fast",
    "rope_beta_slow": "beta_slow",
    "rope_attention_factor": "attention_factor",
}
_LLAMA3 = {
    "rope_low_freq_factor": "low_freq_factor",
    "rope_high_freq_factor": "high_freq_factor",
}
_OWN: dict[str, dict[str, str]] = {
    "default": {},
    "linear": {},
    "dynamic": {},
    "yarn": _YARN,
    "llama3": _LLAMA3,
}
#: The name, with us and in files, of the share of a head that turns.
PARTIAL = "partial_rotary_factor"
_ALWAYS = {"rope_theta", "rope_type", "type", PARTIAL}
#: The base of layers with a window, in the names of transformers 4.
LOCAL = "rope_local_base_freq"
_KINDS = ("full_attention", "sliding_attention")
_ORIGINAL = "original_max_position_embeddings"


def field_defaults() -> dict[str, Any]:
    """Every field of a decoder's configuration and what it is when left alone.

    >>> field_defaults()["rope_scaling"]
    'none'
    """
    from omnima import _core

    return {field.name: field.default for field in _core.DecoderConfig.fields()}


def read_rotary(
    reader: ConfigReader,
    context: int,
    *,
    base: str = "rope_theta",
    theta: float = 10000.0,
    share: tuple[str, float] | None = None,
) -> dict[str, Any]:
    """Our rotary fields from `rope_parameters` (transformers 5) or `rope_scaling` (4).

    `context` is the file's max_position_embeddings; ours is returned among the fields, since
    dynamic scaling means the original context by the file's. `base` and `theta` are the family's
    name of the base and what it is by default; so is `share` of the turned share of a head, where
    the family can turn less than all.
    """
    theta = reader.take(base, float, theta)
    name, parameters = _rope_parameters(reader)
    if share is not None:
        parameters = {PARTIAL: reader.take(share[0], float, share[1]), **parameters}
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if (
        not isinstance(kind, str)
        or kind not in _OWN
        or (share is None and parameters.get(PARTIAL, 1) != 1)
    ):
        advice = f"supported: {', '.join(_OWN)}{', over the whole head' if share is None else ''}"
        raise reader.refusal(name, parameters, advice)
    known = _ALWAYS | set(_OWN[kind].values())
    if kind != "default":
        known |= {"factor"} | ({_ORIGINAL} if kind != "linear" else set())
    if kind == "yarn":
        known |= {name for name in ("truncate",) if parameters.get(name) is True}
    unknown = {key for key in parameters if key not in known and parameters[key] is not None}
    if unknown:
        raise reader.refusal(name, parameters, f"{kind} positions do not have {sorted(unknown)}")
    inner = type(reader)(parameters, reader.path)
    if "rope_theta" in parameters:
        given = inner.take("rope_theta", float)
        if reader.raw.get(base) is not None and given != theta:
            raise reader.refusal(base, theta, f"{name} say {given}")
        theta = given
    fields: dict[str, Any] = {"rope_theta": theta, "max_position_embeddings": context}
    if share is not None:
        fields[PARTIAL] = inner.take(PARTIAL, float)
    if kind == "default":
        return fields
    if not isinstance(parameters.get("factor"), (int, float)):
        raise reader.refusal(name, parameters, "the factor is missing")
    return {**fields, **_scaling(reader, inner, kind, context)}


def _rope_parameters(reader: ConfigReader) -> tuple[str, dict[str, Any]]:
    """The name of the field that counts, and what it holds."""
    parameters = reader.take("rope_parameters", dict, {})
    if _is_by_kind(parameters):
        parameters = parameters.get("full_attention") or {}
    scaling = reader.raw.get("rope_scaling")
    if not isinstance(scaling, dict):
        return "rope_parameters", parameters
    if parameters and {**scaling, **parameters} != {**parameters, **scaling}:
        raise reader.refusal("rope_scaling", scaling, f"rope_parameters say {parameters}")
    reader.take("rope_scaling", dict)
    return "rope_scaling", {**scaling, **parameters}


def _scaling(reader: ConfigReader, inner: ConfigReader, kind: str, context: int) -> dict[str, Any]:
    defaults = field_defaults()
    factor = inner.factor("factor")
    fields: dict[str, Any] = {"rope_scaling": kind, "rope_factor": factor}
    for ours, theirs in _OWN[kind].items():
        fields[ours] = inner.take(theirs, float, defaults[ours])
    extras = reader.raw.get("omnima")
    extras = type(reader)(extras if isinstance(extras, dict) else {}, reader.path)
    if kind == "dynamic":
        longest = max(context, round(context * factor))
        fields["max_position_embeddings"] = extras.take("max_position_embeddings", int, longest)
        fields["rope_original_context"] = context
    elif kind == "linear":
        original = max(1, round(context / factor))
        fields["rope_original_context"] = extras.take("rope_original_context", int, original)
    else:
        fields["rope_original_context"] = inner.take(_ORIGINAL, int, context)
    return fields


def write_rotary(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of config.json for our rotary fields; those of "omnima" under that key."""
    kind = config["rope_scaling"]
    parameters: dict[str, Any] = {
        "rope_type": "default" if kind == "none" else kind,
        "rope_theta": config["rope_theta"],
    }
    extras: dict[str, Any] = {}
    context = config["max_position_embeddings"]
    if kind != "none":
        parameters["factor"] = config["rope_factor"]
        for ours, theirs in _OWN[kind].items():
            # A factor of 0 stands for the one that the scaling gives by itself.
            if ours != "rope_attention_factor" or config[ours] > 0:
                parameters[theirs] = config[ours]
    if kind == "dynamic":
        extras["max_position_embeddings"] = context
        context = config["rope_original_context"]
    elif kind == "linear":
        extras["rope_original_context"] = config["rope_original_context"]
    elif kind != "none":
        parameters[_ORIGINAL] = config["rope_original_context"]
    older = {key: value for key, value in parameters.items() if key != "rope_theta"}
    return {
        "rope_theta": config["rope_theta"],
        "rope_parameters": parameters,
        "rope_scaling": older if kind != "none" else None,  # as transformers 4 has it
        "max_position_embeddings": context,
        "omnima": extras,
    }


def _is_by_kind(parameters: Any) -> bool:
    """Whether rotary parameters are those of each kind of attention, as newer files have them."""
    return isinstance(parameters, dict) and any(kind in parameters for kind in _KINDS)


def read_local_rotary(reader: ConfigReader, theta: float, local_theta: float | None) -> float:
    """The base of layers with a window, which files of such families have apart. `theta` and
    `local_theta` are the family's own; None: windows have the base of the others.
    """
    parameters = reader.raw.get("rope_parameters")
    base = reader.raw.get("rope_theta") or theta
    if local_theta is not None:
        base = reader.take(LOCAL, float, local_theta)
    if not isinstance(parameters, dict) or not _is_by_kind(parameters):
        return float(base)
    full, local = (parameters.get(kind) or {} for kind in _KINDS)
    if not (isinstance(full, dict) and isinstance(local, dict)) or set(parameters) - set(_KINDS):
        raise reader.refusal("rope_parameters", parameters, f"two objects, {' and '.join(_KINDS)}")
    if local.get("rope_type", "default") != "default" or set(local) - {"rope_type", "rope_theta"}:
        raise reader.refusal("rope_parameters", parameters, "plain ones for sliding_attention")
    return float(type(reader)(local, reader.path).take("rope_theta", float, base))


def write_local_rotary(fields: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The file's fields with those of layers with a window apart."""
    local = config["rope_local_theta"] or config["rope_theta"]
    return {
        **fields,
        "rope_parameters": {
            "full_attention": fields["rope_parameters"],
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        },
    }


def layer_types(config: Mapping[str, Any]) -> list[str]:
    """The attention of every layer, as transformers lists it.

    >>> layer_types({"num_hidden_layers": 3, "sliding_window": 8, "sliding_window_pattern": 2})
    ['sliding_attention', 'full_attention', 'sliding_attention']
    """
    pattern = config["sliding_window_pattern"]
    return [
        "sliding_attention"
        if config["sliding_window"] and not (pattern and (layer + 1) % pattern == 0)
        else "full_attention"
        for layer in range(config["num_hidden_layers"])
    ]


def read_windows(
    reader: ConfigReader,
    layers: int,
    context: int,
    default: int = 0,
    default_types: list[str] | None = None,
    keep: bool = False,
) -> dict[str, Any]:
    """Our window fields; one that covers the whole context is none, unless it is to be kept."""
    window = reader.raw.get("sliding_window", default)
    types = reader.raw.get("layer_types")
    if types is None and window:
        types = default_types
    first = reader.raw.get("max_window_layers")
    for name in ("sliding_window", "layer_types", "max_window_layers", "use_sliding_window"):
        reader.account_for(name)
    if window is not None and (not isinstance(window, int) or isinstance(window, bool)):
        raise reader.refusal("sliding_window", window, "a whole number of tokens is expected")
    if types is not None and (
        not isinstance(types, list) or (not window and "sliding_attention" in types)
    ):
        raise reader.refusal("layer_types", types, "a list that fits sliding_window is expected")
    if types is None:
        begin = first if isinstance(first, int) and reader.raw.get("use_sliding_window") else 0
        types = ["full_attention"] * min(begin, layers)
        types += ["sliding_attention"] * (layers - len(types))
    off = (
        not window
        or (window >= context and not keep)
        or reader.raw.get("use_sliding_window") is False
    )
    if off:
        types = ["full_attention" if kind == "sliding_attention" else kind for kind in types]
        return _pattern(reader, types, 0, layers)
    return _pattern(reader, types, int(window or 0), layers)


def _pattern(reader: ConfigReader, types: Any, window: int, layers: int) -> dict[str, Any]:
    if types == ["full_attention"] * layers:
        return {"sliding_window": 0, "sliding_window_pattern": 0}
    for pattern in (0, *range(2, layers + 1)):
        fields = {"sliding_window": window, "sliding_window_pattern": pattern}
        if window and layer_types({**fields, "num_hidden_layers": layers}) == types:
            return fields
    raise reader.refusal(
        "layer_types", types, "every layer, or all but every n-th, must have sliding_attention"
    )
