"""What each kind of adapter is in PEFT's files: its config's keys, and its tensors of a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnima.adapters import peft_prompts
from omnima.adapters.options import IN_FRONT, AdapterOptions
from omnima.adapters.sites import Module
from omnima.errors import ConfigError, DataError

DOWN, UP, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
FACTOR, BIAS = "ia3_l", "bias"
INNER, OUTER = "vera_lambda_d", "vera_lambda_b"
VALUES = "lora_E"
NARROW, NARROW_BIAS = "bottleneck_down.weight", "bottleneck_down.bias"
WIDE, WIDE_BIAS = "bottleneck_up.weight", "bottleneck_up.bias"
#: Tensors of a module by what files call them.
PARTS = {
    DOWN: DOWN,
    UP: UP,
    MAGNITUDE: MAGNITUDE,
    f"{MAGNITUDE}.weight": MAGNITUDE,
    FACTOR: FACTOR,
    INNER: INNER,
    OUTER: OUTER,
    VALUES: VALUES,
    "lora_A": DOWN,
    "lora_B": UP,
    **{part: part for part in (NARROW, NARROW_BIAS, WIDE, WIDE_BIAS)},
    f"base_layer.{BIAS}": BIAS,
    BIAS: BIAS,
}
#: Tensors of the whole adapter.
SHARED = {"vera": {"base_model.vera_A": "vera_A", "base_model.vera_B": "vera_B"}}
#: What PEFT has nothing for: biases of layers that have none in the model, and bottlenecks.
OWN_BIASES, OWN_BOTTLENECK = "OMNIMA_BITFIT", "OMNIMA_BOTTLENECK"

_KINDS = {
    **{"LORA": "lora", "IA3": "ia3", "VERA": "vera", "ADALORA": "adalora"},
    **{OWN_BIASES: "bitfit", OWN_BOTTLENECK: "bottleneck"},
    **peft_prompts.KINDS,
}
#: What we read of a config.
_READ = {
    "lora": {
        *("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "init_lora_weights"),
        *("rank_pattern", "alpha_pattern"),
    },
    "ia3": {"feedforward_modules", "init_ia3_weights"},
    "vera": {
        *("r", "vera_dropout", "projection_prng_key", "save_projection", "d_initial"),
        "init_weights",
    },
    "adalora": {
        *("r", "target_r", "init_r", "tinit", "tfinal", "deltaT", "beta1", "beta2"),
        *("orth_reg_weight", "total_step", "lora_alpha", "lora_dropout", "init_lora_weights"),
        "rank_pattern",
    },
    "bitfit": set[str](),
    "bottleneck": {"width"},
    **dict.fromkeys(IN_FRONT, {"num_virtual_tokens"} | peft_prompts.HARMLESS),
}
#: What changes nothing that we compute: where it stood, how it was found and trained.
_HARMLESS = {
    *("peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("peft_version", "auto_mapping", "megatron_core", "qalora_group_size"),
    *("runtime_config", "fan_in_fan_out", "ensure_weight_tying"),
}
#: What learns beside the adapter of a reward model: its head, and a name that PEFT adds.
_SAVED_HEADS = {"score", "classifier"}
_OFF: tuple[Any, ...] = (None, False, {}, [], "none")


def options_of(raw: Mapping[str, Any], where: str) -> AdapterOptions:
    """The options that a directory's config describes; DataError for what we do not have."""
    kind = _KINDS.get(raw.get("peft_type") or "")
    if kind is None:
        known = ", ".join(each for each in _KINDS if each not in (OWN_BIASES, OWN_BOTTLENECK))
        raise DataError(
            f"{where}: adapters of the type {raw.get('peft_type')!r} are not supported; there are "
            f"{known}."
        )
    of_biases = kind == "lora" and raw.get("bias") == "lora_only"
    read = _READ[kind] | _HARMLESS | ({"bias"} if of_biases else set())
    for key, value in raw.items():
        off = key.endswith("_config") and not value
        off |= key == "modules_to_save" and has_score(raw)
        if key not in read and value not in _OFF and not off:
            raise DataError(
                f"{where}: {key} is {value!r}, which Omnima does not have: the adapter would "
                "compute something else."
            )
    try:
        options = AdapterOptions(kind="bitfit") if of_biases else _read(kind, raw, where)
        options.check()
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where} does not describe a {raw['peft_type']}: {error}.") from error
    return options


def has_score(raw: Mapping[str, Any]) -> bool:
    """Whether a config is that of a reward model's adapter, with which the head learned."""
    saved = raw.get("modules_to_save")
    return isinstance(saved, list) and "score" in saved and set(saved) <= _SAVED_HEADS


def _read(kind: str, raw: Mapping[str, Any], where: str) -> AdapterOptions:
    if kind == "vera":
        rank = raw["r"]
        dropout, key = float(raw.get("vera_dropout", 0.0)), raw.get("projection_prng_key", 0)
        return AdapterOptions(
            kind="vera", rank=rank, alpha=float(rank), dropout=dropout, seed=int(key)
        )
    if kind == "bottleneck":
        width = raw["width"]
        return AdapterOptions(kind=kind, rank=width, alpha=float(width))
    if kind == "adalora":
        return _read_budget(raw)
    if kind in IN_FRONT:
        if raw.get("num_transformer_submodules") not in (1, None):
            raise DataError(f"{where}: it is of a model with an encoder, which Omnima has not.")
        return AdapterOptions(kind=kind, virtual_tokens=raw["num_virtual_tokens"])
    if kind != "lora":
        return AdapterOptions(kind=kind)
    init = raw.get("init_lora_weights", True)
    if init not in (True, False, "gaussian", "pissa", "olora"):
        raise DataError(
            f"{where}: init_lora_weights is {init!r}, whose change of the base cannot be made "
            "again. Save the adapter with path_initial_model_for_weight_conversion."
        )
    return AdapterOptions(
        kind="dora" if raw.get("use_dora") else "lora",
        rank=raw["r"],
        alpha=float(raw["lora_alpha"]),
        dropout=float(raw.get("lora_dropout", 0.0)),
        init=init if init in ("pissa", "olora") else "default",
        rank_stabilized=bool(raw.get("use_rslora")),
        rank_pattern=dict(raw.get("rank_pattern") or {}),
        alpha_pattern=dict(raw.get("alpha_pattern") or {}),
    )


def _read_budget(raw: Mapping[str, Any]) -> AdapterOptions:
    """AdaLoRA: with patterns of ranks, what was given up is not there."""
    kept = {
        name.partition(".lora_E")[0].replace(".", r"\."): sum(1 for each in flags if each)
        for name, flags in (raw.get("rank_pattern") or {}).items()
    }
    first = raw["init_r"]
    return AdapterOptions(
        kind="adalora",
        rank=min(raw["target_r"], first),
        alpha=float(raw["lora_alpha"]),
        dropout=float(raw.get("lora_dropout", 0.0)),
        rank_pattern={name: rank for name, rank in kept.items() if rank > 0},
        initial_rank=first,
        orthogonality=float(raw.get("orth_reg_weight", 0.5)),
    )


def written(part: str, options: AdapterOptions) -> str:
    """What files call a tensor."""
    return part.removesuffix(".weight") if options.kind == "adalora" else part


def shapes(options: AdapterOptions, module: Module) -> dict[str, tuple[int, ...]]:
    """What a module has in files: the shape of each tensor."""
    outputs = sum(module.sizes)
    if options.kind == "ia3":
        return {FACTOR: (1, module.inputs) if module.name in options.feedforward else (outputs, 1)}
    if options.kind == "bitfit":
        return {BIAS: (outputs,)}
    rank = options.rank_of(module.name)
    if options.kind == "vera":
        return {INNER: (rank,), OUTER: (outputs,)}
    if options.kind == "bottleneck":
        return {
            **{NARROW: (rank, outputs), NARROW_BIAS: (rank,)},
            **{WIDE: (outputs, rank), WIDE_BIAS: (outputs,)},
        }
    low_rank: dict[str, tuple[int, ...]] = {DOWN: (rank, module.inputs), UP: (outputs, rank)}
    if options.kind == "adalora":
        return {**low_rank, VALUES: (rank, 1)}
    return {**low_rank, MAGNITUDE: (outputs,)} if options.kind == "dora" else low_rank


def has_rows_of_outputs(part: str, options: AdapterOptions, module: str) -> bool:
    """Whether a tensor's rows are the module's outputs, which may lie otherwise with us."""
    still = (DOWN, INNER, VALUES, NARROW, NARROW_BIAS, WIDE, WIDE_BIAS)
    return part not in still and not (part == FACTOR and module in options.feedforward)


def described(
    options: AdapterOptions,
    modules: Mapping[str, Module],
    *,
    doubled: bool,
    with_biases: bool,
    with_score: bool,
) -> dict[str, Any]:
    """A config's keys for an adapter at these modules.

    Parameters
    ----------
    doubled
        It is written with twice its rank.
    with_biases
        All the modules have biases in the model.
    with_score
        The head of a reward model learned, too.
    """
    common = {
        "task_type": "SEQ_CLS" if with_score else "CAUSAL_LM",
        "inference_mode": True,
        "fan_in_fan_out": any(each.transposed for each in modules.values()),
        "target_modules": list(modules),
        "modules_to_save": ["score"] if with_score else None,
    }
    if options.kind == "ia3":
        ends = list(options.feedforward)
        return {**common, "peft_type": "IA3", "feedforward_modules": ends}
    if options.kind == "bitfit" and not with_biases:
        return {**common, "peft_type": OWN_BIASES}
    if options.kind == "bottleneck":
        return {**common, "peft_type": OWN_BOTTLENECK, "width": options.rank}
    if options.kind == "adalora":
        return {
            **common,
            "peft_type": "ADALORA",
            "target_r": options.rank,
            "init_r": options.initial_rank,
            "lora_alpha": _whole(options.alpha),
            "lora_dropout": options.dropout,
            "orth_reg_weight": options.orthogonality,
            "bias": "none",
            "rank_pattern": None,  # what was given up is zero
            "total_step": 1,  # PEFT wants one; those that were done are done
        }
    if options.kind == "vera":
        return {
            **common,
            "peft_type": "VERA",
            "r": options.rank,
            "vera_dropout": options.dropout,
            "projection_prng_key": options.seed,
            "save_projection": True,
            "bias": "none",
        }
    return {
        **common,
        "peft_type": "LORA",
        "init_lora_weights": True,
        **_ranks(options, modules, doubled),
    }


def _whole(alpha: float) -> float:
    return int(alpha) if float(alpha).is_integer() else alpha


def _ranks(options: AdapterOptions, modules: Mapping[str, Module], doubled: bool) -> dict[str, Any]:
    ranks: dict[str, Any] = dict(options.rank_pattern)
    alphas: dict[str, Any] = dict(options.alpha_pattern)
    rank, alpha, stabilized = options.rank, options.alpha, options.rank_stabilized
    if options.kind == "bitfit":  # a product of rank 1 that is zero
        rank, alpha = 1, 1.0
    if doubled:
        # Each module with its own rank and scale, which rank patterns would say otherwise.
        rank, stabilized, alpha = 2 * rank, False, 2 * rank * options.scale("")
        special = ranks or alphas
        names = [name.replace(".", r"\.") for name in modules] if special else []
        ranks = {key: 2 * options.rank_of(name) for key, name in zip(names, modules, strict=False)}
        alphas = {
            key: 2 * options.rank_of(name) * options.scale(name)
            for key, name in zip(names, modules, strict=False)
        }
    return {
        "r": rank,
        "lora_alpha": _whole(alpha),
        "lora_dropout": options.dropout,
        "use_rslora": stabilized,
        "use_dora": options.kind == "dora",
        "bias": "lora_only" if options.kind == "bitfit" else "none",
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
    }
