"""Adapters as PEFT's directories: adapter_config.json and adapter_model.safetensors, both ways."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from omnima._durable import write_durably
from omnima.adapters import peft_kinds, peft_prompts
from omnima.adapters.options import IN_FRONT, AdapterOptions
from omnima.adapters.peft_kinds import BIAS, DOWN, FACTOR, UP, VALUES
from omnima.adapters.sites import Module
from omnima.errors import ConfigError, DataError
from omnima.hub.strict_json import read_json_object

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
#: The head of a reward model.
SCORE = "score.weight"


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
    constants
        What does not learn, by our names; without those that can be drawn again.
    where
        Names the directory in errors.
    """

    options: AdapterOptions
    modules: Sequence[Module]
    tensors: Mapping[str, Tensor]
    constants: Mapping[str, Tensor]
    where: str

    def fill(
        self,
        parameters: Sequence[tuple[str, Tensor]],
        constants: Sequence[tuple[str, Tensor]] = (),
    ) -> None:
        """Copy the values into the parameters and constants of an adapter made for this."""
        import torch

        for name, each in constants:
            if name in self.constants and self.constants[name].shape != each.shape:
                raise DataError(
                    f'{self.where}, "{name}": its shape is {tuple(self.constants[name].shape)}, '
                    f"but the layers that the adapter stands at ask for {tuple(each.shape)}."
                )
        with torch.no_grad():
            for name, parameter in parameters:
                if name in self.tensors or name != SCORE:  # else the head is the model's own
                    parameter.copy_(self.tensors[name])
            for name, each in constants:
                if name in self.constants:
                    each.copy_(self.constants[name])


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
    raw = read_config(folder)
    options = peft_kinds.options_of(raw, str(folder / CONFIG))
    path = folder / WEIGHTS
    if not path.is_file():
        raise DataError(f"{folder} has no {WEIGHTS}; pickled adapter_model.bin files are not read.")
    if options.kind in IN_FRONT:
        stored = _core.read_safetensors(path)
        ours = peft_prompts.from_files(stored, options, config, modules, str(path))
        return ReadAdapter(options, [], ours, {}, str(path))
    shared = peft_kinds.SHARED.get(options.kind, {})
    found: dict[str, dict[str, Tensor]] = {}
    constants: dict[str, Tensor] = {}
    stored = _core.read_safetensors(path)
    tensors = _score_of(stored, peft_kinds.has_score(raw), config, path)
    for key, tensor in stored.items():
        if key in shared:
            constants[shared[key]] = tensor
            continue
        module, part = _split(key, path)
        if module not in modules:
            raise DataError(
                f'{path}, tensor "{key}": the model has no linear layer "{module}" in its blocks. '
                f"It has {next(iter(modules))}, …: is the adapter of another model?"
            )
        if tensor.numel() > 0:  # AdaLoRA may have left nothing of a layer
            found.setdefault(module, {})[part] = tensor
    if not found:
        raise DataError(f"{path} holds no tensor: the adapter would change nothing.")
    if options.kind == "ia3":
        ends = tuple(name for name, parts in found.items() if _scales_inputs(modules[name], parts))
        options = dataclasses.replace(options, feedforward=ends)
    for name, parts in found.items():
        tensors |= _checked(modules[name], parts, options, config, path)
    stands_at = [module for name, module in modules.items() if name in found]
    return ReadAdapter(options, stands_at, tensors, constants, str(path))


def read_config(folder: Path) -> dict[str, Any]:
    """The config of an adapter's directory.

    Raises
    ------
    DataError
        It has none, or a damaged one.
    """
    if not (folder / CONFIG).is_file():
        raise DataError(
            f"{folder} has no {CONFIG}: it is no adapter's directory. Give the one that "
            "save_adapter or PEFT's save_pretrained wrote."
        )
    return read_json_object(folder / CONFIG)


def of_reward_model(directory: str | Path) -> bool:
    """Whether a directory holds the adapter of a reward model, with its head.

    Raises
    ------
    DataError
        It holds no adapter.
    """
    return peft_kinds.has_score(read_config(Path(directory)))


def _score_of(
    stored: dict[str, Tensor], wanted: bool, config: Mapping[str, Any], path: Path
) -> dict[str, Tensor]:
    """Take the head of a reward model out of what a file holds."""
    import torch

    score = stored.pop(_PREFIX + SCORE, None)
    if not wanted and score is None:
        return {}
    if score is None:
        raise DataError(f"{path} has no {_PREFIX}{SCORE}, which {CONFIG} says was saved.")
    if not config["reward_head"]:
        raise DataError(
            f"{path} is of a reward model: it has learned a head that says how good a text is. "
            "Load it beside model.with_reward_head()."
        )
    if tuple(score.shape) != (1, config["hidden_size"]):
        raise DataError(
            f'{path}, "{_PREFIX}{SCORE}": its shape is {tuple(score.shape)}, but a reward is one '
            f"number of {config['hidden_size']}: (1, {config['hidden_size']})."
        )
    return {SCORE: score.to(torch.float32)}


def _split(key: str, path: Path) -> tuple[str, str]:
    """The module of a tensor and what it is there."""
    for written, part in peft_kinds.PARTS.items():
        if key.startswith(_PREFIX) and key.endswith(f".{written}"):
            return key.removeprefix(_PREFIX).removesuffix(f".{written}"), part
    known = ", ".join(f".{each}" for each in peft_kinds.PARTS)
    raise DataError(f'{path}, tensor "{key}": expected are {_PREFIX}MODULE and one of {known}.')


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

    shapes = peft_kinds.shapes(options, module)
    if options.kind == "bitfit":
        parts = _biases_alone(module, parts, path)
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
        turned = peft_kinds.has_rows_of_outputs(part, options, module.name)
        rows = module.rows_to_ours(tensor, config) if turned else tensor
        if part in (FACTOR, VALUES):
            rows = rows.flatten()
        made[f"{module.name}.{part}"] = rows.contiguous()
    return made


def _biases_alone(module: Module, parts: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The parts without a product that is zero; DataError where it is not."""
    if parts.get(UP) is not None and parts[UP].any() and parts[DOWN].any():
        raise DataError(
            f'{path}, "{module.name}": a LoRA and biases that learned together are not supported; '
            "biases alone are, and a LoRA without."
        )
    return {part: each for part, each in parts.items() if part not in (UP, DOWN)}


def write_adapter(model: Any, directory: str | Path, name: str) -> None:
    """Write an adapter of a model so that PEFT loads it; see :meth:`omnima.Model.save_adapter`.

    One that began with a part of the weights (PiSSA, OLoRA) is written with twice the rank: what it
    learned less what it began with, for the weights as they were.
    """
    from omnima import _core

    options: AdapterOptions = model.adapters.get(name) or _missing(model, name)
    config = model.config.to_dict()
    if options.kind in IN_FRONT:
        if config["reward_head"]:
            raise ConfigError(
                f"A {options.kind} of a reward model is not written: PEFT's files of virtual "
                "tokens have no place for the head. Take an adapter at layers, such as lora."
            )
        parameters = model.core.adapter_parameters(name)
        tensors = peft_prompts.to_files(parameters, options, config, model.linear_modules)
        described = peft_prompts.described(options, config)
    else:
        tensors, described = _of_modules(model, name, options, config)
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    described["base_model_name_or_path"] = model.origin.base_model if model.origin else None
    _core.write_safetensors(folder / WEIGHTS, tensors, {"format": "pt"})
    text = json.dumps(described, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_durably(folder / CONFIG, (text + "\n").encode("utf-8"))


def _of_modules(
    model: Any, name: str, options: AdapterOptions, config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the config of an adapter that stands at modules."""
    parameters = {key: each.detach() for key, each in model.core.adapter_parameters(name)}
    score = parameters.pop(SCORE, None)
    modules = model.linear_modules
    names = dict.fromkeys(_split(_PREFIX + key, Path(name))[0] for key in parameters)
    chosen = {each: modules[each] for each in names}
    initial = _initial(model, name, parameters)
    with_biases = _have_biases(model, chosen)
    tensors: dict[str, Tensor] = {}
    for key, tensor in parameters.items():
        module, part = _split(_PREFIX + key, Path(name))
        whole = _with_initial(part, tensor, initial.get(key))
        if part in (FACTOR, VALUES):
            whole = whole.reshape((1, -1) if module in options.feedforward else (-1, 1))
        turned = peft_kinds.has_rows_of_outputs(part, options, module)
        rows = modules[module].rows_to_theirs(whole, config) if turned else whole
        if part == BIAS and with_biases:
            tensors |= _beside_zeros(modules[module], rows)
        else:
            name_there = f"{_PREFIX}{module}.{peft_kinds.written(part, options)}"
            tensors[name_there] = rows.cpu().contiguous()
    constants = dict(model.core.adapter_constants(name))
    for key, ours in peft_kinds.SHARED.get(options.kind, {}).items():
        tensors[key] = constants[ours].cpu()
    described = peft_kinds.described(
        options,
        chosen,
        doubled=bool(initial),
        with_biases=with_biases,
        with_score=score is not None,
    )
    if score is not None:
        tensors[_PREFIX + SCORE] = score.cpu()
    return tensors, described


def _have_biases(model: Any, modules: Mapping[str, Module]) -> bool:
    there = {name for name, _ in model.named_parameters()}
    return all(f"{part}.bias" in there for each in modules.values() for part in each.parts)


def _beside_zeros(module: Module, bias: Tensor) -> dict[str, Tensor]:
    """A bias as PEFT has it: beside a product, which is zero."""
    at = f"{_PREFIX}{module.name}."
    return {
        f"{at}base_layer.bias": bias.cpu().contiguous(),
        at + DOWN: bias.new_zeros(1, module.inputs).cpu(),
        at + UP: bias.new_zeros(len(bias), 1).cpu(),
    }


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
    return torch.cat([tensor, initial]) if part == DOWN else torch.cat([tensor, -initial], 1)
