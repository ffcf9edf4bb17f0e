"""Adapters made part of a model, certified by its logits before and after."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from omnima._outputs import new_directory
from omnima.exporting.asking import ExportError
from omnima.exporting.certificate import questions_of

if TYPE_CHECKING:
    from omnima.model import Model

# Of the largest logit: sums in another order differ by far less, a wrong weight by far more.
_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Merged:
    """What merging an adapter did.

    Attributes
    ----------
    directory
        Where the model is.
    max_logit_difference
        Between the model with the adapter beside it and the merged one, over some rows of tokens.
    max_logit
        The largest logit there.
    changed_parameters
        Parameters that the adapter changed.
    base
        The largest difference of the merged model's logits from those without the adapter.
    """

    directory: str
    max_logit_difference: float
    max_logit: float
    changed_parameters: int
    base: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        values = dataclasses.asdict(self)
        values["max_difference_from_base"] = values.pop("base")
        return values


def merge(model: str | Path, adapter: str | Path, out: str | Path, strict: bool = False) -> Merged:
    """Write a model with an adapter merged into its weights, in float32.

    Parameters
    ----------
    model
        What `Model.from_pretrained` takes; not one that is quantized.
    adapter
        A directory of PEFT.
    out
        The new directory, absent or empty.
    strict
        Refuse weights that hold NaN or infinity.

    Raises
    ------
    ConfigError
        A quantized model, or a directory with files in it.
    DataError
        An adapter that does not fit the model, or damaged files.
    ExportError
        The merged model computes something else: nothing is written.
    """
    from omnima.model import Model

    path = Path(out).absolute()
    new_directory(path)
    given = Model.from_pretrained(model, strict=strict).as_asked_by(adapter)
    found = merge_into(given, adapter)
    path.parent.mkdir(parents=True, exist_ok=True)
    given.save_pretrained(path)
    return dataclasses.replace(found, directory=str(out))


def merge_into(model: Model, adapter: str | Path) -> Merged:
    """Merge an adapter into a model in memory, for good; see :func:`merge`."""
    rows = questions_of(model).rows
    ids = [torch.tensor([row]) for row in rows]
    said = model.core.rewards if model.config.reward_head else model
    with torch.no_grad():
        plain = [said(row) for row in ids]
        model.load_adapter(adapter, name="merged")
        beside = [said(row) for row in ids]
        changed = len(model.core.merged_parameters())
        model.merge_adapters()
        after = [said(row) for row in ids]
    model.drop_adapters()
    if not all(each.isfinite().all() for each in beside):
        raise ExportError(
            f"With the adapter {adapter} the model's logits are no finite numbers: its weights or "
            "the model's hold NaN or infinity, or are far too large. Nothing was written; take an "
            "earlier checkpoint."
        )
    difference = _largest(beside, after)
    most = max(each.abs().max().item() for each in beside)
    if not difference <= _TOLERANCE * max(1.0, most):
        raise ExportError(
            f"The merged model is another one: its logits differ by {difference:.3g} from those "
            f"with the adapter {adapter} beside the weights. Nothing was written; please report it."
        )
    return Merged("", difference, most, changed, _largest(plain, after))


def _largest(before: list[torch.Tensor], after: list[torch.Tensor]) -> float:
    return max((a - b).abs().max().item() for a, b in zip(before, after, strict=True))
