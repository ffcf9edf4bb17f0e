"""Adapters as PEFT's directories: adapter_config.json and adapter_model.safetensors, both ways."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from omnima._durable import write_durably
from omnima.adapters.options import AdapterOptions
from omnima.adapters.sites import Module
from omnima.errors import ConfigError, DataError
from omnima.hub.strict_json import read_json_object

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_DOWN, _UP, _MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
_FACTOR = "ia3_l"
#: What we read of a LoRA's config.
_READ = {"r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "init_lora_weights"}
_READ |= {"rank_pattern", "alpha_pattern"}
#: What changes nothing that we compute: where it stood, how it was found and trained.
_HARMLESS = {"peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode"}
_HARMLESS |= {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"}
_HARMLESS |= {"peft_version", "auto_mapping", "megatron_core", "qalora_group_size"}
_HARMLESS |= {"runtime_config", "fan_in_fan_out", "ensure_weight_tying"}
_OFF: tuple[Any, ...] = (None, False, {}, [], "none")


@dataclasses.dataclass(frozen=True)
class ReadAdapter:
    """An adapter as a directory has it.

    Attributes
    ----------
    options
        Its kind and values.
    modules
        Where it stands.
    tensors
        Its parameters by the names that ours have, rows as with us.
    where
        Names the directory in errors.
    """

    options: AdapterOptions
    modules: Sequence[Module]
    tensors: Mapping[str, Tensor]
    where: str

    def fill(self, parameters: Sequence[tuple[str, Tensor]]) -> None:
        """Copy the values into the parameters of an adapter that was made for this."""
        import torch

        with torch.no_grad():
            for name, parameter in parameters:
                parameter.copy_(self.tensors[name])


def read_adapter(
    directory: str | Path, config: Mapping[str, Any], modules: Mapping[str, Module]
) -> ReadAdapter:
    """Read and check an adapter for a model of this configuration, with these linear layers.

    Raises
    ------
    DataError
        Files that are missing or damaged, an adapter of a kind or with an option that is not
        supported, tensors that fit no module of the model or have another shape.
    """
    from omnima import _core

    folder = Path(directory)
    if not (folder / CONFIG).is_file():
        raise DataError(
            f"{folder} has no {CONFIG}: it is no adapter's directory. Give the one that "
            "save_adapter or PEFT's save_pretrained wrote."
        )
    raw = read_json_object(folder / CONFIG)
    options = _options(raw, folder / CONFIG)
    path = folder / WEIGHTS
    if not path.is_file():
        raise DataError(f"{folder} has no {WEIGHTS}; pickled adapter_model.bin files are not read.")
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in _core.read_safetensors(path).items():
        module, part = _split(key, path)
        if module not in modules:
            raise DataError(
                f'{path}, tensor "{key}": the model has no linear layer "{module}" in its blocks. '
                f"It has {next(iter(modules))}, …: is the adapter of another model?"
            )
        found.setdefault(module, {})[part] = tensor
    if not found:
        raise DataError(f"{path} holds no tensor: the adapter would change nothing.")
    if options.kind == "ia3":
        ends = tuple(name for name, parts in found.items() if _scales_inputs(modules[name], parts))
        options = dataclasses.replace(options, feedforward=ends)
    tensors: dict[str, Tensor] = {}
    for name, parts in found.items():
        tensors |= _checked(modules[name], parts, options, config, path)
    stands_at = [module for name, module in modules.items() if name in found]
    return ReadAdapter(options, stands_at, tensors, str(path))


def _options(raw: Mapping[str, Any], path: Path) -> AdapterOptions:
    kind = raw.get("peft_type")
    if kind not in ("LORA", "IA3"):
        raise DataError(
            f"{path}: adapters of the type {kind!r} are not supported; LORA and IA3 are."
        )
    read = _READ if kind == "LORA" else {"feedforward_modules", "init_ia3_weights"}
    for key, value in raw.items():
        off = key.endswith("_config") and not value
        if key not in read | _HARMLESS and value not in _OFF and not off:
            raise DataError(
                f"{path}: {key} is {value!r}, which Omnima does not have: the adapter would "
                "compute something else."
            )
    if kind == "IA3":
        return AdapterOptions(kind="ia3")
    init = raw.get("init_lora_weights", True)
    if init not in (True, False, "gaussian", "pissa", "olora"):
        raise DataError(
            f"{path}: init_lora_weights is {init!r}, whose change of the base cannot be made "
            "again. Save the adapter with path_initial_model_for_weight_conversion."
        )
    dora = bool(raw.get("use_dora"))
    try:
        options = AdapterOptions(
            kind="dora" if dora else "lora",
            rank=raw["r"],
            alpha=float(raw["lora_alpha"]),
            dropout=float(raw.get("lora_dropout", 0.0)),
            init=init if init in ("pissa", "olora") else "default",
            rank_stabilized=bool(raw.get("use_rslora")),
            rank_pattern=dict(raw.get("rank_pattern") or {}),
            alpha_pattern=dict(raw.get("alpha_pattern") or {}),
        )
        options.check()
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise DataError(f"{path} does not describe a LoRA: {error}.") from error
    return options


def _split(key: str, path: Path) -> tuple[str, str]:
    """The module of a tensor and what it is there."""
    for part in (_DOWN, _UP, _FACTOR, _MAGNITUDE, f"{_MAGNITUDE}.weight"):
        if key.startswith(_PREFIX) and key.endswith(f".{part}"):
            module = key.removeprefix(_PREFIX).removesuffix(f".{part}")
            return module, part.removesuffix(".weight") if part.startswith(_MAGNITUDE) else part
    raise DataError(
        f'{path}, tensor "{key}": expected are {_PREFIX}MODULE.{_DOWN}, .{_UP}, .{_MAGNITUDE} and '
        f".{_FACTOR}."
    )


def _scales_inputs(module: Module, parts: Mapping[str, Tensor]) -> bool:
    """Whether IA3's factors [1, inputs], not [outputs, 1], are there."""
    shapes = [tuple(each.shape) for each in parts.values()]
    return (1, module.inputs) in shapes and (sum(module.sizes), 1) not in shapes


def _checked(
    module: Module,
    parts: Mapping[str, Tensor],
    options: AdapterOptions,
    config: Mapping[str, Any],
    path: Path,
) -> dict[str, Tensor]:
    """The parameters of one module, whole, of the right shapes, and with rows as ours lie."""
    import torch

    outputs, rank = sum(module.sizes), options.rank_of(module.name)
    shapes: dict[str, tuple[int, ...]] = {_DOWN: (rank, module.inputs), _UP: (outputs, rank)}
    if options.kind == "dora":
        shapes[_MAGNITUDE] = (outputs,)
    along: tuple[str, ...] = (_DOWN,)  # inputs, which lie with us as there
    if options.kind == "ia3":
        ends = module.name in options.feedforward
        shapes = {_FACTOR: (1, module.inputs) if ends else (outputs, 1)}
        along = (_FACTOR,) if ends else ()
    if set(parts) != set(shapes):
        raise DataError(
            f'{path}: of "{module.name}" there are {", ".join(sorted(parts))}; needed are '
            f"{', '.join(sorted(shapes))}."
        )
    made = {}
    for part, shape in shapes.items():
        tensor = parts[part].to(torch.float32)
        if tuple(tensor.shape) != shape:
            raise DataError(
                f'{path}, "{module.name}.{part}": its shape is {tuple(tensor.shape)}, but the '
                f"model and {CONFIG} ask for {shape}."
            )
        rows = tensor if part in along else module.rows_to_ours(tensor, config)
        if part == _FACTOR:
            rows = rows.flatten()
        made[f"{module.name}.{part}"] = rows.contiguous()
    return made


def write_adapter(model: Any, directory: str | Path, name: str) -> None:
    """Write an adapter of a model so that PEFT loads it; see :meth:`omnima.Model.save_adapter`.

    One that began with a part of the weights (PiSSA, OLoRA) is written with twice the rank: what it
    learned less what it began with, for the weights as they were.
    """
    from omnima import _core

    options: AdapterOptions = model.adapters.get(name) or _missing(model, name)
    config = model.config.to_dict()
    parameters = {key: each.detach() for key, each in model.core.adapter_parameters(name)}
    modules = model.linear_modules
    chosen = list(dict.fromkeys(_split(_PREFIX + key, Path(name))[0] for key in parameters))
    initial = _initial(model, name, parameters)
    tensors: dict[str, Tensor] = {}
    for key, tensor in parameters.items():
        module, part = _split(_PREFIX + key, Path(name))
        whole = _with_initial(part, tensor, initial.get(key))
        ends = module in options.feedforward
        if part == _FACTOR:
            whole = whole.reshape((1, -1) if ends else (-1, 1))
        along = part == _DOWN or ends
        rows = whole if along else modules[module].rows_to_theirs(whole, config)
        tensors[_PREFIX + key] = rows.cpu().contiguous()
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    described = _described(options, {each: modules[each] for each in chosen}, bool(initial), model)
    _core.write_safetensors(folder / WEIGHTS, tensors, {"format": "pt"})
    text = json.dumps(described, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_durably(folder / CONFIG, (text + "\n").encode("utf-8"))


def _missing(model: Any, name: str) -> NoReturn:
    known = ", ".join(model.adapters) or "none"
    raise ConfigError(f'There is no adapter "{name}"; there are: {known}.')


def _initial(model: Any, name: str, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What each parameter was at the beginning, where the base is lessened by it."""
    flat = dict(model.core.adapter_constants(name)).get("initial")
    if flat is None:
        return {}
    start = min(each.storage_offset() for each in parameters.values())
    return {
        key: flat[each.storage_offset() - start :][: each.numel()].view(each.shape)
        for key, each in parameters.items()
    }


def _with_initial(part: str, tensor: Tensor, initial: Tensor | None) -> Tensor:
    import torch

    if initial is None:
        return tensor
    return torch.cat([tensor, initial]) if part == _DOWN else torch.cat([tensor, -initial], 1)


def _described(
    options: AdapterOptions, modules: Mapping[str, Module], doubled: bool, model: Any
) -> dict[str, Any]:
    base = model.origin.base_model if model.origin is not None else None
    common = {
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "fan_in_fan_out": any(each.transposed for each in modules.values()),
        "target_modules": list(modules),
        "modules_to_save": None,
    }
    if options.kind == "ia3":
        ends = list(options.feedforward)
        return {**common, "peft_type": "IA3", "feedforward_modules": ends}
    ranks: dict[str, Any] = dict(options.rank_pattern)
    alphas: dict[str, Any] = dict(options.alpha_pattern)
    rank, alpha, stabilized = options.rank, options.alpha, options.rank_stabilized
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
        **common,
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": options.dropout,
        "use_rslora": stabilized,
        "use_dora": options.kind == "dora",
        "init_lora_weights": True,
        "bias": "none",
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
    }
