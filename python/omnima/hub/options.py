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
_ALWAYS = {"rope_theta", "rope_type", "type", "partial_rotary_factor"}
_ORIGINAL = "original_max_position_embeddings"


def field_defaults() -> dict[str, Any]:
    """Every field of a decoder's configuration and what it is when left alone.

    >>> field_defaults()["rope_scaling"]
    'none'
    """
    from omnima import _core

    return {field.name: field.default for field in _core.DecoderConfig.fields()}


def read_rotary(
    reader: ConfigReader, context: int, base: str = "rope_theta", share: str | None = None
) -> dict[str, Any]:
    """Our rotary fields from `rope_parameters` (transformers 5) or `rope_scaling` (4).

    `context` is the file's max_position_embeddings; ours is returned among the fields, since
    dynamic scaling means the original context by the file's. `base` and `share` are the family's
    names of the base and of the turned share of a head, which is a quarter where it has that name.
    """
    theta = reader.take(base, float, 10000.0)
    name, parameters = _rope_parameters(reader)
    if share is not None:
        parameters = {"partial_rotary_factor": reader.take(share, float, 0.25), **parameters}
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    advice = f"supported: {', '.join(_OWN)}, over the whole head"
    if kind not in _OWN or parameters.get("partial_rotary_factor", 1) != 1:
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
    fields = {"rope_theta": theta, "max_position_embeddings": context}
    if kind == "default":
        return fields
    if not isinstance(parameters.get("factor"), (int, float)):
        raise reader.refusal(name, parameters, "the factor is missing")
    return {**fields, **_scaling(reader, inner, kind, context)}


def _rope_parameters(reader: ConfigReader) -> tuple[str, dict[str, Any]]:
    """The name of the field that counts, and what it holds."""
    parameters = reader.take("rope_parameters", dict, {})
    scaling = reader.raw.get("rope_scaling")
    if not isinstance(scaling, dict):
        return "rope_parameters", parameters
    if parameters and {**scaling, **parameters} != {**parameters, **scaling}:
        raise reader.refusal("rope_scaling", scaling, f"rope_parameters say {parameters}")
    reader.take("rope_scaling", dict)
    return "rope_scaling", {**scaling, **parameters}


def _scaling(reader: ConfigReader, inner: ConfigReader, kind: str, context: int) -> dict[str, Any]:
    defaults = field_defaults()
    factor = inner.take("factor", float)
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
    return {
        "rope_theta": config["rope_theta"],
        "rope_parameters": parameters,
        "max_position_embeddings": context,
        "omnima": extras,
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
    reader: ConfigReader, layers: int, context: int, default: int = 0
) -> dict[str, Any]:
    """Our window fields; a window that covers the whole context is none."""
    window = reader.raw.get("sliding_window", default)
    types = reader.raw.get("layer_types")
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
    off = not window or window >= context or reader.raw.get("use_sliding_window") is False
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
