"""The core's training step for a config and a plan: made, made anew when the plan changes, saved,
restored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from omnima._growth import VOCABULARY
from omnima.errors import CheckpointError
from omnima.hub.names import is_training_only
from omnima.training.budget import Budget
from omnima.training.config import TrainConfig

if TYPE_CHECKING:
    import torch

# Fields of the config that the core's options have under the same name.
_SAME = (
    *("optimizer", "lr", "beta1", "beta2", "eps", "weight_decay", "momentum", "nesterov"),
    *("groups", "freeze", "clip_norm", "clip_value", "clip_adaptive", "ema_decay", "ema_eval"),
    *(
        "label_smoothing",
        "z_loss",
        "prediction_weight",
        "checkpoint_layers",
        "loss_scale",
        "loss_scale_growth",
    ),
    *("schedule", "min_lr_ratio", "cycles", "cycle_growth", "stages", "stage_factor"),
    *("decay_share", "rise_share", "accumulate", "ramp_steps", "seed"),
)


def step_options(
    config: TrainConfig,
    precision: str,
    budget: Budget,
    decoder: Any,
    of_data: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """Return the core's options for a config, the current plan of the budget, a model and what the
    data asks for.
    """
    from omnima import _core

    options = _core.StepOptions()
    values = {
        **{name: getattr(config, name) for name in _SAME},
        "freeze": (*config.freeze, *_rows_that_stay(decoder, config.train_rows_from)),
        "precision": precision,
        "offload_optimizer": config.offload_optimizer or "",
        "warmup_steps": budget.warmup(config),
        # 0: the schedule follows set_progress, for a budget on the clock.
        "total_steps": 0 if budget.seconds is not None else budget.total_steps,
        **of_data,
    }
    for name, value in values.items():
        setattr(options, name, value)
    return options


def _rows_that_stay(decoder: Any, first: int | None) -> list[str]:
    """What to freeze so that only the rows of tokens from an id on are trained."""
    if first is None:
        return []
    rows = decoder.config.values()["vocab_size"]
    return [
        f"{name}[:{first}]" if name in VOCABULARY and len(each) == rows else name
        for name, each in decoder.named_parameters()
    ]


class Stepper:
    """Owns the `_core.TrainStep` of a run."""

    def __init__(
        self,
        model: Any,
        config: TrainConfig,
        precision: str,
        budget: Budget,
        of_data: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        from omnima import _core

        self._model, decoder = model, model.core
        self._decoder = decoder
        #: The name of the adapter that learns; None: the model itself does.
        self.adapter: str | None = decoder.learning_adapter
        self.step = _core.TrainStep(
            decoder, step_options(config, precision, budget, decoder, of_data)
        )

    def replan(self, config: TrainConfig, budget: Budget) -> None:
        """Take the warmup of a new plan, or another number of micro-batches a step."""
        self.step.replan(budget.warmup(config), config.accumulate)

    def save(self, directory: Path, decoder_values: dict[str, Any], tokenizer: Any) -> None:
        """Write the model as a Hugging Face directory and the optimizer's buffers beside it.

        Where an adapter learns, it alone is written, as PEFT's directory, and its own buffers: the
        model's weights are as they were.

        Where other weights are evaluated than are trained, the model is made of those, and the
        trained ones lie with the optimizer's buffers. There lie the prediction heads, too: they
        are no part of the model that is saved.
        """
        from omnima import _core, hub

        self.step.show_averaged_weights(True)
        try:
            state = self.step.state()  # here the trained weights and those shown are two buffers
            if self.adapter is not None:
                self._save_adapter(directory, state)
                return
            if not self.step.has_averaged_weights:
                del state["weights"]
            parameters = self._decoder.named_parameters()
            state.update(
                (name, each.detach()) for name, each in parameters if is_training_only(name)
            )
            _core.write_safetensors(
                str(directory / "optimizer.safetensors"), state, {"step": str(self.step.step)}
            )
            model = directory / "model"
            hub.save_pretrained(decoder_values, parameters, model, tokenizer=tokenizer)
        finally:
            self.step.show_averaged_weights(False)

    def _save_adapter(self, directory: Path, state: dict[str, Any]) -> None:
        from omnima import _core

        # Rows and ranks as they lie in memory: what goes on is the same to the bit.
        constants = self._decoder.adapter_constants(self.adapter)
        state.update((f"constant.{name}", each) for name, each in constants)
        _core.write_safetensors(
            str(directory / "optimizer.safetensors"), state, {"step": str(self.step.step)}
        )
        self._model.save_adapter(directory / "adapter", self.adapter)

    def _restore_adapter(self, directory: Path, number: int) -> None:
        import torch

        from omnima import _core

        beside = directory / "optimizer.safetensors"
        saved = _core.read_safetensors(str(beside))
        with torch.no_grad():
            for name, each in self._decoder.adapter_constants(self.adapter):
                each.copy_(_part(saved, f"constant.{name}", each, beside))
        state = self.step.state()
        self.step.load_state(
            {name: _part(saved, name, each, beside) for name, each in state.items()}, number
        )

    def restore(self, directory: Path, number: int) -> None:
        """Take back what `save` wrote, bit for bit."""
        import torch

        from omnima import _core, hub

        if self.adapter is not None:
            return self._restore_adapter(directory, number)

        _, weights = hub.load_pretrained(directory / "model")
        beside = directory / "optimizer.safetensors"
        saved = _core.read_safetensors(str(beside))
        with torch.no_grad():
            for name, parameter in self._decoder.named_parameters():
                found = (
                    (saved, beside) if is_training_only(name) else (weights, directory / "model")
                )
                part = _part(found[0], name, parameter, found[1])
                parameter.copy_(part)
                _core.page_out(part)
        state = self.step.state()
        for name in state:
            if name != "weights" or self.step.has_averaged_weights:
                state[name] = _part(saved, name, state[name], beside)
        self.step.load_state(state, number)


def _part(found: dict[str, Any], name: str, like: torch.Tensor, where: Path) -> torch.Tensor:
    if name not in found:
        raise CheckpointError(
            f'{where} has no "{name}": the checkpoint is not of this model or is incomplete. '
            "Resume with the recipe it was made with."
        )
    tensor: torch.Tensor = found[name]
    if tuple(tensor.shape) != tuple(like.shape):
        raise CheckpointError(
            f'{where}: "{name}" has shape {list(tensor.shape)}, this run needs {list(like.shape)}. '
            "Resume with the recipe it was made with."
        )
    return tensor
