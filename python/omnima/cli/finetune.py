"""`omnima finetune`: a model learns to answer. Its flags are the recipe's keys."""

from __future__ import annotations

import inspect
from typing import Any

import typer

from omnima.cli.model_options import MODEL
from omnima.cli.output import print_result
from omnima.cli.train import flag_of, own_flag, stopping
from omnima.training.finetune_recipe import FineTuneRecipe


def finetune(**flags: Any) -> None:
    """Fine-tune a model on conversations or text, measured before and after."""
    from omnima.training.finetune import run_recipe

    own = {each.name: flags.pop(each.name) for each in _OWN}
    recipe = FineTuneRecipe.from_layers(flags, own["config"])
    with stopping():
        run = run_recipe(recipe, resume=own["resume"], overwrite=own["overwrite"])
    print_result(run.summary, own["json"])


_OWN = [
    own_flag("config", str | None, None, "a YAML recipe or a run's directory; flags override it"),
    own_flag("resume", bool, False, "continue the run in --out from its newest valid checkpoint"),
    own_flag("overwrite", bool, False, "replace a run that is already in --out"),
    own_flag("json", bool, False, "print the result as one JSON object"),
]
_MODEL = inspect.Parameter(
    "model",
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    default=typer.Argument(None, metavar="[MODEL]", help=f"the model to start from: {MODEL}"),
    annotation=str | None,
)
_KEYS = [flag_of(field) for name, field in FineTuneRecipe.schema().items() if name != "model"]
# Typer reads a signature: this one is made from the schema, as that of `omnima train` is.
finetune.__signature__ = inspect.Signature([_MODEL, *_KEYS, *_OWN])  # type: ignore[attr-defined]
finetune.__annotations__ = {each.name: each.annotation for each in [_MODEL, *_KEYS, *_OWN]}
