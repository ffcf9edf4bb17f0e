"""From a recipe to a finished run: claims the directory, opens the text, trains a tokenizer,
builds the model.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from omnima._durable import sync_directory
from omnima.errors import ConfigError
from omnima.training.display import Display
from omnima.training.foresight import require_memory
from omnima.training.objective import special_tokens_of
from omnima.training.recipe import TOKENIZERS, Recipe, parse_count
from omnima.training.run import Run
from omnima.training.rundir import RunDirectory
from omnima.training.trainer import Trainer
from omnima.training.whole_run import whole_run


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    display: Display | None = None,
    stop_after: int | None = None,
    callbacks: Sequence[Any] = (),
    like: tuple[RunDirectory, str] | None = None,
) -> Run:
    """Do everything a recipe says.

    Parameters
    ----------
    recipe
        The text, the tokenizer, the size and the training; it must name `out`.
    resume, overwrite
        Continue, or replace, a run that is already in the directory.
    display
        Where progress goes.
    stop_after
        Stop and save after so many steps; the run stays unfinished.
    callbacks
        Objects with methods named after events, see `omnima.training.callbacks.Callback`.
    like
        A run whose model, tokenizer and tokens these must be, and the names of its files.
    """
    return whole_run(
        recipe,
        lambda directory, display: assemble(recipe, directory, display, callbacks),
        resume=resume,
        overwrite=overwrite,
        display=display,
        stop_after=stop_after,
        callbacks=callbacks,
        like=like,
    )


def assemble(
    recipe: Recipe, directory: RunDirectory, display: Display, callbacks: Sequence[Any] = ()
) -> Trainer:
    """Build what a recipe names, up to a trainer that is ready to fit."""
    from omnima import Model, data

    source = data.open_source(
        list(recipe.data),
        field=recipe.field,
        on_error=cast(Any, recipe.on_error),
        document_break=recipe.document_break,
    )
    if recipe.clean is not None:
        source = cleaned(recipe.clean, source, directory, display)
    tokenizer = open_tokenizer(recipe, source, directory, display)
    with display:
        tokens = data.prepare(
            source,
            tokenizer,
            directory.data,
            recipe.val_fraction,
            recipe.train.seed,
            display.preparing,
        )
    if getattr(source, "skipped", 0):
        display.note(f"Skipped {source.skipped} bad lines of the text.")
    model_config = size_of(recipe, tokenizer.vocab_size)
    require_memory(model_config, recipe.train, device=recipe.device)
    model = Model.from_config(model_config, seed=recipe.train.seed, device=recipe.device)
    model.tokenizer = tokenizer
    display.note(
        f"{model.core.num_parameters():,} parameters, {tokens.train_tokens:,} training and "
        f"{tokens.val_tokens:,} held-out tokens, vocabulary {tokenizer.vocab_size:,}."
    )
    return Trainer(
        model,
        tokenizer,
        tokens,
        recipe.train,
        recipe=recipe.values(),
        directory=directory,
        display=display,
        callbacks=callbacks,
    )


def cleaned(recipe: str, source: Any, directory: RunDirectory, display: Display) -> Any:
    """Return the cleaned text as a source; made once and kept with the run's tokens."""
    from omnima import data
    from omnima.data.cleaning import clean_once

    if source.special_tokens():
        raise ConfigError(
            "clean and language tokens do not go together: clean the sources of the mixture one by "
            "one with `omnima data clean`, and name the results in the mixture."
        )
    record = clean_once(source, recipe, directory.data / "clean.jsonl").record
    display.note(
        f"Cleaning left {record['documents_out']:,} of {record['documents_in']:,} documents; "
        f"{record['source']['skipped']:,} bad records were skipped."
    )
    return data.open_source(directory.data / "clean.jsonl")


def size_of(recipe: Recipe, vocab_size: int) -> Any:
    """Return the `ModelConfig` of a recipe: a preset, a parameter count, or single fields."""
    from omnima.config import ModelConfig, config_for_parameters, model_preset

    changes = dict(recipe.model)
    if recipe.train.objective == "masked":
        changes.setdefault("causal", False)
    if recipe.train.context is not None:
        changes.setdefault("max_position_embeddings", recipe.train.context)
    if recipe.preset:
        return model_preset(recipe.preset, vocab_size=vocab_size, **changes)
    if recipe.params:
        return config_for_parameters(parse_count(recipe.params), vocab_size=vocab_size, **changes)
    return ModelConfig(vocab_size=vocab_size, **changes)


def open_tokenizer(recipe: Recipe, source: Any, directory: RunDirectory, display: Display) -> Any:
    """Return the run's tokenizer: the one already saved, the named directory's, or a new one."""
    from omnima import Tokenizer
    from omnima._places import hub_name
    from omnima.hub import open_tokenizer

    if directory.tokenizer.exists():
        return Tokenizer.from_pretrained(directory.tokenizer)
    if recipe.tokenizer in TOKENIZERS:
        display.note(f"Training a {recipe.tokenizer} tokenizer.")
        tokenizer = Tokenizer.train(
            source.documents(),
            recipe.tokenizer,
            vocab_size=recipe.vocab_size,
            special_tokens=(*source.special_tokens(), *_objective_tokens(recipe)),
            code=recipe.tokenizer_code,
        )
    elif Path(recipe.tokenizer).exists() or hub_name(recipe.tokenizer):
        tokenizer = open_tokenizer(recipe.tokenizer)
        recipe.check_cuts(tokenizer.kind)
    else:
        raise ConfigError(
            f"tokenizer is {recipe.tokenizer!r}: neither one of {', '.join(TOKENIZERS)} nor the "
            "directory of a tokenizer or model, a GGUF file or a name on the hub (owner/name)."
        )
    aside = directory.path / "tokenizer.part"
    if aside.exists():
        shutil.rmtree(aside)
    tokenizer.save_pretrained(aside)
    aside.rename(directory.tokenizer)
    sync_directory(directory.path)
    return Tokenizer.from_pretrained(directory.tokenizer)


def _objective_tokens(recipe: Recipe) -> tuple[str, ...]:
    """Return the special tokens of the recipe's objective; the vocabulary changes no context."""
    if recipe.train.objective == "next_token":
        return ()
    context = recipe.train.context or size_of(recipe, 512).max_position_embeddings
    return special_tokens_of(recipe.train, context)
