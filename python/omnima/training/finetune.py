"""`finetune(model, data, …)`: a model and conversations to a model that answers so, measured before
and after.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omnima.errors import ConfigError
from omnima.training.display import Display
from omnima.training.finetune_recipe import LONGEST_CONTEXT, PREFERENCES, QLORA, FineTuneRecipe
from omnima.training.finetuner import FineTuner
from omnima.training.run import Run
from omnima.training.rundir import RunDirectory
from omnima.training.teacher import open_teacher
from omnima.training.whole_run import whole_run

if TYPE_CHECKING:
    from omnima.model import Model


def finetune(
    model: Model | str | Path,
    data: Any,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    display: Display | None = None,
    callbacks: Sequence[Any] = (),
    **options: Any,
) -> Run:
    """Train a model on: to answer as conversations do, or to know a text.

    Parameters
    ----------
    model
        An `omnima.Model` with a tokenizer, whose weights are changed in place (but for objective
        ``"reward"``, which trains a copy with another head), or what `Model.from_pretrained` takes.
    data
        Files of conversations, as `omnima.data.read_examples` takes them; with objective ``"lm"``
        what `omnima.data.open_source` takes.
    out
        The directory of the run; in the end it holds the model, or the adapter.
    resume, overwrite
        Continue, or replace, a run that is already there.
    display, callbacks
        As for `omnima.Trainer`.
    **options
        Keys of a recipe: ``objective`` (``"sft"``, ``"lm"``, ``"dpo"`` and the other preferences,
        ``"reward"``, ``"distill"`` with a ``teacher``), ``method`` (``"full"``, or that of
        an adapter such as ``"lora"``, with ``rank``, ``alpha``, ``targets``; ``"qlora"`` with
        ``base`` holds the model in blocks), ``context``, ``packed``,
        ``val_fraction``, ``answers`` (of the report), one of ``steps``, ``minutes`` and
        ``epochs``, ``batch_size``, ``lr``, ``seed`` and the others that ``omnima finetune --help``
        shows.

    Returns
    -------
    Run
        Its summary has, beyond those of training, ``trainable_parameters``, ``supervised_tokens``
        (that were learned from), ``loss_before`` and ``loss_after``: on held-out samples, in nats a
        supervised token, and ``report``: the path of a page with what held-out samples say before
        and after (``report.md``; the same facts are in ``report.json``).

    Raises
    ------
    ConfigError
        Options that contradict each other or a model that cannot be trained so.
    DataError
        Names file and line of what is broken or cannot be learned.

    Examples
    --------
    >>> import json, pathlib, omnima
    >>> from omnima.training.display import Display
    >>> lines = [json.dumps({"prompt": f"{n}+1=", "completion": str(n + 1)}) for n in range(40)]
    >>> written = pathlib.Path("sums.jsonl").write_text("\\n".join(lines))
    >>> model = omnima.Model.from_preset("nima", vocab_size=259, max_position_embeddings=64)
    >>> model.tokenizer = omnima.Tokenizer.train(["1+1=2"], "byte")
    >>> run = finetune(model, "sums.jsonl", "run", steps=4, lr=1e-3, display=Display(silent=True))
    >>> run.summary["loss_after"] < run.summary["loss_before"]
    True
    """
    paths = [data] if isinstance(data, (str, Path)) else list(data)
    given: Mapping[str, Any] = {
        **options,
        "data": [str(each) for each in paths],
        "out": str(out),
        "model": str(model) if isinstance(model, (str, Path)) else None,
    }
    recipe = FineTuneRecipe.from_layers(given)
    opened = None if isinstance(model, (str, Path)) else model
    return run_recipe(
        recipe,
        opened,
        resume=resume,
        overwrite=overwrite,
        display=display,
        callbacks=callbacks,
    )


def run_recipe(
    recipe: FineTuneRecipe,
    model: Model | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    display: Display | None = None,
    callbacks: Sequence[Any] = (),
    stop_after: int | None = None,
) -> Run:
    """Do everything a recipe says; parameters as for :func:`finetune` and `Trainer.fit`."""
    return whole_run(
        recipe,
        lambda directory, display: assemble(
            recipe, _open(recipe) if model is None else model, directory, display, callbacks
        ),
        resume=resume,
        overwrite=overwrite,
        display=display,
        stop_after=stop_after,
        callbacks=callbacks,
    )


def _open(recipe: FineTuneRecipe) -> Model:
    from omnima.model import Model

    if recipe.model is None:
        raise ConfigError("No model: say which one to start from.")
    return Model.from_pretrained(recipe.model, recipe.device, dtype=_dtype_of(recipe))


def _dtype_of(recipe: FineTuneRecipe) -> str:
    """How the model is loaded: in blocks for qlora, and for an adapter of a model that lies so."""
    from omnima._places import find_model
    from omnima.hub.quantized import is_quantized

    assert recipe.model is not None
    if recipe.method == "full" or (recipe.method != QLORA and recipe.device != "cpu"):
        return "float32"
    if is_quantized(find_model(recipe.model)):
        return recipe.base or "stored"
    return recipe.base or "nf4" if recipe.method == QLORA else "float32"


def assemble(
    recipe: FineTuneRecipe,
    model: Model,
    directory: RunDirectory,
    display: Display,
    callbacks: Sequence[Any] = (),
) -> FineTuner:
    """Read the data for a model, up to a trainer that is ready to fit."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ConfigError("The model has no tokenizer: set model.tokenizer, or copy its files.")
    if not model.config.causal:
        raise ConfigError(
            "A model with causal false sees the tokens it would have to predict: it cannot learn "
            "to answer."
        )
    if recipe.objective == "reward" and not model.config.reward_head:
        model = model.with_reward_head(recipe.train.seed)
    _check_head(recipe, model)
    _choose_what_learns(recipe, model)
    limit = model.context
    context = recipe.train.context or min(limit, LONGEST_CONTEXT)
    freeze = (*recipe.train.freeze, *_first_blocks(recipe.freeze_layers, model))
    config = dataclasses.replace(recipe.train, context=context, freeze=freeze)
    if context > limit:
        raise ConfigError(
            f"context is {context}, but the model's context is {limit} (max_position_embeddings): "
            "train on shorter rows."
        )
    read = _texts if recipe.objective == "lm" else _conversations
    data = read(recipe, tokenizer, context, directory, display)
    made = FineTuner(
        model,
        tokenizer,
        data,
        config,
        recipe=recipe.values(),
        directory=directory,
        display=display,
        callbacks=callbacks,
    )
    if recipe.teacher is not None:
        asked = functools.partial(open_teacher, recipe.teacher, model, context, recipe.device)
        made.open_teacher = asked
    return made


def _check_head(recipe: FineTuneRecipe, model: Model) -> None:
    if model.config.reward_head and recipe.objective != "reward":
        raise ConfigError(
            f"The model is a reward model: objective {recipe.objective} needs one that writes."
        )
    if model.config.reward_head and (recipe.train.samples or recipe.train.samples_every):
        raise ConfigError("A reward model cannot write: set samples=0 and samples_every=0.")


def _choose_what_learns(recipe: FineTuneRecipe, model: Model) -> None:
    if model.adapters:
        raise ConfigError(
            f"The model has an adapter already ({', '.join(model.adapters)}): merge or remove it, "
            "or train it with omnima.Trainer."
        )
    if recipe.method == QLORA:
        model.hold_blocks(recipe.base or (None if model.quantization else "nf4"))
    if recipe.method != "full":
        model.add_adapter(
            "lora" if recipe.method == QLORA else recipe.method,
            rank=recipe.rank,
            alpha=recipe.alpha,
            targets=recipe.targets or None,
            dropout=recipe.adapter_dropout,
            virtual_tokens=recipe.virtual_tokens,
            initial_rank=recipe.initial_rank,
            seed=recipe.train.seed,
        )
    elif model.quantization is not None:
        raise ConfigError(
            "The model's matrices are quantized, and small steps would be lost in rounding: start "
            "from the model that was quantized, or train an adapter beside it (method lora)."
        )


def _first_blocks(count: int, model: Model) -> list[str]:
    """Patterns of the embeddings and of so many blocks; none for 0."""
    layers = model.config.num_hidden_layers
    if count >= layers:
        raise ConfigError(
            f"freeze_layers is {count}, but the model has {layers} blocks: freeze fewer, so that "
            "some learn."
        )
    blocks = [f"model.layers.{number}.*" for number in range(count)]
    return ["model.embed_*", *blocks] if blocks else []


def _conversations(
    recipe: FineTuneRecipe,
    tokenizer: Any,
    context: int,
    directory: RunDirectory,
    display: Display,
) -> Any:
    from omnima import data
    from omnima.tokenizers.chat_default import ensure_template

    if said := ensure_template(tokenizer):
        display.note(said)
    found = data.open_conversations(
        recipe.data,
        tokenizer,
        context,
        val_fraction=recipe.val_fraction,
        seed=recipe.train.seed,
        packed=recipe.packed,
        form=_form_of(recipe.objective),
        too_long=recipe.too_long,
        on_error=cast(Any, recipe.on_error),
    )
    if recipe.objective in PREFERENCES:
        beta = recipe.beta or (2.0 if recipe.objective == "simpo" else 0.1)
        found.step_options = {
            "preference": recipe.objective,
            "preference_beta": beta,
            "preference_margin": recipe.margin,
            "desirable_weight": recipe.desirable_weight,
            "undesirable_weight": recipe.undesirable_weight,
        }
    for sentence in found.notes:
        display.note(sentence)
    if recipe.objective == "reward":
        coefficient = recipe.center_rewards_coefficient
        found.step_options = {"preference": "reward", "center_rewards": coefficient}
    if recipe.objective == "distill":
        found.step_options = {
            "divergence": recipe.divergence,
            "temperature": recipe.temperature,
        }
    if found.form == "judged":
        display.note(_balance(found, recipe))
    display.note(
        f"{found.train_samples:,} training and {found.val_samples:,} held-out samples; "
        f"{found.train_supervised:,} of {found.train_tokens:,} training tokens are supervised."
    )
    return found


def _form_of(objective: str) -> Any:
    if objective == "kto":
        return "judged"
    if objective == "reward":
        return "scored"
    return "pairs" if objective in PREFERENCES else "turns"


def _balance(data: Any, recipe: FineTuneRecipe) -> str:
    """Say how many answers were liked; those should count about as much as the others (section 4.2
    of the paper: 1 to 4/3 times).
    """
    good = sum(each.good is True for each in data.samples["train"])
    bad = sum(each.good is False for each in data.samples["train"])
    said = f"{good:,} training answers were liked, {bad:,} were not."
    weight = recipe.undesirable_weight * bad / max(good, 1)
    if good and bad and not 0.99 * weight <= recipe.desirable_weight <= 1.34 * weight:
        said += (
            f" To balance them, give a desirable_weight of {weight:.3g} to {4 * weight / 3:.3g}."
        )
    return said


def _texts(
    recipe: FineTuneRecipe,
    tokenizer: Any,
    context: int,
    directory: RunDirectory,
    display: Display,
) -> Any:
    from omnima import data

    source = data.open_source(
        list(recipe.data), field=recipe.field, on_error=cast(Any, recipe.on_error)
    )
    with display:
        return data.prepare(
            source,
            tokenizer,
            directory.data,
            recipe.val_fraction,
            recipe.train.seed,
            display.preparing,
        )
